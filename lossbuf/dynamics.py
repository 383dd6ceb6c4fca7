"""Running statistics of every sample across epochs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lossbuf import checks, scores
from lossbuf.losses import SampleLosses

TRACKED = 4
"""Predicted classes tallied a sample."""

_CLASS_BITS = 16
_CLASS_MASK = (1 << _CLASS_BITS) - 1

MAX_CLASSES = _CLASS_MASK
"""Classes that a tally entry can tell apart."""

_EPOCH_BITS = 40
_SUMMED = 6
_FOLD_ROWS = 8192


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


class SampleDynamics(nn.Module):
    """Loss, margin, scores, wrong predictions and forgetting events of every sample.

    Within an epoch a step only notes raw values (:meth:`claim`, :meth:`record`); :meth:`end_epoch` folds them into the
    running sums for all samples at once. A sample that comes twice in an epoch counts once, the first time. Memory
    does not grow with time: 28 numbers of 4 bytes a sample.

    The most frequent prediction is tallied by Space-Saving with :data:`TRACKED` counters a sample: exact while a sample
    was predicted to be at most that many classes, and an upper bound of the counts beyond.

    Args:
        labels: Given labels, shape ``(n_samples,)``.

    Raises:
        ValueError: If the labels are not integers of at least 0.

    Source:
        Forgetting events: Toneva et al. 2019. Area under the margin: Pleiss et al. 2020. Space-Saving: Metwally,
        Agrawal, El Abbadi 2005.
    """

    labels: Tensor
    stamp: Tensor
    noted: Tensor
    count: Tensor
    sums: Tensor
    last: Tensor
    wrong_count: Tensor
    forgetting_events: Tensor
    was_right: Tensor
    tally: Tensor

    def __init__(self, labels: Int[Tensor, " n_samples"]) -> None:
        super().__init__()
        labels = checks.class_labels(
            "labels", labels, MAX_CLASSES
        ).clone()  # to load a state must not reach the caller's
        size = len(labels)
        self.epoch = 0
        self.rows_in_epoch = 0
        self.register_buffer("labels", labels)
        self.register_buffer("stamp", torch.full((size,), torch.iinfo(torch.int64).max))
        # label loss, margin, predicted class, class mean of the label loss, class mean of the gap; -inf: not yet seen
        self.register_buffer("noted", torch.full((5, size), float("-inf"), dtype=torch.float32))
        self.register_buffer("count", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("sums", torch.zeros(_SUMMED, size, dtype=torch.float32))
        self.register_buffer("last", torch.full((_SUMMED + 1, size), float("nan"), dtype=torch.float32))
        self.register_buffer("wrong_count", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("forgetting_events", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("was_right", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("tally", torch.zeros(TRACKED, size, dtype=torch.int32))

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @torch.no_grad()
    def claim(self, rows: Int[Tensor, " batch"], usable: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """True where a usable row comes for the first time in this epoch, within this batch too.

        Args:
            rows: Rows in ``[0, n_samples)``, shape ``(batch,)``.
            usable: Where False the row claims nothing.
        """
        # Stamps fall from epoch to epoch and rise within one, so the least of a sample is its first of the newest.
        base = self.rows_in_epoch - (self.epoch << _EPOCH_BITS)
        mine = torch.arange(base, base + len(rows), device=rows.device)
        mine.masked_fill_(~usable, torch.iinfo(torch.int64).max)
        self.rows_in_epoch += len(rows)
        self.stamp.scatter_reduce_(0, rows, mine, "amin")
        return (self.stamp.index_select(0, rows) == mine).logical_and_(usable)

    @torch.no_grad()
    def record(
        self,
        rows: Int[Tensor, " batch"],
        fresh: Bool[Tensor, " batch"],
        losses: SampleLosses,
        mean_label_loss: Float[Tensor, " batch"],
        mean_gap: Float[Tensor, " batch"],
    ) -> None:
        """Note the values of the rows that :meth:`claim` found fresh; all vectors of shape ``(batch,)``."""
        columns = (losses.label_loss, losses.margin, losses.predicted.to(torch.float32), mean_label_loss, mean_gap)
        stale = ~fresh
        for noted, values in zip(self.noted, columns, strict=True):
            # Each slot gets one value at most, and -inf otherwise: the maximum does not depend on the order.
            noted.scatter_reduce_(0, rows, values.masked_fill(stale, float("-inf")), "amax")

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Fold the epoch's values into the running statistics."""
        self._fold_({name: getattr(self, name) for name in _FOLDED})
        self.noted.fill_(float("-inf"))
        self.epoch += 1
        self.rows_in_epoch = 0

    def _fold_(self, state: dict[str, Tensor]) -> None:
        """Fold what was noted into tensors named as in :data:`_FOLDED`, part by part so that it stays in the cache."""
        for start in range(0, self.n_samples, _FOLD_ROWS):
            part = slice(start, start + _FOLD_ROWS)
            _fold_part_(
                {name: tensor[..., part] for name, tensor in state.items()}, self.noted[:, part], self.labels[part]
            )

    @torch.no_grad()
    def statistics(self) -> SampleStatistics:
        """The statistics so far, an unfinished epoch included; changes nothing and does not wait for the GPU."""
        state = {name: getattr(self, name).clone() for name in _FOLDED}
        if self.rows_in_epoch:
            self._fold_(state)
        label_loss, predicted_loss, margin, *three = (state["sums"] / state["count"]).unbind(0)
        last_loss, _, last_margin, *last_three, last_predicted = state["last"].unbind(0)
        given = _class_of(state["tally"]) == self.labels
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

    def get_extra_state(self) -> dict[str, int]:
        """The cursors that are no tensors."""
        return {"epoch": self.epoch, "rows_in_epoch": self.rows_in_epoch}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.epoch = checks.non_negative_int("epoch", state["epoch"])
        self.rows_in_epoch = checks.non_negative_int("rows_in_epoch", state["rows_in_epoch"])


_FOLDED = ("count", "sums", "last", "wrong_count", "forgetting_events", "was_right", "tally")


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


def _fold_part_(state: dict[str, Tensor], noted: Float[Tensor, "5 part"], labels: Int[Tensor, " part"]) -> None:
    seen = noted[0] > float("-inf")
    label_loss, margin, predicted, mean_label_loss, mean_gap = noted.masked_fill(~seen, 0.0)
    gap = scores.label_gap(margin)
    predicted_loss = (label_loss - gap).clamp_(min=0.0)
    three = scores.all_scores(label_loss, margin, mean_label_loss, mean_gap)
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


def _leader(tally: Int[Tensor, "tracked n_samples"]) -> Int[Tensor, " n_samples"]:
    best = tally.amax(0)
    return torch.where(best > 0, _class_of(best), -1).long()
