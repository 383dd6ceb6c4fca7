"""The networks that condensed sets are tested on, made from the shape of a sample and the number of classes.

Each is called as ``network(sample_shape, num_classes)``. Images of 28x28 pixels are padded to 32x32 by the first
convolution, as the field does for MNIST; all others keep their size.

Source:
    Zhao et al. 2021, "Dataset Condensation with Gradient Matching", and the code published with it.

Differs from the published code:
    There the first convolution pads every image of one channel, of whatever size.
"""

from __future__ import annotations

import math

from torch import nn

from lossbuf import checks
from lossbuf.networks import resnets
from lossbuf.networks.convnet import ConvNet, PaddedConv2d
from lossbuf.networks.defaults import SampleShape
from lossbuf.networks.mlp import MLP

_VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Channels of the convolutions between two poolings."""


def convnet3(sample_shape: SampleShape, num_classes: int) -> nn.Module:
    """Three blocks of width 128 with instance norm: the network of nearly all published figures.

    Args:
        sample_shape: Channels, height and width, of at least one pixel.
        num_classes: Number of classes.

    Raises:
        ValueError: If the samples are no such images.

    Example:
        >>> import torch
        >>> convnet3((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    channels, size, padded = _image("convnet3", sample_shape, 1)
    return ConvNet(channels, num_classes, size, first_padding=1 + padded)


def mlp(sample_shape: SampleShape, num_classes: int) -> nn.Module:
    """Two hidden layers of 128 units, for samples of any shape."""
    return MLP(math.prod(sample_shape), num_classes, (128, 128))


def lenet(sample_shape: SampleShape, num_classes: int) -> nn.Module:
    """LeNet-5 with ReLU and max pooling.

    Args:
        sample_shape: Channels, height and width, of at least 16 pixels.
        num_classes: Number of classes.

    Raises:
        ValueError: If the samples are no such images.
    """
    channels, (height, breadth), padded = _image("lenet", sample_shape, 16)
    height, breadth = (((size + 2 * padded - 4) // 2 - 4) // 2 for size in (height, breadth))
    return nn.Sequential(
        *_convolution(channels, 6, 5, padded),
        nn.MaxPool2d(2),
        *_convolution(6, 16, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * height * breadth, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, checks.positive_int("num_classes", num_classes)),
    )


def alexnet(sample_shape: SampleShape, num_classes: int) -> nn.Module:
    """AlexNet for small images: five convolutions, no norm, no dropout, one linear layer.

    Args:
        sample_shape: Channels, height and width, of at least 8 pixels.
        num_classes: Number of classes.

    Raises:
        ValueError: If the samples are no such images.
    """
    channels, (height, breadth), padded = _image("alexnet", sample_shape, 8)
    height, breadth = ((size + 2 * padded) // 8 for size in (height, breadth))
    return nn.Sequential(
        *_convolution(channels, 128, 5, 2 + padded),
        nn.MaxPool2d(2),
        *_convolution(128, 192, 5, 2),
        nn.MaxPool2d(2),
        *_convolution(192, 256, 3, 1),
        *_convolution(256, 192, 3, 1),
        *_convolution(192, 192, 3, 1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(192 * height * breadth, checks.positive_int("num_classes", num_classes)),
    )


def vgg11(sample_shape: SampleShape, num_classes: int) -> nn.Module:
    """VGG-11 for small images: eight convolutions with instance norm, one linear layer.

    Args:
        sample_shape: Channels, height and width, of at least 32 pixels, or 28x28.
        num_classes: Number of classes.

    Raises:
        ValueError: If the samples are no such images.
    """
    channels, (height, breadth), padded = _image("vgg11", sample_shape, 32)
    layers: list[nn.Module] = []
    before, padding = channels, 1 + padded
    for block in _VGG11:
        for width in block:
            convolution, relu = _convolution(before, width, 3, padding)
            layers += [convolution, nn.GroupNorm(width, width), relu]
            before, padding = width, 1
        layers.append(nn.MaxPool2d(2))
    height, breadth = ((size + 2 * padded) // 32 for size in (height, breadth))
    classifier = nn.Linear(before * height * breadth, checks.positive_int("num_classes", num_classes))
    return nn.Sequential(*layers, nn.Flatten(), classifier)


def resnet18(sample_shape: SampleShape, num_classes: int) -> nn.Module:
    """ResNet-18 for small images, with instance norm; batch norm cannot be measured on so few of them.

    Args:
        sample_shape: Channels, height and width, of at least 9 pixels: of a single one an instance norm leaves nothing.
        num_classes: Number of classes.

    Raises:
        ValueError: If the samples are no such images.

    Differs from the published code:
        Weights start as torchvision's do. Images of 28x28 pixels are not padded, neither here nor there.
    """
    channels, _, _ = _image("resnet18", sample_shape, 9)
    return resnets.resnet18(channels, num_classes, norm="instance")


def _image(name: str, sample_shape: SampleShape, smallest: int) -> tuple[int, tuple[int, int], int]:
    """Channels, size, and what the first convolution adds a side to pad the image to 32x32."""
    rule = f"must be (channels, height, width) for {name}"
    if len(sample_shape) != 3:
        raise ValueError(checks.problem("sample_shape", rule, tuple(sample_shape)))
    channels, height, breadth = sample_shape
    padded = 2 if (height, breadth) == (28, 28) else 0
    if min(height, breadth) + 2 * padded < smallest:
        rule += f" with at least {smallest}x{smallest} pixels"
        raise ValueError(checks.problem("sample_shape", rule, tuple(sample_shape), "Give another network."))
    return channels, (height, breadth), padded


def _convolution(before: int, after: int, size: int, padding: int = 0) -> tuple[nn.Conv2d, nn.ReLU]:
    return PaddedConv2d(before, after, size, padding=padding), nn.ReLU()
