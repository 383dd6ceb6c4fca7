"""The distribution of any number of scores in constant memory, and their exact values at chosen ranks in two passes.

The bits of a float32, read as an integer that has its sign, are in the order of the numbers. Scores are counted by the
leading ones of these bits; a second pass counts the few bits left over inside the bins of interest, and is exact.
Counts may be added, so neither the order of the scores nor how they are cut into parts matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossbuf import checks

_LOW_BITS = 12
_HALF = 1 << (_LOW_BITS - 1)
_INFINITE = 0x7F800000
_ZERO_BIN = _INFINITE >> _LOW_BITS
"""Bin of 0, and the number of bins on either side of it."""


class ScoreSketch:
    """Counts of scores by the sign, exponent and first 11 bits of the fraction of their float32 value.

    A bin lies around a value whose other 12 bits are 0 and is at most 2**-11 of it wide, so that values rounded to
    their bins are off by at most 2**-12 of themselves. The counts take 8 MB, however many scores there are.

    Example:
        >>> sketch = ScoreSketch()
        >>> sketch.update([0.5, -3.0, 0.25])
        >>> sketch.quantile(0.5), sketch.count_above(0.0)
        (0.25, 2)
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * _ZERO_BIN + 1, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def update(self, values: ArrayLike) -> None:
        """Count scores, shape ``(n,)``; NaN, a row never seen, does not count.

        Raises:
            ValueError: If the shape differs or a value is infinite.
        """
        bins, _ = _places(values)
        if len(bins):
            low = int(bins.min())
            found = np.bincount(bins - low)
            self.counts[low : low + len(found)] += found

    def merge(self, other: ScoreSketch) -> None:
        """Count all that another sketch counted."""
        self.counts += other.counts

    def points(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The middles of all bins with scores, ascending, and how many lie there; each of shape ``(n_points,)``."""
        bins = np.flatnonzero(self.counts)
        return _value(bins << _LOW_BITS), self.counts[bins]

    def quantile(self, q: float) -> float:
        """The score at rank ``floor(q (n - 1))``, to within 2**-12 of itself; NaN where there are none.

        Raises:
            ValueError: If ``q`` is not in [0, 1].
        """
        checks.rate("q", q)
        size = len(self)
        return float(_value(self.bin_of([int(q * (size - 1))]) << _LOW_BITS)[0]) if size else float("nan")

    def count_above(self, value: float) -> int:
        """How many scores lie in bins above that of ``value``.

        Raises:
            ValueError: If it is not finite.
        """
        bins, _ = _places([value])
        if not len(bins):
            raise ValueError(checks.problem("value", "must be a finite number", value))
        return int(self.counts[int(bins[0]) + 1 :].sum())

    def bin_of(self, ranks: Sequence[int]) -> NDArray[np.int64]:
        """Bins of the scores at some ranks, 0 that of the least, shape ``(n_ranks,)``."""
        return np.searchsorted(np.cumsum(self.counts), np.asarray(ranks), side="right")


class ExactScores:
    """The scores at some ranks, exactly: a second pass over what a sketch has counted.

    Args:
        sketch: Of all scores.
        ranks: Which of them in ascending order, from 0.

    Raises:
        ValueError: If there are fewer scores.

    Example:
        >>> sketch, scores = ScoreSketch(), [0.3, 0.1, 0.2]
        >>> sketch.update(scores)
        >>> exact = ExactScores(sketch, [1])
        >>> exact.update(scores)
        >>> exact.values()
        array([0.2], dtype=float32)
    """

    def __init__(self, sketch: ScoreSketch, ranks: Sequence[int]) -> None:
        size = len(sketch)
        if any(not 0 <= rank < size for rank in ranks):
            raise ValueError(checks.problem("ranks", f"must lie in [0, {size}), the number of scores", list(ranks)))
        bins = sketch.bin_of(ranks)
        self._bins, self._which = np.unique(bins, return_inverse=True)
        before = np.cumsum(sketch.counts)[bins] - sketch.counts[bins]
        self._size, self._ranks, self._before = size, np.asarray(ranks, dtype=np.int64), before
        self._counts = np.zeros((len(self._bins), 1 << _LOW_BITS), dtype=np.int64)
        self._expected = sketch.counts[self._bins]

    def update(self, values: ArrayLike) -> None:
        """Look at scores that the sketch has counted, all of them once, in any order."""
        bins, rest = _places(values)
        place = np.searchsorted(self._bins, bins)
        hit = np.append(self._bins, -1)[place] == bins
        code = (place[hit] << _LOW_BITS) + rest[hit]
        self._counts += np.bincount(code, minlength=self._counts.size).reshape(self._counts.shape)

    def _rests(self) -> list[int]:
        seen = self._counts.sum(1)
        if (seen != self._expected).any():
            rule = "must see all scores of the sketch once before values are read"
            raise ValueError(checks.problem("update", rule, f"{seen.sum()} of {self._expected.sum()} in these bins"))
        sums = np.cumsum(self._counts, axis=1)[self._which]
        wanted = self._ranks - self._before
        return [int(np.searchsorted(row, rank, side="right")) for row, rank in zip(sums, wanted, strict=True)]

    def values(self) -> NDArray[np.float32]:
        """The score at every rank, shape ``(n_ranks,)``.

        Raises:
            ValueError: If not all scores came to :meth:`update`, or some twice.
        """
        rests = np.array(self._rests(), dtype=np.int64)
        return _value((self._bins[self._which] << _LOW_BITS) + rests - _HALF)

    def above(self, place: int) -> tuple[int, int]:
        """How many scores lie above the one at ``ranks[place]``, and how many are equal to it."""
        rest, counts = self._rests()[place], self._counts[self._which[place]]
        below = int(self._before[place] + counts[:rest].sum())
        return self._size - below - int(counts[rest]), int(counts[rest])


def _places(values: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bin, from 0, and place in the bin, from 0, of every value that is not NaN."""
    scores: NDArray[Any] = np.asarray(values, dtype=np.float32)
    if scores.ndim != 1:
        raise ValueError(checks.problem("values", "must have shape (n,)", f"shape {scores.shape}"))
    if np.isinf(scores).any():
        raise ValueError(checks.problem("values", "must be finite, or NaN for rows never seen", "infinite values"))
    bits = scores[~np.isnan(scores)].view(np.int32).astype(np.int64)
    ordered = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits) + (_INFINITE + _HALF)
    return ordered >> _LOW_BITS, ordered & ((1 << _LOW_BITS) - 1)


def _value(ordered: NDArray[np.int64]) -> NDArray[np.float32]:
    """What :func:`_places` was given, from ``(bin << 12) + place - 2**11``; the nearest number where there is none."""
    signed = np.clip(ordered - _INFINITE, 1 - _INFINITE, _INFINITE - 1)
    bits = np.where(signed < 0, -signed | 0x80000000, signed)
    return bits.astype(np.uint32).view(np.float32)
