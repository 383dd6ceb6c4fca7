"""Find wrong labels while a network trains, and clean the data."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossbuf.callback import LossBufferCallback
    from lossbuf.data import IndexedDataset
    from lossbuf.detection.from_probabilities import find_label_issues, label_quality
    from lossbuf.detection.thresholds import Cut, KnownRate, MaxF1, MaxFDR, Mixture, Otsu
    from lossbuf.detection.verdict import Verdict
    from lossbuf.errors import LossBufferWarning
    from lossbuf.export import label_issues
    from lossbuf.recording.buffers import ClassLossBuffer, LossBuffers
    from lossbuf.recording.losses import SampleLosses, sample_losses
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

_HOMES = {
    "callback": ("LossBufferCallback",),
    "data": ("IndexedDataset",),
    "detection.from_probabilities": ("find_label_issues", "label_quality"),
    "detection.thresholds": ("Cut", "KnownRate", "MaxF1", "MaxFDR", "Mixture", "Otsu"),
    "detection.verdict": ("Verdict",),
    "errors": ("LossBufferWarning",),
    "export": ("label_issues",),
    "recording.buffers": ("ClassLossBuffer", "LossBuffers"),
    "recording.losses": ("SampleLosses", "sample_losses"),
    "selectors": ("LossBufferSelector",),
}
"""Modules of the public names, imported on first use: torch takes seconds, and the version does not need it."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name or a submodule, imported on first use."""
    if name in _HOME_OF:
        value = getattr(import_module(f"lossbuf.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and find_spec(f"lossbuf.{name}") is not None:
        return import_module(f"lossbuf.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
