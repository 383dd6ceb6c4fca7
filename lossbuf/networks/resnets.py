"""Residual networks for small images."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from lossbuf import checks
from lossbuf.networks.convnet import Norm, normalisation


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
        norm: As in :class:`~lossbuf.networks.ConvNet`.

    Raises:
        ValueError: If a size is no positive integer or the norm unknown.

    Source:
        He et al. 2016; the first layer as for CIFAR in the field's code.
    """
    import torchvision  # slow to import, and needed here alone

    checks.positive_int("in_channels", in_channels)
    checks.positive_int("num_classes", num_classes)
    checks.one_of("norm", norm, ("instance", "batch", "none"))
    network = torchvision.models.resnet18(num_classes=num_classes, norm_layer=partial(normalisation, norm))
    network.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network
