"""The end of the warm-up: rows held back, memory, and what is refused."""

import math

import pytest
import torch

from lossbuf import LossBufferCallback
from lossbuf.detection.warmup import (
    EpochLosses,
    LabelShares,
    Warmup,
    epoch_losses,
    has_learned,
    held_back,
    is_memorizing,
    is_slow,
    longest,
    memory,
)
from tests.reference import warmup as reference

ENTROPY = math.log(10)
LABELS = LabelShares(ENTROPY, 0.1)


def losses(trained, held=math.nan, error=0.01):
    quarters = trained if isinstance(trained, tuple) else (trained,) * 4
    return EpochLosses(quarters, held, error, 0.3)


def ended(history, *, epochs=20, holds_back=True, warmup="auto"):
    """The epoch after which a warm-up ends with such losses, and whether labels were memorized."""
    rule = Warmup(1000, warmup, epochs, holds_back=holds_back)
    for epoch, row in enumerate(history, 1):
        if rule.end_epoch(epoch, row, LABELS):
            return epoch, rule.memorized
    return None


@pytest.mark.parametrize("n_samples", [1, 2, 7, 40, 399, 401])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_epoch_losses(n_samples, share, device, generator):
    values = 3 * torch.rand(n_samples, generator=generator)
    values[torch.rand(n_samples, generator=generator) < 0.2] = -math.inf
    place = torch.randperm(n_samples, generator=generator)
    held = torch.rand(n_samples, generator=generator) < share
    margin = torch.randn(n_samples, generator=generator)
    found = epoch_losses(values.to(device), margin.to(device), place.to(device), held.to(device))
    listed = [None if math.isinf(value) else value for value in values.tolist()]
    quarters, of_held, error = reference.epoch_losses(listed, place.tolist(), held.tolist())
    right = [value > 0 for value, loss, out in zip(margin.tolist(), listed, held.tolist(), strict=True) if out and loss]
    if any(not out and loss for loss, out in zip(listed, held.tolist(), strict=True)):
        assert found.right == pytest.approx(sum(right) / len(right) if right else math.nan, nan_ok=True)
    assert found.quarters == pytest.approx(quarters, nan_ok=True)
    assert (found.held, found.error) == pytest.approx((of_held, error), nan_ok=True)


@pytest.mark.parametrize(
    ("n_samples", "rows"), [(1, 0), (3, 1), (100, 25), (400, 100), (2000, 200), (5000, 500), (60_000, 3000)]
)
def test_rows_held_back(n_samples, rows):
    assert held_back(n_samples) == rows
    assert int(Warmup(n_samples, "auto", holds_back=True).held.sum()) == rows
    assert not Warmup(n_samples, "auto", holds_back=False).held.any()
    assert not Warmup(n_samples, 3, holds_back=True).held.any()


def test_rows_held_back_depend_on_the_seed_alone():
    first, again, other = (Warmup(500, "auto", holds_back=True, seed=seed).held for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(None, 5), (1, 1), (2, 1), (3, 1), (5, 1), (6, 3), (8, 4), (12, 6), (100, 6)]
)
def test_longest(epochs, expected):
    assert longest(epochs) == expected


def test_it_ends_where_labels_are_memorized_and_little_is_learned():
    learning = [losses(2.2, 2.2), losses(1.6, 1.9), losses(1.2, 1.5), losses(0.9, 1.45), losses(0.5, 1.6)]
    assert ended(learning) == (4, True)
    assert is_memorizing(learning[:2], ENTROPY)  # but much is still learned
    assert not is_slow(learning[:2], ENTROPY)


def test_it_ends_at_the_longest_where_nothing_is_memorized():
    assert ended([losses(1.7, 1.72)] * 10) == (6, False)
    assert ended([losses(1.7, 1.72)] * 10, epochs=8) == (4, False)


def test_a_training_of_unknown_length_ends_it_when_little_is_learned():
    assert ended([losses(2.2, 2.2), losses(1.7, 1.72), losses(1.7, 1.71)], epochs=None) == (3, False)


def test_without_rows_held_back_the_jump_between_epochs_counts():
    flat = [losses((2.0, 2.0, 2.0, 2.0)), losses((1.5, 1.5, 1.5, 1.5))]
    falling = [losses((2.3, 2.2, 2.1, 2.0)), losses((1.9, 1.8, 1.7, 1.6))]
    assert memory(flat) == pytest.approx(0.5)
    assert memory(falling) == pytest.approx(0.0)
    assert ended(flat, holds_back=False) == (2, True)
    assert ended(falling, holds_back=False) is None


def test_a_network_near_chance_has_not_learned():
    assert has_learned(losses(2.0, 2.0)._replace(right=0.15), 0.1, 400)
    assert not has_learned(losses(2.0, 2.0)._replace(right=0.12), 0.1, 400)
    assert has_learned(losses(2.0), 0.1, 0)


def test_a_gap_within_its_error_is_no_memory():
    history = [losses(2.0, 2.0), losses(1.5, 1.8, error=0.4)]
    assert not is_memorizing(history, ENTROPY)
    assert is_memorizing([history[0], losses(1.5, 1.8, error=0.1)], ENTROPY)


def test_few_classes_make_a_small_gap_count():
    history = [losses(0.69, 0.69), losses(0.5, 0.6)]
    assert is_memorizing(history, math.log(2))
    assert not is_memorizing(history, ENTROPY)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("warmup", ["no", 0, -1, 1.5, None])
def test_what_is_no_warm_up(warmup):
    with pytest.raises(ValueError, match="`warmup` must be"):
        LossBufferCallback([0, 1, 1], mode="filter", warmup=warmup)


def test_a_warm_up_that_never_ends_is_refused_at_the_start():
    message = "`warmup` must be shorter than the training of 3 epochs, or nothing is ever filtered, got 3"
    with pytest.raises(ValueError, match=message):
        LossBufferCallback([0, 1, 1], mode="filter", warmup=3, epochs=3)
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with pytest.raises(ValueError, match=message):
        LossBufferCallback([0, 1, 1], mode="filter", warmup=3).attach(network, optimizer, 3)
    LossBufferCallback([0, 1, 1], mode="watch", warmup=3, epochs=3)


def test_its_state_is_plain_and_complete():
    rule = Warmup(1000, "auto", 20, holds_back=True)
    rule.end_epoch(1, losses(2.0, math.nan), LABELS)
    again = Warmup(1000, "auto", 20, holds_back=True)
    again.load_state_dict(rule.state_dict())
    assert again.get_extra_state() == rule.get_extra_state()
    assert all(value is None or math.isfinite(value) for row in rule.get_extra_state()["history"] for value in row)


def test_a_short_training_may_take_an_epoch_more():
    rule = Warmup(1000, "auto", 3, holds_back=True)
    assert rule.end_epoch(1, losses(2.2, 2.2), LABELS)
    assert rule.prolong()
    assert rule.ended_after is None
    assert rule.end_epoch(2, losses(2.0, 2.0), LABELS)
    assert not rule.prolong()  # one epoch is left to filter in
    long = Warmup(1000, "auto", 20, holds_back=True)
    assert not any(long.end_epoch(epoch, losses(2.2, 2.2), LABELS) for epoch in range(1, 6))
    assert long.end_epoch(6, losses(2.2, 2.2), LABELS)
    assert not long.prolong()
