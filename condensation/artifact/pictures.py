"""Images side by side in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from lossbuf import checks

GAP = 2
"""White pixels between two images."""

_LARGEST = 2**28


def by_class(
    images: UInt8[Tensor, "n_samples channels height width"],
    labels: Sequence[int],
    num_classes: int,
    per_class: int | None = None,
) -> UInt8[Tensor, "channels rows columns"]:
    """A row of images a class, in the order of the images.

    Args:
        images: At least one.
        labels: Class of each in ``[0, num_classes)``.
        num_classes: Number of classes.
        per_class: Images to show of each class at most; by default all.

    Raises:
        ValueError: If ``per_class`` is no positive integer, or the picture were of more than 2**28 values.
    """
    if per_class is not None:
        checks.positive_int("per_class", per_class)
    counts = [0] * num_classes
    places = []
    for label in labels:
        places.append((label, counts[label]))
        counts[label] += 1
    columns = min(max(counts), per_class or len(images))
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    shape = images.shape[1], num_classes * height - GAP, columns * width - GAP
    if math.prod(shape) > _LARGEST:
        rule = f"must make a picture of at most {_LARGEST} values"
        raise ValueError(checks.problem("per_class", rule, math.prod(shape)))
    picture = torch.full(shape, 255, dtype=torch.uint8)
    for image, (row, column) in zip(images, places, strict=True):
        if column < columns:
            top, left = row * height, column * width
            picture[:, top : top + height - GAP, left : left + width - GAP] = image
    return picture


def rgb(image: UInt8[Tensor, "channels height width"]) -> NDArray[np.uint8]:
    """For Matplotlib: channels last, three of them."""
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()
