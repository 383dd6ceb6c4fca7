"""Where to cut: scores -> threshold, suspect mask and an estimate of the noise rate, through one interface.

Every rule is called as ``rule(suspicion, tie_break)`` and gives a :class:`Cut`. Rows never seen (NaN) are no suspects
and count in no rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossbuf import checks
from lossbuf.detection.gaussians import two_gaussians
from lossbuf.recording.scores import suspicion_order

LARGEST = 1e300
"""Larger suspicions are refused like infinite ones: differences of them would overflow."""

EXACT_ROWS = 2**17
"""Rows of which :class:`Mixture` looks at every one; of more it counts how many lie where."""

LEAST_SUSPECT = 0.25
"""Probability of being wrong below which :class:`MaxF1` holds no label for a suspect."""

GRID = 2**14
"""Steps of that grid."""


class Cut(NamedTuple):
    """Where a rule cut.

    Attributes:
        threshold: Suspects lie at it or above; infinite where there are none.
        noise_rate: Estimated share of wrong labels, in [0, 1].
        suspect_mask: True for suspects, shape ``(n_samples,)``.
    """

    threshold: float
    noise_rate: float
    suspect_mask: NDArray[np.bool_]


@runtime_checkable
class CutRule(Protocol):
    """Anything that turns suspicions into a :class:`Cut`."""

    def __call__(self, suspicion: ArrayLike, tie_break: ArrayLike | None = None) -> Cut: ...


@dataclass(frozen=True)
class KnownRate:
    """Cut off exactly the share ``noise_rate`` of the rows seen, worst first.

    Raises:
        ValueError: If ``noise_rate`` is not in [0, 1].

    Example:
        >>> KnownRate(0.5)([0.1, 0.9, 0.2, 0.8]).suspect_mask
        array([False,  True, False,  True])
    """

    noise_rate: float

    def __post_init__(self) -> None:
        checks.rate("noise_rate", self.noise_rate)

    def __call__(self, suspicion: ArrayLike, tie_break: ArrayLike | None = None) -> Cut:
        """Apply the rule to suspicions of shape ``(n_samples,)``; ``tie_break``, as many, decides between equals."""
        values = _checked(suspicion)
        if tie_break is not None and np.shape(tie_break) != values.shape:
            rule = f"must have shape {values.shape} as `suspicion` has"
            raise ValueError(checks.problem("tie_break", rule, f"shape {np.shape(tie_break)}"))
        known = values[~np.isnan(values)]
        count = round(self.noise_rate * len(known))
        if not count:
            return _no_cut(len(values))._replace(noise_rate=float(self.noise_rate))
        threshold = np.partition(known, len(known) - count)[len(known) - count]
        mask = values > threshold
        equal = np.flatnonzero(values == threshold)
        ties = values[equal] if tie_break is None else np.asarray(tie_break)[equal]
        mask[equal[suspicion_order(values[equal], ties)[: count - int(mask.sum())]]] = True
        return Cut(float(threshold), float(self.noise_rate), mask)


@dataclass(frozen=True)
class Mixture:
    """Cut where a row belongs to the upper of two Gaussians with a probability above one half.

    The noise rate is the upper component's weight. Values are scaled to [0, 1] between their 0.1 and 99.9 percentiles
    first, so that a few outliers do not make a component of their own. Of more than :data:`EXACT_ROWS` rows only the
    counts on a grid of :data:`GRID` steps between the percentiles are used, so that a stream of any length has the same
    cut as the same values in memory (:mod:`lossbuf.streams`).

    Source:
        Li, Socher, Hoi 2020, "DivideMix" (2 components, 10 iterations, tolerance 1e-2, regularisation 5e-4).

    Differs from the paper:
        100 iterations, percentiles instead of extremes, and no cut on the far side of the lower component.
    """

    def __call__(self, suspicion: ArrayLike, tie_break: ArrayLike | None = None) -> Cut:
        """Apply the rule to suspicions of shape ``(n_samples,)``; there are no ties to break."""
        values, known = _spread(suspicion)
        if known is None:
            return _no_cut(len(values))
        ranks = self.ranks(len(known))
        span = self.span(np.partition(known, sorted(set(ranks)))[list(ranks)], len(known))
        if len(known) > EXACT_ROWS:
            threshold, rate = self.fit_grid(self.grid_counts(known, span), span)
        else:
            threshold, rate = self._fit(np.sort(self._scaled(known, span)), np.ones(len(known)), span)
        return _cut_at(values, threshold, rate)

    @staticmethod
    def ranks(size: int) -> tuple[int, ...]:
        """Which of ``size`` values in ascending order :meth:`span` needs."""
        low, high = 0.001 * (size - 1), 0.999 * (size - 1)
        return (0, math.floor(low), math.ceil(low), math.floor(high), math.ceil(high), size - 1)

    @staticmethod
    def span(at_ranks: NDArray[np.float64], size: int) -> tuple[float, float]:
        """The 0.1 and 99.9 percentiles, or the extremes where these are the same.

        Args:
            at_ranks: The values at :meth:`ranks`.
            size: Of how many.
        """
        least, *around, most = at_ranks.tolist()
        low, high = (
            below + (above - below) * (q * (size - 1) % 1)
            for q, below, above in ((0.001, *around[:2]), (0.999, *around[2:]))
        )
        return (low, high) if high > low else (least, most)

    @staticmethod
    def _scaled(values: NDArray[np.float64], span: tuple[float, float]) -> NDArray[np.float64]:
        low, high = span
        return np.clip((values - low) / (high - low), 0.0, 1.0)

    def grid_counts(self, values: NDArray[np.float64], span: tuple[float, float]) -> NDArray[np.int64]:
        """How many values lie at each step of the grid, shape ``(GRID + 1,)``; counts of parts may be added."""
        return np.bincount(np.rint(self._scaled(values, span) * GRID).astype(np.int64), minlength=GRID + 1)

    def fit_grid(self, counts: NDArray[np.int64], span: tuple[float, float]) -> tuple[float, float]:
        """Threshold, infinite where there is no cut, and noise rate from :meth:`grid_counts`."""
        steps = np.flatnonzero(counts)
        return self._fit(steps / GRID, counts[steps].astype(np.float64), span)

    @staticmethod
    def _fit(
        points: NDArray[np.float64], weights: NDArray[np.float64], span: tuple[float, float]
    ) -> tuple[float, float]:
        found = two_gaussians(points, weights)
        # Between the means one density falls and the other rises: one crossing, found on a grid.
        grid = np.linspace(found.means[0], found.means[1], 1001)
        log_heights = found.log_heights(grid)
        above = log_heights[1] > log_heights[0]
        if not above.any():  # the lower component covers the upper one
            return float("inf"), 0.0
        low, high = span
        return float(low + grid[np.argmax(above)] * (high - low)), float(found.weights[1])


@dataclass(frozen=True)
class MaxFDR:
    """Cut as low as the expected share of right labels among the suspects allows, for log-odds of a wrong label.

    The noise rate is the mean probability.

    Args:
        max_fdr: Largest false-discovery rate, the share of suspects whose label is right after all, in [0, 1].

    Raises:
        ValueError: If it is not.

    Example:
        >>> MaxFDR(0.1)([-2.0, 3.0, 0.1]).suspect_mask
        array([False,  True, False])
    """

    max_fdr: float

    def __post_init__(self) -> None:
        checks.rate("max_fdr", self.max_fdr)

    def __call__(self, suspicion: ArrayLike, tie_break: ArrayLike | None = None) -> Cut:
        """Apply the rule to log-odds of shape ``(n_samples,)``; equals are all suspects or none."""
        from scipy.special import expit  # slow to import

        values = _checked(suspicion)
        worst_first = -np.sort(-values[~np.isnan(values)])
        if not len(worst_first):
            return _no_cut(len(values))
        expected = np.cumsum(expit(-worst_first)) / np.arange(1, len(worst_first) + 1)
        ends = np.append(worst_first[1:] < worst_first[:-1], True)  # a cut may not part equals
        allowed = np.flatnonzero((expected <= self.max_fdr) & ends)
        threshold = float(worst_first[allowed[-1]]) if len(allowed) else float("inf")
        return _cut_at(values, threshold, float(expit(worst_first).mean()))


@dataclass(frozen=True)
class MaxF1:
    """Cut where the expected F1 score of the suspects is highest, for log-odds of a wrong label.

    F1 is twice the wrong labels found over suspects and wrong labels together. Its best threshold is a probability of
    half that F1: near even odds where right and wrong are told apart well, less where they are not, but never under
    :data:`LEAST_SUSPECT`, so that labels of which none is likely wrong are no suspects. The noise rate is the share of
    rows that are more likely wrong than right.

    Source:
        Lipton, Elkan, Narayanaswamy 2014, "Optimal Thresholding of Classifiers to Maximize F1 Measure".

    Example:
        >>> MaxF1()([-9.0, 3.0, -0.2, -8.0]).suspect_mask
        array([False,  True,  True, False])
    """

    def __call__(self, suspicion: ArrayLike, tie_break: ArrayLike | None = None) -> Cut:
        """Apply the rule to log-odds of shape ``(n_samples,)``; equals are all suspects or none."""
        from scipy.special import expit, logit  # slow to import

        values = _checked(suspicion)
        worst_first = -np.sort(-values[~np.isnan(values)])
        if not len(worst_first):
            return _no_cut(len(values))
        wrong = expit(worst_first)
        expected = 2 * np.cumsum(wrong) / (np.arange(1, len(wrong) + 1) + wrong.sum())
        ends = np.append(worst_first[1:] < worst_first[:-1], True)  # a cut may not part equals
        allowed = np.flatnonzero((worst_first >= logit(LEAST_SUSPECT)) & ends)
        threshold = float(worst_first[allowed[np.argmax(expected[allowed])]]) if len(allowed) else float("inf")
        return _cut_at(values, threshold, float((worst_first > 0).mean()))


@dataclass(frozen=True)
class Otsu:
    """Cut where the variance between the two sides is largest; the noise rate is the share above.

    Exact: every midpoint between neighbouring values is tried.

    Source:
        Otsu 1979, "A Threshold Selection Method from Gray-Level Histograms".
    """

    def __call__(self, suspicion: ArrayLike, tie_break: ArrayLike | None = None) -> Cut:
        """Apply the rule to suspicions of shape ``(n_samples,)``; there are no ties to break."""
        values, known = _spread(suspicion)
        if known is None:
            return _no_cut(len(values))
        known = np.sort(known)
        # Times a power of two, which rounds nothing: squares of large values overflow, of small ones vanish.
        scaled = np.ldexp(known, -int(np.frexp(np.abs(known).max())[1]))
        ordered = scaled - scaled.mean()
        below = np.arange(1, len(ordered))
        sums = np.cumsum(ordered)[:-1]
        # With the mean at 0, the variance between the sides is sum^2 n / (below above), up to a constant.
        between = np.where(ordered[1:] > ordered[:-1], sums**2 / (below * (len(ordered) - below)), -1.0)
        cut = int(np.argmax(between))
        low, high = known[cut], known[cut + 1]
        middle = low + (high - low) / 2
        # Between neighbouring floats there is no midpoint.
        return _cut_at(values, float(middle if middle > low else high), 1 - (cut + 1) / len(known))


def with_floor(cut: Cut, suspicion: ArrayLike, labels: ArrayLike, floor: float | NDArray[np.float64]) -> Cut:
    """The cut without the least suspicious rows of every given class, so that at least the share ``floor`` is kept.

    Rows never seen (NaN) do not count.

    Args:
        cut: What a rule gave.
        suspicion: The values it was given, shape ``(n_samples,)``.
        labels: Given labels, shape ``(n_samples,)``.
        floor: Share of each class that is not flagged, in [0, 1], one for all classes or one for each, shape
            ``(num_classes,)``; at least one row of a class is kept where it is above 0.

    Raises:
        ValueError: If ``floor`` is out of range.
    """
    floors = np.atleast_1d(np.asarray(floor, dtype=np.float64))
    for share in (float(floors.min()), float(floors.max())):
        checks.rate("floor", share)
    values, given = np.asarray(suspicion, dtype=np.float64), np.asarray(labels)
    if not len(values) == len(given) == len(cut.suspect_mask):
        raise ValueError(checks.problem("labels", f"must be {len(cut.suspect_mask)}, one a row of the cut", len(given)))
    mask, seen = cut.suspect_mask.copy(), ~np.isnan(values)
    sizes = np.bincount(given[seen], minlength=len(floors))
    needed = np.ceil(floors * sizes).astype(np.int64) - np.bincount(given[seen & ~mask], minlength=len(sizes))
    for label in np.flatnonzero(needed > 0):
        rows = np.flatnonzero(mask & (given == label))
        mask[rows[np.argsort(values[rows], kind="stable")[: needed[label]]]] = False
    return cut._replace(suspect_mask=mask, threshold=cut.threshold if mask.any() else float("inf"))


def _checked(suspicion: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(suspicion, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(checks.problem("suspicion", "must have shape (n_samples,)", f"shape {values.shape}"))
    if (np.abs(values) > LARGEST).any():
        rule = f"must be finite and within {LARGEST:g}, or NaN for rows never seen"
        raise ValueError(checks.problem("suspicion", rule, "infinite or larger values"))
    return values


def _spread(suspicion: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """All values, and those of rows seen, ``None`` where they do not differ."""
    values = _checked(suspicion)
    known = values[~np.isnan(values)]
    return values, known if len(known) > 1 and known.max() > known.min() else None


def _no_cut(size: int) -> Cut:
    return Cut(float("inf"), 0.0, np.zeros(size, dtype=bool))


def _cut_at(values: NDArray[np.float64], threshold: float, noise_rate: float) -> Cut:
    return Cut(threshold, noise_rate, np.nan_to_num(values, nan=-np.inf) >= threshold)
