"""What the page says of classes: the transition matrix, and rows and suspects a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossbuf.report.words import percent

MAX_HEAT = 30
"""Classes of which a whole matrix can be taken in."""

MAX_FLOWS = 30
"""Entries listed where it is larger."""

MAX_CLASSES = 60
"""Classes listed with their rows."""

LEVELS = 20
"""Shades of a heat map."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of the heat map: what it says, its shade from 0 to :data:`LEVELS`, and whether it is on the diagonal."""

    text: str
    level: int
    diagonal: bool


@dataclass(frozen=True, kw_only=True)
class Flow:
    """An entry off the diagonal: ``share`` of the rows of one class are called the other."""

    true: str
    given: str
    share: str
    width: float


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Rows of a given class. Widths are shares of the drawing's width."""

    name: str
    rows: int
    suspects: int
    share: str
    kept_width: float
    suspect_width: float


def heat_map(transition: NDArray[np.float64]) -> list[list[Cell]]:
    """Shade a transition matrix, its diagonal apart.

    Off the diagonal the largest entry has the darkest shade, so that structure shows where there is little noise; on
    it shades go from 0 to 1.

    Args:
        transition: P(given | true), shape ``(num_classes, num_classes)``.
    """
    digits = 1 if len(transition) <= 12 else 0
    largest = max(float((transition * ~np.eye(len(transition), dtype=bool)).max()), 1e-9)
    return [
        [_cell(float(value), row == column, largest, digits) for column, value in enumerate(values)]
        for row, values in enumerate(transition)
    ]


def _cell(value: float, diagonal: bool, largest: float, digits: int) -> Cell:
    text = f"{100 * value:.{digits}f}"
    shade = value if diagonal else value / largest
    nothing = not diagonal and float(text) == 0
    return Cell(
        text="·" if nothing else text, level=0 if nothing else round(LEVELS * min(shade, 1.0)), diagonal=diagonal
    )


def largest_flows(transition: NDArray[np.float64], names: list[str]) -> list[Flow]:
    """The largest entries off the diagonal, at most :data:`MAX_FLOWS`, largest first.

    Args:
        transition: P(given | true), shape ``(num_classes, num_classes)``.
        names: A name a class.
    """
    off = transition.copy()
    np.fill_diagonal(off, 0.0)
    flat = off.ravel()
    # The largest of each row bound the result from below, at the cost of one look at every entry.
    least = np.sort(off.max(1))[-MAX_FLOWS] if len(off) >= MAX_FLOWS else 0.0
    some = np.flatnonzero((flat >= least) & (flat > 0))
    order = some[np.argsort(-flat[some], kind="stable")][:MAX_FLOWS]
    most = float(flat[order].max(initial=0.0))
    found = []
    for place in order.tolist():
        true, given = divmod(place, len(names))
        share = float(flat[place])
        width = round(100 * share / most, 2)
        found.append(Flow(true=names[true], given=names[given], share=percent(share), width=width))
    return found


def class_counts(
    given: NDArray[np.int64], suspect_mask: NDArray[np.bool_], names: list[str]
) -> tuple[list[ClassCount], int]:
    """Rows and suspects of every given class.

    Args:
        given: Given labels, shape ``(n_samples,)``.
        suspect_mask: True for suspects, shape ``(n_samples,)``.
        names: A name a class.

    Returns:
        The classes in their order, or where they are more than :data:`MAX_CLASSES` those with the most suspects; and
        how many are left out.
    """
    rows = np.bincount(given, minlength=len(names))
    suspects = np.bincount(given[suspect_mask], minlength=len(names))
    shown = np.arange(len(names))
    if len(names) > MAX_CLASSES:
        shown = np.lexsort((shown, -rows, -suspects))[:MAX_CLASSES]
    most = rows[shown].max()
    found = [
        ClassCount(
            name=names[label],
            rows=int(rows[label]),
            suspects=int(suspects[label]),
            share=percent(suspects[label] / rows[label]) if rows[label] else "none",
            kept_width=round(100 * float((rows[label] - suspects[label]) / most), 2),
            suspect_width=round(100 * float(suspects[label] / most), 2),
        )
        for label in shown.tolist()
    ]
    return found, len(names) - len(found)
