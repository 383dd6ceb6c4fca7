"""``Herding``: rows whose mean stays near the mean of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from condensation import greedy
from condensation.coresets.base import Chosen, FeatureCoreset, by_group


class Herding(FeatureCoreset):
    """One row after the other, each the one that brings the mean of those chosen nearest to the mean of the class.

    The first ``m`` rows of a class are what ``ipc=m`` would choose. Equals go to the lowest row.

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, or over all rows, with the mean of all of them.
        features: What to look at, a :class:`~condensation.coresets.features.Features` or an array of shape
            ``(n_samples, n_features)``; by default :class:`~condensation.coresets.features.Pixels`. The published
            figures look at :class:`~condensation.coresets.features.NetworkFeatures`.
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

    def _pick(self, x: Tensor, groups: Tensor, counts: Sequence[int], seed: int, weights: Tensor | None) -> Chosen:
        def herd(rows: Int[Tensor, " n_rows"], k: int) -> Chosen:
            given = None if weights is None else weights[rows]
            total = float(len(rows) if given is None else given.sum())
            # Their mean is nearly that of the rows, so that each stands for as many.
            stands_for = torch.full((k,), total / k, dtype=torch.float64)
            return Chosen(greedy.herding(x[rows.to(x.device)], k, weights=given), stands_for)

        return by_group(groups, counts, herd)
