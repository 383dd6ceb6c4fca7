"""Find wrong labels while a network trains, and clean the data."""

from lossbuf.buffers import ClassLossBuffer, LossBuffers
from lossbuf.callback import LossBufferCallback, LossBufferWarning
from lossbuf.data import IndexedDataset
from lossbuf.losses import SampleLosses, sample_losses
from lossbuf.selectors import LossBufferSelector
from lossbuf.thresholds import Cut, KnownRate, MaxFDR, Mixture, Otsu
from lossbuf.verdict import Verdict

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
    "MaxFDR",
    "Mixture",
    "Otsu",
    "SampleLosses",
    "Verdict",
    "sample_losses",
]
