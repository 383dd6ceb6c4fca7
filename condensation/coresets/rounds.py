"""The two rounds of a choice over shards: deal rows out, choose in each shard, choose among what was chosen."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condensation.coresets import shards
from condensation.coresets.base import Chosen, FeatureCoreset
from condensation.coresets.features import Features, as_features, features_of
from lossbuf import checks


class Candidates(NamedTuple):
    """What a shard chose: rows of the whole data, their features, and how many rows each stands for."""

    rows: NDArray[np.int64]
    features: NDArray[Any]
    weights: NDArray[np.float64] | None
    samples: NDArray[Any] | None = None


def deal(groups: NDArray[np.int64], n_shards: int, draws: np.random.RandomState) -> list[NDArray[np.int64]]:
    """Spread rows over shards at random, those of each group evenly.

    Args:
        groups: Group of each row, shape ``(n_samples,)``.
        n_shards: How many.
        draws: Decides which.

    Returns:
        Rows of each shard, ascending; the shards' sizes, and their shares of a group, differ by one at most.

    Example:
        >>> [rows.tolist() for rows in deal(np.array([0, 0, 1, 1, 0, 0]), 2, np.random.RandomState(0))]
        [[0, 2, 5], [1, 3, 4]]
    """
    order = draws.permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    return [np.sort(order[shard::n_shards]) for shard in range(n_shards)]


def chosen_in(
    selector: FeatureCoreset,
    x: NDArray[Any],
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    counts: list[int],
    seed: int,
    device: torch.device | str | None,
) -> Candidates:
    """The first round in a shard of an array.

    Args:
        selector: The method.
        x: Features of all rows.
        rows: Those of the shard, ascending.
        groups: Group of each of them.
        counts: Rows to choose of each group, where there are so many.
        seed: Of whatever is random in the method.
        device: Where to choose.

    Raises:
        ValueError: If a feature of them is not finite.
    """
    part = x[rows]
    bad = np.argwhere(~np.isfinite(part))
    if len(bad):
        row, column = bad[0]
        raise ValueError(checks.problem("features", "must be finite", f"{part[row, column]} at row {rows[row]}"))
    found = _first_round(selector, as_features("features", part).to(device), groups, counts, seed)
    return found._replace(rows=rows[found.rows])


def chosen_of(
    selector: FeatureCoreset,
    source: Features,
    shard: shards.Shard,
    name: str,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    counts: list[int],
    seed: int,
    features_seed: int,
    start: int,
) -> Candidates:
    """The first round in a shard yet to be read, with the samples chosen.

    Args:
        selector: The method.
        source: What it looks at.
        shard: See :data:`~condensation.coresets.shards.Shard`.
        name: Of the shard, for messages.
        labels: Class of each of its rows.
        groups: Group of each of them.
        counts: Rows to choose of each group, where there are so many.
        seed: Of whatever is random in the method.
        features_seed: Of whatever is random in the features, the same for all shards.
        start: Rows of all shards before it.

    Raises:
        ValueError: If the shard cannot be used.
    """
    X = shards.samples(shard, name, labels)
    features = features_of(source, X, torch.from_numpy(labels), features_seed)
    found = _first_round(selector, features, groups, counts, seed)
    return found._replace(rows=found.rows + start, samples=X[found.rows])


def _first_round(
    selector: FeatureCoreset, features: Tensor, groups: NDArray[np.int64], counts: list[int], seed: int
) -> Candidates:
    indices, weights = selector._pick(features, torch.from_numpy(groups), counts, seed, None)
    chosen = features[indices.to(features.device)].cpu().numpy()
    return Candidates(indices.numpy(), chosen, None if weights is None else weights.numpy())


def second_round(
    selector: FeatureCoreset,
    found: list[Candidates],
    groups: NDArray[np.int64],
    counts: list[int],
    seed: int,
    device: torch.device | str | None,
) -> Chosen:
    """The choice among what the shards chose.

    Args:
        selector: The method.
        found: Of every shard.
        groups: Group of each row of the whole data, shape ``(n_samples,)``.
        counts: Rows to choose of each group.
        seed: Of whatever is random in the method.
        device: Where to choose.

    Returns:
        Rows of the whole data, in the order of choice, and their weights where the method has any.
    """
    rows = np.concatenate([part.rows for part in found])
    order = np.argsort(rows)  # so that of equals the lowest row wins
    x = as_features("features", np.concatenate([part.features for part in found])[order]).to(device)
    known = [part.weights for part in found if part.weights is not None]
    weights = torch.from_numpy(np.concatenate(known)[order]) if known else None
    among = torch.from_numpy(rows[order])
    indices, stands_for = selector._pick(x, torch.from_numpy(groups)[among], counts, seed, weights)
    return Chosen(among[indices], selector._sample_weight(stands_for))
