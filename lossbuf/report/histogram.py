"""Histograms of kept rows and suspects, ready to be drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossbuf.report.words import count, short

WIDTH, HEIGHT = 440, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 434, 22, 172
BINS = 48

_TAIL = 0.002  # share of the values on either side that may lie beyond the ends
_FLAT = 0.08  # below it, of the highest bar, suspects could not be seen on a straight scale
_APART = 0.22  # of the height, between two ticks


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark on an axis: where it is in the drawing and what it says."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """What is drawn: outlines of the bars as SVG paths, marks, and the place of the cut.

    Attributes:
        kept: Bars of the kept rows.
        suspects: Bars of the suspects.
        x_ticks: Along the values.
        y_ticks: Along the counts.
        cut: Where the cut is; ``None`` where there is none.
        bent: Heights grow with the square root of the count.
        clipped: Values beyond the ends stand in the outermost bars.
    """

    kept: str
    suspects: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    cut: Tick | None
    bent: bool
    clipped: bool


def histogram(
    values: NDArray[np.float64], suspect_mask: NDArray[np.bool_], threshold: float | None = None
) -> Histogram | None:
    """Count kept rows and suspects along their values.

    Args:
        values: A number a row, shape ``(n_samples,)``; NaN is left out, infinite values stand at the ends.
        suspect_mask: True for suspects, shape ``(n_samples,)``.
        threshold: Cut on the values; an edge of the bars is put there. Infinite is no cut.

    Returns:
        The drawing, or ``None`` where there is no finite value.
    """
    known = ~np.isnan(values)
    values, suspect_mask = values[known], suspect_mask[known]
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    cut = threshold if threshold is not None and math.isfinite(threshold) else None
    edges = _edges(finite, cut)
    clipped = np.clip(values, edges[0], edges[-1])
    kept = np.histogram(clipped[~suspect_mask], edges)[0]
    suspects = np.histogram(clipped[suspect_mask], edges)[0]
    highest = int(max(kept.max(), suspects.max()))
    bent = bool(0 < suspects.max() < _FLAT * highest)
    scale = _Scale(highest, bent)
    return Histogram(
        kept=_bars(kept, edges, scale),
        suspects=_bars(suspects, edges, scale),
        x_ticks=[Tick(at=_x(value, edges), text=short(value)) for value in _round_values(edges[0], edges[-1])],
        y_ticks=[Tick(at=scale.y(value), text=count(value)) for value in scale.round_counts()],
        cut=None if cut is None else Tick(at=_x(cut, edges), text=short(cut)),
        bent=bent,
        clipped=bool((values < edges[0]).any() or (values > edges[-1]).any()),
    )


def _edges(finite: NDArray[np.float64], cut: float | None) -> NDArray[np.float64]:
    low, high = np.quantile(finite, [_TAIL, 1 - _TAIL])
    if cut is not None:
        low, high = min(low, cut), max(high, cut)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        room = max(abs(low), 1.0) / 2
        low, high = low - room, high + room
    width = (high - low) / BINS
    if cut is None:
        return low + width * np.arange(BINS + 1)
    before = math.ceil((cut - low) / width - 1e-6)  # so many bins from the cut reach down to `low`
    return cut + width * (np.arange(BINS + 2) - before)


def _x(value: float, edges: NDArray[np.float64]) -> float:
    return round(LEFT + (RIGHT - LEFT) * float((value - edges[0]) / (edges[-1] - edges[0])), 2)


class _Scale:
    """From counts to heights."""

    def __init__(self, highest: int, bent: bool) -> None:
        self.highest, self.power = highest, 0.5 if bent else 1.0

    def y(self, value: int) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value / self.highest) ** self.power, 2)

    def round_counts(self) -> list[int]:
        """Round counts from the highest down, far enough apart."""
        chosen, lowest = [0], BOTTOM
        above = TOP - math.inf
        for exponent in range(len(str(self.highest)), -1, -1):
            for digit in (5, 2, 1):
                value = digit * 10**exponent
                room = _APART * (BOTTOM - TOP)
                if value <= self.highest and self.y(value) - above >= room and lowest - self.y(value) >= room:
                    chosen.append(value)
                    above = self.y(value)
        return sorted(chosen)


def _bars(counts: NDArray[np.int64], edges: NDArray[np.float64], scale: _Scale) -> str:
    gap = 0.5
    parts = []
    for place in np.flatnonzero(counts):
        left, right = _x(edges[place], edges) + gap, _x(edges[place + 1], edges) - gap
        # Half a pixel at least, so that a single row can be seen.
        top = min(scale.y(int(counts[place])), BOTTOM - 0.5)
        parts.append(f"M{left:.2f} {BOTTOM}V{top:.2f}H{right:.2f}V{BOTTOM}Z")
    return "".join(parts)


def _round_values(low: float, high: float) -> list[float]:
    """Some four round numbers between two."""
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * next(digit for digit in (1, 2, 5, 10) if digit * size >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]
