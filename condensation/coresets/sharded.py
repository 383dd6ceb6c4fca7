"""``Sharded``: a coreset in two rounds, chosen in each of several shards and then among what they chose."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from torch import Tensor

from condensation.coresets import rounds
from condensation.coresets import shards as sources
from condensation.coresets.base import Chosen, Coreset, FeatureCoreset
from condensation.coresets.features import Features, FreshNetwork, Pixels, features_of
from lossbuf import checks


class Sharded(Coreset):
    """Another coreset method, in two rounds: each shard of the rows chooses, then a choice is made among the chosen.

    A method that looks at all pairs of rows takes a fraction 1 / ``n_shards`` of the work so, and shards are chosen
    from side by side: by joblib, so that ``joblib.parallel_config("dask")`` or ``("ray")`` puts a cluster in the place
    of processes. In the second round a row of facility location (:class:`~condensation.coresets.Craig`,
    :class:`~condensation.coresets.Crust`) or k-means counts as often as there are rows it stood for in the first, and
    herding aims at the mean of all rows as the shards' choices tell it; so weights add up as those of the method.

    Args:
        selector: ``Herding``, ``KCenter``, ``KMeans``, ``Craig`` or ``Crust``. Other methods judge each row by itself,
            and need no shards.
        n_shards: Parts that rows are dealt to at random, each class evenly where the selector chooses by class. Some
            stay empty where there are more of them than rows. One shard is the selector itself.
        oversample: Rows that each shard chooses, in multiples of those asked for, rounded up, at least 1.
        n_jobs: Shards at a time; ``None`` is 1, or what ``joblib.parallel_config`` says. Does not change the result.
        random_state: Of the deal; and of the selector where that has none.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`; rows of all of ``X``.
        sample_weight_: Of the selector, where it has weights; a row stands for all that those it stands for did.
        shard_rows_: After :meth:`fit_resample_shards`: shard, and row in it, of each row chosen, shape ``(k, 2)``.

    Source:
        Mirzasoleiman, Karbasi, Sarkar, Krause 2013, "Distributed Submodular Maximization" (GreeDi); for k-center
        Malkomes et al. 2015: the radius is at most four times the least possible.

    Differs from the paper:
        Rows of the second round have weights, and its choice is not compared with that of the best shard.

    Example:
        >>> from condensation.coresets import KCenter
        >>> X = np.array([[0.0], [1.0], [2.0], [50.0], [51.0], [52.0], [99.0], [98.0]])
        >>> sharded = Sharded(KCenter(ipc=3), n_shards=2, random_state=0)
        >>> sharded.fit(X, [0] * 8).sample_indices_
        array([3, 0, 6])
    """

    def __init__(
        self,
        selector: FeatureCoreset,
        *,
        n_shards: int = 8,
        oversample: int | float = 1,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.selector = selector
        self.n_shards = n_shards
        self.oversample = oversample
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit_resample_shards(self, shards: Sequence[sources.Shard]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Choose among rows that need not lie in memory together, each shard as it comes, and give those chosen.

        Every shard is read twice, its labels first; where it is read is where it is chosen from. ``n_shards`` is not
        looked at. Rows dealt to shards at random serve best; shards that each hold one class do no harm where the
        selector chooses by class. ``sample_indices_`` count the rows through the shards in their order.

        Args:
            shards: Each a pair of samples and labels, a function that returns one, or the path of an ``.npz`` with the
                arrays ``X`` (or ``x``) and ``y``. A half of a pair may be the path of an ``.npy``, which is mapped to
                memory.

        Returns:
            Samples and labels of the rows chosen, in the order of ``sample_indices_``.

        Raises:
            ValueError: If a shard is not readable or not like the others, there are no shards, a setting is not
                usable, or features of a row depend on other rows.
        """
        selector, parts = self._selector(), sources.listed(shards)
        source = _row_by_row(selector._source())
        names = [f"shards[{place}]" for place in range(len(parts))]
        heads: Any = Parallel(n_jobs=self.n_jobs)(map(delayed(sources.head), parts, names))
        known = sources.joined(heads)
        groups, counts = selector._asked(torch.from_numpy(known.labels), known.classes, stacklevel=3)
        seed, draws = self._seeds(int(check_random_state(self.random_state).randint(2**31)))
        job = partial(rounds.chosen_of, _bare(selector), source, counts=self._first(counts), features_seed=seed)
        seeds = draws.randint(2**31, size=len(parts)).tolist()
        spans = [slice(*ends) for ends in itertools.pairwise(known.starts.tolist())]
        found: Any = Parallel(n_jobs=self.n_jobs)(
            delayed(job)(part, name, known.labels[span], groups.numpy()[span], seed=one, start=span.start)
            for part, name, span, one in zip(parts, names, spans, seeds, strict=True)
            if span.stop > span.start
        )
        rows = self._kept(rounds.second_round(selector, found, groups.numpy(), counts, seed, None))
        every = np.concatenate([part.rows for part in found])  # ascending within a shard or not, none twice
        order = np.argsort(every)
        samples = np.concatenate([part.samples for part in found])[order[np.searchsorted(every, rows, sorter=order)]]
        validate_data(self, cast(Any, samples), reset=True, allow_nd=True, dtype=None)
        place = np.searchsorted(known.starts, rows, side="right") - 1
        self._keep(known.classes, rows, known.labels, None)
        self.shard_rows_ = np.stack([place, rows - known.starts[place]], axis=1)
        self._transforms = False
        return samples, known.classes[known.labels[rows]]

    def _asked(self, labels: Tensor, classes: NDArray[Any], stacklevel: int = 5) -> tuple[Tensor, list[int]]:
        return self._selector()._asked(labels, classes, stacklevel + 1)

    def _choose(self, X: NDArray[Any], labels: Tensor, groups: Tensor, counts: list[int], seed: int) -> Chosen:
        selector, first = self._selector(), self._first(counts)
        n_shards = checks.positive_int("n_shards", self.n_shards)
        vars(self).pop("shard_rows_", None)
        seed, draws = self._seeds(seed)
        if n_shards == 1:
            return selector._choose(X, labels, groups, counts, seed)
        x, device = _looked_at(selector._source(), X, labels, seed)
        group, job = groups.numpy(), partial(rounds.chosen_in, _bare(selector), x, counts=first, device=device)
        seeds = draws.randint(2**31, size=n_shards).tolist()
        found: Any = Parallel(n_jobs=self.n_jobs)(
            delayed(job)(rows, group[rows], seed=one)
            for rows, one in zip(rounds.deal(group, n_shards, draws), seeds, strict=True)
            if len(rows)
        )
        return rounds.second_round(selector, found, group, counts, seed, device)

    def _selector(self) -> FeatureCoreset:
        if not isinstance(self.selector, FeatureCoreset):
            rule = "must be Herding, KCenter, KMeans, Craig or Crust"
            advice = "What judges each row by itself needs no shards." if isinstance(self.selector, Coreset) else ""
            raise ValueError(checks.problem("selector", rule, type(self.selector).__name__, advice))
        return self.selector

    def _first(self, counts: Sequence[int]) -> list[int]:
        """Rows that a shard chooses of each group, where it has so many."""
        times = checks.positive_float("oversample", self.oversample)
        if times < 1:
            raise ValueError(checks.problem("oversample", "must be at least 1", self.oversample))
        return [math.ceil(times * count) for count in counts]

    def _seeds(self, seed: int) -> tuple[int, np.random.RandomState]:
        """The selector's seed, and what the rest is drawn from."""
        own = self._selector().random_state
        return seed if own is None else int(check_random_state(own).randint(2**31)), np.random.RandomState(seed)


def _bare(selector: FeatureCoreset) -> FeatureCoreset:
    """The method without its features, which may be large."""
    light = copy.copy(selector)
    light.features = None
    return light


def _looked_at(
    source: Features | ArrayLike | Tensor, X: NDArray[Any], labels: Tensor, seed: int
) -> tuple[NDArray[Any], torch.device | str | None]:
    """Features of all rows, and where to choose; an array stays what it is, so that one on disk is not read here."""
    if isinstance(source, Pixels):
        return X.reshape(len(X), -1), source.device
    if isinstance(source, np.ndarray) and source.ndim == 2 and len(source) == len(X) and source.dtype.kind in "biuf":
        return source, None
    x = features_of(source, X, labels, seed)
    return x.cpu().numpy(), x.device


def _row_by_row(source: Features | ArrayLike | Tensor) -> Callable[..., ArrayLike | Tensor]:
    """Features that shards can give by themselves."""
    fresh = isinstance(getattr(source, "network", None), FreshNetwork)
    if not callable(source) or fresh or getattr(source, "standardise", False):
        rule = "must look at each row by itself where shards are read one by one"
        advice = "Take Pixels(), or a trained network with standardise=False; features known already go in place of X."
        raise ValueError(checks.problem("features", rule, type(source).__name__ + " that does not", advice))
    return source
