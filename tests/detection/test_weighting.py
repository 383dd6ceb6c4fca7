"""Tests of lossbuf.detection.weighting."""

import math

import numpy as np
import pytest

from lossbuf.detection.thresholds import Cut, KnownRate, Mixture, Otsu
from lossbuf.detection.weighting import hard_weights, soft_weights

NAN = float("nan")


def suspicions(size=200, seed=0):
    draws = np.random.default_rng(seed)
    values = np.where(np.arange(size) < 0.3 * size, draws.normal(5, 1, size), draws.normal(0, 1, size))
    values[::17] = NAN
    return values


def test_hard_weights():
    weights = hard_weights(Cut(0.5, 0.5, np.array([True, False, True])))
    assert weights.dtype == np.float32
    assert weights.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("rule", [KnownRate(0.3), Otsu(), Mixture()])
def test_soft_weights_match_the_formula(rule):
    values = suspicions()
    cut = rule(values)
    weights = soft_weights(values, cut)
    suspects = [v for v, s in zip(values, cut.suspect_mask, strict=True) if s]
    others = [v for v, s in zip(values, cut.suspect_mask, strict=True) if not s and not math.isnan(v)]
    width = (np.median(suspects) - np.median(others)) / 8
    expected = [1.0 if math.isnan(v) else 1 / (1 + math.exp((v - cut.threshold) / width)) for v in values]
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("rule", [KnownRate(0.3), Otsu(), Mixture()])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_soft_weights_fall_from_one_to_zero(rule, scale):
    values = suspicions() * scale
    cut = rule(values)
    weights = soft_weights(values, cut)
    seen = np.flatnonzero(~np.isnan(values))
    ordered = weights[seen][np.argsort(values[seen])]
    assert (np.diff(ordered) <= 0).all()
    assert ordered[0] > 0.98
    assert ordered[-1] < 0.02
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (weights[np.isnan(values)] == 1).all()
    assert (weights[cut.suspect_mask] <= 0.5).all()
    assert (weights[~cut.suspect_mask] >= 0.5).all()


def test_one_half_at_the_threshold():
    cut = Cut(2.0, 0.5, np.array([False, True, True]))
    assert soft_weights([0.0, 2.0, 4.0], cut)[1] == 0.5
    values = np.array([0.0, 1.0, 2.0, 3.0])
    known = KnownRate(0.5)(values)
    assert soft_weights(values, known)[2] == 0.5


def test_far_values_do_not_overflow():
    cut = Cut(0.5, 0.2, np.array([False, False, False, True, True, True]))
    weights = soft_weights([-1e300, 0.0, 1e-3, 1.0, 1.0, 1e300], cut)
    assert weights[0] == 1
    assert weights[5] == 0


@pytest.mark.parametrize(
    ("values", "suspects"),
    [
        ([0.0, 1.0, NAN], [False, False, False]),  # nobody is suspect
        ([0.0, 1.0, NAN], [True, True, False]),  # all that were seen are
        ([2.0, 2.0, 2.0], [False, True, False]),  # equals on both sides
        ([5.0, 1.0, NAN], [False, True, False]),  # the wrong way round
        ([NAN, NAN, NAN], [False, False, False]),
    ],
)
def test_where_there_are_no_two_sides_weights_are_hard(values, suspects):
    cut = Cut(1.0, 0.5, np.array(suspects))
    assert soft_weights(values, cut).tolist() == [0.0 if suspect else 1.0 for suspect in suspects]


def test_no_rows():
    cut = Otsu()([])
    assert hard_weights(cut).shape == soft_weights([], cut).shape == (0,)
