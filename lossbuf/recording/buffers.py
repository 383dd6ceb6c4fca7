"""The loss buffers: a ring of recent losses a class.

Order of push and score: a batch is appended first and scored after, so a row that is scored is never empty because
of that batch. An empty row has mean NaN; the scores then divide by 1 (see :mod:`lossbuf.recording.scores`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lossbuf import checks
from lossbuf.recording import scores
from lossbuf.recording.losses import SampleLosses

_INT16_KEYS = 2**15
_SLOTS_A_LOSS = 64


class RingPlace(NamedTuple):
    """Where a batch goes in the rings of its rows.

    A batch of at most ``window`` losses cannot come to one slot twice: it is written slot by slot. A larger one is
    read the other way: every slot looks up the newest loss that falls on it, if any.

    Attributes:
        source: Positions in the batch, shape ``(batch,)`` or, for a larger batch, ``(num_rows, window)``.
        slots: Flat slots of ``source``, shape ``(batch,)``; ``None`` for a larger batch.
        fill: For a larger batch only: True where a slot gets a new loss, shape ``(num_rows, window)``.
        counts: Losses of the batch a row, shape ``(num_rows,)``.
    """

    source: Int[Tensor, " ..."]
    slots: Int[Tensor, " batch"] | None
    fill: Bool[Tensor, "num_rows window"] | None
    counts: Int[Tensor, " num_rows"]


def ring_place(rows: Int[Tensor, " batch"], seen: Int[Tensor, " num_rows"], window: int) -> RingPlace:
    """Find the place of a batch in rings of ``window`` entries, for all rows in one pass.

    Args:
        rows: Row of each loss in ``[0, num_rows)``, shape ``(batch,)``.
        seen: Losses ever appended a row, shape ``(num_rows,)``.
        window: Entries a ring.
    """
    order = _stable_argsort(rows, len(seen))
    counts = torch.zeros_like(seen).scatter_add_(0, rows, torch.ones_like(rows))
    ends = counts.cumsum(0)
    if len(rows) <= window:
        grouped = rows.index_select(0, order)
        position = torch.arange(len(rows), device=rows.device)
        offset = (seen - (ends - counts)).index_select(0, grouped)
        slots = (position + offset).remainder_(window).add_(grouped, alpha=window)
        return RingPlace(order, slots, None, counts)
    # Slot s of a ring gets loss number n of its row, the largest n below seen + counts with n = s modulo window.
    newest = (seen + counts - 1).unsqueeze(1)
    age = (newest - torch.arange(window, device=rows.device)).remainder_(window)
    fill = age < counts.unsqueeze(1)
    position = (ends.unsqueeze(1) - 1 - age).clamp_(min=0)
    return RingPlace(order.take(position), None, fill, counts)


def _stable_argsort(rows: Int[Tensor, " batch"], num_rows: int) -> Int[Tensor, " batch"]:
    if rows.device.type == "cpu" and num_rows <= _INT16_KEYS and not torch.compiler.is_compiling():
        # NumPy sorts 16-bit keys by radix, about five times as fast as torch's CPU sort.
        return torch.from_numpy(np.argsort(np.asarray(rows.to(torch.int16)), kind="stable"))
    return rows.argsort(stable=True)


class ClassLossBuffer(nn.Module):
    """The most recent losses of every class.

    A loss that is NaN or infinite, or whose label is out of range, is counted in :attr:`rejected` and kept out of the
    rings. All state, cursors too, is in ``state_dict``.

    Args:
        num_classes: Number of classes, at least 1.
        window: Losses kept a class, at least 1.

    Raises:
        ValueError: If either is not a positive integer.

    Example:
        >>> buffer = ClassLossBuffer(num_classes=2, window=2)
        >>> buffer.update(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 0]))
        >>> buffer.values(0), buffer.mean()
        (tensor([2., 3.]), tensor([2.5000,    nan]))
    """

    entries: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, window: int = 512) -> None:
        super().__init__()
        self.num_classes = checks.positive_int("num_classes", num_classes)
        self.window = checks.positive_int("window", window)
        # One row more than classes: what is rejected goes there, so that no shape depends on the data.
        self.register_buffer("entries", torch.zeros(self.num_classes + 1, self.window, dtype=torch.float32))
        self.register_buffer("seen", torch.zeros(self.num_classes + 1, dtype=torch.int64))

    @torch.no_grad()
    def update(self, losses: Float[Tensor, " batch"], labels: Int[Tensor, " batch"]) -> None:
        """Append one batch, oldest first, without waiting for the GPU.

        Args:
            losses: Cross-entropy in nats, shape ``(batch,)``.
            labels: Class of each loss in ``[0, num_classes)``, shape ``(batch,)``.

        Raises:
            ValueError: If the shapes differ or the labels are not integers.
        """
        if losses.ndim != 1:
            raise ValueError(checks.problem("losses", "must have shape (batch,)", f"shape {tuple(losses.shape)}"))
        checks.batch_vector("labels", labels, losses)
        losses = losses.to(self.entries.dtype)
        usable = losses.isfinite() & (labels >= 0) & (labels < self.num_classes)
        for part in self.parts(len(losses)):
            self.write_(losses[part], self.place(labels[part], usable[part]))

    def parts(self, batch: int) -> list[slice]:
        """One part, or several of at most ``window`` where looking up every slot of every ring would cost more."""
        if batch <= self.window or self.entries.numel() <= _SLOTS_A_LOSS * batch:
            return [slice(None)]
        return [slice(start, start + self.window) for start in range(0, batch, self.window)]

    def place(self, labels: Int[Tensor, " batch"], usable: Bool[Tensor, " batch"]) -> RingPlace:
        """Place of a batch; where ``usable`` is False in the row of the rejected."""
        rows = labels.long().masked_fill(~usable, self.num_classes)
        return ring_place(rows, self.seen, self.window)

    def write_(self, losses: Float[Tensor, " batch"], place: RingPlace) -> None:
        """Write a batch where :meth:`place` put it and move the cursors."""
        values = losses.to(self.entries.dtype)
        if place.slots is not None:
            self.entries.view(-1).scatter_(0, place.slots, values.index_select(0, place.source))
        elif place.fill is not None:
            torch.where(place.fill, values.take(place.source), self.entries, out=self.entries)
        self.entries[-1].zero_()
        self.seen.add_(place.counts)

    def mean(self) -> Float[Tensor, " num_classes"]:
        """Mean of the entries now in each row, shape ``(num_classes,)``; NaN where a row is empty."""
        filled = self.seen[:-1].clamp(max=self.window)
        return self.entries[:-1].sum(1, dtype=torch.float32) / filled

    @property
    def rejected(self) -> Int[Tensor, ""]:
        """Number of losses kept out of the rings, a scalar on the device."""
        return self.seen[-1]

    def values(self, label: int) -> Float[Tensor, " filled"]:
        """The entries of one class, oldest first; waits for the device.

        Raises:
            ValueError: If ``label`` is not a class.
        """
        if not 0 <= label < self.num_classes:
            raise ValueError(checks.problem("label", f"must lie in [0, {self.num_classes})", label))
        seen = int(self.seen[label])
        if seen < self.window:
            return self.entries[label, :seen].clone()
        return self.entries[label].roll(-(seen % self.window))


class LossBuffers(nn.Module):
    """The three rings: label loss and predicted loss by given class, predicted loss by predicted class.

    Args:
        num_classes: Number of classes, at least 1.
        window: Losses kept a class and ring, at least 1.

    Raises:
        ValueError: If either is not a positive integer.

    Example:
        >>> from lossbuf.recording.losses import sample_losses
        >>> buffers, labels = LossBuffers(num_classes=2), torch.tensor([0, 1])
        >>> losses = sample_losses(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), labels)
        >>> buffers.update(losses, labels)
        >>> buffers.scores(losses, labels).score2 > 0
        tensor([False,  True])
    """

    def __init__(self, num_classes: int, window: int = 512) -> None:
        super().__init__()
        self.label_loss = ClassLossBuffer(num_classes, window)
        self.predicted_loss = ClassLossBuffer(num_classes, window)
        self.predicted_class_loss = ClassLossBuffer(num_classes, window)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.label_loss.num_classes

    @property
    def window(self) -> int:
        """Losses kept a class and ring."""
        return self.label_loss.window

    @torch.no_grad()
    def update(
        self, losses: SampleLosses, labels: Int[Tensor, " batch"], usable: Bool[Tensor, " batch"] | None = None
    ) -> None:
        """Append one batch to the three rings, without waiting for the GPU.

        Args:
            losses: What :func:`~lossbuf.recording.losses.sample_losses` gives, each of shape ``(batch,)``.
            labels: Given labels, shape ``(batch,)``.
            usable: Where False the row is rejected; by default where a loss is not finite or a label out of range.

        Raises:
            ValueError: If the shapes differ or the labels are not integers.
        """
        checks.batch_vector("labels", labels, losses.label_loss)
        if usable is None:
            usable = losses.label_loss.isfinite() & (labels >= 0) & (labels < self.num_classes)
        for part in self.label_loss.parts(len(labels)):
            label_loss, predicted_loss, predicted, _ = (value[part] for value in losses)
            by_label = self.label_loss.place(labels[part], usable[part])
            by_prediction = self.predicted_class_loss.place(predicted, usable[part])
            self.label_loss.write_(label_loss, by_label)
            self.predicted_loss.write_(predicted_loss, by_label)
            self.predicted_class_loss.write_(predicted_loss, by_prediction)

    def class_means(self) -> tuple[Float[Tensor, " num_classes"], Float[Tensor, " num_classes"]]:
        """Class means of the label loss and of label loss minus predicted loss, each ``(num_classes,)``."""
        mean_label_loss = self.label_loss.mean()
        return mean_label_loss, (mean_label_loss - self.predicted_loss.mean()).clamp_(min=0.0)

    @torch.no_grad()
    def scores(self, losses: SampleLosses, labels: Int[Tensor, " batch"]) -> scores.Scores:
        """The three scores of a batch against the rings as they are now, each of shape ``(batch,)``."""
        mean_label_loss, mean_gap = (mean.index_select(0, labels) for mean in self.class_means())
        return scores.all_scores(losses.label_loss, losses.margin, mean_label_loss, mean_gap)
