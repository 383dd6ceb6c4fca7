"""Find wrong labels while a network trains, and clean the data."""

from lossbuf.buffers import ClassLossBuffer, LossBuffers
from lossbuf.callback import LossBufferCallback, LossBufferWarning
from lossbuf.data import IndexedDataset
from lossbuf.losses import SampleLosses, sample_losses
from lossbuf.selectors import LossBufferSelector
from lossbuf.thresholds import Cut, KnownRate, Mixture, Otsu

__version__ = "0.1.0"

__all__ = [
    "ClassLossBuffer",
    "Cut",
    "IndexedDataset",
    "KnownRate",
    "LossBufferCallback",
    "LossBufferSelector",
    "LossBufferWarning",
    "LossBuffers",
    "Mixture",
    "Otsu",
    "SampleLosses",
    "sample_losses",
]
