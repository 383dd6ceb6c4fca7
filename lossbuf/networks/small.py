"""Networks for small images and for tables of features."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossbuf import checks

Norm = Literal["instance", "batch", "none"]


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
            blocks += [PaddedConv2d(channels, width, 3, padding=padding), _norm(norm, width), nn.ReLU(), pool(2)]
            channels, padding, height, breadth = width, 1, height // 2, breadth // 2
        self.features = nn.Sequential(*blocks, nn.Flatten())
        self.classifier = nn.Linear(channels * height * breadth, num_classes)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch num_classes"]:
        """Logits of a batch of images."""
        return self.classifier(self.features(x))


def _norm(norm: Norm, width: int) -> nn.Module:
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


class MLP(nn.Module):
    """Linear layers with ReLU between them; anything beyond the first axis is flattened.

    Args:
        in_features: Features of a sample.
        num_classes: Number of classes.
        hidden: Units of each hidden layer.

    Raises:
        ValueError: If a size is no positive integer.
    """

    def __init__(self, in_features: int, num_classes: int, hidden: tuple[int, ...] = (256, 256)) -> None:
        super().__init__()
        sizes = [checks.positive_int("in_features", in_features)]
        sizes += [checks.positive_int("hidden", size) for size in hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(sizes[-1], checks.positive_int("num_classes", num_classes))

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch num_classes"]:
        """Logits of a batch."""
        return self.classifier(self.features(x))


FEW_ROWS = 1000
"""Rows of features below which the default network is linear: a perceptron memorizes so few in an epoch or two."""

ENOUGH_FEATURES = 8
"""Features from which on it is: of fewer a linear layer learns too little."""


def default_network(
    sample_shape: torch.Size | tuple[int, ...], num_classes: int, n_samples: int | None = None
) -> nn.Module:
    """A network for samples of a shape.

    Args:
        sample_shape: Shape of one sample.
        num_classes: Number of classes.
        n_samples: Number of samples to train on, where it is known.

    Returns:
        A ConvNet (width 32, batch norm) for images of shape ``(channels, height, width)``; for features a perceptron
        with two hidden layers, or, with fewer than :data:`FEW_ROWS` samples of at least :data:`ENOUGH_FEATURES`
        features, a linear layer.
    """
    if len(sample_shape) == 3:
        channels, height, breadth = sample_shape
        return ConvNet(channels, num_classes, (height, breadth), width=32, norm="batch")
    if is_small(sample_shape, n_samples):
        return MLP(math.prod(sample_shape), num_classes, hidden=())
    return MLP(math.prod(sample_shape), num_classes)


def default_lr(sample_shape: torch.Size | tuple[int, ...], n_samples: int | None) -> float:
    """Learning rate of SGD for the default network: .05, and .02 where it is linear."""
    return 0.02 if is_small(sample_shape, n_samples) else 0.05


STEPS = 32
"""Steps per epoch that :func:`batch_size_of` aims at."""


def batch_size_of(n_samples: int) -> int:
    """Batch size with at least :data:`STEPS` steps per epoch: a power of two from 8 to 128.

    In fewer steps a network does not learn the classes before the warm-up ends.
    """
    return 2 ** min(7, max(3, int(math.log2(max(1, n_samples // STEPS)))))


def is_small(sample_shape: torch.Size | tuple[int, ...], n_samples: int | None) -> bool:
    """Whether :func:`default_network` is linear for so many samples."""
    few = n_samples is not None and n_samples < FEW_ROWS
    return few and len(sample_shape) != 3 and math.prod(sample_shape) >= ENOUGH_FEATURES


class _Residual(nn.Module):
    """Two convolutions with norm and ReLU, added to what they were given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(channels, channels), _convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return x + self.body(x)


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def resnet9(in_channels: int, num_classes: int, *, width: int = 64) -> nn.Module:
    """A ResNet of nine layers for small images, made for short trainings on a GPU.

    Args:
        in_channels: Channels of the images, of at least 8x8 pixels.
        num_classes: Number of classes.
        width: Channels of the first layer; the last have eight times as many.

    Source:
        Page 2018, "How to Train Your ResNet".
    """
    checks.positive_int("in_channels", in_channels)
    checks.positive_int("num_classes", num_classes)
    checks.positive_int("width", width)
    return nn.Sequential(
        _convolution(in_channels, width),
        _convolution(width, 2 * width),
        nn.MaxPool2d(2),
        _Residual(2 * width),
        _convolution(2 * width, 4 * width),
        nn.MaxPool2d(2),
        _convolution(4 * width, 8 * width),
        nn.MaxPool2d(2),
        _Residual(8 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, num_classes),
    )


def resnet18(in_channels: int, num_classes: int, *, norm: Norm = "batch") -> nn.Module:
    """ResNet-18 for small images: a 3x3 first convolution of stride 1, and no max pooling.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        norm: As in :class:`ConvNet`.

    Raises:
        ValueError: If a size is no positive integer or the norm unknown.

    Source:
        He et al. 2016; the first layer as for CIFAR in the field's code.
    """
    import torchvision  # slow to import, and needed here alone

    checks.positive_int("in_channels", in_channels)
    checks.positive_int("num_classes", num_classes)
    checks.one_of("norm", norm, ("instance", "batch", "none"))
    network = torchvision.models.resnet18(num_classes=num_classes, norm_layer=partial(_norm, norm))
    network.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network
