"""Several rankings of the same rows made one: for noise that is even, where no single statistic orders rows best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossbuf import checks
from lossbuf.recording.scores import suspicion_order

BESIDE_POSTERIOR = ("aum", "score")
"""Statistics that are averaged with the posterior where suspects were dropped while training."""

INSTEAD_OF_POSTERIOR = ("aum", "score", "score3", "wrong_count")
"""Statistics that are averaged where nothing was dropped: by then the network has learnt wrong labels by heart, and the
posterior believes its outputs more than these do."""


def mean_place(rankings: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """The mean place of every row in several rankings, equals in one of them sharing theirs.

    Args:
        rankings: Each higher where a row is more suspect, shape ``(n_samples,)``; NaN in the same rows, those never
            seen.

    Returns:
        Higher is more suspect, NaN for rows never seen, shape ``(n_samples,)``.

    Raises:
        ValueError: If there is none, or the shapes differ.

    Example:
        >>> mean_place([[0.1, 0.2, 0.9], [5.0, 5.0, 7.0]])
        array([1.25, 1.75, 3.  ])
    """
    from scipy.stats import rankdata  # slow to import

    values = [np.asarray(ranking, dtype=np.float64) for ranking in rankings]
    if not values or any(value.ndim != 1 or value.shape != values[0].shape for value in values):
        shapes = ", ".join(str(value.shape) for value in values)
        raise ValueError(checks.problem("rankings", "must be of one shape (n_samples,)", shapes or "none"))
    return np.mean([rankdata(value, nan_policy="omit") for value in values], axis=0)


def in_order_of(values: NDArray[np.float32], places: ArrayLike, tie_break: ArrayLike) -> NDArray[np.float32]:
    """The same values, dealt anew: the highest to the row with the highest place, and so on.

    So a ranking can be mended without a change to how many rows are held for wrong, and with which probability.

    Args:
        values: To deal, NaN for rows never seen, shape ``(n_samples,)``.
        places: Higher is more suspect, NaN in the same rows, shape ``(n_samples,)``.
        tie_break: Decides between equals, higher first, shape ``(n_samples,)``.

    Example:
        >>> in_order_of(np.array([4.0, -1.0, 2.0], dtype=np.float32), [1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
        array([-1.,  2.,  4.], dtype=float32)
    """
    dealt = values.copy()
    seen = int((~np.isnan(values)).sum())
    dealt[suspicion_order(places, tie_break)[:seen]] = -np.sort(-values[~np.isnan(values)])
    return dealt
