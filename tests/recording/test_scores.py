"""The scores against the slow versions."""

import math

import numpy as np
import pytest
import torch

from lossbuf.recording import scores
from tests.reference import scores as reference

_MEANS = [2.0, 0.5, 0.01, 0.009, 1e-8, 0.0, math.nan]


def test_floor_is_that_of_the_reference():
    assert scores.FLOOR == reference.FLOOR


@pytest.mark.parametrize("mean", _MEANS)
def test_scores_match_reference(mean, device, generator):
    label_loss = 3 * torch.rand(50, generator=generator)
    margin = torch.randn(50, generator=generator)
    means = torch.full((50,), mean, device=device)
    other = torch.full((50,), 0.7, device=device)
    gap = scores.label_gap(margin.to(device))
    by_name = {
        "score": (scores.score(label_loss.to(device), means), label_loss),
        "score2": (scores.score2(gap, means), margin),
        "score3": (scores.score3(gap, means), margin),
    }
    for name, (found, values) in by_name.items():
        expected = [getattr(reference, name)(value, mean) for value in values.tolist()]
        torch.testing.assert_close(found.cpu(), torch.tensor(expected))
    three = scores.all_scores(label_loss.to(device), margin.to(device), means, other)
    assert torch.equal(three.score, by_name["score"][0])
    assert torch.equal(three.score2, by_name["score2"][0])
    assert torch.equal(three.score3, scores.score3(gap, other))


def test_an_empty_ring_leaves_the_numerator(device):
    values, empty = torch.tensor([3.0, 0.25], device=device), torch.full((2,), math.nan, device=device)
    for rule in (scores.score, scores.score2, scores.score3):
        assert rule(values, empty).tolist() == [3.0, 0.25]


def test_a_right_prediction_has_no_gap():
    assert scores.label_gap(torch.tensor([2.0, 0.0, -0.5])).tolist() == [0.0, 0.0, 0.5]


@pytest.mark.parametrize("size", [0, 1, 7, 200])
def test_order_matches_insertion(size, generator):
    # Few values, so that there are ties of both kinds.
    suspicion = torch.randint(3, (size,), generator=generator).double()
    suspicion[torch.rand(size, generator=generator) < 0.2] = math.nan
    tie_break = torch.randint(3, (size,), generator=generator).double()
    tie_break[torch.rand(size, generator=generator) < 0.2] = math.nan
    found = scores.suspicion_order(suspicion.numpy(), tie_break.numpy())
    assert found.dtype == np.int64
    assert found.tolist() == reference.suspicion_order(suspicion.tolist(), tie_break.tolist())


def test_order_by_suspicion_then_tie_break_then_row():
    assert scores.suspicion_order([0.0, 2.0, 0.0, math.nan, 0.0], [0.1, 0.0, 0.3, 9.0, 0.1]).tolist() == [1, 2, 0, 4, 3]
