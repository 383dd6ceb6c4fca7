"""Histograms of oriented gradients: small gray images go in, features that bear small shifts come out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def oriented_gradients(images: NDArray[Any], cell: int = 4, directions: int = 8) -> NDArray[np.float32]:
    """How strongly the brightness changes in each direction, in each square cell of the images.

    The length of every gradient is shared between the two directions next to it. The histogram of an image is scaled
    to length 1 and its square roots are taken, so that few strong edges do not outweigh all others.

    Args:
        images: Shape ``(n_samples, height, width)``; height and width are multiples of ``cell``.
        cell: Height and width of a cell in pixels.
        directions: Directions told apart in the half circle; a gradient and its opposite are the same.

    Returns:
        Features of shape ``(n_samples, height / cell * width / cell * directions)``.
    """
    gray = images.astype(np.float32)
    vertical, horizontal = np.gradient(gray, axis=(1, 2))
    length = np.hypot(vertical, horizontal)
    place = np.mod(np.arctan2(vertical, horizontal), np.pi) / np.pi * directions
    lower = np.floor(place)
    upper_share = place - lower
    first = lower.astype(np.int64) % directions
    second = (first + 1) % directions
    samples, height, width = gray.shape
    shape = (samples, height // cell, cell, width // cell, cell)
    histograms = np.stack(
        [
            (length * ((first == bin_) * (1 - upper_share) + (second == bin_) * upper_share)).reshape(shape).sum((2, 4))
            for bin_ in range(directions)
        ],
        axis=-1,
    ).reshape(samples, -1)
    norms = np.linalg.norm(histograms, axis=1, keepdims=True)
    return np.sqrt(histograms / np.maximum(norms, 1e-12)).astype(np.float32)
