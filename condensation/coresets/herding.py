"""``Herding``: rows whose mean stays near the mean of all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from condensation import greedy
from condensation.coresets.base import Chosen, Coreset, by_group
from condensation.features import Features, Pixels, features_of


class Herding(Coreset):
    """One row after the other, each the one that brings the mean of those chosen nearest to the mean of the class.

    The first ``m`` rows of a class are what ``ipc=m`` would choose. Equals go to the lowest row.

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, or over all rows, with the mean of all of them.
        features: What to look at, a :class:`~condensation.features.Features` or an array of shape
            ``(n_samples, n_features)``; by default :class:`~condensation.features.Pixels`. The published figures look
            at :class:`~condensation.features.NetworkFeatures`.
        random_state: Of the features, where they are random.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.

    Source:
        Welling 2009, "Herding Dynamical Weights to Learn"; Rebuffi et al. 2017 (iCaRL), whose form this is.

    Differs from the paper:
        No row is chosen twice, and features are not scaled to length 1.

    Example:
        >>> Herding(ipc=2).fit([[0.0], [4.0], [5.0], [11.0]], [0, 0, 0, 0]).sample_indices_
        array([2, 1])
    """

    def __init__(
        self,
        *,
        ipc: int | None = None,
        size: int | float | None = None,
        balanced: bool = True,
        features: Features | ArrayLike | Tensor | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.ipc = ipc
        self.size = size
        self.balanced = balanced
        self.features = features
        self.random_state = random_state

    def _choose(self, X: NDArray[Any], labels: Tensor, groups: Tensor, counts: list[int], seed: int) -> Chosen:
        x = features_of(Pixels() if self.features is None else self.features, X, labels, seed)
        return by_group(groups, counts, lambda rows, k: Chosen(greedy.herding(x[rows.to(x.device)], k)))
