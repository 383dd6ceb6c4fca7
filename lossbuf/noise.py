"""Synthetic label noise, seeded: symmetric, pair-flip, class-dependent and instance-dependent.

``transition[i, j]`` is P(given = j | true = i); rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossbuf import checks

CIFAR10_CONFUSIONS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
"""truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog."""

MNIST_CONFUSIONS = {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}
"""7 -> 1, 2 -> 7, 5 <-> 6, 3 -> 8; for all sets of digits."""

FASHION_MNIST_CONFUSIONS = {0: 6, 6: 0, 2: 4, 4: 2, 5: 7}
"""T-shirt <-> Shirt, Pullover <-> Coat, Sandal -> Sneaker."""


class NoisyLabels(NamedTuple):
    """Labels after noise.

    Attributes:
        labels: Given labels, shape ``(n_samples,)``.
        noise_mask: True where the label was changed, shape ``(n_samples,)``.
        transition: The realised shares ``P(given | true)``, shape ``(num_classes, num_classes)``; the row of a class
            without samples is that of the identity.
    """

    labels: NDArray[np.int64]
    noise_mask: NDArray[np.bool_]
    transition: NDArray[np.float64]


def symmetric(num_classes: int, noise_rate: float) -> NDArray[np.float64]:
    """Every other class equally likely.

    Example:
        >>> symmetric(3, 0.5)
        array([[0.5 , 0.25, 0.25],
               [0.25, 0.5 , 0.25],
               [0.25, 0.25, 0.5 ]])
    """
    checks.positive_int("num_classes", num_classes)
    checks.rate("noise_rate", noise_rate)
    if num_classes == 1:
        return np.ones((1, 1))
    transition = np.full((num_classes, num_classes), noise_rate / (num_classes - 1))
    np.fill_diagonal(transition, 1 - noise_rate)
    return transition


def pair_flip(num_classes: int, noise_rate: float) -> NDArray[np.float64]:
    """Class c becomes c + 1, the last becomes the first."""
    checks.positive_int("num_classes", num_classes)
    return class_dependent(num_classes, noise_rate, {c: (c + 1) % num_classes for c in range(num_classes)})


def class_dependent(num_classes: int, noise_rate: float, confusions: Mapping[int, int]) -> NDArray[np.float64]:
    """Each class named in ``confusions`` becomes the one it maps to, with probability ``noise_rate``."""
    checks.positive_int("num_classes", num_classes)
    checks.rate("noise_rate", noise_rate)
    transition = np.eye(num_classes)
    for true, given in confusions.items():
        integers = all(isinstance(c, int | np.integer) and not isinstance(c, bool) for c in (true, given))
        if not (integers and 0 <= true < num_classes and 0 <= given < num_classes):
            raise ValueError(
                checks.problem("confusions", f"must map classes in [0, {num_classes})", f"{true}: {given}")
            )
        if true != given:
            transition[true, true] = 1 - noise_rate
            transition[true, given] = noise_rate
    return transition


def corrupt(
    true_labels: ArrayLike, transition: ArrayLike, random_state: int | np.random.Generator | None = None
) -> NoisyLabels:
    """Draw a given label for every true one.

    Args:
        true_labels: Integer labels, shape ``(n_samples,)``.
        transition: P(given | true), rows sum to 1, shape ``(num_classes, num_classes)``.
        random_state: Seed or generator.

    Raises:
        ValueError: If the matrix is not square and row-stochastic, or a label is out of its range.
    """
    matrix = np.asarray(transition, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(checks.problem("transition", "must be square", f"shape {matrix.shape}"))
    if not (np.all(matrix >= 0) and np.allclose(matrix.sum(1), 1)):
        raise ValueError(checks.problem("transition", "must have rows of shares that sum to 1", matrix.sum(1)))
    true = checks.class_labels("true_labels", true_labels, len(matrix)).numpy()
    draws = np.random.default_rng(random_state).random(len(true))
    # The last edge is 1 by rounding up, so that no draw falls beyond it; classes of share 0 have no width.
    edges = np.cumsum(matrix, axis=1)
    edges /= edges[:, -1:]
    given = (draws[:, None] >= edges[true]).sum(1)
    return compared(true, given, len(matrix))


def instance_dependent(
    x: ArrayLike,
    true_labels: ArrayLike,
    noise_rate: float,
    num_classes: int | None = None,
    random_state: int | np.random.Generator | None = None,
) -> NoisyLabels:
    """Noise that depends on the sample: which class a sample is taken for, and how often, follows from its values.

    Each sample's flip probability is drawn from a normal distribution around ``noise_rate`` (deviation 0.1, cut off at
    both sides alike where it would leave [0, 1]); the other classes share it by a softmax of the sample times a random
    projection of its true class.

    Args:
        x: Samples, finite, shape ``(n_samples, ...)``; used flattened and standardised as a whole.
        true_labels: Integer labels, shape ``(n_samples,)``.
        noise_rate: Mean flip probability, in [0, 1].
        num_classes: Number of classes; by default the largest label plus 1.
        random_state: Seed or generator.

    Raises:
        ValueError: If shapes differ, the rate is out of range or a label is, or ``x`` is not finite.

    Source:
        Xia et al. 2020, "Part-dependent Label Noise", arXiv:2006.07836, Algorithm 2.

    Differs from the paper:
        The paper cuts at 0 and 1 only, which at a rate of 0.1 gives 0.129 on average. Below 0.2 and above 0.8 the
        deviation is half the distance to the nearer end.
    """
    checks.rate("noise_rate", noise_rate)
    true = checks.class_labels("true_labels", true_labels, num_classes).numpy()
    num_classes = int(true.max()) + 1 if num_classes is None else num_classes
    flat = np.asarray(x, dtype=np.float32).reshape(len(np.asarray(x)), -1)
    if len(flat) != len(true):
        raise ValueError(checks.problem("x", f"must have {len(true)} rows, as many as labels", len(flat)))
    if num_classes == 1:
        return compared(true, true.copy(), 1)
    if not np.isfinite(flat).all():
        raise ValueError(checks.problem("x", "must be finite", "NaN or infinite values"))
    if not flat.size:
        raise ValueError(checks.problem("x", "must hold values", f"shape {np.shape(x)}"))
    with np.errstate(over="ignore", invalid="ignore"):  # told of below
        deviation = float(flat.std())
    if not np.isfinite(deviation):
        advice = "Divide it by its largest value."
        raise ValueError(checks.problem("x", "must have a deviation that is finite in float32", deviation, advice))
    flat = (flat - flat.mean()) / max(deviation, 1e-12)
    generator = np.random.default_rng(random_state)
    flip = _flip_probabilities(generator, noise_rate, len(true))
    projection = generator.standard_normal((num_classes, flat.shape[1], num_classes), dtype=np.float32)
    given = np.empty_like(true)
    for label in range(num_classes):
        rows = np.flatnonzero(true == label)
        logits = (flat[rows] @ projection[label]).astype(np.float64)
        logits[:, label] = -np.inf
        shares = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
        shares *= (flip[rows] / shares.sum(1))[:, None]
        shares[:, label] = 1 - flip[rows]
        given[rows] = (generator.random(len(rows))[:, None] >= np.cumsum(shares, 1)[:, :-1]).sum(1)
    return compared(true, given, num_classes)


def _flip_probabilities(generator: np.random.Generator, mean: float, size: int) -> NDArray[np.float64]:
    reach = min(mean, 1 - mean)  # alike on both sides, so that the mean stays
    distance = np.full(size, np.inf)
    while (outside := np.abs(distance) > reach).any():
        distance[outside] = generator.normal(0, min(0.1, reach / 2), int(outside.sum()))
    return np.clip(mean + distance, 0, 1)


def compared(true_labels: ArrayLike, labels: ArrayLike, num_classes: int) -> NoisyLabels:
    """Given labels that come from elsewhere, with their mask and realised transition matrix.

    Args:
        true_labels: Integer labels, shape ``(n_samples,)``.
        labels: Given labels, shape ``(n_samples,)``.
        num_classes: Number of classes.

    Raises:
        ValueError: If the lengths differ or a label is out of range.
    """
    true = checks.class_labels("true_labels", true_labels, num_classes).numpy()
    given = checks.class_labels("labels", labels, num_classes).numpy()
    if len(true) != len(given):
        raise ValueError(checks.problem("labels", f"must be {len(true)}, as many as `true_labels`", len(given)))
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (true, given), 1)
    empty = counts.sum(1) == 0
    counts[empty] = np.eye(num_classes)[empty]
    return NoisyLabels(given.astype(np.int64), given != true, counts / counts.sum(1, keepdims=True))
