"""``KMeans``: the real rows nearest to the centres of clusters."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import sklearn.cluster
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from condensation.coresets.base import Chosen, FeatureCoreset, by_group
from condensation.greedy.distances import centred

LARGE = 20_000
"""Rows to choose among from which on scikit-learn's MiniBatchKMeans takes the place of its KMeans."""


class KMeans(FeatureCoreset):
    """As many clusters as rows are asked for, and of each the row nearest to its centre; largest cluster first.

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, or over all rows.
        features: What to look at, a :class:`~condensation.coresets.features.Features` or an array of shape
            ``(n_samples, n_features)``; by default :class:`~condensation.coresets.features.Pixels`.
        random_state: Seed, generator or ``None``; the same seed gives the same rows.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.

    Source:
        As a baseline of condensation: Cui et al. 2022, "DC-BENCH", with features of a network.

    Example:
        >>> KMeans(ipc=2, random_state=0).fit([[0.0], [1.0], [2.0], [9.0], [9.5]], [0] * 5).sample_indices_
        array([1, 3])
    """

    def _pick(self, x: Tensor, groups: Tensor, counts: Sequence[int], seed: int, weights: Tensor | None) -> Chosen:
        def clusters(rows: Int[Tensor, " n_rows"], k: int) -> Chosen:
            part = centred(x[rows.to(x.device)].cpu()).x
            given = None if weights is None else weights[rows]
            make = sklearn.cluster.KMeans if len(rows) < LARGE else sklearn.cluster.MiniBatchKMeans
            model = make(k, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some are empty
                model.fit(part.numpy(), sample_weight=None if given is None else given.numpy())
            centres = torch.from_numpy(np.asarray(model.cluster_centers_))
            found = torch.from_numpy(np.asarray(model.labels_, dtype=np.int64))
            return nearest_rows(part, centres, found, given)

        return by_group(groups, counts, clusters)


def nearest_rows(
    x: Float[Tensor, "n d"],
    centres: Float[Tensor, "k d"],
    clusters: Int[Tensor, " n"],
    weights: Float[Tensor, " n"] | None = None,
) -> Chosen:
    """Of each cluster the row nearest to its centre, equals to the lowest row; largest cluster first.

    An empty cluster, as duplicate rows leave, takes a row that no other has: the nearest of those left to any centre.

    Args:
        x: Rows, at least ``k``.
        centres: Centres of the clusters.
        clusters: Cluster of each row, in ``[0, k)``.
        weights: Of each row in the size of its cluster; by default 1.

    Returns:
        The rows, each with the size of its cluster, 0 for one that an empty cluster took.

    Example:
        >>> x, centres = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.6], [5.0]])
        >>> nearest_rows(x, centres, torch.tensor([0, 0, 1]))
        Chosen(indices=tensor([1, 2]), weights=tensor([2., 1.], dtype=torch.float64))
    """
    distances = (x.double() - centres.double()[clusters]).square().sum(1)
    by_distance = distances.argsort(stable=True)
    by_cluster = by_distance[clusters[by_distance].argsort(stable=True)]
    counts = torch.bincount(clusters, minlength=len(centres))
    firsts = by_cluster[(counts.cumsum(0) - counts)[counts > 0]]
    sizes = torch.bincount(clusters, weights=weights, minlength=len(centres)).double()[counts > 0]
    largest = sizes.argsort(descending=True, stable=True)
    chosen = firsts[largest]
    left = by_distance[~torch.isin(by_distance, chosen)][: len(centres) - len(chosen)]
    return Chosen(torch.cat([chosen, left]), torch.cat([sizes[largest], sizes.new_zeros(len(left))]))
