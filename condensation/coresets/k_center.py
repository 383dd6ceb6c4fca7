"""``KCenter``: rows such that none is far from one of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from condensation import greedy
from condensation.coresets.base import Chosen, FeatureCoreset, by_group


class KCenter(FeatureCoreset):
    """First the row nearest to the mean of the class, then always the row farthest from those chosen.

    The largest distance from a row to the nearest chosen one is at most twice the least possible. The first ``m`` rows
    of a class are what ``ipc=m`` would choose. Equals go to the lowest row. It seeks outliers, so under label noise it
    keeps mislabelled rows: clean first.

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, or over all rows.
        features: What to look at, a :class:`~condensation.coresets.features.Features` or an array of shape
            ``(n_samples, n_features)``; by default :class:`~condensation.coresets.features.Pixels`. The published
            figures look at :class:`~condensation.coresets.features.NetworkFeatures`.
        random_state: Of the features, where they are random.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.

    Source:
        Gonzalez 1985; Sener, Savarese 2018.

    Example:
        >>> KCenter(ipc=3).fit([[0.0], [4.0], [5.0], [11.0]], [0, 0, 0, 0]).sample_indices_
        array([2, 3, 0])
    """

    def _pick(self, x: Tensor, groups: Tensor, counts: Sequence[int], seed: int, weights: Tensor | None) -> Chosen:
        return by_group(groups, counts, lambda rows, k: Chosen(greedy.k_center(x[rows.to(x.device)], k).indices))
