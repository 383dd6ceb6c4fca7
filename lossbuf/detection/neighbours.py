"""What the nearest neighbours of a row say about its label: votes that no network can have memorized."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.arrays.conversion import as_array
from lossbuf.detection import transition

COUNT = 10
"""Neighbours per row."""

REFERENCES = 5000
"""Rows among which neighbours are searched, at most: a random choice where there are more, so that the cost grows
linearly with the number of rows."""

DIMENSIONS = 128
"""Dimensions to which longer features are reduced."""

PROBED_ROWS = 1000
"""Rows on which the two distances are compared."""

BATCH = 1024
"""Rows whose neighbours are searched at a time."""

UNINFORMED = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of rows whose neighbours say nothing about the class, among which :func:`true_probabilities` chooses."""

VOTES, LESS_CERTAIN = (0.3, 0.7, 1.5), 0.7
"""Values besides 1 among which :func:`best_weights` chooses."""

ENOUGH_ROWS = 200
"""Rows out of sample below which the certainty stays 1: whether outputs are too certain shows in a few of them."""

GAIN = 1.0
"""Nats by which all labels together must become more likely before a weight leaves 1; by chance it is half a nat."""

STEPS = 5
"""Steps of expectation maximization for each of them."""


class Space(NamedTuple):
    """Features in which the Euclidean distance between rows is meaningful.

    Attributes:
        x: Float32, shape ``(n_samples, dimensions)``.
        references: Rows among which neighbours are searched, shape ``(n_references,)``.
    """

    x: Tensor
    references: Tensor

    def nearest(self, rows: Int[Tensor, " n_rows"], count: int) -> Int[Tensor, "n_rows count"]:
        """The nearest reference rows of some rows, each row itself excepted, the nearest first."""
        there = self.x[self.references]
        half_norms = there.square().sum(1) / 2
        found = []
        for part in rows.split(BATCH):
            nearness = self.x[part] @ there.t() - half_norms  # largest where the distance is smallest
            nearness.masked_fill_(part.unsqueeze(1) == self.references, -float("inf"))
            found.append(nearness.topk(count, dim=1).indices)
        return self.references[torch.cat(found)]


def as_features(values: ArrayLike | Tensor, n_samples: int) -> Tensor:
    """Features as a float32 tensor of shape ``(n_samples, n_features)``; further axes are flattened.

    Args:
        values: An array, tensor, data frame or nested sequence of finite numbers, shape ``(n_samples, ...)``.
        n_samples: Number of rows that it must have.

    Raises:
        ValueError: If it holds anything but finite numbers, or has another shape.
    """
    try:
        array = as_array(values)
    except TypeError as error:
        raise ValueError(checks.problem("features", "must be an array of numbers", error)) from error
    if array.dtype.kind not in "biuf" or array.ndim < 2:
        found = f"shape {array.shape} and dtype {array.dtype}"
        raise ValueError(checks.problem("features", "must be numbers of shape (n_samples, n_features)", found))
    if len(array) != n_samples:
        raise ValueError(checks.problem("features", f"must have {n_samples} rows, one per label", len(array)))
    with np.errstate(over="ignore"):  # it becomes infinite, which is refused below
        x = torch.from_numpy(array.reshape(len(array), -1).astype(np.float32))
    if not bool(x.isfinite().all()):
        found = "NaN, infinite or very large values"
        raise ValueError(checks.problem("features", "must be finite", found, "Fill in missing values first."))
    return x


def features_of(samples: NDArray[Any]) -> NDArray[Any] | None:
    """Samples as features for neighbours where they are vectors, whose values float32 can hold; else ``None``.

    Args:
        samples: Shape ``(n_samples, ...)``.
    """
    if samples.ndim != 2:
        return None
    with np.errstate(over="ignore"):
        return samples if bool(np.isfinite(samples.astype(np.float32)).all()) else None


def nearest(
    features: Float[Tensor, "n_samples n_features"],
    labels: Int[Tensor, " n_samples"],
    *,
    count: int = COUNT,
    seed: int = 0,
) -> Int[Tensor, "n_samples count"]:
    """The rows nearest to each row.

    The distance is Euclidean, either between features that are standardized or between rows of unit length, which is
    the cosine. Tables need the first and embeddings the second; the one whose neighbours share their given label more
    often is taken. Features of more than :data:`DIMENSIONS` dimensions are reduced to their principal subspace.

    Args:
        features: Features of all rows, see :func:`as_features`.
        labels: Given labels, shape ``(n_samples,)``.
        count: Neighbours per row; fewer where there are not as many other rows.
        seed: Decides the rows that are searched where there are more than :data:`REFERENCES`, and the reduction.

    Returns:
        Row numbers, int64, the nearest first, shape ``(n_samples, count)``.

    Example:
        >>> nearest(torch.tensor([[0.0, 1.0], [0.1, 1.0], [5.0, 1.0]]), torch.tensor([0, 0, 1]), count=1).tolist()
        [[1], [0], [1]]
    """
    x = features
    count = min(checks.positive_int("count", count), len(x) - 1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    references, probed = order[: max(REFERENCES, count + 1)].sort().values, order[:PROBED_ROWS]
    deviation, mean = torch.std_mean(x, dim=0, correction=0)
    standardized = (x - mean) / torch.where(deviation > 0, deviation, 1.0)
    spaces = [Space(_reduced(values, generator), references) for values in (standardized, F.normalize(x, dim=1))]
    agreements = [
        (labels[space.nearest(probed, count)] == labels[probed].unsqueeze(1)).double().mean() for space in spaces
    ]
    chosen = spaces[int(torch.stack(agreements).nan_to_num().argmax())]
    return chosen.nearest(torch.arange(len(x), device=x.device), count)


def _reduced(x: Tensor, generator: torch.Generator) -> Tensor:
    """Coordinates in about the first principal components; ``x`` itself where it has few dimensions.

    Source:
        Halko, Martinsson, Tropp 2011, "Finding structure with randomness", algorithm 4.4 with one iteration.
    """
    if x.shape[1] <= DIMENSIONS:
        return x
    sample = x[:REFERENCES]
    guess = torch.randn(x.shape[1], DIMENSIONS, generator=generator).to(x.device)
    basis = torch.linalg.qr(sample.t() @ (sample @ guess)).Q
    return x @ basis


def votes(
    neighbours: Int[Tensor, "n_rows count"], labels: Int[Tensor, " n_samples"], num_classes: int
) -> Float[Tensor, "n_rows num_classes"]:
    """How many neighbours of each row were given each class.

    Args:
        neighbours: Row numbers, shape ``(n_rows, count)``.
        labels: Given labels of all rows, shape ``(n_samples,)``.
        num_classes: Number of classes.
    """
    counts = torch.zeros(len(neighbours), num_classes, device=labels.device)
    given = labels[neighbours]
    return counts.scatter_add_(1, given, torch.ones_like(given, dtype=counts.dtype))


def true_probabilities(
    counts: Float[Tensor, "n_samples num_classes"],
    labels: Int[Tensor, " n_samples"],
    matrix: Float[Tensor, "num_classes num_classes"],
) -> Float[Tensor, "n_samples num_classes"]:
    """Probabilities of the true class by votes alone.

    Label noise is undone in the shares of the votes (:func:`~lossbuf.detection.transition.deconvolved`), which are then
    mixed with the shares of the classes. The weight of these is the one of :data:`UNINFORMED` under which the given
    labels are most likely: features that say nothing about the classes then give the shares of the classes for every
    row.

    Args:
        counts: Votes, see :func:`votes`.
        labels: Given labels, shape ``(n_samples,)``, on which the votes for the same row do not depend.
        matrix: P(given | true).
    """
    num_classes = counts.shape[1]
    shares = (counts + 1 / num_classes) / (counts.sum(1, keepdim=True) + 1)
    true = transition.deconvolved(shares, matrix)
    prior = transition.true_shares(matrix, labels).to(true.dtype)
    towards_label = matrix.to(true.dtype).t()[labels]
    by_votes, by_shares = (true * towards_label).sum(1), towards_label @ prior
    likelihoods = [
        ((1 - share) * by_votes + share * by_shares).clamp(min=1e-12).log().double().mean() for share in UNINFORMED
    ]
    share = UNINFORMED[int(torch.stack(likelihoods).argmax())]
    return (1 - share) * true + share * prior


class Weights(NamedTuple):
    """How two opinions about the true class are combined.

    Attributes:
        votes: Weight of the votes against the outputs of the network.
        certainty: Power of the product of both, below 1 where they are too certain together.
    """

    votes: float = 0.7
    certainty: float = 1.0


USUAL_WEIGHTS = Weights()
"""Weights where nothing is out of sample to choose by. Network and neighbours see the same features, so their errors
are related, and the votes count less than independent evidence would."""


def combined(
    true_probs: Float[Tensor, "n_samples num_classes"],
    by_neighbours: Float[Tensor, "n_samples num_classes"],
    weights: Weights = USUAL_WEIGHTS,
) -> Float[Tensor, "n_samples num_classes"]:
    """Probabilities in proportion to a weighted product of two opinions."""
    logs = true_probs.clamp(min=1e-9).log() + weights.votes * by_neighbours.clamp(min=1e-9).log()
    return (weights.certainty * logs).softmax(1)


def best_weights(
    true_probs: Float[Tensor, "n_samples num_classes"],
    by_neighbours: Float[Tensor, "n_samples num_classes"],
    labels: Int[Tensor, " n_samples"],
    matrix: Float[Tensor, "num_classes num_classes"],
    out_of_sample: Bool[Tensor, " n_samples"],
) -> Weights:
    """The weights under which the given labels of rows out of sample are most likely.

    The weight of the votes is chosen first, and then the certainty. Both stay 1 unless the log-likelihood gains
    :data:`GAIN`.

    Args:
        true_probs: Probabilities of the true class by a network.
        by_neighbours: The same by :func:`true_probabilities`.
        labels: Given labels, shape ``(n_samples,)``.
        matrix: P(given | true) to start from; for all weights it is estimated anew from all rows.
        out_of_sample: True for rows that the network was not trained on; where there are none, the usual weights are
            returned.
    """
    if not bool(out_of_sample.any()):
        return USUAL_WEIGHTS

    def likelihood(weights: Weights) -> float:
        probs = combined(true_probs, by_neighbours, weights)
        fitted = transition.from_joint(probs, labels, matrix, STEPS)
        towards_label = fitted.to(probs.dtype).t()[labels[out_of_sample]]
        return float((probs[out_of_sample] * towards_label).sum(1).clamp(min=1e-12).log().double().sum())

    def better(start: Weights, others: list[Weights], gain: float) -> Weights:
        least = likelihood(start) + gain
        found = max(others, key=likelihood)
        return found if likelihood(found) > least else start

    equal = Weights(1.0, 1.0)
    chosen = better(equal, [Weights(votes, 1.0) for votes in VOTES], GAIN)
    if int(out_of_sample.sum()) < ENOUGH_ROWS:
        return chosen
    return better(chosen, [chosen._replace(certainty=LESS_CERTAIN)], GAIN)
