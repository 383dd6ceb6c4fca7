"""What all coreset methods have in common: sizes, groups and the estimator's form."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from condensation.artifact import CondensedSet, Provenance
from condensation.coresets.cleaning import CleaningTraining
from condensation.coresets.features import Features, NetworkFeatures, Pixels, features_of
from condensation.coresets.sizes import rows_asked
from lossbuf import checks
from lossbuf.errors import LossBufferWarning
from lossbuf.selectors import RowSelector

# Not typing.Self, which beartype does not take on a method by itself.
_AnyCoreset = TypeVar("_AnyCoreset", bound="Coreset")
_AnyFeatureCoreset = TypeVar("_AnyFeatureCoreset", bound="FeatureCoreset")


class Chosen(NamedTuple):
    """A coreset.

    Attributes:
        indices: Rows, int64, on the CPU, shape ``(k,)``, group after group and in each in the order of choice.
        weights: What each stands for, float64, on the CPU, shape ``(k,)``; ``None`` where a method has no weights.
    """

    indices: Tensor
    weights: Tensor | None = None


def by_group(
    groups: Int[Tensor, " n_samples"],
    counts: Sequence[int],
    choose: Callable[[Int[Tensor, " n_rows"], int], Chosen],
) -> Chosen:
    """Choose from each group by itself.

    Args:
        groups: Group of each row in ``[0, len(counts))``, on the CPU, shape ``(n_samples,)``.
        counts: Rows to choose of each group; a group of fewer rows gives all it has, one of none nothing.
        choose: Called as ``choose(rows, k)`` with a group's rows, ascending; gives *positions* in ``rows``.

    Returns:
        The rows chosen, group after group.

    Example:
        >>> by_group(torch.tensor([0, 1, 0, 1]), [1, 2], lambda rows, k: Chosen(torch.arange(k))).indices
        tensor([0, 1, 3])
    """
    indices, weights = [torch.empty(0, dtype=torch.int64)], []
    for group, count in enumerate(counts):
        rows = torch.nonzero(groups == group).flatten()
        k = min(count, len(rows))
        if k:
            chosen = choose(rows, k)
            indices.append(rows[chosen.indices.cpu()])
            weights += [] if chosen.weights is None else [chosen.weights.double().cpu()]
    return Chosen(torch.cat(indices), torch.cat(weights) if weights else None)


def largest_first(values: Tensor) -> Callable[[Tensor, int], Chosen]:
    """For :func:`by_group`: the rows of the largest values, equals in the order of the rows."""
    return lambda rows, k: Chosen(values[rows].argsort(descending=True, stable=True)[:k])


def warn_of_unseen(name: str, unseen: Tensor) -> None:
    """Warn where rows were chosen that the training never saw; raise where it saw none of them.

    Args:
        name: Of the argument that should know them.
        unseen: True for such rows, a value a chosen row.
    """
    if bool(unseen.all()):
        raise ValueError(checks.problem(name, "must be of a training that saw the rows", "none seen"))
    if bool(unseen.any()):
        text = f"{int(unseen.sum())} of the {len(unseen)} rows chosen were never seen in the training of `{name}`."
        warnings.warn(text, LossBufferWarning, stacklevel=5)


class Coreset(RowSelector):
    """Chooses a small set of rows that is to stand for all; a subclass says how in ``_choose``.

    The constructor of a subclass keeps ``ipc``, ``size``, ``balanced`` and ``random_state``, which mean the same in
    all of them: see :func:`~condensation.coresets.sizes.rows_asked`. A class of fewer rows than asked gives all it
    has; the others do not make up for it.

    Attributes:
        classes_: The labels found, shape ``(num_classes,)``.
        sample_indices_: Rows chosen, shape ``(k,)``: class after class in the order of ``classes_`` (one group where
            ``balanced`` is False), and within a class in the order of choice. ``transform`` and ``fit_resample`` give
            them in this order.
        n_features_in_: Size of the second axis of ``X``.
    """

    ipc: int | None
    size: int | float | None
    balanced: bool
    random_state: int | np.random.RandomState | None

    def informed_by(self: _AnyCoreset, cleaning: CleaningTraining) -> _AnyCoreset:
        """Take from the training that cleaned the data what this method would else train a network for.

        A subclass that can use it sets its own parameters; by default nothing changes.

        Args:
            cleaning: The training, and the rows that it kept: those that :meth:`fit` will be given.

        Returns:
            The estimator itself.
        """
        return self

    def condensed_set(self, X: Any, y: Any, *, provenance: Provenance | None = None) -> CondensedSet:
        """The rows chosen as a set to be saved, loaded and trained on; see :meth:`CondensedSet.of_coreset`."""
        return CondensedSet.of_coreset(self, X, y, provenance=provenance)

    @abstractmethod
    def _choose(self, X: NDArray[Any], labels: Tensor, groups: Tensor, counts: list[int], seed: int) -> Chosen:
        """The coreset.

        Args:
            X: Samples, checked.
            labels: Classes in ``[0, num_classes)``, shape ``(n_samples,)``.
            groups: Which rows to choose among: the labels, or 0 for all rows, shape ``(n_samples,)``.
            counts: Rows to choose of each group, at most as many as it has.
            seed: Of whatever is random.
        """

    def _asked(self, labels: Tensor, classes: NDArray[Any], stacklevel: int = 5) -> tuple[Tensor, list[int]]:
        """Group of each row, and rows to choose of each group; warns of classes that are short of rows."""
        sizes = torch.bincount(labels, minlength=len(classes)).tolist()
        asked = rows_asked(sizes, ipc=self.ipc, size=self.size, balanced=self.balanced)
        groups, have = (labels, sizes) if self.balanced else (torch.zeros_like(labels), [len(labels)])
        short = [group for group, (few, many) in enumerate(zip(have, asked, strict=True)) if few < many]
        if short:
            told = ", ".join(f"{classes[group]} has {have[group]} of {asked[group]}" for group in short)
            text = f"Classes of fewer rows than asked give all they have: {told}."
            warnings.warn(text, LossBufferWarning, stacklevel=stacklevel)
        return groups, [min(few, many) for few, many in zip(have, asked, strict=True)]

    def _select(self, X: NDArray[Any], labels: Tensor, classes: NDArray[Any]) -> NDArray[np.int64]:
        groups, counts = self._asked(labels, classes)
        seed = int(check_random_state(self.random_state).randint(2**31))
        return self._kept(self._choose(X, labels, groups, counts, seed))

    def _kept(self, chosen: Chosen) -> NDArray[np.int64]:
        """The rows; their weights, where there are any, become an attribute."""
        vars(self).pop("sample_weight_", None)
        if chosen.weights is not None:
            self.sample_weight_ = chosen.weights.numpy()
        return chosen.indices.numpy()


class FeatureCoreset(Coreset):
    """A coreset that depends on features of the rows alone; a subclass implements the choice in ``_pick``.

    It can therefore be chosen in parts: see :class:`~condensation.coresets.sharded.Sharded`.

    Args:
        ipc: Rows per class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose class by class, or among all rows at once.
        features: What to look at, a :class:`~condensation.coresets.features.Features` or an array of shape
            ``(n_samples, n_features)``; by default what the method was published with.
        random_state: Seed, generator or ``None``; the same seed gives the same rows.
    """

    _default_features: ClassVar[Features] = Pixels()

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

    def informed_by(self: _AnyFeatureCoreset, cleaning: CleaningTraining) -> _AnyFeatureCoreset:
        """With ``features=NetworkFeatures()``, use the network of the cleaning in place of one trained for this."""
        if isinstance(self.features, NetworkFeatures) and self.features == NetworkFeatures():
            self.set_params(features=cleaning.features())
        return self

    @abstractmethod
    def _pick(self, x: Tensor, groups: Tensor, counts: Sequence[int], seed: int, weights: Tensor | None) -> Chosen:
        """The coreset.

        Args:
            x: Features, shape ``(n_samples, n_features)``.
            groups: See :meth:`Coreset._choose`, like ``counts`` and ``seed``.
            counts: See above.
            seed: See above.
            weights: How many rows of the data each row stands for, float64, shape ``(n_samples,)``; ``None`` for 1.

        Returns:
            The choice, with the number of rows of the data that each chosen one stands for; ``None`` where the method
            does not look at ``weights``.
        """

    def _sample_weight(self, stands_for: Tensor | None) -> Tensor | None:
        """What is given as ``sample_weight_``, from the weights of all that ``_pick`` chose; by default nothing."""
        return None

    def _source(self) -> Features | ArrayLike | Tensor:
        """What to look at."""
        return self._default_features if self.features is None else self.features

    def _choose(self, X: NDArray[Any], labels: Tensor, groups: Tensor, counts: list[int], seed: int) -> Chosen:
        indices, stands_for = self._pick(features_of(self._source(), X, labels, seed), groups, counts, seed, None)
        return Chosen(indices, self._sample_weight(stands_for))
