"""``Craig``: rows whose weighted gradients add up to nearly the gradient of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from condensation import greedy
from condensation.coresets.base import Chosen, FeatureCoreset, by_group
from condensation.coresets.features import Features, LastLayerGradients


def pick(
    gradients: Float[Tensor, "n_samples n_features"],
    groups: Int[Tensor, " n_samples"],
    counts: Sequence[int],
    *,
    strategy: greedy.Strategy = "lazy",
    memory: int = 2**30,
    generator: torch.Generator | None = None,
) -> Chosen:
    """Medoids of the gradients of each group by facility location, weighted by the rows they serve.

    Args:
        gradients: A row a sample, on any device.
        groups: Group of each row in ``[0, len(counts))``: its label, or 0 to choose over all rows.
        counts: Rows to choose of each group; a group of fewer rows gives all it has.
        strategy: See :func:`~condensation.greedy.facility_location`.
        memory: Bytes that distances may take.
        generator: Of the strategies that draw.

    Returns:
        Rows, group after group, in the order of choice; weights have mean 1.

    Source:
        Mirzasoleiman, Bilmes, Leskovec 2020, "Coresets for Data-efficient Training of Machine Learning Models".

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [30.0], [1.5]])
        >>> pick(x, torch.zeros(5, dtype=torch.int64), [2])
        Chosen(indices=tensor([4, 3]), weights=tensor([1.6000, 0.4000], dtype=torch.float64))
    """
    indices, sizes = _medoids(gradients, groups, counts, strategy, memory, generator, None)
    return Chosen(indices, _rescaled(sizes))


def _medoids(
    gradients: Tensor,
    groups: Tensor,
    counts: Sequence[int],
    strategy: greedy.Strategy,
    memory: int,
    generator: torch.Generator | None,
    weights: Tensor | None,
) -> Chosen:
    """With the number of rows that each serves."""

    def medoids(rows: Int[Tensor, " n_rows"], k: int) -> Chosen:
        part, many = gradients[rows.to(gradients.device)], None if weights is None else weights[rows].long()
        found = greedy.facility_location(part, k, strategy=strategy, memory=memory, generator=generator, weights=many)
        return Chosen(found.indices, found.sizes)

    return by_group(groups.cpu(), counts, medoids)


def _rescaled(sizes: Tensor | None) -> Tensor | None:
    return None if sizes is None else sizes / sizes.mean()


class Craig(FeatureCoreset):
    """Medoids of the last layer's gradients, each with a weight: the rows it serves.

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, as the paper does, or over all rows.
        features: What to look at, a :class:`~condensation.coresets.features.Features` or an array of shape
            ``(n_samples, n_features)``; by default :class:`~condensation.coresets.features.LastLayerGradients`.
        strategy: How facility location is maximised, see :func:`~condensation.greedy.facility_location`.
        memory: Bytes that distances may take.
        random_state: Of the features, and of strategies that draw.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.
        sample_weight_: Rows that each chosen one serves, rescaled to mean 1, in the order of ``sample_indices_``; 0 for
            a copy of a row chosen before.

    Source:
        Mirzasoleiman, Bilmes, Leskovec 2020, "Coresets for Data-efficient Training of Machine Learning Models".

    Example:
        >>> X, y = [[0.0], [1.0], [3.0], [30.0], [1.5]], [0] * 5
        >>> Craig(ipc=2, features=X).fit(X, y).sample_weight_
        array([1.6, 0.4])
    """

    def __init__(
        self,
        *,
        ipc: int | None = None,
        size: int | float | None = None,
        balanced: bool = True,
        features: Features | ArrayLike | Tensor | None = None,
        strategy: greedy.Strategy = "lazy",
        memory: int = 2**30,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(ipc=ipc, size=size, balanced=balanced, features=features, random_state=random_state)
        self.strategy: greedy.Strategy = strategy
        self.memory = memory

    _default_features = LastLayerGradients()

    def _pick(self, x: Tensor, groups: Tensor, counts: Sequence[int], seed: int, weights: Tensor | None) -> Chosen:
        generator = torch.Generator().manual_seed(seed)
        return _medoids(x, groups, counts, self.strategy, self.memory, generator, weights)

    def _sample_weight(self, stands_for: Tensor | None) -> Tensor | None:
        return _rescaled(stands_for)
