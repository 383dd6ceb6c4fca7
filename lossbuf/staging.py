"""Steps are collected in a block and digested together: a step then costs three small copies."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_ROWS = 16384
BLOCK_LOGITS = 2**20


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
        self._logits = torch.empty(0, num_classes)
        self._keys = torch.empty(0, 2, dtype=torch.int64)
        self._step_of = torch.empty(0, dtype=torch.int64)

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
        """Copy a batch that fits in; ``labels`` and ``rows`` are int64."""
        if len(self._logits) != self.room(1) or self._logits.device != logits.device:
            self._allocate(logits.device)
        size = len(rows)
        self._logits.narrow(0, self.filled, size).copy_(logits)
        torch.stack((labels, rows), 1, out=self._keys.narrow(0, self.filled, size))
        self._step_of.narrow(0, self.filled, size).fill_(self.steps)
        self.filled += size

    def take(self) -> tuple[Float[Tensor, "filled num_classes"], Int[Tensor, "filled 3"]]:
        """Empty the block; its logits may be overwritten, its keys are label, row and step."""
        size, self.filled, self.steps = self.filled, 0, 0
        return self._logits[:size], torch.cat((self._keys[:size], self._step_of[:size, None]), 1)

    def _allocate(self, device: torch.device) -> None:
        logits, keys, step_of = self._logits, self._keys, self._step_of
        room = self.room(1)
        self._logits = torch.zeros(room, self.num_classes, device=device)
        self._keys = torch.zeros(room, 2, dtype=torch.int64, device=device)
        self._step_of = torch.zeros(room, dtype=torch.int64, device=device)
        for new, old in ((self._logits, logits), (self._keys, keys), (self._step_of, step_of)):
            new[: self.filled].copy_(old[: self.filled])

    def state(self) -> dict[str, Any]:
        """All that :meth:`load` needs."""
        parts = {"logits": self._logits, "keys": self._keys, "step_of": self._step_of}
        filled = {name: part[: self.filled].clone() for name, part in parts.items()}
        return {"filled": self.filled, "steps": self.steps, "largest": self.largest, **filled}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` gave."""
        device = self._logits.device
        self.filled, self.steps, self.largest = state["filled"], state["steps"], state["largest"]
        self._logits, self._keys, self._step_of = (state[name] for name in ("logits", "keys", "step_of"))
        self._allocate(device)
