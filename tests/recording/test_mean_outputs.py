"""``MeanOutputs`` against a mean over lists."""

import math

import pytest
import torch

from lossbuf.recording.mean_outputs import FLOOR, MeanOutputs
from tests.states import assert_same_bits, kept, reloaded


@pytest.mark.parametrize("num_classes", [1, 3, 70])
@pytest.mark.parametrize("resume_at", [None, 2])
def test_weighted_geometric_mean(num_classes, resume_at, device, generator):
    outputs, told = MeanOutputs(6, num_classes).to(device), [[] for _ in range(6)]
    for turn in range(4):
        if turn == resume_at:
            outputs = reloaded(outputs, MeanOutputs(6, num_classes).to(device))
        rows = torch.randint(5, (9,), generator=generator)  # row 5 is never seen
        fresh = torch.tensor([row not in rows[:place] for place, row in enumerate(rows)])
        log_probs = (6 * torch.randn(9, num_classes, generator=generator)).log_softmax(1)
        outputs.record(rows.to(device), fresh.to(device), log_probs.to(device), turn + 1.0)
        for row, first, values in zip(rows.tolist(), fresh.tolist(), log_probs.tolist(), strict=True):
            if first:
                told[row].append((turn + 1.0, [max(value, FLOOR) for value in values]))
    for row, passes in enumerate(told):
        total = sum(weight for weight, _ in passes)
        means = [sum(weight * values[c] for weight, values in passes) / max(total, 1) for c in range(num_classes)]
        scale = sum(math.exp(mean) for mean in means)
        expected = [math.exp(mean) / scale for mean in means]
        assert outputs.probabilities()[row].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert bool(outputs.seen[row]) == bool(passes)


def test_what_is_not_fresh_leaves_no_trace(device):
    outputs = MeanOutputs(3, 2).to(device)
    before = kept(outputs)
    rows, values = torch.tensor([0, 0, 2], device=device), torch.full((3, 2), float("nan"), device=device)
    outputs.record(rows, torch.zeros(3, dtype=torch.bool, device=device), values)
    assert_same_bits(kept(outputs), before)


def test_restart_forgets(device):
    outputs = MeanOutputs(2, 2).to(device)
    one = torch.ones(1, dtype=torch.bool, device=device)
    outputs.record(torch.tensor([1], device=device), one, torch.tensor([[-0.1, -2.3]], device=device))
    outputs.restart()
    assert outputs.probabilities().tolist() == [[0.5, 0.5]] * 2
    assert not outputs.seen.any()


@pytest.mark.parametrize("sizes", [(0, 2), (2, 0)])
def test_bad_sizes(sizes):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        MeanOutputs(*sizes)
