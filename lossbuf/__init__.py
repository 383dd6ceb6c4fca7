"""Find wrong labels while a network trains, and clean the data."""

from typing import TYPE_CHECKING, Any

from lossbuf.callback import LossBufferCallback
from lossbuf.data import IndexedDataset
from lossbuf.detection.from_probabilities import find_label_issues, label_quality
from lossbuf.detection.thresholds import Cut, KnownRate, MaxF1, MaxFDR, Mixture, Otsu
from lossbuf.detection.verdict import Verdict
from lossbuf.errors import LossBufferWarning
from lossbuf.export import label_issues
from lossbuf.recording.buffers import ClassLossBuffer, LossBuffers
from lossbuf.recording.losses import SampleLosses, sample_losses

if TYPE_CHECKING:
    from lossbuf.selectors import LossBufferSelector

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
    "MaxF1",
    "MaxFDR",
    "Mixture",
    "Otsu",
    "SampleLosses",
    "Verdict",
    "find_label_issues",
    "label_issues",
    "label_quality",
    "sample_losses",
]


def __getattr__(name: str) -> Any:
    """The selector, on first use: scikit-learn, which it needs, takes longer to import than all else here."""
    if name != "LossBufferSelector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lossbuf.selectors import LossBufferSelector

    globals()[name] = LossBufferSelector
    return LossBufferSelector


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
