"""Random changes of a batch of images, drawn from a generator that is given.

An augmentation is called as ``augment(x, generator)`` and gives a batch of the same shape. Draws are made on the
generator's device, so that one on the CPU gives the same changes whatever device the images lie on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from lossbuf import checks


@runtime_checkable
class Augmentation(Protocol):
    """What is asked of an augmentation; a function of the same arguments is one."""

    def __call__(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator, /
    ) -> Float[Tensor, "batch channels height width"]:
        """Change a batch."""
        ...


@dataclass(frozen=True)
class Crop:
    """Each image shifted by up to ``pad`` whole pixels each way.

    Args:
        pad: Pixels, at least 0.

    Raises:
        ValueError: If ``pad`` is no such integer.
    """

    pad: int = 4

    def __post_init__(self) -> None:
        checks.non_negative_int("pad", self.pad)

    def __call__(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        """Change a batch."""
        shift = torch.randint(-self.pad, self.pad + 1, (len(x), 2), generator=generator, device=generator.device)
        size = torch.tensor([x.shape[3], x.shape[2]], device=generator.device)
        matrix = torch.eye(2, device=generator.device).expand(len(x), 2, 2)
        return _filled(x, matrix, 2 * shift / size)


@dataclass(frozen=True)
class Scale:
    """Each image's height and width multiplied, each for itself, by a number from ``1 - share`` to ``1 + share``.

    Args:
        share: In [0, 1).

    Raises:
        ValueError: If it is not.
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        if checks.rate("share", self.share) == 1:
            raise ValueError(checks.problem("share", "must be below 1", self.share))

    def __call__(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        """Change a batch."""
        factor = 1 + self.share * _symmetric((len(x), 2), generator)
        return _filled(x, torch.diag_embed(1 / factor))


@dataclass(frozen=True)
class Rotate:
    """Each image turned about its middle by up to ``degrees`` either way.

    Args:
        degrees: At least 0, at most 180.

    Raises:
        ValueError: If it is not.
    """

    degrees: float = 45.0

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise ValueError(checks.problem("degrees", "must lie in [0, 180]", self.degrees))

    def __call__(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        """Change a batch."""
        angle = math.radians(self.degrees) * _symmetric((len(x),), generator)
        cos, sin = angle.cos(), angle.sin()
        aspect = x.shape[2] / x.shape[3]  # the grid runs from -1 to 1 both ways, the pixels do not
        matrix = torch.stack([cos, -sin * aspect, sin / aspect, cos], dim=1).view(-1, 2, 2)
        return _filled(x, matrix)


@dataclass(frozen=True)
class OneOf:
    """Each image changed by one of several augmentations, drawn for it alone and all equally likely.

    Args:
        augmentations: At least one.

    Raises:
        ValueError: If there is none.

    Example:
        >>> x = torch.zeros(2, 1, 8, 8)
        >>> OneOf((Crop(1), Rotate(15.0)))(x, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 8, 8])
    """

    augmentations: Sequence[Augmentation]

    def __post_init__(self) -> None:
        if not len(self.augmentations):
            raise ValueError(checks.problem("augmentations", "must hold at least one", "none"))

    def __call__(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        """Change a batch."""
        choice = torch.randint(len(self.augmentations), (len(x),), generator=generator, device=generator.device)
        changed = torch.stack([augment(x, generator) for augment in self.augmentations])
        return changed[choice.to(x.device), torch.arange(len(x), device=x.device)]


DC_MNIST = OneOf((Crop(4), Scale(0.2), Rotate(45.0)))
"""With what gradient matching is evaluated on MNIST.

Source:
    Zhao et al. 2021, "Dataset Condensation with Gradient Matching", and the code published with it.

Differs from the published code:
    What comes in from outside the image has the batch's mean for scaled images too, there 0; crops reach ``pad`` pixels
    on both sides, there one less on one; all are interpolated linearly, there the scaled ones not and the turned ones
    by cubic splines; angles are not whole degrees.
"""


def _symmetric(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=generator, device=generator.device) - 1


def _filled(
    x: Float[Tensor, "batch channels height width"],
    matrix: Float[Tensor, "batch 2 2"],
    shift: Shaped[Tensor, "batch 2"] | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """:func:`warped`, with the channel's mean outside."""
    mean = x.mean((0, 2, 3), keepdim=True)
    return warped(x - mean, matrix, shift) + mean


def warped(
    x: Float[Tensor, "batch channels height width"],
    matrix: Float[Tensor, "batch 2 2"],
    shift: Shaped[Tensor, "batch 2"] | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Each image looked up, linearly, where the matrix and shift send its pixels; 0 outside.

    Args:
        x: Images.
        matrix: Applied to places ``(across, down)`` that run from -1 to 1.
        shift: Added after it, shape ``(batch, 2)``; by default none.
    """
    shift = matrix.new_zeros(len(x), 2) if shift is None else shift
    theta = torch.cat([matrix, shift.unsqueeze(2)], dim=2).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
