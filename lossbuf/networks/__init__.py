"""Networks for small images and for tables of features, and factories that make them for a shape of samples."""

from lossbuf.networks.convnet import ConvNet, Norm, PaddedConv2d
from lossbuf.networks.defaults import (
    ENOUGH_FEATURES,
    FEW_ROWS,
    STEPS,
    NetworkFactory,
    SampleShape,
    batch_size_of,
    default_lr,
    default_network,
    is_small,
)
from lossbuf.networks.mlp import MLP
from lossbuf.networks.resnets import resnet9, resnet18

__all__ = [
    "ENOUGH_FEATURES",
    "FEW_ROWS",
    "MLP",
    "STEPS",
    "ConvNet",
    "NetworkFactory",
    "Norm",
    "PaddedConv2d",
    "SampleShape",
    "batch_size_of",
    "default_lr",
    "default_network",
    "is_small",
    "resnet9",
    "resnet18",
]
