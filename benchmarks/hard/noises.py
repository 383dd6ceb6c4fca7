"""The noise of the hard suite: true labels go in, given labels come out, some of them wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.hard.data import HardData
from lossbuf import noise
from lossbuf.noise import NoisyLabels

PSEUDO_VOTES = 0.1
"""Votes that each row gets from all votes on its class."""


def noisy_labels(data: HardData, kind: str, rate: float, seed: int) -> NoisyLabels:
    """Given labels of a data set.

    Args:
        data: The data set.
        kind: ``"clean"``, ``"symmetric"``, ``"pair-flip"``, ``"class-dependent"`` (the data set's usual confusions, or
            each even class into the next one), ``"confusable"`` (each class into the one with the nearest mean),
            ``"human"`` (drawn from people's votes) or ``"real"`` (the labels that came with the data).
        rate: Share of wrong labels, of the classes concerned. Real noise has its own.
        seed: Decides which labels become wrong.

    Raises:
        ValueError: If the kind is unknown or the data set does not have what it needs.
    """
    classes, labels = data.num_classes, data.labels
    if kind == "clean":
        return noise.compared(labels, labels, classes)
    if kind == "real" and data.given is not None:
        return noise.compared(labels, data.given, classes)
    if kind == "human" and data.votes is not None:
        chances = tempered(smoothed(data.votes, labels), labels, rate)
        return noise.compared(labels, drawn(chances, seed), classes)
    even = {label: (label + 1) % classes for label in range(0, classes, 2)}
    transitions = {
        "symmetric": lambda: noise.symmetric(classes, rate),
        "pair-flip": lambda: noise.pair_flip(classes, rate),
        "class-dependent": lambda: noise.class_dependent(classes, rate, data.confusions or even),
        "confusable": lambda: noise.class_dependent(classes, rate, nearest_classes(data.x, labels)),
    }
    if kind not in transitions:
        raise ValueError(f"`kind` must be a noise that the data set has, got {kind!r}.")
    return noise.corrupt(labels, transitions[kind](), seed)


def nearest_classes(x: torch.Tensor, labels: NDArray[np.int64]) -> dict[int, int]:
    """For each class the other class whose mean is nearest, by Euclidean distance of standardized samples."""
    flat = x.flatten(1).double()
    deviation, mean = torch.std_mean(flat, dim=0, correction=0)
    flat = (flat - mean) / torch.where(deviation > 0, deviation, 1.0)
    classes = torch.from_numpy(labels)
    means = torch.stack([flat[classes == label].mean(0) for label in range(int(labels.max()) + 1)])
    distances = torch.cdist(means, means).fill_diagonal_(float("inf"))
    return dict(enumerate(distances.argmin(1).tolist()))


def smoothed(votes: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares of the votes on each row, with :data:`PSEUDO_VOTES` added from all votes on rows of its class.

    Many rows have votes for one class alone, of which no tempering could make a wrong label.

    Args:
        votes: Counts, shape ``(n_samples, num_classes)``.
        labels: True labels, shape ``(n_samples,)``.

    Returns:
        Shares of the same shape; rows sum to 1.
    """
    of_class = np.zeros((votes.shape[1], votes.shape[1]))
    np.add.at(of_class, labels, votes)
    of_class /= of_class.sum(1, keepdims=True)
    mixed = votes + PSEUDO_VOTES * of_class[labels]
    return mixed / mixed.sum(1, keepdims=True)


def tempered(shares: NDArray[np.float64], labels: NDArray[np.int64], rate: float) -> NDArray[np.float64]:
    """Chances proportional to ``shares ** (1 / temperature)`` under which a label is wrong with probability ``rate``.

    The temperature is found by bisection. The higher it is, the less people agree; ambiguous rows go wrong first.

    Args:
        shares: Shares of the votes, shape ``(n_samples, num_classes)``.
        labels: True labels, shape ``(n_samples,)``.
        rate: Expected share of wrong labels over all rows.

    Raises:
        ValueError: If no temperature gives that rate.
    """

    def at(power: float) -> NDArray[np.float64]:
        scaled = (shares / shares.max(1, keepdims=True)) ** power
        return scaled / scaled.sum(1, keepdims=True)

    def wrong(power: float) -> float:
        return 1 - float(at(power)[np.arange(len(labels)), labels].mean())

    low, high = 1e-3, 1e3  # powers: the rate falls as they rise
    least, most = wrong(high), wrong(low)
    if not least <= rate <= most:
        raise ValueError(f"`rate` must lie between {least:.3f} and {most:.3f} with these votes, got {rate}.")
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if wrong(middle) > rate else (low, middle)
    return at(high)


def drawn(chances: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """One class drawn for each row from its chances, shape ``(n_samples,)``."""
    edges = np.cumsum(chances, axis=1)
    edges /= edges[:, -1:]
    draws = np.random.default_rng(seed).random(len(chances))
    return (draws[:, None] >= edges).sum(1)
