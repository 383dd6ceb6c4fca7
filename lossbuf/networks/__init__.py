"""Networks for small images and for tables of features."""

from lossbuf.networks.small import (
    ENOUGH_FEATURES,
    FEW_ROWS,
    MLP,
    STEPS,
    ConvNet,
    Norm,
    PaddedConv2d,
    batch_size_of,
    default_lr,
    default_network,
    is_small,
    resnet9,
    resnet18,
)

__all__ = [
    "ENOUGH_FEATURES",
    "FEW_ROWS",
    "MLP",
    "STEPS",
    "ConvNet",
    "Norm",
    "PaddedConv2d",
    "batch_size_of",
    "default_lr",
    "default_network",
    "is_small",
    "resnet9",
    "resnet18",
]
