"""One cell of the hard suite: all methods on the same rows with the same wrong labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.common import metrics
from benchmarks.hard import ours, trainings
from benchmarks.hard.data import HardData
from benchmarks.hard.noises import noisy_labels
from benchmarks.hard.suite import Settings
from benchmarks.peers import Found, Task, confident_learning, logistic, neighbours
from lossbuf.callback import LossBufferCallback
from lossbuf.detection.thresholds import CutRule, Mixture, Otsu

_Value = TypeVar("_Value")

WATCHED: dict[str, tuple[str, CutRule]] = {
    "label_loss-mixture": ("label_loss", Mixture()),
    "label_loss-otsu": ("label_loss", Otsu()),
    "aum-mixture": ("aum", Mixture()),
    "aum-otsu": ("aum", Otsu()),
    "score2-mixture": ("score2", Mixture()),
}
"""What one plain training shows: the statistic to rank by, and the rule that sets the cut."""


class Cell:
    """One cell.

    Args:
        data: The data set.
        settings: The settings.
        device: Where to train; by default a GPU where there is one.
    """

    def __init__(self, data: HardData, settings: Settings, device: str | None = None) -> None:
        self.data, self.settings, self.device = data, settings, device
        self.noisy = noisy_labels(data, settings.noise_kind, settings.noise, settings.seed)
        self.labels = torch.from_numpy(self.noisy.labels)

    @cached_property
    def task(self) -> Task:
        """The cell as the peers take it; features have mean 0 and deviation 1."""
        x = _standardized(self.data.x) if self.data.kind == "features" else self.data.x
        return Task(x, self.labels, self.data.num_classes, self.settings.seed, self._fit)

    def _fit(self, x: Tensor, labels: Tensor, num_classes: int, callback: Any) -> nn.Module:
        training = self.settings.entry.training
        return trainings.fit(training, self.settings.seed, x, labels, num_classes, callback, self.device)

    def by_peers(self) -> dict[str, Any]:
        """Values of all methods but ours."""
        accuracies: dict[str, float] = {}
        methods = self._watched()
        ways: list[tuple[str, Callable[[Task], NDArray[np.float64]], Callable[..., Found]]] = []
        if self.settings.entry.cross_validated:
            ways.append(("cleanlab", confident_learning.by_training, confident_learning.judged))
        if self.data.kind == "features":
            ways.append(("cleanlab-logistic", logistic.by_regression, confident_learning.judged))
            ways.append(("neighbours", self._votes, neighbours.judged))
        for name, predict, judge in ways:
            (probs, found), seconds = _timed(lambda predict=predict, judge=judge: self._judged(predict, judge))
            methods[name] = {**self._measured(found), "seconds": seconds}
            accuracies[name] = float((probs.argmax(1) == self.data.labels).mean())
        return {**self.facts(), "methods": methods, "out_of_sample_accuracy": accuracies}

    def facts(self) -> dict[str, Any]:
        """What is true of the cell, whatever is found."""
        return {"n_samples": len(self.labels), "true_noise_rate": float(self.noisy.noise_mask.mean()), "methods": {}}

    def own(self) -> dict[str, Any]:
        """Values of ours."""
        if self.data.kind == "features":
            how = lambda: ours.by_selector(self.data.x, self.labels, self.settings.seed, self.device)  # noqa: E731
        else:
            how = lambda: ours.by_callback(self.task)  # noqa: E731
        own, seconds = _timed(how)
        values = ours.described(own, self.data.labels, self.noisy)
        return {**values, "methods": {"ours": {**self._measured(own.found), "seconds": seconds}}}

    def _votes(self, task: Task) -> NDArray[np.float64]:
        """Votes by the cosine of the features as they came, or in a table by the distance of standardized ones."""
        x = task.x if self.data.is_table else nn.functional.normalize(self.data.x, dim=1)
        return neighbours.votes(replace(task, x=x))

    def _watched(self) -> dict[str, Any]:
        def watch() -> Any:
            callback = LossBufferCallback(self.labels, self.data.num_classes, rank_by="aum")
            self._fit(self.task.x, self.labels, self.data.num_classes, callback)
            return callback.statistics()

        statistics, seconds = _timed(watch)
        methods: dict[str, Any] = {}
        for name, (statistic, rule) in WATCHED.items():
            suspicion = statistics.suspicion(statistic).cpu().numpy()
            cut = rule(suspicion)
            found = Found(suspicion, cut.suspect_mask, cut.noise_rate, 1.0)
            methods[name] = {**self._measured(found), "seconds": seconds}
        return methods

    def _judged(
        self, predict: Callable[[Task], NDArray[np.float64]], judge: Callable[..., Found]
    ) -> tuple[NDArray[np.float64], Found]:
        probs = predict(self.task)
        return probs, judge(self.noisy.labels, probs)

    def _measured(self, found: Found) -> dict[str, Any]:
        mask = self.noisy.noise_mask
        return {
            **metrics.ranking(found.suspicion, found.suspicion, mask),
            **metrics.cut(found.suspicion, found.suspect_mask, mask),
            "noise_rate": found.noise_rate,
            "flagged_share": float(found.suspect_mask.mean()),
            "trainings": found.trainings,
        }


def _standardized(x: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(x, dim=0, correction=0)
    return (x - mean) / torch.where(deviation > 0, deviation, 1.0)


def _timed(compute: Callable[[], _Value]) -> tuple[_Value, float]:
    start = time.perf_counter()
    value = compute()
    return value, time.perf_counter() - start
