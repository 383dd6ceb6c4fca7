"""Two processes collect what one does on the joined batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lossbuf
from lossbuf.distributed import PADDING, Block, gathered, is_first, world_size
from lossbuf.losses import SampleLosses
from tests.ranks import SCENARIOS
from tests.states import assert_same_bits

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")

EXACT = [name for name in SCENARIOS if name != "narrow"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What both ranks, and one process alone, collected in every scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    outputs = [folder / f"rank{rank}" for rank in range(2)]
    script = Path(__file__).with_name("ranks.py")
    here = os.environ | {"PYTHONPATH": str(Path(lossbuf.__file__).parents[1])}  # the same lossbuf as here
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", script, str(rank), "2", folder / "init", output],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=here,
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        told = [rank.communicate(timeout=150)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(told)
    return [torch.load(path, weights_only=True) for path in (*outputs, f"{outputs[0]}.alone")]


def _without_rejected(buffers):
    """A rank also rejects the rows that only fill up its block."""
    return {name: value[:-1] if name.endswith(".seen") else value for name, value in buffers.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_ranks_hold_the_same_state(outcome, name):
    one, other, _ = (run[name] for run in outcome)
    assert one["reports"]
    for part in one.keys() - {"weights", "reports"}:
        assert_same_bits(one[part], other[part], part)


@pytest.mark.parametrize("name", EXACT)
def test_two_ranks_are_one_process_on_the_joined_batches(outcome, name):
    one, other, alone = (run[name] for run in outcome)
    # Where rows of a rank's share are stamped depends on the padding, the order of the stamps does not.
    skipped = {"dynamics.stamp"}
    for run in (one, alone):
        run["buffers"] = {part: value for part, value in run["buffers"].items() if part not in skipped}
    assert_same_bits(_without_rejected(one["buffers"]), _without_rejected(alone["buffers"]))
    for part in ("statistics", "kept", "soft", "rejected", "reports"):
        assert_same_bits(one[part], alone[part], part)
    for mine, others, joined in zip(one["weights"], other["weights"], alone["weights"], strict=True):
        assert_same_bits(torch.cat((mine, others)), joined)


def test_between_5_and_63_classes_they_agree_up_to_rounding(outcome):
    # There the sum over the classes rounds by the place of the sample in the block.
    one, _, alone = (run["narrow"] for run in outcome)
    assert one["kept"] == alone["kept"]
    for name, value in one["statistics"].items():
        torch.testing.assert_close(value, alone["statistics"][name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_row_counts_once_an_epoch(outcome, name):
    one = outcome[0][name]
    assert one["rejected"] == {"not_finite": 1, "label_out_of_range": 0, "unknown_row": 0, "other_label": 0}
    count = one["statistics"]["count"]
    assert count.sum() == 3 * SCENARIOS[name].n_samples - 1
    assert set(count.tolist()) == {2, 3}


def test_without_a_process_group():
    assert world_size() == 1
    assert is_first()


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_block_is_padded_and_ordered_by_step(size, monkeypatch, generator):
    # Two ranks that hold the same block, without processes.
    import torch.distributed as dist

    monkeypatch.setattr("lossbuf.distributed.world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather", lambda parts, mine: [part.copy_(mine) for part in parts])
    values = torch.rand(4, size, generator=generator)
    losses = SampleLosses(values[0], values[1], torch.arange(size), values[3])
    labels, rows, steps = torch.arange(size) + 1, torch.arange(size) + 2**40, torch.arange(size).flip(0)
    log_probs = torch.randn(size, 5, generator=generator)
    found = gathered(Block(losses, labels, rows, log_probs), steps, 3)
    order = [place for place in reversed(range(size)) for _ in range(2)]
    assert found.rows.tolist() == rows[order].tolist() + [PADDING] * (6 - 2 * size)
    assert found.labels.tolist() == labels[order].tolist() + [PADDING] * (6 - 2 * size)
    for one, other in zip((*found.losses, found.log_probs), (*losses, log_probs), strict=True):
        assert_same_bits(one[: 2 * size], other[order])
