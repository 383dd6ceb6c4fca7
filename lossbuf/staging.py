"""Steps are collected in a block and digested together: a step then costs three small copies."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_ROWS = 16384
BLOCK_LOGITS = 2**20


class Staged(NamedTuple):
    """What a block held.

    Attributes:
        logits: Float32, shape ``(filled, num_classes)``; may be overwritten.
        labels: As given, int64, shape ``(filled,)``.
        rows: Int64, shape ``(filled,)``.
        steps: Number of each row's step in the block, int64, on the CPU, shape ``(filled,)``.
    """

    logits: Float[Tensor, "filled num_classes"]
    labels: Int[Tensor, " filled"]
    rows: Int[Tensor, " filled"]
    steps: Int[Tensor, " filled"]


class Stage:
    """A block of logits, labels and rows on the training device.

    Args:
        num_classes: Number of classes; the block holds at most ``BLOCK_LOGITS`` logits and ``BLOCK_ROWS`` rows, but
            always the largest step there was.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.capacity = max(1, min(BLOCK_ROWS, BLOCK_LOGITS // num_classes))
        self.filled = 0
        self.steps = 0
        self.largest = 0
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._step_sizes: list[list[int]] = []

    def room(self, ranks: int) -> int:
        """Rows a rank may stage. The same on all ranks, and in one process ``ranks`` times as many."""
        return max(self.capacity // ranks, self.largest)

    def is_full(self, size: int, ranks: int) -> bool:
        """True where a step of the largest size so far, this one of ``size`` rows included, would not fit in.

        The size of this step alone would not do: the last steps of an epoch may differ among ranks, which would then
        not come to the collective together.
        """
        self.largest = max(self.largest, size)
        return self.filled + self.largest > self.room(ranks)

    def add(self, logits: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Copy a batch that fits in; what becomes of the batch's own memory then does not matter."""
        integers = torch.int64
        self._parts.append(
            (logits.to(torch.float32, copy=True), labels.to(integers, copy=True), rows.to(integers, copy=True))
        )
        self._step_sizes.append([self.steps, len(rows)])
        self.filled += len(rows)

    def take(self) -> Staged:
        """Empty the block."""
        staged = self._joined()
        self.filled, self.steps = 0, 0
        self._parts, self._step_sizes = [], []
        return staged

    def _joined(self) -> Staged:
        if not self._parts:
            nothing = torch.empty(0, dtype=torch.int64)
            return Staged(torch.empty(0, self.num_classes), nothing, nothing, nothing)
        device = self._parts[-1][0].device  # a part that was loaded may lie on another
        logits, labels, rows = (
            torch.cat([part.to(device) for part in parts]) for parts in zip(*self._parts, strict=True)
        )
        steps, sizes = torch.tensor(self._step_sizes).unbind(1)
        return Staged(logits, labels, rows, steps.repeat_interleave(sizes, output_size=self.filled))

    def state(self) -> dict[str, Any]:
        """All that :meth:`load` needs."""
        sizes = {"step_sizes": [list(pair) for pair in self._step_sizes]}
        cursors = {"filled": self.filled, "steps": self.steps, "largest": self.largest}
        logits, labels, rows, _ = self._joined()
        return {**cursors, **sizes, "logits": logits, "labels": labels, "rows": rows}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` gave."""
        self.filled, self.steps, self.largest = state["filled"], state["steps"], state["largest"]
        self._step_sizes = [list(pair) for pair in state["step_sizes"]]
        self._parts = [(state["logits"], state["labels"], state["rows"])] if self.filled else []
