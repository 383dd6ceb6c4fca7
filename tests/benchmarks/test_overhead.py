"""The overhead benchmark measures what it says, at a small size."""

import json

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import overhead
from lossbuf.callback import LossBufferCallback


def test_update_cost_counts_every_row_once():
    steps = overhead.batches_of(8, 10, torch.device("cpu"), torch.Generator().manual_seed(0))
    rows = torch.cat([rows for _, _, rows in steps])
    assert torch.equal(rows.sort().values, torch.arange(len(rows)))


def test_added_is_the_median_of_pairs():
    cost = {"with_s": [1.1, 2.2, 3.3], "without_s": [1.0, 2.0, 3.0]}
    median, mean = overhead.added(cost)
    assert median == pytest.approx(0.1)
    assert mean == pytest.approx(0.1)


def test_state_holds_the_stage_and_the_rings():
    callback = LossBufferCallback(torch.zeros(10, dtype=torch.int64), 3, window=5)
    callback.update(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    shapes = {tuple(tensor.shape) for tensor in overhead.tensors_of(callback)}
    assert (4, 5) in shapes
    assert (2, 3) in shapes


@pytest.mark.slow
def test_command_writes_json_and_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(overhead, "BATCHES", (1, 64))
    monkeypatch.setattr(overhead, "CLASSES", (10,))
    result = CliRunner().invoke(overhead.app, ["--passes", "1", "--pairs", "4", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "overhead-cpu.json").read_text())
    assert {(cell["batch"], cell["classes"]) for cell in content["update"]} == {(1, 10), (64, 10)}
    assert content["update"][0]["aum_s"] == []
    assert "aum / lossbuf" in result.output
