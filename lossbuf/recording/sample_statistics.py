"""Running statistics of samples across epochs, as pure functions: fold an epoch in, read what there is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lossbuf import checks
from lossbuf.recording import scores

TRACKED = 4
"""Predicted classes tallied a sample."""

_CLASS_BITS = 16
_CLASS_MASK = (1 << _CLASS_BITS) - 1

MAX_CLASSES = _CLASS_MASK
"""Classes that a tally entry can tell apart."""

SUMMED = 6
"""Values a sample whose sums over the epochs are kept."""


@dataclass(frozen=True)
class SampleStatistics:
    """What is known of every sample, each of shape ``(n_samples,)``; NaN (or -1) where a row was never seen.

    Attributes:
        count: Epochs in which the sample was seen.
        label_loss: Mean over epochs, in nats.
        predicted_loss: Mean over epochs, in nats.
        aum: Area under the margin: mean margin over epochs.
        score: Mean over epochs.
        score2: Mean over epochs.
        score3: Mean over epochs.
        wrong_count: Epochs in which the prediction was not the given label.
        forgetting_events: Times a right prediction was followed by a wrong one.
        most_frequent: Class predicted most often.
        other_class: Class other than the given label predicted most often; -1 where there was none.
        last_predicted: Prediction of the last epoch in which the sample was seen.
        last_label_loss: Value of that epoch, in nats.
        last_margin: Value of that epoch.
        last_score: Value of that epoch.
        last_score2: Value of that epoch.
        last_score3: Value of that epoch.
    """

    count: Tensor
    label_loss: Tensor
    predicted_loss: Tensor
    aum: Tensor
    score: Tensor
    score2: Tensor
    score3: Tensor
    wrong_count: Tensor
    forgetting_events: Tensor
    most_frequent: Tensor
    other_class: Tensor
    last_predicted: Tensor
    last_label_loss: Tensor
    last_margin: Tensor
    last_score: Tensor
    last_score2: Tensor
    last_score3: Tensor

    def suspicion(self, name: str) -> Float[Tensor, " n_samples"]:
        """A statistic turned so that higher is more suspect; NaN for rows never seen.

        Args:
            name: One of :data:`SUSPICIONS`.

        Raises:
            ValueError: If it is none of them.
        """
        value = getattr(self, checks.one_of("score", name, SUSPICIONS)).to(torch.float32)
        if name in ("aum", "last_margin"):
            value = -value
        return value.masked_fill(self.count == 0, float("nan"))


SUSPICIONS = (
    "score",
    "score2",
    "score3",
    "label_loss",
    "aum",
    "wrong_count",
    "forgetting_events",
    "last_score",
    "last_score2",
    "last_score3",
    "last_label_loss",
    "last_margin",
)
"""Statistics by which rows can be ranked; the two margins with their sign turned."""


# A tally entry is count << 16 | (mask - class), so that the largest entry is the lowest of the most frequent classes.


def _class_of(tally: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    return _CLASS_MASK - (tally & _CLASS_MASK)


def _tally_(
    tally: Int[Tensor, "tracked n_samples"], predicted: Int[Tensor, " n_samples"], seen: Bool[Tensor, " n_samples"]
) -> None:
    """Count a prediction a sample: in the slot of its class, else in the first of the least."""
    match = _class_of(tally) == predicted
    key = tally.masked_fill(match, -1)
    least = key.amin(0)
    code = _CLASS_MASK - predicted
    free = seen.clone()
    for slot, value in zip(tally, key, strict=True):
        chosen = (value == least).logical_and_(free)
        free.logical_xor_(chosen)
        counted = (slot & ~_CLASS_MASK).add_(code).add_(1 << _CLASS_BITS)
        torch.where(chosen, counted, slot, out=slot)


def new_state(size: int) -> dict[str, Tensor]:
    """What :func:`fold_` folds into, for ``size`` samples on the CPU."""
    rows = {name: torch.zeros(size, dtype=torch.int32) for name in ("count", "wrong_count", "forgetting_events")}
    return rows | {
        "sums": torch.zeros(SUMMED, size),
        "last": torch.full((SUMMED + 1, size), float("nan")),
        "was_right": torch.zeros(size, dtype=torch.bool),
        "tally": torch.zeros(TRACKED, size, dtype=torch.int32),
    }


def fold_(
    state: dict[str, Tensor],
    seen: Bool[Tensor, " n_samples"],
    label_loss: Float[Tensor, " n_samples"],
    margin: Float[Tensor, " n_samples"],
    three: scores.Scores,
    predicted: Float[Tensor, " n_samples"],
    labels: Int[Tensor, " n_samples"],
) -> None:
    """Fold an epoch's values into running statistics; where ``seen`` is False they must be 0 and change nothing."""
    predicted_loss = (label_loss - scores.label_gap(margin)).clamp_(min=0.0)
    values = (label_loss, predicted_loss, margin, *three)
    for total, last, value in zip(state["sums"], state["last"][:-1], values, strict=True):
        total.add_(value)
        torch.where(seen, value, last, out=last)
    torch.where(seen, predicted, state["last"][-1], out=state["last"][-1])
    right = predicted == labels
    wrong = right.logical_not().logical_and_(seen)
    state["count"].add_(seen)
    state["wrong_count"].add_(wrong)
    state["forgetting_events"].add_(wrong & state["was_right"])
    torch.where(seen, right, state["was_right"], out=state["was_right"])
    _tally_(state["tally"], predicted.to(torch.int32), seen)


def statistics_of(state: dict[str, Tensor], labels: Int[Tensor, " n_samples"]) -> SampleStatistics:
    """Read running statistics.

    Args:
        state: What :func:`fold_` folded into.
        labels: Given labels, shape ``(n_samples,)``.
    """
    label_loss, predicted_loss, margin, *three = (state["sums"] / state["count"]).unbind(0)
    last_loss, _, last_margin, *last_three, last_predicted = state["last"].unbind(0)
    given = _class_of(state["tally"]) == labels
    score, score2, score3 = three
    last_score, last_score2, last_score3 = last_three
    return SampleStatistics(
        count=state["count"],
        label_loss=label_loss,
        predicted_loss=predicted_loss,
        aum=margin,
        score=score,
        score2=score2,
        score3=score3,
        wrong_count=state["wrong_count"],
        forgetting_events=state["forgetting_events"],
        most_frequent=_leader(state["tally"]),
        other_class=_leader(state["tally"].masked_fill(given, 0)),
        last_predicted=last_predicted.nan_to_num(nan=-1.0).long(),
        last_label_loss=last_loss,
        last_margin=last_margin,
        last_score=last_score,
        last_score2=last_score2,
        last_score3=last_score3,
    )


def _leader(tally: Int[Tensor, "tracked n_samples"]) -> Int[Tensor, " n_samples"]:
    best = tally.amax(0)
    return torch.where(best > 0, _class_of(best), -1).long()
