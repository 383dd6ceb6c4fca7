"""Random shifts and mirror images of a batch, drawn on the device it lies on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossbuf import checks


@dataclass(frozen=True)
class CropFlip:
    """Each image shifted by up to ``pad`` pixels a side, filled up with zeros, and mirrored every other time.

    The standard augmentation of CIFAR-10 with 4 pixels. Draws come from torch's global generator of the device, which
    :func:`~lossbuf.training.train` seeds and keeps in its checkpoints.

    Args:
        pad: Pixels, at least 0.
        flip: Mirror images left to right with probability one half.

    Raises:
        ValueError: If ``pad`` is no such integer.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        checks.non_negative_int("pad", self.pad)

    def __call__(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Augment a batch."""
        if x.ndim != 4:
            raise ValueError(checks.problem("x", "must be (batch, channels, height, width)", f"shape {tuple(x.shape)}"))
        if not len(x):
            return x
        batch, channels, height, width = x.shape
        top, left = torch.randint(2 * self.pad + 1, (2, batch, 1), device=x.device)
        columns = torch.arange(width, device=x.device).expand(batch, width)
        if self.flip:
            mirrored = torch.rand(batch, 1, device=x.device) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        rows = torch.arange(height, device=x.device) + top
        columns = columns + left
        padded = F.pad(x, (self.pad,) * 4)
        flat = rows.unsqueeze(2) * (width + 2 * self.pad) + columns.unsqueeze(1)
        picked = flat.view(batch, 1, -1).expand(batch, channels, -1)
        return padded.flatten(2).gather(2, picked).view(batch, channels, height, width)
