"""Several processes collect what one does on the joined batches."""

from pathlib import Path

import pytest
import torch

from lossbuf.recording.losses import SampleLosses
from lossbuf.recording.process_group import PADDING, Block, Gathering, is_first, world_size
from tests.ranks import SCENARIOS
from tests.states import assert_same_bits
from tests.torchrun import RANKS, torchrun

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")

EXACT = [name for name in SCENARIOS if name != "narrow"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What all ranks, and one process alone, collected in every scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(Path(__file__).with_name("ranks.py"), folder)
    return [torch.load(folder / name, weights_only=True) for name in (*map(str, range(RANKS)), "alone")]


def _without_rejected(buffers):
    """A rank also rejects the rows that only fill up its block."""
    return {name: value[:-1] if name.endswith(".seen") else value for name, value in buffers.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_ranks_hold_the_same_state(outcome, name):
    one, *others, _ = (run[name] for run in outcome)
    assert one["reports"]
    assert len(others) == RANKS - 1 > 0
    for part in one.keys() - {"weights", "reports"}:
        for other in others:
            assert_same_bits(one[part], other[part], part)


@pytest.mark.parametrize("name", EXACT)
def test_the_ranks_are_one_process_on_the_joined_batches(outcome, name):
    *ranks, alone = (run[name] for run in outcome)
    one = ranks[0]
    # Where rows of a rank's share are stamped depends on the padding, the order of the stamps does not.
    skipped = {"dynamics.stamp"}
    for run in (one, alone):
        run["buffers"] = {part: value for part, value in run["buffers"].items() if part not in skipped}
    assert_same_bits(_without_rejected(one["buffers"]), _without_rejected(alone["buffers"]))
    for part in ("statistics", "kept", "soft", "rejected", "reports"):
        assert_same_bits(one[part], alone[part], part)
    for *parts, joined in zip(*(run["weights"] for run in (*ranks, alone)), strict=True):
        assert_same_bits(torch.cat(parts), joined)


def test_between_5_and_63_classes_they_agree_up_to_rounding(outcome):
    # There the sum over the classes rounds by the place of the sample in the block.
    one, *_, alone = (run["narrow"] for run in outcome)
    assert one["kept"] == alone["kept"]
    for name, value in one["statistics"].items():
        torch.testing.assert_close(value, alone["statistics"][name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_row_counts_once_an_epoch(outcome, name):
    one = outcome[0][name]
    assert one["rejected"] == {"not_finite": 1, "label_out_of_range": 0, "unknown_row": 0, "other_label": 0}
    count = one["statistics"]["count"]
    assert count.sum() == 3 * SCENARIOS[name].n_samples(RANKS) - 1
    assert set(count.tolist()) == {2, 3}


def test_without_a_process_group():
    assert world_size() == 1
    assert is_first()


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("room", [3, 5])
def test_a_block_is_padded_and_ordered_by_step(size, room, monkeypatch, generator):
    # Two ranks that hold the same block, without processes.
    def both(found, mine, async_op):
        found.view(2, -1).copy_(mine)

    monkeypatch.setattr("lossbuf.recording.process_group.world_size", lambda: 2)
    monkeypatch.setattr("lossbuf.recording.process_group._all_gather", both)
    values = torch.rand(4, size, generator=generator)
    values[3] = float("-inf")
    losses = SampleLosses(values[0], values[1], torch.arange(size), values[3])
    labels, rows, steps = torch.arange(size) - 2**62, torch.arange(size) + 2**62 + 1, torch.arange(size).flip(0)
    log_probs = torch.randn(5, size, generator=generator).t()
    for kept in (log_probs, None):
        found = Gathering(Block(losses, labels, rows, kept), steps, room).joined()
        order = [place for place in reversed(range(size)) for _ in range(2)]
        assert found.rows.tolist() == rows[order].tolist() + [PADDING] * 2 * (room - size)
        assert found.labels.tolist() == labels[order].tolist() + [PADDING] * 2 * (room - size)
        assert (found.log_probs is None) == (kept is None)
        for one, other in zip((*found.losses, found.log_probs), (*losses, kept), strict=True):
            if other is not None:
                assert_same_bits(one[: 2 * size], other[order].contiguous())
