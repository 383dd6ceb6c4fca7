"""Weights of samples in the loss: a hard filter or soft weights by suspicion, and weights of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.arrays.conversion import as_array
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


def class_weights(values: Any, num_classes: int) -> Float[Tensor, " num_classes"] | None:
    """The weights of classes in the loss, divided by the largest, as only their ratios count.

    Args:
        values: A weight per class, at least 0 and not all 0, in any container; or ``None``, which stays ``None``.
        num_classes: Number of classes.

    Raises:
        ValueError: If they are not such weights.
    """
    if values is None:
        return None
    rule = f"must be {num_classes} finite numbers of at least 0, one per class, not all of them 0"
    try:
        array = as_array(values)
    except TypeError as error:
        raise ValueError(checks.problem("class_weight", rule, error)) from error
    if array.shape != (num_classes,) or array.dtype.kind not in "iuf":
        raise ValueError(checks.problem("class_weight", rule, f"shape {array.shape} of {array.dtype}"))
    weights = array.astype(np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.max() == 0:
        raise ValueError(checks.problem("class_weight", rule, weights.tolist()))
    return torch.from_numpy((weights / weights.max()).astype(np.float32))


def with_class_weights(
    weights: Float[Tensor, " batch"],
    labels: Integer[Tensor, " batch"],
    of_classes: Float[Tensor, " num_classes"],
) -> Float[Tensor, " batch"]:
    """The weights of samples times those of their classes, as ``cross_entropy(weight=...)`` weights them.

    Example:
        >>> with_class_weights(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0, 0, 1]), torch.tensor([0.2, 1.0]))
        tensor([0.2000, 0.0000, 0.5000])
    """
    known = labels.long().clamp(0, len(of_classes) - 1)  # labels out of range are counted elsewhere
    return weights * of_classes.index_select(0, known)
