"""Tests of lossbuf.detection.weighting."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lossbuf import LossBufferCallback
from lossbuf.detection.thresholds import Cut, KnownRate, Mixture, Otsu
from lossbuf.detection.weighting import class_weights, hard_weights, soft_weights
from tests.states import assert_same_bits

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


def trained(class_weight, mode="filter", epochs=4, scale=1.0):
    """A callback that has seen a linear network learn three uneven classes, and that network."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 10)
    x = F.one_hot(labels, 3).float() + 0.3 * torch.randn(70, 3, generator=draw)
    labels[::9] = (labels[::9] + 1) % 3
    settings = {"warmup": 2, "rank_by": "aum", "noise_rate": 0.1, "class_weight": class_weight}
    callback = LossBufferCallback(labels, 3, mode=mode, **settings)
    weight = torch.zeros(3, 3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], 0.5)
    losses = []
    for _ in range(epochs):
        for rows in torch.randperm(70, generator=draw).split(16):
            logits, given = x[rows] @ weight, labels[rows]
            kept = callback.sample_weights[rows].clone()
            loss = callback.loss(logits, given, rows)
            losses.append((logits.detach(), given, kept, loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        callback.end_epoch()
    return callback, losses


@pytest.mark.parametrize("mode", ["watch", "filter", "reweight"])
@pytest.mark.parametrize("given", [[1.0, 2.0, 4.0], [0.0, 1.0, 3.0], [1e-8, 5e-8, 1e-7]])
def test_class_weights_are_those_of_cross_entropy_over_the_rows_kept(mode, given):
    of_classes = torch.tensor(given)
    callback, steps = trained(given, mode)
    assert callback.weighted == (mode != "watch")
    for logits, labels, kept, loss in steps:
        if mode != "reweight":
            of_torch = F.cross_entropy(logits[kept > 0], labels[kept > 0], of_classes)
        else:
            weights = kept * of_classes[labels]
            of_torch = (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
        torch.testing.assert_close(loss, of_torch)


def test_recorded_losses_do_not_know_of_class_weights():
    """Two trainings that see the same logits record the same, whatever the weights of the classes."""
    labels = torch.arange(30) % 3
    logits = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0))
    found = [
        LossBufferCallback(labels, 3, mode="filter", warmup=1, rank_by="aum", noise_rate=0.1, class_weight=weight)
        for weight in (None, [1.0, 9.0, 0.0])
    ]
    for callback in found:
        for epoch in logits:
            callback.loss(epoch, labels, torch.arange(30))
            callback.end_epoch()
    assert_same_bits(*(dict(callback.state_dict()) for callback in found))


def test_only_ratios_of_class_weights_count():
    one, other = (trained(np.array([1, 2, 4]) * scale)[1] for scale in (1, 1e-20))
    for (*_, loss), (*_, scaled) in zip(one, other, strict=True):
        torch.testing.assert_close(loss, scaled)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3], dtype=">i2"), np.array([1, 2, 3], dtype=object),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16), np.array([3, 2, 1], dtype=np.float16)[::-1],
    ],
)  # fmt: skip
def test_class_weights_come_in_any_container(values):
    torch.testing.assert_close(class_weights(values, 3), torch.tensor([1 / 3, 2 / 3, 1.0]))


@pytest.mark.parametrize(
    "values",
    [
        [1, 2], [1, 2, 3, 4], [1, -1, 1], [0, 0, 0], [1, float("nan"), 1], [1, float("inf"), 1], "balanced",
        {0: 1.0, 1: 2.0, 2: 3.0}, [[1, 2, 3]], ["1", "2", "3"], [True, False, True], 1.0,
    ],
)  # fmt: skip
def test_other_class_weights_are_refused(values):
    with pytest.raises(ValueError, match="`class_weight` must be 3 finite numbers of at least 0, one per class"):
        class_weights(values, 3)
