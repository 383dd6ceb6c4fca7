"""``Crust``: rows whose gradients are those of many others of their class, as the gradients of right labels are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from condensation import greedy
from condensation.coresets.base import Chosen, FeatureCoreset, by_group
from condensation.coresets.features import FeatureGradients, Features
from lossbuf import checks


def pick(
    gradients: Float[Tensor, "n_samples n_features"],
    groups: Int[Tensor, " n_samples"],
    counts: Sequence[int],
    *,
    mode: str = "medoids",
    strategy: greedy.Strategy = "lazy",
    memory: int = 2**30,
    generator: torch.Generator | None = None,
    weights: Tensor | None = None,
) -> Chosen:
    """Medoids, or the most central rows, of the gradients of each group.

    Args:
        gradients: A row a sample, on any device.
        groups: Group of each row in ``[0, len(counts))``: its label, or 0 to choose over all rows.
        counts: Rows to choose of each group; a group of fewer rows gives all it has.
        mode: ``"medoids"`` or ``"centrality"``, see :class:`Crust`.
        strategy: See :func:`~condensation.greedy.facility_location`; for medoids only.
        memory: Bytes that distances may take.
        generator: Of the strategies that draw.
        weights: How many rows of the data each row stands for, whole numbers, shape ``(n_samples,)``; by default 1.

    Returns:
        Rows, group after group, in the order of choice; the weight of each is the number of rows it serves.

    Raises:
        ValueError: If the mode is unknown.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [30.0], [1.5]])
        >>> pick(x, torch.zeros(5, dtype=torch.int64), [2]).weights
        tensor([4., 1.], dtype=torch.float64)
    """
    medoids = checks.one_of("mode", mode, ("medoids", "centrality")) == "medoids"

    def central(rows: Int[Tensor, " n_rows"], k: int) -> Chosen:
        part, many = gradients[rows.to(gradients.device)], None if weights is None else weights[rows].long()
        if medoids:
            found = greedy.facility_location(
                part, k, strategy=strategy, memory=memory, generator=generator, weights=many
            )
        else:
            found = greedy.centrality(part, k, memory=memory, weights=many)
        return Chosen(found.indices, found.sizes)

    return by_group(groups.cpu(), counts, central)


class Crust(FeatureCoreset):
    """Medoids of the gradients that reach the last layer's input, each with the number of rows it serves.

    Rows of a class with right labels have gradients alike, rows with wrong labels gradients of many kinds. So the
    central rows are mostly right; medoids are spread over all kinds, the wrong ones too, and it is their weights that
    favour right labels. For clean rows of noisy ones take ``mode="centrality"``. The paper chooses anew in every epoch
    of a training; this is one choice.

    Args:
        ipc: Rows a class; or give ``size``, in the paper half of each class: ``size=0.5``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, as the paper does, or over all rows.
        features: What to look at, a :class:`~condensation.coresets.features.Features` or an array of shape
            ``(n_samples, n_features)``; by default :class:`~condensation.coresets.features.FeatureGradients`.
        mode: ``"medoids"``, the paper's facility location; ``"centrality"``, what the paper's code does: it ranks rows
            by their total similarity to all others.
        strategy: How facility location is maximised, see :func:`~condensation.greedy.facility_location`.
        memory: Bytes that distances may take.
        random_state: Of the features, and of strategies that draw.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.
        sample_weight_: Rows that each chosen one serves, in the order of ``sample_indices_``; 0 for a copy of a row
            chosen before.

    Source:
        Mirzasoleiman, Cao, Leskovec 2020, "Coresets for Robust Training of Neural Networks against Noisy Labels".

    Differs from the paper:
        Its code counts for the weight the rows within a distance of 2, of which a row may have several.

    Example:
        >>> X, y = [[0.0], [1.0], [3.0], [30.0], [1.5]], [0] * 5
        >>> Crust(ipc=2, features=X).fit(X, y).sample_indices_
        array([4, 3])
        >>> Crust(ipc=2, features=X, mode="centrality").fit(X, y).sample_indices_
        array([4, 1])
    """

    def __init__(
        self,
        *,
        ipc: int | None = None,
        size: int | float | None = None,
        balanced: bool = True,
        features: Features | ArrayLike | Tensor | None = None,
        mode: str = "medoids",
        strategy: greedy.Strategy = "lazy",
        memory: int = 2**30,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(ipc=ipc, size=size, balanced=balanced, features=features, random_state=random_state)
        self.mode = mode
        self.strategy: greedy.Strategy = strategy
        self.memory = memory

    _default_features = FeatureGradients()

    def _source(self) -> Features | ArrayLike | Tensor:
        checks.one_of("mode", self.mode, ("medoids", "centrality"))  # before a training
        return super()._source()

    def _pick(self, x: Tensor, groups: Tensor, counts: Sequence[int], seed: int, weights: Tensor | None) -> Chosen:
        generator = torch.Generator().manual_seed(seed)
        return pick(
            x, groups, counts, mode=self.mode, strategy=self.strategy, memory=self.memory, generator=generator,
            weights=weights,
        )  # fmt: skip

    def _sample_weight(self, stands_for: Tensor | None) -> Tensor | None:
        return stands_for
