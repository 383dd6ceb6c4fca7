"""Train once with loss buffers, and read the verdict on every label."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.data import standardised
from lossbuf.detection import diagnostics as doubts
from lossbuf.detection.issue_table import issue_table
from lossbuf.detection.neighbours import features_of
from lossbuf.detection.verdict import Verdict, table
from lossbuf.errors import InputError, LossBufferWarning
from lossbuf.inputs import LabelledData
from lossbuf.networks import MLP, ConvNet, batch_size_of, default_lr, default_network, resnet9, resnet18
from lossbuf.recording.scores import suspicion_order
from lossbuf.training import TrainSettings, build, train
from lossbuf.training.augmentation import CropFlip

if TYPE_CHECKING:
    from lossbuf.selectors import LossBufferSelector

Shape = tuple[int, ...]

_OPTIONS = {
    "train longer": "train with more `--epochs`",
    "Train longer": "Train with more `--epochs`",
    "Train for more epochs, so": "Train with more `--epochs`, so",
    "use a longer `warmup`": "train with more `--epochs`",
    "(smaller batches, more epochs)": "(a smaller `--batch-size`, more `--epochs`)",
    "a better network": "a better `--network`",
    "another network": "another `--network`",
    "`noise_rate`": "`--noise-rate`",
    "`max_fdr`": "`--max-fdr`",
}
"""Of the settings that warnings name."""


def _mlp(shape: Shape, num_classes: int) -> nn.Module:
    return MLP(int(np.prod(shape)), num_classes)


def _wide(shape: Shape, num_classes: int) -> nn.Module:
    return ConvNet(shape[0], num_classes, (shape[1], shape[2]), width=128, norm="batch")


NETWORKS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "auto": default_network,
    "mlp": _mlp,
    "convnet": _wide,
    "resnet9": lambda shape, num_classes: resnet9(shape[0], num_classes),
    "resnet18": lambda shape, num_classes: resnet18(shape[0], num_classes),
}
"""Networks to train: ``"auto"`` is a ConvNet of width 32 for images and an MLP for features; ``"convnet"`` has width
128. All but ``"auto"`` and ``"mlp"`` are for images."""


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """How to scan.

    Attributes:
        network: One of :data:`NETWORKS`.
        epochs: Passes over the data.
        batch_size: Rows per step; by default 128, of fewer than 8,192 images 64, of fewer than 4,096 32, and of a small
            table so few that an epoch has 32 steps.
        lr: Highest learning rate; by default .05, and .02 where the network is linear.
        noise_rate: Share of wrong labels, where it is known.
        max_fdr: Largest share of right labels among the suspects to put up with, as an alternative.
        top: Take so many rows for suspects, the worst, as another.
        augment: Shift images at random by a fourteenth of their size or less: what is wrong is then learnt by heart
            later.
        planted: Share of the rows that train with a wrong label on purpose, to see how many are found.
        seed: Seeds all that is random.
        device: Where to train; by default the GPU where there is one.

    Raises:
        ValueError: If a value has no meaning, or more than one of ``noise_rate``, ``max_fdr`` and ``top`` is given.
    """

    network: str = "auto"
    epochs: int = 20
    batch_size: int | None = None
    lr: float | None = None
    noise_rate: float | None = None
    max_fdr: float | None = None
    top: int | None = None
    augment: bool = True
    planted: float = 0.0
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        checks.one_of("network", self.network, tuple(NETWORKS))
        self.training()
        if self.seed >= 2**63:
            raise ValueError(checks.problem("seed", "must be below 2**63", self.seed))
        given = [name for name in ("noise_rate", "max_fdr", "top") if getattr(self, name) is not None]
        if len(given) > 1:
            rule = f"must be left out where `{given[0]}` is given"
            raise ValueError(checks.problem(given[1], rule, getattr(self, given[1])))
        if self.top is not None:
            checks.positive_int("top", self.top)
        for name in ("noise_rate", "max_fdr"):
            if getattr(self, name) is not None:
                checks.rate(name, getattr(self, name))

    def training(self, data: LabelledData | None = None) -> TrainSettings:
        """The same, as :func:`~lossbuf.training.train` takes it, with the batch size for such data."""
        batch_size = self.batch_size
        if batch_size is None:
            rows = 2**20 if data is None else len(data)
            batch_size = _batch_of_images(rows) if data is not None and data.has_images else batch_size_of(rows)
        lr = default_lr((), None) if self.lr is None else self.lr
        if self.lr is None and data is not None and self.network == "auto":
            lr = default_lr(data.x.shape[1:], len(data))
        return TrainSettings(epochs=self.epochs, batch_size=batch_size, lr=lr, seed=self.seed, device=self.device)

    def check_fits(self, data: LabelledData) -> None:
        """Raise ``InputError`` where the device is not there, or a setting is not for such data."""
        try:
            torch.empty(1, device=self.training().torch_device())
        except (RuntimeError, AssertionError) as error:
            found = f"{self.device!r}: {str(error).splitlines()[0]}"
            raise InputError(checks.problem("device", "must be there", found)) from error
        if self.top is not None and self.top > len(data):
            raise InputError(checks.problem("top", f"must be at most {len(data)}, the number of rows", self.top))
        if self.network not in ("auto", "mlp") and not data.has_images:
            rule = "must be 'auto' or 'mlp' where rows are features"
            raise InputError(checks.problem("network", rule, repr(self.network)))
        if self.network.startswith("resnet") and min(data.x.shape[2:]) < 8:
            raise InputError(checks.problem("network", "must be 'auto' for images of under 8 pixels", self.network))
        batch_size = self.training(data).batch_size
        alone = batch_size == 1 or len(data) % batch_size == 1  # batch norm then has nothing to compare
        if self.network.startswith("resnet") and min(data.x.shape[2:]) < 16 and alone:
            rule = f"must leave no batch of one row of {len(data)} for {self.network} on images of under 16 pixels"
            raise InputError(checks.problem("batch_size", rule, batch_size))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """A finished scan.

    Attributes:
        data: What was scanned.
        settings: How.
        callback: What the training was seen to do.
        network: Trained; it takes ``data.x`` as :func:`~lossbuf.data.standardised` gives it.
        verdict: On every label.
        doubts: What a user should know before trusting it.
        seconds: Of training and reading the verdict, since the last start.
    """

    data: LabelledData
    settings: ScanSettings
    callback: LossBufferCallback
    network: nn.Module
    verdict: Verdict
    doubts: tuple[str, ...]
    seconds: float

    @property
    def suspect_mask(self) -> NDArray[np.bool_]:
        """True for suspects, shape ``(n_samples,)``."""
        return self.verdict.suspect_mask

    def selector(self) -> LossBufferSelector:
        """The same as a fitted estimator on ``data.x`` and the class numbers ``data.labels``."""
        from lossbuf.selectors import LossBufferSelector

        return LossBufferSelector.from_training(
            self.callback, self.network, self.data.x, self.data.labels, verdict=self.verdict
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """All rows, most suspect first; the index is the row number.

        Columns as :meth:`~lossbuf.callback.LossBufferCallback.report` has them, with the rows' own names, and
        ``predicted_label`` (the class that each row is most likely of) and ``suspicion``.
        """
        data, verdict = self.data, self.verdict
        found = table(verdict, self.callback.statistics(), self.callback.dynamics.labels, data.ids)
        issues = issue_table(verdict, data.labels)
        found.insert(2, "predicted_label", issues["predicted_label"])
        found.insert(5, "suspicion", issues["suspicion"])
        return found


def scan(
    data: LabelledData,
    settings: ScanSettings | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Scan:
    """Train once and judge every label.

    Args:
        data: What to scan.
        settings: How.
        checkpoint: File with the state of the training, written after every epoch; where it exists, the training goes
            on from it and ends with the bits of one never interrupted.
        progress: Show a progress bar, on a terminal only.

    Raises:
        InputError: As :meth:`ScanSettings.check_fits`.
        ValueError: If the checkpoint is of another run.
        RuntimeError: If no loss was finite.
    """
    settings = settings or ScanSettings()
    settings.check_fits(data)
    shape, num_classes, started = tuple(data.x.shape[1:]), len(data.class_names), time.perf_counter()
    training = settings.training(data)
    make = partial(default_network, n_samples=len(data)) if settings.network == "auto" else NETWORKS[settings.network]
    network = build(partial(make, shape, num_classes), training)
    callback = LossBufferCallback(
        torch.from_numpy(data.labels),
        num_classes,
        mode="filter",
        epochs=settings.epochs,
        features=features_of(data.x),
        noise_rate=settings.noise_rate,
        max_fdr=settings.max_fdr,
        planted=settings.planted,
        planted_seed=settings.seed,
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", LossBufferWarning)
        train(
            network,
            standardised(data.x)[0],
            torch.from_numpy(data.labels),
            training,
            callback=callback,
            augment=_shift(shape) if settings.augment and data.has_images else None,
            checkpoint=checkpoint,
            progress="training" if progress else None,
        )
        verdict = callback.verdict()
        if settings.noise_rate is not None:
            for doubt in doubts.of_given_rate(verdict, settings.noise_rate):
                warnings.warn(doubt, LossBufferWarning, stacklevel=2)
    if np.isnan(verdict.suspicion).all():
        raise RuntimeError("Every loss of the training was NaN or infinite: try a smaller `lr`, or scale the features.")
    if settings.top is not None:
        verdict = _worst(verdict, settings.top)
    return Scan(
        data=data,
        settings=settings,
        callback=callback,
        network=network,
        verdict=verdict,
        doubts=_told(told, data.class_names),
        seconds=time.perf_counter() - started,
    )


def _batch_of_images(n_samples: int) -> int:
    """A few hundred images in batches of 128 make too few steps for a network to know the classes by the warm-up."""
    return 32 if n_samples < 4096 else 64 if n_samples < 8192 else 128


def _shift(shape: Shape) -> CropFlip:
    return CropFlip(max(1, round(min(shape[1:]) / 14)), flip=False)


def _worst(verdict: Verdict, top: int) -> Verdict:
    """The same with the ``top`` most suspect rows as suspects; the estimated noise rate stays."""
    chosen = suspicion_order(verdict.suspicion, verdict.tie_break)[:top]
    chosen = chosen[~np.isnan(verdict.suspicion[chosen])]
    mask = np.zeros(len(verdict.suspicion), dtype=bool)
    mask[chosen] = True
    threshold = float(verdict.suspicion[chosen].min()) if len(chosen) else float("inf")
    return replace(verdict, cut=verdict.cut._replace(suspect_mask=mask, threshold=threshold), bounded=True)


def _told(records: list[warnings.WarningMessage], class_names: Sequence[str]) -> tuple[str, ...]:
    """Our warnings in the words of the command, each once; those of other kinds go on as they came."""
    found: list[str] = []
    for record in records:
        text = _of_command(str(record.message), class_names)
        if not issubclass(record.category, LossBufferWarning):
            warnings.warn_explicit(record.message, record.category, record.filename, record.lineno)
        elif text not in found:
            found.append(text)
    return tuple(found)


def _of_command(text: str, class_names: Sequence[str]) -> str:
    """A warning with options for settings and names for the numbers of classes."""

    def named(match: re.Match[str]) -> str:
        return match[1] + ", ".join(repr(class_names[int(number)]) for number in match[2].split(", "))

    text = re.sub(r"(true class |labels of class )(\d+(?:, \d+)*)", named, text)
    for setting, option in _OPTIONS.items():
        text = text.replace(setting, option)
    return text
