"""Differentiable augmentation with one draw for several batches: Siamese augmentation (DSA)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from condensation.augmentation.random_changes import warped
from lossbuf import checks

BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP, CUTOUT, FLIP, SCALE, ROTATE = 0.125, 0.5, 0.5, 1.2, 15.0
"""Strengths, as published: shares of the image's side, a probability, a largest factor, degrees."""

_DRAWS = 3
"""Numbers that a family draws for an image, at most."""


@dataclass(frozen=True)
class SiameseAugmentation:
    """One of several families of changes a call: color, crop, cutout, flip, scale, rotate.

    As an augmentation, ``augment(x, generator)``, it draws a family for the batch, and for every image how much. With
    :meth:`draw` both are drawn once, for all images of any number of batches: real and synthetic ones are then changed
    alike, so that their gradients can be matched. Everything can be differentiated in the images.

    Args:
        families: Of :data:`FAMILIES`; leave out ``"flip"`` where left and right matter, as in digits.

    Raises:
        ValueError: If there are none, or one is unknown.

    Source:
        Zhao, Bilen 2021, "Dataset Condensation with Differentiable Siamese Augmentation".

    Differs from the published code:
        Seeded by a generator. Scaled, turned and shifted images are looked up with ``align_corners=False``.

    Example:
        >>> x = torch.rand(3, 1, 8, 8)
        >>> change = SiameseAugmentation().draw(torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(change(x)[:1], change(x[:1])))
        True
    """

    families: tuple[str, ...] = ("color", "crop", "cutout", "flip", "scale", "rotate")

    def __post_init__(self) -> None:
        if not len(self.families):
            raise ValueError(checks.problem("families", "must hold at least one", "none"))
        for family in self.families:
            checks.one_of("families", family, FAMILIES)

    def __call__(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        """Change a batch: one family, and every image by draws of its own."""
        return self._family(generator)(x, _drawn(len(x), generator).to(x))

    def draw(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """A change that treats all images of all batches given to it alike."""
        family, draws = self._family(generator), _drawn(1, generator)
        return lambda x: family(x, draws.to(x).expand(len(x), -1))

    def _family(self, generator: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
        drawn = torch.randint(len(self.families), (1,), generator=generator, device=generator.device)
        return FAMILIES[self.families[int(drawn)]]


def color(x: Tensor, draws: Tensor) -> Tensor:
    """Brightness, saturation and contrast, one after the other."""
    brightness, saturation, contrast = (draws[:, number].view(-1, 1, 1, 1) for number in range(3))
    x = x + (brightness - 0.5) * BRIGHTNESS
    gray = x.mean(1, keepdim=True)
    x = (x - gray) * (saturation * SATURATION) + gray
    level = x.mean((1, 2, 3), keepdim=True)
    return (x - level) * (contrast + CONTRAST) + level


def crop(x: Tensor, draws: Tensor) -> Tensor:
    """Shifted by whole pixels up to an eighth of the side, zeros from outside."""
    size = x.new_tensor([x.shape[3], x.shape[2]])
    most = (size * CROP + 0.5).floor()
    pixels = ((2 * most + 1) * draws[:, :2]).floor().clamp(max=2 * most) - most
    return warped(x, torch.eye(2).to(x).expand(len(x), 2, 2), 2 * pixels / size)


def cutout(x: Tensor, draws: Tensor) -> Tensor:
    """A square of half the side, its middle anywhere in the image, set to 0."""
    keep = []
    for length, drawn in ((x.shape[2], draws[:, 0]), (x.shape[3], draws[:, 1])):
        side = int(length * CUTOUT + 0.5)
        middle = (drawn * (length + 1 - side % 2)).floor().unsqueeze(1)
        place = torch.arange(length, device=x.device)
        keep.append((place < middle - side // 2) | (place >= middle - side // 2 + side))
    outside = keep[0].unsqueeze(2) | keep[1].unsqueeze(1)
    return x * outside.unsqueeze(1).to(x.dtype)


def flip(x: Tensor, draws: Tensor) -> Tensor:
    """Left to right, for half of the draws."""
    return torch.where((draws[:, 0] < FLIP).view(-1, 1, 1, 1), x.flip(3), x)


def scale(x: Tensor, draws: Tensor) -> Tensor:
    """Height and width each by a factor from 1/1.2 to 1.2."""
    factor = draws[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE
    return warped(x, torch.diag_embed(factor))


def rotate(x: Tensor, draws: Tensor) -> Tensor:
    """Turned about the middle by up to 15 degrees."""
    angle = (draws[:, 0] - 0.5) * 2 * math.radians(ROTATE)
    cos, sin, aspect = angle.cos(), angle.sin(), x.shape[2] / x.shape[3]
    return warped(x, torch.stack([cos, -sin * aspect, sin / aspect, cos], dim=1).view(-1, 2, 2))


FAMILIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}
"""Each is given images and, for every one of them, numbers from [0, 1)."""


def _drawn(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, _DRAWS, generator=generator, device=generator.device)


def changed_alike(
    augment: SiameseAugmentation | None, real: Tensor, synthetic: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Real and synthetic images, class by class changed by one draw; unchanged where there is no augmentation."""
    if augment is None:
        return real, synthetic
    if not hasattr(augment, "draw"):
        raise ValueError(checks.problem("augment", "must be a SiameseAugmentation", repr(augment)))
    changes = [augment.draw(generator) for _ in range(len(real))]
    pairs = [(change(one), change(other)) for change, one, other in zip(changes, real, synthetic, strict=True)]
    return torch.stack([one for one, _ in pairs]), torch.stack([other for _, other in pairs])
