"""Greedy selection of rows: facility location, k-center, herding and centrality, each exact and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int, Int64, Num
from torch import Tensor

from condensation.greedy.cover import Cover, batched, exact, lazy, stochastic
from condensation.greedy.distances import (
    ROWS,
    Centred,
    Distances,
    Metric,
    ToChosen,
    centred,
    check_shape,
    rounding,
    squared_norms,
)
from lossbuf import checks

Strategy = Literal["lazy", "batched", "stochastic", "exact"]


class Picked(NamedTuple):
    """Rows chosen, in their order.

    Attributes:
        indices: The rows, shape ``(k,)``, int64.
        gains: What each choice added to the objective, shape ``(k,)``, float64; for k-center its distance to those
            before it, infinite for the first.
        objective: The final value; for k-center the radius.
        nearest: Position in ``indices`` of the chosen row nearest to each row, of equals the first chosen, shape
            ``(n_samples,)``, int64.
        sizes: Rows that each chosen row is nearest to, or their weights, shape ``(k,)``, int64; 0 for a copy of a row
            chosen before.
    """

    indices: Int64[Tensor, " k"]
    gains: Tensor
    objective: float
    nearest: Int64[Tensor, " n_samples"]
    sizes: Int64[Tensor, " k"]


def facility_location(
    x: Num[Tensor, "n_samples num_features"],
    k: int,
    *,
    strategy: Strategy = "lazy",
    metric: Metric = "euclidean",
    memory: int = 2**30,
    epsilon: float = 0.01,
    generator: torch.Generator | None = None,
    weights: Int[Tensor, " n_samples"] | None = None,
) -> Picked:
    """Rows that serve all rows best: greedily largest sum over i of max over chosen j of s(i, j).

    The similarity s(i, j) is the largest distance between any two rows, less the distance of i and j; the objective
    of no rows is 0. ``"lazy"``, ``"batched"`` and ``"exact"`` choose the same rows, and so do all values of
    ``memory``: see :class:`~condensation.greedy.distances.Distances`. Of equal gains the lowest row wins.

    Args:
        x: Features, shape ``(n_samples, num_features)``.
        k: Rows to choose, in [1, n_samples].
        strategy: ``"lazy"`` works gains out again only where an old one, which bounds the new one, could win;
            ``"batched"`` keeps all gains up to date, at the price of a look at all rows for each that changes hands;
            ``"exact"`` works all out again for every choice; ``"stochastic"`` is lazy within a random sample of
            ``n_samples / k * log(1 / epsilon)`` rows a choice.
        metric: ``"euclidean"``, or ``"cosine"`` for 1 - cosine.
        memory: Bytes to use beside a copy of ``x``. The matrix of distances takes ``4 n_samples^2``; where that is
            more than three quarters of it, distances are worked out again when needed.
        epsilon: Of ``"stochastic"``: expected share of the objective that may be lost, in (0, 1).
        generator: Of ``"stochastic"``, on the CPU; by default one seeded with 0.
        weights: How often each row is to be served, integers of at least 0, shape ``(n_samples,)``; by default once.
            The choice is that of rows repeated so often.

    Returns:
        The choice. Gains and objective are exact sums of distances that are rounded to multiples of at most 1e-6
        times the farthest row's distance to the centre.

    Raises:
        ValueError: If ``k`` or another setting is out of range, or ``x`` not usable, see
            :func:`~condensation.greedy.distances.centred`.

    Source:
        Minoux 1978 (lazy); Mirzasoleiman et al. 2015, "Lazier Than Lazy Greedy" (stochastic); Mirzasoleiman, Bilmes,
        Leskovec 2020, "CRAIG" (the similarity).

    Differs from the papers:
        Gains are worked out many at a time. The stochastic form bounds the gains within its sample lazily.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]])
        >>> picked = facility_location(x, 2)
        >>> picked.indices, picked.sizes, round(picked.objective, 3)
        (tensor([2, 3]), tensor([3, 2]), 51.0)
    """
    strategies: dict[str, Callable[[], Iterator[int]]] = {
        "lazy": lambda: lazy(cover),
        "batched": lambda: batched(cover),
        "stochastic": lambda: stochastic(cover, k, epsilon, generator),
        "exact": lambda: exact(cover),
    }
    checks.one_of("strategy", strategy, strategies)
    if not 0 < checks.rate("epsilon", epsilon) < 1:
        raise ValueError(checks.problem("epsilon", "must lie in (0, 1)", epsilon))
    k = _count(k, x)
    cover = Cover(Distances(x, metric=metric, memory=memory), weights)
    choices = strategies[strategy]()
    for _ in range(k):
        cover.add(next(choices))
    return _covered(cover)


def centrality(
    x: Num[Tensor, "n_samples num_features"],
    k: int,
    *,
    metric: Metric = "euclidean",
    memory: int = 2**30,
    weights: Int[Tensor, " n_samples"] | None = None,
) -> Picked:
    """Rows of the largest sum of similarities to all rows, most central first, of equals the lowest row first.

    This is what the published code of CRUST does where the paper says greedy medoids: it adds the total of a row and
    not its gain, so that rows near the middle are taken and none of what lies around it.

    Args:
        x: As for :func:`facility_location`, like all others.
        k: See above.
        metric: See above.
        memory: See above.
        weights: See above.

    Returns:
        The choice, with gains and objective of facility location.

    Raises:
        ValueError: As :func:`facility_location`.

    Source:
        Mirzasoleiman, Cao, Leskovec 2020, "CRUST", its code.

    Example:
        >>> centrality(torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]]), 2).indices
        tensor([2, 1])
    """
    k = _count(k, x)
    cover = Cover(Distances(x, metric=metric, memory=memory), weights)
    # What a row would add as the first: the more, the more central it is.
    for row in cover.gains_of_all().argsort(descending=True, stable=True)[:k].tolist():
        cover.add(row)
    return _covered(cover)


def k_center(
    x: Num[Tensor, "n_samples num_features"],
    k: int,
    *,
    first: int | None = None,
    chosen: Int[Tensor, " given"] | None = None,
) -> Picked:
    """Rows such that no row is far from all of them: always the row farthest from those chosen so far.

    One matrix-vector product a choice. Its rounding is bounded, and where the bound leaves a doubt, distances are
    taken again by differences in float64; so the choice is that of exact arithmetic on the centred features, and of
    rows equally far the lowest wins. Copies of chosen rows come last, lowest first.

    Args:
        x: Features, shape ``(n_samples, num_features)``.
        k: Rows to choose, those given included, in [1, n_samples].
        first: The first row; by default the one nearest to the mean.
        chosen: Rows to continue from, shape ``(given,)``, at most ``k``; they come first in the result.

    Returns:
        The choice. ``nearest`` is decided in the precision of ``x``.

    Raises:
        ValueError: If ``k`` is out of range, ``first`` or ``chosen`` are no rows or both given, or ``x`` not usable,
            see :func:`~condensation.greedy.distances.centred`.

    Source:
        Gonzalez 1985; Sener, Savarese 2018, "Active Learning for Convolutional Neural Networks".

    Example:
        >>> picked = k_center(torch.tensor([[0.0], [4.0], [5.0], [9.0]]), 3)
        >>> picked.indices, picked.objective
        (tensor([1, 3, 0]), 1.0)
    """
    k = _count(k, x)
    rows = centred(x)
    given = _given(first, chosen, len(x), k) or _herded(rows, 1)
    distances = ToChosen(rows.x)
    gains = []
    for count in range(k):
        row, gain = distances.farthest() if count >= len(given) else (given[count], distances.exact(given[count]))
        gains.append(gain)
        distances.add(row)
    radius = distances.farthest()[1] if k < len(x) else 0.0
    gains = torch.tensor(gains, dtype=torch.float64, device=x.device) * rows.unit
    return _picked(distances.chosen, gains, radius * rows.unit, distances.nearest)


def herding(
    x: Num[Tensor, "n_samples num_features"], k: int, *, weights: Num[Tensor, " n_samples"] | None = None
) -> Int64[Tensor, " k"]:
    """Rows whose running mean stays nearest to the mean of all; no row twice, of equals the lowest.

    Args:
        x: Features, shape ``(n_samples, num_features)``.
        k: Rows to choose, in [1, n_samples].
        weights: Of each row in the mean of all, at least 0, shape ``(n_samples,)``; by default 1.

    Returns:
        The rows in their order, shape ``(k,)``.

    Raises:
        ValueError: If ``k`` is out of range or ``x`` not usable, see :func:`~condensation.greedy.distances.centred`.

    Source:
        Welling 2009, "Herding Dynamical Weights to Learn"; Rebuffi et al. 2017, "iCaRL".

    Example:
        >>> herding(torch.tensor([[0.0], [1.0], [5.0], [6.0]]), 2)
        tensor([1, 2])
    """
    k = _count(k, x)
    return torch.tensor(_herded(centred(x), k, weights), device=x.device)


def _herded(rows: Centred, k: int, weights: Tensor | None = None) -> list[int]:
    x = rows.x
    norms = squared_norms(x)
    share = rounding(x)
    if weights is None:
        size = float(len(x))
        total = torch.stack([part.sum(0, dtype=torch.float64) for part in x.split(ROWS)]).sum(0)
    else:
        counts = _mean_weights(weights, len(x)).to(x.device)
        size = float(counts.sum())
        sums = [part.double().t() @ many for part, many in zip(x.split(ROWS), counts.split(ROWS), strict=True)]
        total = torch.stack(sums).sum(0)
    so_far = torch.zeros_like(total)
    taken = torch.zeros_like(norms, dtype=torch.bool)
    chosen: list[int] = []
    for count in range(1, k + 1):
        wanted = (total * count - so_far * size) / size
        aim = wanted.to(x.dtype)
        # |row - wanted|^2 less what is the same for all, and how far it may be off
        near = torch.addmv(norms, x, aim, alpha=-2).masked_fill_(taken, torch.inf)
        doubt = (norms + aim.square().sum()) * share
        candidates = (near - doubt <= (near + doubt).min()).nonzero().flatten()
        # Multiplied by the number of rows, whole features give whole numbers: equals stay equal.
        exact = [
            (x[part].double() * size - (total * count - so_far * size)).square().sum(1)
            for part in candidates.split(ROWS)
        ]
        row = int(candidates[torch.cat(exact).argmin()])
        so_far += x[row]
        taken[row] = True
        chosen.append(row)
    return chosen


def _mean_weights(weights: Tensor, size: int) -> Tensor:
    given = weights.double()
    if given.shape != (size,) or not bool((given >= 0).all() & given.isfinite().all() & (given.sum() > 0)):
        rule = f"must have shape ({size},), be at least 0, and not all 0"
        raise ValueError(checks.problem("weights", rule, f"shape {tuple(given.shape)}, {given.tolist()[:5]}"))
    return given


def _covered(cover: Cover) -> Picked:
    quantum = cover.distances.quantum
    gains = torch.stack(cover.gains).double() * quantum
    return _picked(cover.indices, gains, cover.served() * quantum, cover.nearest, cover.weights)


def _picked(
    indices: list[int], gains: Tensor, objective: float, nearest: Tensor, weights: Tensor | None = None
) -> Picked:
    sizes = torch.bincount(nearest, weights=weights, minlength=len(indices)).long()
    return Picked(torch.tensor(indices, device=nearest.device), gains, objective, nearest, sizes)


def _count(k: int, x: Tensor) -> int:
    check_shape(x)
    if checks.positive_int("k", k) > len(x):
        raise ValueError(checks.problem("k", f"must be at most {len(x)}, the number of rows", k))
    return int(k)


def _given(first: int | None, chosen: Tensor | None, size: int, k: int) -> list[int]:
    if first is not None and chosen is not None:
        raise ValueError(checks.problem("first", "must be None where `chosen` is given", first))
    if first is not None:
        chosen = torch.tensor([checks.non_negative_int("first", first)])
    if chosen is None:
        return []
    given = chosen.tolist()
    if len(given) > k or len(set(given)) < len(given) or not all(0 <= row < size for row in given):
        rule = f"must be at most k = {k} different rows in [0, {size})"
        raise ValueError(checks.problem("first" if first is not None else "chosen", rule, given))
    return given
