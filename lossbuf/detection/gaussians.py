"""Two Gaussians on a line, fitted to weighted points by expectation and maximisation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

ITERATIONS = 100
TOLERANCE = 1e-4
REGULARISATION = 5e-4
_TINY = 10 * np.finfo(np.float64).eps


class TwoGaussians(NamedTuple):
    """The components, that of the lower mean first; each of shape ``(2,)``."""

    means: Vector
    variances: Vector
    weights: Vector

    def log_heights(self, points: Vector) -> Vector:
        """Logarithm of each component's weight times its density, shape ``(2, n_points)``."""
        means, variances, weights = (part[:, None] for part in self)
        return np.log(weights) - 0.5 * (np.log(2 * np.pi * variances) + (points - means) ** 2 / variances)


def two_gaussians(points: Vector, weights: Vector) -> TwoGaussians:
    """Fit two Gaussians to points that lie in [0, 1], ascending.

    The fit starts from the two clusters of least variance, with the 10 and 90 percentiles as means where they differ,
    and ends when the mean log-likelihood changes by less than :data:`TOLERANCE`. The variances are made
    :data:`REGULARISATION` larger.

    Args:
        points: Ascending, not all the same, shape ``(n_points,)``.
        weights: How often each point comes, above 0, shape ``(n_points,)``.

    Example:
        >>> two_gaussians(np.array([0.0, 0.1, 0.9, 1.0]), np.array([3.0, 3.0, 1.0, 1.0])).weights
        array([0.75, 0.25])
    """
    total = weights.sum()
    upper = _upper_cluster(points, weights)
    found = _maximised(points, weights, np.stack([~upper, upper]).astype(np.float64))
    cumulative = np.cumsum(weights)
    start = points[np.minimum(np.searchsorted(cumulative, [0.1 * total, 0.9 * total]), len(points) - 1)]
    if start[1] > start[0]:
        found = found._replace(means=start)
    before = -np.inf
    for _ in range(ITERATIONS):
        log_heights = found.log_heights(points)
        log_likelihood = np.logaddexp(log_heights[0], log_heights[1])
        found = _maximised(points, weights, np.exp(log_heights - log_likelihood))
        now = float(log_likelihood @ weights / total)
        if abs(now - before) < TOLERANCE:
            break
        before = now
    order = np.argsort(found.means, kind="stable")
    return TwoGaussians(*(part[order] for part in found))


def _upper_cluster(points: Vector, weights: Vector) -> NDArray[np.bool_]:
    """True for the points of the upper of two clusters, parted where the variance between them is largest."""
    below = np.cumsum(weights)[:-1]
    sums = np.cumsum(weights * (points - points @ weights / weights.sum()))[:-1]
    between = np.where(points[1:] > points[:-1], sums**2 / (below * (weights.sum() - below)), -1.0)
    return np.arange(len(points)) > np.argmax(between)


def _maximised(points: Vector, weights: Vector, shares: Vector) -> TwoGaussians:
    """The components that are likeliest where each point belongs to them by ``shares``, shape ``(2, n_points)``."""
    shares = shares * weights
    sizes = shares.sum(1) + _TINY
    means = (shares @ points) / sizes
    variances = (shares * (points - means[:, None]) ** 2).sum(1) / sizes + REGULARISATION
    return TwoGaussians(means, variances, sizes / sizes.sum())
