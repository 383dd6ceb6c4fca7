"""Where the channels of images are, and which values are black and white: the rules that all readers share."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Layout = Literal["first", "last"]

FEW_CHANNELS = 4
"""Images in colour, grey or with transparency have at most so many channels."""


def channel_layout(shape: tuple[int, ...]) -> Layout | None:
    """Which axis of a batch of images holds the channels; ``None`` where the shape does not say.

    The channels are the second or the last axis, whichever is shorter than both of the others. If neither is, one of at
    most four channels beside a longer one decides.

    Args:
        shape: ``(n_samples, channels, height, width)`` or ``(n_samples, height, width, channels)``.

    Example:
        >>> channel_layout((9, 3, 32, 32)), channel_layout((9, 32, 32, 13)), channel_layout((9, 8, 8, 8))
        ('first', 'last', None)
    """
    second, middle, last = shape[1:]
    if second < min(middle, last):
        return "first"
    if last < min(second, middle):
        return "last"
    if second <= FEW_CHANNELS < last:
        return "first"
    if last <= FEW_CHANNELS < second:
        return "last"
    return None


def with_channels_first(x: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Images as ``(n_samples, channels, height, width)``."""
    return np.moveaxis(x, -1, 1) if layout == "last" else x


def value_range(x: NDArray[Any]) -> tuple[float, float]:
    """The values that are shown as black and as white.

    Bytes run from 0 to 255. Other values run from 0 to 1 where all lie there, from -1 to 1 where all lie there, from 0
    to the largest where none is negative, as of images of 12 or 16 bits, and else from the smallest to the largest.
    White is always above black.

    Args:
        x: Images of any shape, finite.

    Example:
        >>> value_range(np.array([0.0, 0.5])), value_range(np.array([-0.9, 0.5])), value_range(np.array([0, 4095]))
        ((0.0, 1.0), (-1.0, 1.0), (0.0, 4095.0))
    """
    if x.dtype == np.uint8:
        return 0.0, 255.0
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 1.0)
    if low >= 0:
        return 0.0, max(high, 1.0)
    if low >= -1 and high <= 1:
        return -1.0, 1.0
    return low, high if high > low else 0.0


def as_bytes(image: NDArray[Any], values: tuple[float, float]) -> NDArray[np.uint8]:
    """An image as bytes, of which 0 is black and 255 is white."""
    if image.dtype == np.uint8:
        return image
    black, white = values
    share = (image.astype(np.float64) - black) / (white - black)
    return (share.clip(0, 1) * 255).round().astype(np.uint8)
