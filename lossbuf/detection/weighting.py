"""Suspicion -> sample weight: a hard filter or soft weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossbuf.detection.thresholds import Cut


def hard_weights(cut: Cut) -> NDArray[np.float32]:
    """Weight 0 for suspects and 1 for the rest, shape ``(n_samples,)``."""
    return (~cut.suspect_mask).astype(np.float32)


def soft_weights(suspicion: ArrayLike, cut: Cut) -> NDArray[np.float32]:
    """Weights that fall from 1 to 0 around the cut, one half at it.

    ``w = 1 / (1 + exp((s - threshold) / width))`` with a width of an eighth of the distance between the medians of the
    suspects and of the others, so that a clear gap gives nearly hard weights.

    Args:
        suspicion: Higher is more suspect, shape ``(n_samples,)``; NaN, a row never seen, has weight 1.
        cut: What a rule of :mod:`lossbuf.detection.thresholds` made of the same values.

    Returns:
        Weights in [0, 1], shape ``(n_samples,)``.

    Example:
        >>> soft_weights([0.0, 1.0], Cut(0.5, 0.5, np.array([False, True]))).round(2)
        array([0.98, 0.02], dtype=float32)
    """
    values = np.asarray(suspicion, dtype=np.float64)
    suspects, others = values[cut.suspect_mask], values[~cut.suspect_mask & ~np.isnan(values)]
    if not len(suspects) or not len(others):
        return hard_weights(cut)
    width = (np.median(suspects) - np.median(others)) / 8
    if width <= 0:
        return hard_weights(cut)
    with np.errstate(over="ignore"):
        weights = 1 / (1 + np.exp((values - cut.threshold) / width))
    return np.nan_to_num(weights, nan=1.0).astype(np.float32)
