"""Running statistics of every sample across epochs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from lossbuf import checks, scores
from lossbuf.losses import SampleLosses
from lossbuf.storage import HostRecord

TRACKED = 4
"""Predicted classes tallied a sample."""

_CLASS_BITS = 16
_CLASS_MASK = (1 << _CLASS_BITS) - 1

MAX_CLASSES = _CLASS_MASK
"""Classes that a tally entry can tell apart."""

_EPOCH_BITS = 40
_SUMMED = 6
_FOLD_ROWS = 8192
_READ_ROWS = 2**20


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


class Ranking(NamedTuple):
    """What rows are ranked by, each of shape ``(n_samples,)``, on the host.

    Attributes:
        suspicion: Higher is more suspect; NaN for rows never seen.
        label_loss: Mean over epochs, in nats, which decides between equals.
        other_class: Class other than the given label predicted most often; -1 where there was none.
    """

    suspicion: NDArray[np.float32]
    label_loss: NDArray[np.float32]
    other_class: NDArray[np.int64]


class SampleDynamics(HostRecord):
    """Loss, margin, scores, wrong predictions and forgetting events of every sample.

    Within an epoch a step only notes raw values (:meth:`claim`, :meth:`record`); :meth:`end_epoch` folds them into the
    running sums for all samples at once. A sample that comes twice in an epoch counts once, the first time. Memory
    does not grow with time: 28 numbers of 4 bytes a sample.

    The most frequent prediction is tallied by Space-Saving with :data:`TRACKED` counters a sample: exact while a sample
    was predicted to be at most that many classes, and an upper bound of the counts beyond.

    Args:
        labels: Given labels, shape ``(n_samples,)``.
        storage: Where the record lies, see :class:`~lossbuf.storage.HostRecord`. What a step needs, labels and stamps,
            16 bytes a sample, goes with the network all the same.

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

    def __init__(self, labels: Int[Tensor, " n_samples"], storage: str | os.PathLike[str] | None = None) -> None:
        super().__init__(storage)
        labels = checks.class_labels(
            "labels", labels, MAX_CLASSES
        ).clone()  # to load a state must not reach the caller's
        size = len(labels)
        self.epoch = 0
        self.rows_in_epoch = 0
        self.register_buffer("labels", labels)
        self.register_buffer("stamp", torch.full((size,), torch.iinfo(torch.int64).max))
        # label loss, margin, predicted class, class mean of the label loss, class mean of the gap; -inf: not yet seen
        self.register_record("noted", (5, size), torch.float32, float("-inf"))
        self.register_record("count", (size,), torch.int32)
        self.register_record("sums", (_SUMMED, size), torch.float32)
        self.register_record("last", (_SUMMED + 1, size), torch.float32, float("nan"))
        self.register_record("wrong_count", (size,), torch.int32)
        self.register_record("forgetting_events", (size,), torch.int32)
        self.register_record("was_right", (size,), torch.bool)
        self.register_record("tally", (TRACKED, size), torch.int32)

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
        self.later(self._note, rows, ~fresh, *columns)

    def _note(self, rows: Tensor, stale: Tensor, *columns: Tensor) -> None:
        for noted, values in zip(self.noted, columns, strict=True):
            # Each slot gets one value at most, and -inf otherwise: the maximum does not depend on the order.
            noted.scatter_reduce_(0, rows, values.masked_fill(stale, float("-inf")), "amax")

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Fold the epoch's values into the running statistics."""
        self.settle()
        self._fold_({name: getattr(self, name) for name in _FOLDED}, slice(None))
        self.noted.fill_(float("-inf"))
        self.epoch += 1
        self.rows_in_epoch = 0

    def _fold_(self, state: dict[str, Tensor], rows: slice) -> None:
        """Fold what was noted of some rows into tensors named as in :data:`_FOLDED`.

        Part by part, so that it stays in the cache.
        """
        noted, labels = self.noted[:, rows], self.labels[rows]
        for start in range(0, len(labels), _FOLD_ROWS):
            part = slice(start, start + _FOLD_ROWS)
            parts = {name: tensor[..., part] for name, tensor in state.items()}
            _fold_part_(parts, noted[:, part], labels[part].to(noted.device))

    @torch.no_grad()
    def statistics(self, rows: slice = slice(None)) -> SampleStatistics:
        """The statistics so far, an unfinished epoch included; changes nothing and does not wait for the GPU.

        Args:
            rows: Which rows; by default all.

        Returns:
            The statistics, where the record lies.
        """
        self.settle()
        state = {name: getattr(self, name)[..., rows].clone() for name in _FOLDED}
        if self.rows_in_epoch:
            self._fold_(state, rows)
        return statistics_of(state, self.labels[rows].to(state["tally"].device))

    def ranking(self, name: str) -> Ranking:
        """What rows are ranked by, read part by part so that it takes little memory; waits for the device.

        Args:
            name: One of :data:`SUSPICIONS`.

        Raises:
            ValueError: If it is none of them.
        """
        size = self.n_samples
        found = Ranking(np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.int64))
        for start in range(0, size, _READ_ROWS):
            rows = slice(start, start + _READ_ROWS)
            part = self.statistics(rows)
            for column, values in zip(found, (part.suspicion(name), part.label_loss, part.other_class), strict=True):
                column[rows] = values.cpu().numpy()
        return found

    def suspicions(self, names: Sequence[str]) -> Float[np.ndarray, "names n_samples"]:
        """Several statistics to rank by, read in one pass, part by part; waits for the device.

        Args:
            names: Of :data:`SUSPICIONS`.

        Raises:
            ValueError: If one is none of them.
        """
        found = np.empty((len(names), self.n_samples), np.float32)
        for start in range(0, self.n_samples, _READ_ROWS):
            rows = slice(start, start + _READ_ROWS)
            part = self.statistics(rows)
            for column, name in zip(found, names, strict=True):
                column[rows] = part.suspicion(name).cpu().numpy()
        return found

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
    three = scores.all_scores(label_loss, margin, mean_label_loss, mean_gap)
    fold_(state, seen, label_loss, margin, three, predicted, labels)


def new_state(size: int) -> dict[str, Tensor]:
    """What :func:`fold_` folds into, for ``size`` samples on the CPU."""
    rows = {name: torch.zeros(size, dtype=torch.int32) for name in ("count", "wrong_count", "forgetting_events")}
    return rows | {
        "sums": torch.zeros(_SUMMED, size),
        "last": torch.full((_SUMMED + 1, size), float("nan")),
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
