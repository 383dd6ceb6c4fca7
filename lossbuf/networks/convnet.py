"""The field's ConvNet for small images: blocks of convolution, norm, ReLU and pooling; then a linear layer."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossbuf import checks

Norm = Literal["instance", "batch", "none"]
"""Normalisation after each convolution."""


class ConvNet(nn.Module):
    """The field's small ConvNet: blocks of convolution, norm, ReLU and 2x2 average pooling, then one linear layer.

    Each block halves the image; there are at most ``depth`` and none that would leave less than one pixel.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        image_size: Height and width in pixels.
        width: Channels of every block.
        depth: Blocks at most.
        norm: ``"instance"`` (GroupNorm with a group a channel, affine), ``"batch"`` or ``"none"``.
        first_padding: Pixels that the first convolution adds a side; all others add 1, which keeps the size.

    Raises:
        ValueError: If a size is no positive integer or the norm unknown.

    Source:
        Gidaris, Komodakis 2018; in condensation Zhao et al. 2021 with width 128, depth 3, instance norm.

    Example:
        >>> import torch
        >>> ConvNet(1, 10, (28, 28), width=16)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        *,
        width: int = 128,
        depth: int = 3,
        norm: Norm = "instance",
        first_padding: int = 1,
    ) -> None:
        super().__init__()
        checks.positive_int("in_channels", in_channels)
        checks.positive_int("num_classes", num_classes)
        checks.positive_int("width", width)
        checks.positive_int("depth", depth)
        checks.one_of("norm", norm, ("instance", "batch", "none"))
        added = 2 * (checks.positive_int("first_padding", first_padding) - 1)
        height, breadth = (checks.positive_int("image_size", size) + added for size in image_size)
        pool = _HalvingPool if norm == "instance" else nn.AvgPool2d
        blocks: list[nn.Module] = []
        channels, padding = in_channels, first_padding
        for _ in range(min(depth, int(math.log2(min(height, breadth))))):
            blocks += [
                PaddedConv2d(channels, width, 3, padding=padding),
                normalisation(norm, width),
                nn.ReLU(),
                pool(2),
            ]
            channels, padding, height, breadth = width, 1, height // 2, breadth // 2
        self.features = nn.Sequential(*blocks, nn.Flatten())
        self.classifier = nn.Linear(channels * height * breadth, num_classes)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch num_classes"]:
        """Logits of a batch of images."""
        return self.classifier(self.features(x))


def normalisation(norm: Norm, width: int) -> nn.Module:
    """The layer that a name of a norm stands for, for so many channels."""
    if norm == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(width, width) if norm == "instance" else nn.Identity()


class PaddedConv2d(nn.Conv2d):
    """A convolution that pads the images itself with what goes beyond half its kernel; the same values.

    On a CPU wider padding misses the fast kernels: 28x28 pixels padded to 32x32 took 8 times as long.

    Args:
        in_channels: Channels of the images.
        out_channels: Channels of the output.
        kernel_size: Height and width of the kernel.
        padding: Zeros that are added a side.
        bias: Add a learned number to every channel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        self._narrow = min(padding, kernel_size // 2)
        self._wide = padding - self._narrow

    def forward(self, input: Tensor) -> Tensor:  # the name is torch's
        """As :class:`torch.nn.Conv2d`."""
        padded = F.pad(input, (self._wide,) * 4) if self._wide else input
        return F.conv2d(padded, self.weight, self.bias, padding=self._narrow)


class _HalvingPool(nn.AvgPool2d):
    """2x2 average pooling that is quick on a CPU with the channels outermost too, as instance norm wants them."""

    def forward(self, input: Tensor) -> Tensor:  # the name is torch's
        """Half the height and width, rounded down."""
        if input.is_cuda or not input.is_contiguous():
            return super().forward(input)
        rows = input[..., :-1:2, :] + input[..., 1::2, :]
        return (rows[..., :-1:2] + rows[..., 1::2]) / 4
