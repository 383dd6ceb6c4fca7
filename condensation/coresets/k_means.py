"""``KMeans``: the real rows nearest to the centres of clusters."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.cluster
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from condensation.coresets.base import Chosen, Coreset, by_group
from condensation.distances import centred
from condensation.features import Features, Pixels, features_of

LARGE = 20_000
"""Rows to choose among from which on scikit-learn's MiniBatchKMeans takes the place of its KMeans."""


class KMeans(Coreset):
    """As many clusters as rows are asked for, and of each the row nearest to its centre; largest cluster first.

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, or over all rows.
        features: What to look at, a :class:`~condensation.features.Features` or an array of shape
            ``(n_samples, n_features)``; by default :class:`~condensation.features.Pixels`.
        random_state: Seed, generator or ``None``; the same seed gives the same rows.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.

    Source:
        As a baseline of condensation: Cui et al. 2022, "DC-BENCH", with features of a network.

    Example:
        >>> KMeans(ipc=2, random_state=0).fit([[0.0], [1.0], [2.0], [9.0], [9.5]], [0] * 5).sample_indices_
        array([1, 3])
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
        x = features_of(Pixels() if self.features is None else self.features, X, labels, seed).cpu()

        def clusters(rows: Int[Tensor, " n_rows"], k: int) -> Chosen:
            part = centred(x[rows]).x
            make = sklearn.cluster.KMeans if len(rows) < LARGE else sklearn.cluster.MiniBatchKMeans
            model = make(k, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some are empty
                model.fit(part.numpy())
            centres = torch.from_numpy(np.asarray(model.cluster_centers_))
            return Chosen(nearest_rows(part, centres, torch.from_numpy(np.asarray(model.labels_, dtype=np.int64))))

        return by_group(groups, counts, clusters)


def nearest_rows(
    x: Float[Tensor, "n d"], centres: Float[Tensor, "k d"], clusters: Int[Tensor, " n"]
) -> Int[Tensor, " k"]:
    """Of each cluster the row nearest to its centre, equals to the lowest row; largest cluster first.

    An empty cluster, as duplicate rows leave, takes a row that no other has: the nearest of those left to any centre.

    Args:
        x: Rows, at least ``k``.
        centres: Centres of the clusters.
        clusters: Cluster of each row, in ``[0, k)``.

    Example:
        >>> x, centres = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.6], [5.0]])
        >>> nearest_rows(x, centres, torch.tensor([0, 0, 1]))
        tensor([1, 2])
    """
    distances = (x.double() - centres.double()[clusters]).square().sum(1)
    by_distance = distances.argsort(stable=True)
    by_cluster = by_distance[clusters[by_distance].argsort(stable=True)]
    sizes = torch.bincount(clusters, minlength=len(centres))
    firsts = by_cluster[(sizes.cumsum(0) - sizes)[sizes > 0]]
    chosen = firsts[sizes[sizes > 0].argsort(descending=True, stable=True)]
    left = by_distance[~torch.isin(by_distance, chosen)]
    return torch.cat([chosen, left[: len(centres) - len(chosen)]])
