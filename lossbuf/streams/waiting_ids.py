"""The ids of the rows that a stream has taken and not yet written, in the order in which they came."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

Ids = Tensor | list[str]
"""Ids of some rows: whole numbers, shape ``(batch,)``, or texts."""


class WaitingIds:
    """A queue of ids, put in batch by batch and taken out in any number."""

    def __init__(self) -> None:
        self._parts: deque[Ids] = deque()

    def put(self, ids: Ids) -> None:
        """Add the ids of a batch."""
        self._parts.append(ids)

    def take(self, size: int, device: torch.device) -> Ids:
        """Remove the first ids, which must be ``size`` that came in whole batches; numbers lie on ``device``."""
        texts, numbers = [], []
        while size > 0:
            part = self._parts.popleft()
            size -= len(part)
            if isinstance(part, Tensor):
                numbers.append(part.to(device))  # one that was loaded may lie on another
            else:
                texts += part
        return torch.cat(numbers) if numbers else texts

    def state(self) -> Ids:
        """All that wait, on the CPU."""
        numbers = [part.cpu() for part in self._parts if isinstance(part, Tensor)]
        texts = [text for part in self._parts if isinstance(part, list) for text in part]
        return torch.cat(numbers) if numbers else texts

    def load(self, ids: Ids) -> None:
        """Restore what :meth:`state` gave."""
        self._parts = deque([ids] if len(ids) else [])
