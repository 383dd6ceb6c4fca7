"""score, score2 and score3: how much more a sample loses than its class does. Pure functions; higher is more suspect.

``gap`` is label loss minus predicted loss, at least 0, and exactly 0 wherever the prediction is the given label: score2
and score3 then tie. Ties are broken by the label loss (:func:`suspicion_order`).

Every denominator is a class mean of the recent losses. Late in training it goes to 0, so it has a floor of
:data:`FLOOR` nats; the mean of an empty ring (NaN) is taken as 1, which leaves the numerator as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

FLOOR = 1e-2
"""Smallest denominator, in nats."""


class Scores(NamedTuple):
    """The three scores of a batch, each of shape ``(batch,)``."""

    score: Float[Tensor, " batch"]
    score2: Float[Tensor, " batch"]
    score3: Float[Tensor, " batch"]


def label_gap(margin: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Label loss minus predicted loss, in nats: the margin's negative part, shape ``(batch,)``."""
    return (-margin).clamp(min=0.0)


def _denominator(mean: Tensor) -> Tensor:
    return mean.nan_to_num(nan=1.0).clamp(min=FLOOR)


def score(label_loss: Float[Tensor, " batch"], mean_label_loss: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Label loss over the mean label loss of the sample's class.

    Args:
        label_loss: In nats, shape ``(batch,)``.
        mean_label_loss: The class mean for each sample, in nats, shape ``(batch,)``.

    Example:
        >>> import torch
        >>> score(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0]))
        tensor([1.5000, 0.5000])
    """
    return label_loss / _denominator(mean_label_loss)


def score2(gap: Float[Tensor, " batch"], mean_label_loss: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Label loss minus predicted loss, over the mean label loss of the sample's class.

    Args:
        gap: Label loss minus predicted loss, in nats, shape ``(batch,)``.
        mean_label_loss: The class mean for each sample, in nats, shape ``(batch,)``.
    """
    return gap / _denominator(mean_label_loss)


def score3(gap: Float[Tensor, " batch"], mean_gap: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Label loss minus predicted loss, over the class mean of the same.

    Args:
        gap: Label loss minus predicted loss, in nats, shape ``(batch,)``.
        mean_gap: Its class mean for each sample, in nats, shape ``(batch,)``.
    """
    return gap / _denominator(mean_gap)


def all_scores(label_loss: Tensor, margin: Tensor, mean_label_loss: Tensor, mean_gap: Tensor) -> Scores:
    """The three scores at once; every argument and result of shape ``(batch,)``."""
    gap = label_gap(margin)
    return Scores(score(label_loss, mean_label_loss), score2(gap, mean_label_loss), score3(gap, mean_gap))


def suspicion_order(suspicion: ArrayLike, tie_break: ArrayLike) -> NDArray[np.int64]:
    """Rows from most to least suspect.

    Args:
        suspicion: Higher is more suspect, shape ``(n_samples,)``; NaN, a row never seen, comes last.
        tie_break: Decides between equals, higher first, shape ``(n_samples,)``; then the lower row comes first.

    Example:
        >>> suspicion_order([0.0, 2.0, 0.0], [0.1, 0.0, 0.3])
        array([1, 2, 0])
    """
    worst_last = np.nan_to_num(np.asarray(suspicion, dtype=np.float64), nan=-np.inf)
    ties = np.nan_to_num(np.asarray(tie_break, dtype=np.float64), nan=-np.inf)
    return np.lexsort((-ties, -worst_last))
