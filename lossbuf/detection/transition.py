"""The label noise itself: transition matrix, noise rate and likely true labels, from the outputs of a network.

``transition[i, j]`` is P(given = j | true = i); rows sum to 1. The estimates rest on two assumptions: given the true
class, the given label does not depend on the sample; and in every class the right label is the most frequent one. With
more than half of a class mislabelled the true class is a matter of names, and no estimate can know better.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SMOOTHING = 2e-3
"""Share of an estimated matrix that is even: no wrong label is held to be impossible."""

DISTINCT = 2.0
"""How many times more frequent a label must be among the anchors of its class than among those of the class that most
of these are named after, see :func:`is_unsupported`."""

ENOUGH_ANCHORS = 20
"""Anchors below which no class is found to be unsupported: of a few, most carry another label by chance."""

EVEN = 0.75
"""Scatter of the entries off the diagonal, over their mean, below which noise counts as even. Estimates of symmetric
noise have at most .6, of any other kind at least .9 (10,000 rows of CIFAR-10, the hardest case tried)."""


class Anchored(NamedTuple):
    """A transition matrix counted from anchors.

    Attributes:
        matrix: P(given | true), rows sum to 1, float64, shape ``(num_classes, num_classes)``.
        counts: Anchors of each class, float64, shape ``(num_classes,)``.
        unsupported: True for classes without rows of their own, see :func:`is_unsupported`, shape ``(num_classes,)``.
    """

    matrix: Tensor
    counts: Tensor
    unsupported: Tensor

    def hidden(self) -> Bool[Tensor, " num_classes"]:
        """True where more than half of the labels of a class seem wrong, by two standard errors, or all of them."""
        return self.unsupported | (self.matrix.diagonal() + self.counts.clamp(min=1).rsqrt() < 0.5)

    def rate_error(self, labels: Int[Tensor, " n_samples"]) -> Float[Tensor, ""]:
        """Standard error of the noise rate that comes from counting so few anchors, a float64 scalar."""
        right = self.matrix.diagonal()
        variance = true_shares(self.matrix, labels).square() * right * (1 - right) / self.counts.clamp(min=1)
        return variance.sum().sqrt()


def deconvolved(
    outputs: Float[Tensor, "n_samples num_classes"],
    transition: Float[Tensor, "num_classes num_classes"],
    steps: int = 20,
) -> Float[Tensor, "n_samples num_classes"]:
    """Probabilities of the true class, from outputs of a network that was trained on the given labels.

    Such a network says P(given | x) = sum over true of P(true | x) transition[true, given]; this undoes the sum.

    Args:
        outputs: Probabilities, rows sum to 1, shape ``(n_samples, num_classes)``.
        transition: Shape ``(num_classes, num_classes)``.
        steps: Iterations.

    Source:
        Richardson 1972, Lucy 1974.
    """
    matrix = transition.to(outputs.dtype)
    true = outputs.clone()
    for _ in range(steps):
        true.mul_((outputs / (true @ matrix).clamp_(min=1e-9)) @ matrix.t())
        true.div_(true.sum(1, keepdim=True).clamp_(min=1e-9))
    return true


def wrong_log_odds(
    true_probs: Float[Tensor, "n_samples num_classes"],
    labels: Int[Tensor, " n_samples"],
    transition: Float[Tensor, "num_classes num_classes"],
) -> Float[Tensor, " n_samples"]:
    """Log-odds that the given label is wrong, shape ``(n_samples,)``.

    With P(true = j | x, given) in proportion to P(true = j | x) transition[j, given].
    """
    joint = true_probs * transition.to(true_probs.dtype).t()[labels]
    right = joint.gather(1, labels.unsqueeze(1)).squeeze(1)
    wrong = joint.scatter(1, labels.unsqueeze(1), 0.0).sum(1)
    return (wrong + 1e-9).log() - (right + 1e-9).log()


def likely_labels(
    true_probs: Float[Tensor, "n_samples num_classes"],
    labels: Int[Tensor, " n_samples"],
    transition: Float[Tensor, "num_classes num_classes"],
) -> Int[Tensor, " n_samples"]:
    """The most likely true class other than the given label, shape ``(n_samples,)``; the label if there is no other."""
    joint = true_probs * transition.to(true_probs.dtype).t()[labels]
    return joint.scatter_(1, labels.unsqueeze(1), -1.0).argmax(1)


def from_anchors(
    outputs: Float[Tensor, "n_samples num_classes"],
    labels: Int[Tensor, " n_samples"],
    usable: Bool[Tensor, " n_samples"] | None = None,
    *,
    confidence: float = 0.8,
    least: int = 75,
    most: float = 0.3,
    rounds: int = 4,
) -> Anchored:
    """Transition matrix from the samples that are most surely of each class: how often is each label given to them?

    Anchors of a class are the rows whose deconvolved probability of it is above ``confidence``, but at least ``least``
    (or half the class, if that is less) and at most the share ``most`` of the class. Entries off the diagonal are drawn
    toward their mean as far as their scatter is what so few anchors would show by chance, and each row counts one
    anchor more, with labels as wrong as those of the anchors of all classes together, so that a class of few rows is
    not held to be free of noise. Each round deconvolves with the matrix of the round before. Classes that have no rows
    of their own (:func:`is_unsupported`) get the row of symmetric noise at the usual rate.

    Args:
        outputs: Probabilities of a network trained on the given labels, shape ``(n_samples, num_classes)``.
        labels: Given labels, shape ``(n_samples,)``.
        usable: Where False the row is no anchor.
        confidence: See above.
        least: See above.
        most: See above.
        rounds: See above, at least 1.

    Returns:
        The matrix and the number of anchors. A class that no label names has the row of the identity.

    Source:
        Anchor points: Patrini et al. 2017. Counting given labels of confident rows: Northcutt et al. 2021.

    Differs from the papers:
        Many anchors a class and their labels instead of one and its output; deconvolution; shrinkage.
    """
    num_classes = outputs.shape[1]
    if usable is not None:
        outputs, labels = outputs[usable], labels[usable]
    given = torch.nn.functional.one_hot(labels, num_classes).double()
    sizes = given.sum(0)
    floor = torch.minimum((sizes / 2).floor(), torch.full_like(sizes, float(least))).clamp(min=1)
    ceiling = torch.maximum((most * sizes).floor(), floor)
    true, counts = outputs, floor
    matrix = torch.eye(num_classes, dtype=torch.float64, device=outputs.device)
    unsupported = torch.zeros(num_classes, dtype=torch.bool, device=outputs.device)
    usual = matrix
    for turn in range(rounds):
        if turn:
            unsupported |= is_unsupported(matrix, deconvolved(outputs, matrix), sizes, counts)
            matrix = torch.where(unsupported.unsqueeze(1), smoothed(usual), matrix)
            true = deconvolved(outputs, matrix)
            counts = torch.minimum(torch.maximum((true > confidence).sum(0).double(), floor), ceiling)
        found = torch.zeros_like(matrix)
        for label in torch.nonzero(sizes).flatten().tolist():
            anchors = true[:, label].argsort(descending=True, stable=True)[: int(counts[label])]
            found[label] = given[anchors].mean(0)
        known, named = counts.unsqueeze(1), (sizes > 0).unsqueeze(1)
        wrong = (counts * (1 - found.diagonal()) * (sizes > 0)).sum()
        usual = _symmetric(wrong / (counts * (sizes > 0)).sum().clamp(min=1), num_classes)
        found = (shrunk(found, counts) * known + usual) / (known + 1)
        found = torch.where(unsupported.unsqueeze(1), usual, found)
        matrix = smoothed(torch.where(named, found, torch.eye(num_classes).to(found)))
    return Anchored(matrix, counts, unsupported)


def is_unsupported(
    matrix: Float[Tensor, "num_classes num_classes"],
    true_probs: Float[Tensor, "n_samples num_classes"],
    sizes: Float[Tensor, " num_classes"],
    counts: Float[Tensor, " num_classes"],
) -> Bool[Tensor, " num_classes"]:
    """True for classes that cannot be told from another class, which would lose its rows to them.

    Where all labels of a class are wrong and its rows look like those of another class, most anchors of the first carry
    the label of the second. The matrix then says that this is the usual label of the first class, and rows of the
    second whose labels are right seem to be mislabelled. Labels cannot tell the two explanations apart; the one in
    which a class keeps the rows that carry its name is taken. A class is unsupported if more of its anchors carry the
    label of another class than its own, by a standard error, and if either its own label is hardly more frequent among
    them than among the anchors of the other (:data:`DISTINCT`), or over half of the rows of the other would be its own.

    Args:
        matrix: P(given | true).
        true_probs: Probabilities of the true class by this matrix.
        sizes: Number of labels of each class.
        counts: Number of anchors of each class.
    """
    if len(matrix) < 2:
        return torch.zeros(len(matrix), dtype=torch.bool, device=matrix.device)
    right = matrix.diagonal()
    share, other = (matrix - torch.diag(right)).max(1)
    there = matrix[other, torch.arange(len(matrix), device=matrix.device)]
    left = true_probs.sum(0).double()[other]
    clearly = (counts >= ENOUGH_ANCHORS) & (share - right > ((share + right) / counts.clamp(min=1)).sqrt())
    return clearly & ((right < DISTINCT * there) | (left < sizes[other] / 2))


def _symmetric(rate: Float[Tensor, ""], num_classes: int) -> Float[Tensor, "num_classes num_classes"]:
    off = rate / max(num_classes - 1, 1)
    return torch.diag((1 - rate - off).expand(num_classes)) + off


def shrunk(
    matrix: Float[Tensor, "num_classes num_classes"], counts: Float[Tensor, " num_classes"]
) -> Float[Tensor, "num_classes num_classes"]:
    """Entries off the diagonal, drawn toward their row's mean as far as chance explains their scatter.

    Args:
        matrix: Shares, rows sum to 1.
        counts: Samples that each row was counted from.

    Source:
        Empirical Bayes, as in James, Stein 1961: the share kept is 1 - (variance by chance) / (variance seen).
    """
    if len(matrix) < 3:
        return matrix
    off = ~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
    mean = ((matrix.sum(1) - matrix.diagonal()) / (len(matrix) - 1)).unsqueeze(1)
    by_chance = (matrix * (1 - matrix) / counts.unsqueeze(1))[off].mean()
    seen = (matrix - mean)[off].square().mean()
    kept = (1 - by_chance / seen.clamp(min=1e-12)).clamp(min=0.0)
    return torch.where(off, mean + kept * (matrix - mean), matrix)


def is_even(matrix: Float[Tensor, "num_classes num_classes"]) -> bool:
    """Whether all wrong labels are about as likely, so that the noise is symmetric; waits for the device.

    Never with fewer than three classes: there a row has one entry off the diagonal, and tells of a rate only.
    """
    off = matrix[~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)]
    return len(matrix) > 2 and bool(off.std(correction=0) < EVEN * off.mean())


def smoothed(matrix: Float[Tensor, "num_classes num_classes"]) -> Float[Tensor, "num_classes num_classes"]:
    """A share of :data:`SMOOTHING` of every row spread evenly over it."""
    return (1 - SMOOTHING) * matrix + SMOOTHING / len(matrix)


def from_joint(
    true_probs: Float[Tensor, "n_samples num_classes"],
    labels: Int[Tensor, " n_samples"],
    start: Float[Tensor, "num_classes num_classes"],
    steps: int = 50,
) -> Float[Tensor, "num_classes num_classes"]:
    """Transition matrix under which the given labels are most likely, by expectation maximization.

    Args:
        true_probs: Probabilities of the true class, from a network that wrong labels did not teach, shape
            ``(n_samples, num_classes)``.
        labels: Given labels, shape ``(n_samples,)``.
        start: The matrix to start from.
        steps: Iterations at most.

    Returns:
        The matrix, float64. In every step its entries off the diagonal are drawn together as far as chance explains
        their scatter (:func:`shrunk`): with a few rows per class a matrix of their counts would explain each of them.
    """
    matrix = start.double()
    given = torch.nn.functional.one_hot(labels, true_probs.shape[1]).to(true_probs.dtype)
    for _ in range(steps):
        joint = true_probs * matrix.to(true_probs.dtype).t()[labels]
        joint.div_(joint.sum(1, keepdim=True).clamp_(min=1e-12))
        counts = (joint.t() @ given).double()
        sizes = counts.sum(1, keepdim=True)
        found = shrunk(counts / sizes.clamp(min=1e-9), sizes.squeeze(1).clamp(min=1.0))
        matrix = torch.where(sizes > 0, found, matrix)
    return matrix


TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Powers of probabilities among which :func:`sharpness` chooses."""

SEARCHED_ROWS = 5000
"""Rows that :func:`sharpness` looks at, at most."""

SEARCH_STEPS = 15
"""Steps of expectation maximization for each power."""


def sharpened(probs: Float[Tensor, "n_samples num_classes"], power: float) -> Float[Tensor, "n_samples num_classes"]:
    """Probabilities to a power, each row summing to 1: more certain above 1, less below."""
    return probs if power == 1 else (probs.clamp(min=1e-9).log() * power).softmax(1)


def sharpness(
    true_probs: Float[Tensor, "n_samples num_classes"],
    labels: Int[Tensor, " n_samples"],
    start: Float[Tensor, "num_classes num_classes"],
) -> float:
    """The power of the probabilities under which the given labels are most likely; waits for the device.

    A network that is too certain about rows it was not trained on takes its own errors for wrong labels, and one that
    still remembers some of them takes wrong labels for right. Either shows in the labels: the power is one of
    :data:`TEMPERATURES`, each with the transition matrix that fits it best (:func:`from_joint`).

    Args:
        true_probs: Probabilities of the true class, shape ``(n_samples, num_classes)``.
        labels: Given labels, shape ``(n_samples,)``.
        start: The matrix to start from.

    Returns:
        The square root of that power: rows in training, which fit their labels, pull it away from 1.

    Source:
        Temperature scaling: Guo et al. 2017.

    Differs from the paper:
        The labels are wrong ones, too, so that the likelihood is that of a mixture.
    """
    step = -(-len(labels) // SEARCHED_ROWS)
    true_probs, labels = true_probs[::step], labels[::step]
    best, found, matrix = -float("inf"), 1.0, start
    for power in TEMPERATURES:
        probs = sharpened(true_probs, power)
        matrix = from_joint(probs, labels, matrix, SEARCH_STEPS)
        of_given = (probs * matrix.to(probs.dtype).t()[labels]).sum(1)
        likelihood = float(of_given.clamp(min=1e-12).log().double().mean())
        if likelihood > best:
            best, found = likelihood, power
    return math.sqrt(found)


def true_shares(
    transition: Float[Tensor, "num_classes num_classes"], labels: Int[Tensor, " n_samples"]
) -> Float[Tensor, " num_classes"]:
    """Shares of the true classes under which the given labels are most likely, shape ``(num_classes,)``, float64."""
    matrix = transition.double()
    given = torch.bincount(labels, minlength=len(matrix)).double()
    given = given / given.sum().clamp(min=1)
    shares = given.clone()
    for _ in range(200):
        before = shares
        shares = shares * (matrix @ (given / (shares @ matrix).clamp(min=1e-12)))
        shares = shares / shares.sum().clamp(min=1e-12)
        if bool((shares - before).abs().max() < 1e-6):
            break
    return shares


def noise_rate(
    transition: Float[Tensor, "num_classes num_classes"], labels: Int[Tensor, " n_samples"]
) -> Float[Tensor, ""]:
    """Share of wrong labels: the sum of true_shares[i] (1 - transition[i, i]), a float64 scalar."""
    return 1 - (true_shares(transition, labels) * transition.double().diagonal()).sum()
