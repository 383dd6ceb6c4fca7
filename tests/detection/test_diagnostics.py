"""What is told before a verdict is trusted."""

import warnings

import numpy as np
import pytest
import torch

from lossbuf import LossBufferCallback
from lossbuf.detection import diagnostics as doubts
from lossbuf.detection.thresholds import Cut
from lossbuf.detection.transition import noise_rate
from lossbuf.detection.verdict import Verdict, _lost
from lossbuf.detection.warmup import EpochLosses, Warmup

LOOK_AT_THE_ORDER = "Go by the order and not by the cut"


def verdict(suspects=10, rate=0.1, estimates=(0.1, 0.1), error=0.01, **more):
    """Of a hundred rows."""
    suspicion = np.arange(100, 0, -1, dtype=np.float32)
    low, high = min(*estimates, rate) - 1.96 * error, max(*estimates, rate) + 1.96 * error
    return Verdict(
        suspicion,
        suspicion,
        Cut(float(100 - suspects), rate, np.arange(100) < suspects),
        np.zeros(100, dtype=np.int64),
        transition=np.eye(2),
        noise_rates=estimates,
        noise_rate_interval=(max(low, 0.0), min(high, 1.0)),
        **{"bounded": True, **more},
    )


def told(text, given=None, ruled=False, **settings):
    return sum(text in doubt for doubt in doubts.of_verdict(verdict(**settings), given, ruled))


@pytest.mark.parametrize(
    ("suspects", "rate", "more", "expected"),
    [
        (10, 0.1, {}, 0),
        (20, 0.1, {}, 0),
        (21, 0.1, {}, 1),
        (6, 0.0, {}, 1),
        (5, 0.0, {}, 0),
        (60, 0.4, {}, 0),
        (21, 0.1, {"ruled": True}, 0),
    ],
)
def test_many_suspects_that_are_more_likely_right(suspects, rate, more, expected):
    assert told(LOOK_AT_THE_ORDER, suspects=suspects, rate=rate, **more) == expected


@pytest.mark.parametrize(
    ("estimates", "error", "expected"),
    [
        ((0.2, 0.2), 0.01, 0),
        ((0.3, 0.25), 0.01, 0),
        ((0.3, 0.15), 0.01, 1),
        ((0.3, 0.22), 0.05, 0),
        ((0.17, 0.0), 0.04, 1),  # one that vanishes is told of sooner
        ((0.0, 0.17), 0.04, 1),
        ((0.04, 0.0), 0.001, 0),  # as of clean labels
        ((0.08, 0.0), 0.05, 0),  # by chance
    ],
)
def test_estimates_that_disagree(estimates, error, expected):
    rate = float(np.mean(estimates))
    assert told("disagree", estimates=estimates, error=error, rate=rate, suspects=round(100 * rate)) == expected
    assert not told("disagree", estimates=estimates, error=error, rate=rate, given=rate)


MATRIX = np.array([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def test_a_class_that_was_lost():
    # Of class 1's labels 40 of 140 are class 0's; nothing else is wrong.
    labels = torch.tensor([0] * 60 + [1] * 140 + [2] * 100)
    suspects = np.zeros(300, dtype=bool)
    suspects[60:100] = True
    assert noise_rate(torch.from_numpy(MATRIX), labels) == pytest.approx(40 / 300, abs=1e-3)
    assert _lost(suspects, labels, MATRIX) == ()
    suspects[60:190] = True
    ((label, seen, expected),) = _lost(suspects, labels, MATRIX)
    assert (label, seen, expected) == (1, pytest.approx(130 / 140), pytest.approx(40 / 140, abs=1e-3))
    (doubt,) = doubts.of_verdict(verdict(lost=((label, seen, expected),)))
    assert doubt.startswith("Of the labels of class 1 93% are suspect, where 29% were to be expected")


def test_a_class_of_which_most_labels_are_wrong_is_not_lost():
    labels = torch.tensor([0] * 40 + [1] * 160)
    matrix = np.array([[0.25, 0.75], [0.0, 1.0]])
    suspects = np.zeros(200, dtype=bool)
    suspects[40:160] = True
    assert _lost(suspects, labels, matrix) == ()


def test_few_labels_of_a_class_may_all_be_suspect_by_chance():
    labels = torch.tensor([0] * 3 + [1] * 97)
    suspects = np.arange(100) < 2
    assert _lost(suspects, labels, np.array([[0.8, 0.2], [0.01, 0.99]])) == ()


def test_a_doubt_is_warned_of_once_between_two_steps():
    """Table, cut, rows and weights are the same question."""
    labels = torch.arange(60) % 3
    callback = LossBufferCallback(labels, 3, noise_rate=0.1, mode="watch")
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    questions = (callback.report, callback.select, callback.weights, callback.find_cut, callback.verdict)
    found = []
    for _ in range(2):
        for _ in range(3):
            callback.update(logits, labels, torch.arange(60))  # of an epoch that is never ended
        with warnings.catch_warnings(record=True) as records:
            warnings.simplefilter("always")
            for ask in questions:
                ask()
        found.append([str(record.message) for record in records])
    for texts in found:
        assert texts
        assert len(texts) == len(set(texts))
    assert "180 rows came since the last `end_epoch`" in found[0][-1]
    assert "360 rows came since the last `end_epoch`" in found[1][-1]


def held_and_right(count, right):
    warm_up = Warmup(400, "auto", holds_back=True)
    warm_up.held = torch.arange(400) < count
    warm_up.history = [EpochLosses((1.0,) * 4, 1.0, 0.01, right)]
    return warm_up


@pytest.mark.parametrize(
    ("right", "rate", "reported"),
    [
        (0.70, 0.05, True),  # 30 % are contradicted, and 5 % are said to be wrong
        (0.70, 0.28, False),
        (0.95, 0.01, False),
        (0.50, 0.20, False),  # much is unexplained, but much is reported as well
        (float("nan"), 0.0, False),
    ],
)
def test_labels_that_are_contradicted_but_not_called_wrong_are_reported(right, rate, reported):
    of_rate = verdict(rate=rate)
    found = doubts.of_disagreement(held_and_right(100, right), of_rate)
    assert bool(found) == reported
    assert not doubts.of_disagreement(held_and_right(100, right), of_rate, given=0.1)
    assert not doubts.of_disagreement(held_and_right(0, right), of_rate)
    if reported:
        assert "for 30%, but only 5% of the labels" in found[0]
