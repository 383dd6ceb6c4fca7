"""Two processes write what one writes on the joined batches."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import lossbuf
from lossbuf import KnownRate, Mixture
from lossbuf.streams import summarise
from tests.states import assert_same_bits
from tests.streams.ranks import EPOCHS, SCENARIOS, SIZE
from tests.streams.simulated import rows_of

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ranks.py")
    roots = [str(Path(lossbuf.__file__).parents[1]), str(Path(__file__).parents[2])]
    here = os.environ | {"PYTHONPATH": os.pathsep.join(roots)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", script, str(rank), folder / "init", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=here,
        )
        for rank in range(2)
    ]
    try:
        told = [rank.communicate(timeout=150)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(told)
    return folder


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_rows_are_those_of_one_process(folder, name):
    one, two = rows_of(folder / "one" / name), rows_of(folder / "two" / name)
    assert one.equals(two)
    assert len(one) == EPOCHS * (SIZE - 1)
    assert {path.name[:11] for path in (folder / "two" / name).glob("*.parquet")} == {"rows-00000-", "rows-00001-"}
    assert not list((folder / "two" / name).glob(".*"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_ranks_hold_the_same_rings(folder, name):
    first, second = (torch.load(folder / "two" / f"{name}-{rank}.result", weights_only=True) for rank in range(2))
    assert_same_bits(first, second)
    alone = torch.load(folder / "one" / f"{name}-0.result", weights_only=True)
    assert first["rejected"] == alone["rejected"] == {"not_finite": EPOCHS, "label_out_of_range": 0}
    assert first["arrived"] == alone["arrived"] == EPOCHS * SIZE
    for part in ("label_loss", "predicted_loss", "predicted_class_loss"):
        assert_same_bits(first["rings"][f"{part}.entries"], alone["rings"][f"{part}.entries"])


@pytest.mark.parametrize("cut", [KnownRate(0.2), Mixture()], ids=str)
def test_the_summary_is_that_of_one_process(folder, cut, tmp_path):
    one, two = (
        summarise(folder / which / "text", cut=cut, out=tmp_path / f"{which}.parquet") for which in ("one", "two")
    )
    assert one.threshold == two.threshold
    assert pd.read_parquet(one.path).equals(pd.read_parquet(two.path))
    assert pd.read_parquet(one.path)["count"].max() == EPOCHS
