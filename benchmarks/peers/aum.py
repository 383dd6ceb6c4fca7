"""The ``aum`` package (Pleiss et al. 2020), driven as its README does."""

from __future__ import annotations

from aum import AUMCalculator
from torch import Tensor


class AumPeer:
    """Records margins of every step; ids are the row numbers, turned into a list as the package wants them."""

    def __init__(self, folder: str) -> None:
        self.calculator = AUMCalculator(folder, compressed=True)

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Take note of a batch."""
        self.calculator.update(logits, labels, indices.tolist())
