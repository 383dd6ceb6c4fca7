"""Chosen rows and how well they serve all rows, and the ways to find the row that adds most: facility location."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from condensation.greedy.distances import ROWS, Distances, add_up, row_sums
from lossbuf import checks

MOST = 2**30
"""Sum of the weights, at most: times the largest distance in levels it is exact in float64."""


class Cover:
    """Chosen rows, and how far each row is from them; all in the levels of the distances.

    Args:
        distances: Of all rows.
        weights: How many rows each stands for, shape ``(n_samples,)``; by default 1.

    Raises:
        ValueError: If weights are of another shape, no integers, below 0, all 0 or more than :data:`MOST` in all.
    """

    def __init__(self, distances: Distances, weights: Int[Tensor, " n_samples"] | None = None) -> None:
        self.distances = distances
        totals = distances.totals
        # As float64, whose products and sums are exact here.
        self.weights = None if weights is None else _checked(weights, len(totals)).to(totals.device, torch.float64)
        # At first all rows are as far from being served as any two are from each other.
        self.best = torch.full_like(totals, distances.farthest, dtype=torch.int32)
        self.nearest = torch.zeros_like(totals)
        self.taken = torch.zeros_like(totals, dtype=torch.bool)
        self.indices: list[int] = []
        self.gains: list[Tensor] = []

    def add(self, row: int) -> None:
        """Choose a row."""
        distances = self.distances.row(row)
        self.gains.append(self._total((self.best - distances).clamp_(min=0)))
        self.nearest.masked_fill_(distances < self.best, len(self.indices))
        self.best = torch.minimum(self.best, distances)
        self.taken[row] = True
        self.indices.append(row)

    def gains_of(self, rows: Tensor) -> Tensor:
        """What each of some rows would add, int64."""
        gains = []
        for part in rows.split(ROWS):
            strips = self.distances.strips(part)
            gains.append(sum(self._sums(strip.neg_().add_(self.best[at]).clamp_(min=0), at) for at, strip in strips))
        return torch.cat(gains)

    def gains_of_all(self) -> Tensor:
        """What each row would add, int64, -1 for those taken; each distance is worked out once."""
        if not self.indices and self.weights is None:
            return self.distances.farthest * len(self.distances) - self.distances.totals
        gains = torch.zeros_like(self.distances.totals)
        for block in self.distances.blocks():
            by_row = (self.best[block.columns] - block.distances).clamp_(min=0)
            by_column = (self.best[block.rows].unsqueeze(1) - block.distances).clamp_(min=0)
            if self.weights is None:
                add_up(gains, block, by_row, by_column)
            else:
                gains[block.rows] += self._sums(by_row, block.columns)
                gains[block.columns][block.beyond :] += self._sums(by_column.t()[block.beyond :], block.rows)
        return gains.masked_fill_(self.taken, -1)

    def lose(self, gains: Tensor, rows: Tensor, before: Tensor) -> None:
        """Bring ``gains`` of all rows down, in place, by what serving ``rows`` better has taken from them."""
        for part in rows.split(ROWS):
            old, new = before[part].unsqueeze(1), self.best[part].unsqueeze(1)
            for at, strip in self.distances.strips(part):
                less = strip.clamp_(new, old).neg_().add_(old)
                gains[at] -= less.sum(0, dtype=torch.int32) if self.weights is None else self._sums(less.t(), part)

    def served(self) -> int:
        """The objective, in levels."""
        size = len(self.distances) if self.weights is None else int(self.weights.sum())
        return self.distances.farthest * size - int(self._total(self.best))

    def _sums(self, values: Tensor, at: slice | Tensor) -> Tensor:
        """Sums over the columns, which are rows ``at`` of the data."""
        return row_sums(values) if self.weights is None else (values.double() @ self.weights[at]).long()

    def _total(self, values: Tensor) -> Tensor:
        return values.sum() if self.weights is None else (values.double() @ self.weights).long()


def _checked(weights: Tensor, size: int) -> Tensor:
    if weights.shape != (size,) or weights.is_floating_point() or weights.is_complex():
        rule = f"must be integers of shape ({size},)"
        raise ValueError(checks.problem("weights", rule, f"{weights.dtype} of shape {tuple(weights.shape)}"))
    if int(weights.min()) < 0 or not 0 < int(weights.sum()) <= MOST:
        rule = f"must be at least 0, and 1 to {MOST} in all"
        raise ValueError(checks.problem("weights", rule, f"{int(weights.min())} to {int(weights.max())}"))
    return weights


def exact(cover: Cover) -> Iterator[int]:
    """The best rows, one after the other, with all gains worked out for each; the caller adds them."""
    while True:
        yield int(cover.gains_of_all().argmax())


def lazy(cover: Cover) -> Iterator[int]:
    """The same, with gains worked out again only where an old one, which bounds the new one, could win."""
    yield int(cover.gains_of_all().argmax())
    # Nothing is left of the first gains: all are worked out once more.
    bounds = cover.gains_of_all()
    row = int(bounds.argmax())
    pool = torch.arange(len(bounds), device=bounds.device)
    while True:
        bounds[row] = -1
        yield row
        row = _best_of(cover, bounds, pool)


def stochastic(cover: Cover, k: int, epsilon: float, generator: torch.Generator | None) -> Iterator[int]:
    """The best rows of a random sample a choice."""
    draws = torch.Generator().manual_seed(0) if generator is None else generator
    size = math.ceil(len(cover.distances) / k * math.log(1 / epsilon))
    bounds = cover.gains_of_all()
    while True:
        left = (~cover.taken).nonzero().flatten()
        sample = torch.randperm(len(left), generator=draws)[:size].sort().values
        row = _best_of(cover, bounds, left[sample.to(left.device)])
        bounds[row] = -1
        yield row


def _best_of(cover: Cover, bounds: Int64[Tensor, " n_samples"], pool: Int64[Tensor, " pool"]) -> int:
    """The row of ``pool``, ascending, with the largest gain; ``bounds``, no less than gains, are brought down."""
    upper = bounds[pool]
    stale = upper > 0  # a bound of 0 is a gain of 0
    size = 16
    while bool(stale[top := int(upper.argmax())]):
        worth = upper.masked_fill(~stale, -1).topk(min(size, len(pool))).indices
        worth = worth[stale[worth]]
        upper[worth] = cover.gains_of(pool[worth])
        stale[worth] = False
        size *= 2
    bounds[pool] = upper
    return int(pool[top])


def batched(cover: Cover) -> Iterator[int]:
    """The best rows, with all gains kept up to date."""
    gains = cover.gains_of_all()
    while True:
        row, before = int(gains.argmax()), cover.best
        yield row
        changed = (cover.best < before).nonzero().flatten()
        if 2 * len(changed) > len(gains):
            gains = cover.gains_of_all()
        else:
            cover.lose(gains, changed, before)
            gains[row] = -1
