"""Nearest neighbours and their votes, one row at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nearest(x: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Rows nearest to each row by the Euclidean distance, the nearest first."""
    found = []
    for row in range(len(x)):
        distances = [(float(np.linalg.norm(x[row] - x[other])), other) for other in range(len(x)) if other != row]
        found.append([other for _, other in sorted(distances)[:count]])
    return np.array(found)


def standardized(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns with mean 0 and deviation 1; a constant column becomes 0."""
    deviation = x.std(0)
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1.0)


def unit_length(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def votes(neighbours: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """How many neighbours of each row were given each class."""
    counts = np.zeros((len(neighbours), num_classes))
    for row, others in enumerate(neighbours):
        for other in others:
            counts[row, labels[other]] += 1
    return counts
