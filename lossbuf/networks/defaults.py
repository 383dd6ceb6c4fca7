"""How networks are made here: a factory is given the shape of a sample, and the defaults suit the data."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from lossbuf.networks.convnet import ConvNet
from lossbuf.networks.mlp import MLP

SampleShape = tuple[int, ...] | torch.Size
"""Shape of one sample: ``(channels, height, width)`` for images."""

NetworkFactory = Callable[[tuple[int, ...], int], nn.Module]
"""Called with the shape of one sample and the number of classes; gives a new network with weights of its own."""

FEW_ROWS = 1000
"""Rows of features below which the default network is linear: a perceptron memorizes so few in an epoch or two."""

ENOUGH_FEATURES = 8
"""Features from which on it is: of fewer a linear layer learns too little."""


def default_network(sample_shape: SampleShape, num_classes: int, n_samples: int | None = None) -> nn.Module:
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


def default_lr(sample_shape: SampleShape, n_samples: int | None) -> float:
    """Learning rate of SGD for the default network: .05, and .02 where it is linear."""
    return 0.02 if is_small(sample_shape, n_samples) else 0.05


STEPS = 32
"""Steps per epoch that :func:`batch_size_of` aims at."""


def batch_size_of(n_samples: int) -> int:
    """Batch size with at least :data:`STEPS` steps per epoch: a power of two from 8 to 128.

    In fewer steps a network does not learn the classes before the warm-up ends.
    """
    return 2 ** min(7, max(3, int(math.log2(max(1, n_samples // STEPS)))))


def is_small(sample_shape: SampleShape, n_samples: int | None) -> bool:
    """Whether :func:`default_network` is linear for so many samples."""
    few = n_samples is not None and n_samples < FEW_ROWS
    return few and len(sample_shape) != 3 and math.prod(sample_shape) >= ENOUGH_FEATURES
