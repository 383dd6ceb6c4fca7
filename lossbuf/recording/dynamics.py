"""Running statistics of every sample across epochs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.recording import scores
from lossbuf.recording.host_record import HostRecord
from lossbuf.recording.losses import SampleLosses
from lossbuf.recording.sample_statistics import MAX_CLASSES, SUMMED, TRACKED, SampleStatistics, fold_, statistics_of

_EPOCH_BITS = 40
_FOLD_ROWS = 8192
_READ_ROWS = 2**20


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
        storage: Where the record lies, see :class:`~lossbuf.recording.host_record.HostRecord`. What a step needs,
            labels and stamps, 16 bytes a sample, goes with the network all the same.

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
        self.register_record("sums", (SUMMED, size), torch.float32)
        self.register_record("last", (SUMMED + 1, size), torch.float32, float("nan"))
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
    def in_epoch(self) -> tuple[Float[Tensor, " n_samples"], Float[Tensor, " n_samples"], Int[Tensor, " n_samples"]]:
        """Label losses and margins of the epoch that has not ended yet, and the place at which each row came in it.

        Returns:
            Label losses in nats and margins, -inf where a row was not seen, and places counted in rows, where the
            record lies.
        """
        self.settle()
        place = self.stamp + (self.epoch << _EPOCH_BITS)
        return self.noted[0], self.noted[1], place.to(self.noted.device)

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
        """What rows are ranked by, on the host; waits for the device.

        Args:
            name: One of :data:`~lossbuf.recording.sample_statistics.SUSPICIONS`.

        Raises:
            ValueError: If it is none of them.
        """
        return Ranking(*self._read(lambda part: (part.suspicion(name), part.label_loss, part.other_class)))

    def suspicions(self, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """Several statistics to rank by, each of shape ``(n_samples,)``, on the host; waits for the device.

        Args:
            names: Of :data:`~lossbuf.recording.sample_statistics.SUSPICIONS`.

        Raises:
            ValueError: If one is none of them.
        """
        return self._read(lambda part: [part.suspicion(name) for name in names])

    def _read(self, columns: Callable[[SampleStatistics], Sequence[Tensor]]) -> list[NDArray[Any]]:
        """Columns of the statistics on the host, in one pass, part by part so that it takes little memory."""
        found: list[NDArray[Any]] = []
        for start in range(0, self.n_samples, _READ_ROWS):
            rows = slice(start, start + _READ_ROWS)
            parts = [part.cpu().numpy() for part in columns(self.statistics(rows))]
            found = found or [np.empty(self.n_samples, part.dtype) for part in parts]
            for column, part in zip(found, parts, strict=True):
                column[rows] = part
        return found

    def get_extra_state(self) -> dict[str, int]:
        """The cursors that are no tensors."""
        return {"epoch": self.epoch, "rows_in_epoch": self.rows_in_epoch}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.epoch = checks.non_negative_int("epoch", state["epoch"])
        self.rows_in_epoch = checks.non_negative_int("rows_in_epoch", state["rows_in_epoch"])


_FOLDED = ("count", "sums", "last", "wrong_count", "forgetting_events", "was_right", "tally")


def _fold_part_(state: dict[str, Tensor], noted: Float[Tensor, "5 part"], labels: Int[Tensor, " part"]) -> None:
    seen = noted[0] > float("-inf")
    label_loss, margin, predicted, mean_label_loss, mean_gap = noted.masked_fill(~seen, 0.0)
    three = scores.all_scores(label_loss, margin, mean_label_loss, mean_gap)
    fold_(state, seen, label_loss, margin, three, predicted, labels)
