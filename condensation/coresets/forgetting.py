"""``Forgetting``: the rows that a training run learnt and lost most often."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from condensation.coresets.base import Chosen, Coreset, by_group, largest_first, warn_of_unseen
from condensation.coresets.cleaning import CleaningTraining
from condensation.coresets.features import FreshNetwork
from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.recording.sample_statistics import SampleStatistics


def forgetfulness(statistics: SampleStatistics, never_learned: str = "first") -> Tensor:
    """How often each row was forgotten, with places for rows never learnt and rows never seen.

    Args:
        statistics: Of a training run.
        never_learned: ``"first"`` holds rows that were never predicted right for forgotten infinitely often, as the
            paper does; ``"last"`` puts them after all that were learnt, as is wise where labels may be wrong.

    Returns:
        Forgetting events; infinite or -1 where never learnt, -2 where never seen; float64, shape ``(n_samples,)``.

    Raises:
        ValueError: If ``never_learned`` is neither.

    Example:
        >>> callback = LossBufferCallback([0, 1], rank_by="aum")
        >>> for logits in ([[2.0, 0.0]] * 2, [[0.0, 2.0], [2.0, 0.0]]):
        ...     _ = callback.update(torch.tensor(logits), torch.tensor([0, 1]), torch.tensor([0, 1]))
        ...     callback.end_epoch()
        >>> forgetfulness(callback.statistics())
        tensor([1., inf], dtype=torch.float64)
    """
    place = float("inf") if checks.one_of("never_learned", never_learned, ("first", "last")) == "first" else -1.0
    seen, never = statistics.count > 0, statistics.wrong_count == statistics.count
    return statistics.forgetting_events.double().masked_fill(never, place).masked_fill(~seen, -2.0)


def statistics_of(statistics: SampleStatistics, rows: ArrayLike) -> SampleStatistics:
    """The statistics of some rows: of those that cleaning kept, for one.

    Args:
        statistics: Of all rows.
        rows: Row numbers, shape ``(n_rows,)``, or a mask of all rows, as ``get_support()`` gives.

    Raises:
        ValueError: If they are neither.

    Example:
        >>> callback = LossBufferCallback([0, 1, 1])
        >>> statistics_of(callback.statistics(), [0, 2]).count.shape
        torch.Size([2])
    """
    given = np.asarray(rows)
    if given.dtype == bool and given.shape == (len(statistics.count),):
        given = np.flatnonzero(given)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        rule = f"must be row numbers, or a mask of {len(statistics.count)} rows"
        raise ValueError(checks.problem("rows", rule, f"{given.dtype} of shape {given.shape}"))
    if len(given) and not 0 <= given.min() <= given.max() < len(statistics.count):
        raise ValueError(
            checks.problem("rows", f"must lie in [0, {len(statistics.count)})", f"{given.min()} to {given.max()}")
        )
    index = torch.as_tensor(given.astype(np.int64), device=statistics.count.device)
    return SampleStatistics(**{field.name: getattr(statistics, field.name)[index] for field in fields(statistics)})


_AnyForgetting = TypeVar("_AnyForgetting", bound="Forgetting")


class Forgetting(Coreset):
    """Rows by their forgetting events, times that a right prediction was followed by a wrong one: most first.

    Equals go to the lowest row. One training serves cleaning and this::

        rows = selector.fit(X, y).sample_indices_  # a LossBufferSelector
        statistics = statistics_of(selector.callback_.statistics(), rows)
        Forgetting(ipc=10, statistics=statistics).fit(X[rows], y[rows])

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, or over all rows.
        statistics: Of a training on these rows, from :meth:`~lossbuf.callback.LossBufferCallback.statistics`.
        never_learned: ``"first"`` or ``"last"``, where rows go that were never predicted right; see
            :func:`forgetfulness`. Many of them are mislabelled: on noisy rows take ``"last"``. Rows never seen come
            last in any case.
        network: What to train where there are no statistics; by default a
            :class:`~condensation.coresets.features.FreshNetwork`.
        random_state: Of that training.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.
        scores_: What rows were chosen by, see :func:`forgetfulness`, shape ``(n_samples,)``.

    Source:
        Toneva et al. 2019, "An Empirical Study of Example Forgetting during Deep Neural Network Learning".

    Differs from the paper:
        A row is looked at once an epoch, when the network trains on it, and of equals the first is taken.

    Example:
        >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
        >>> Forgetting(ipc=1, random_state=0).fit(X, y).get_support().sum()
        np.int64(2)
    """

    def __init__(
        self,
        *,
        ipc: int | None = None,
        size: int | float | None = None,
        balanced: bool = True,
        statistics: SampleStatistics | None = None,
        never_learned: str = "first",
        network: FreshNetwork | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.ipc = ipc
        self.size = size
        self.balanced = balanced
        self.statistics = statistics
        self.never_learned = never_learned
        self.network = network
        self.random_state = random_state

    def informed_by(self: _AnyForgetting, cleaning: CleaningTraining) -> _AnyForgetting:
        """Without ``statistics`` and ``network``, use the statistics of the cleaning."""
        if self.statistics is None and self.network is None:
            self.set_params(statistics=statistics_of(cleaning.statistics(), cleaning.kept))
        return self

    def _choose(self, X: NDArray[Any], labels: Tensor, groups: Tensor, counts: list[int], seed: int) -> Chosen:
        checks.one_of("never_learned", self.never_learned, ("first", "last"))  # before a training
        statistics = self.statistics
        if statistics is None:
            callback = LossBufferCallback(labels, rank_by="aum")
            (self.network or FreshNetwork()).trained(X, labels.numpy(), seed, callback)
            statistics = callback.statistics()
        if not isinstance(statistics, SampleStatistics):
            rule = "must be what callback.statistics() gives"
            raise ValueError(checks.problem("statistics", rule, type(statistics).__name__))
        if len(statistics.count) != len(X):
            advice = "Those of some rows: statistics_of(statistics, rows)."
            rule = f"must be of {len(X)} rows, as many as X has"
            raise ValueError(checks.problem("statistics", rule, len(statistics.count), advice))
        scores = forgetfulness(statistics, self.never_learned).cpu()
        chosen = by_group(groups, counts, largest_first(scores))
        warn_of_unseen("statistics", scores[chosen.indices] == -2.0)
        self.scores_ = scores.numpy()
        return chosen
