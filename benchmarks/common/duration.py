"""How long trainings take, by a few steps of one of them; and durations in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from benchmarks.common.data import Data
from lossbuf.training import TrainSettings, accuracy, build, train

PROBE_STEPS = 8
"""Steps that are timed; as many come before them, in which memory is taken and kernels are chosen."""


def of_training(data: Data, make: Callable[[], nn.Module], settings: TrainSettings) -> float:
    """Seconds that a training on all rows takes, tested after every epoch, as a few steps of it suggest.

    Args:
        data: What is trained and tested on.
        make: Makes the network.
        settings: Of the training.
    """
    size = min(settings.batch_size, len(data.x))
    rows = torch.arange(min(PROBE_STEPS * size, len(data.x)))
    tested = min(PROBE_STEPS * size, len(data.test_x))
    network = build(make, settings)

    def probe() -> tuple[float, float]:
        start = time.perf_counter()
        train(network, data.x, data.labels, replace(settings, epochs=1), rows=rows)
        trained = time.perf_counter()
        accuracy(network, data.test_x[:tested], data.test_labels[:tested])
        return trained - start, time.perf_counter() - trained

    probe()
    training, testing = probe()
    return settings.epochs * (training * len(data.x) / len(rows) + testing * len(data.test_x) / tested)


def in_words(seconds: float) -> str:
    """A duration as people say it.

    Example:
        >>> in_words(7), in_words(200), in_words(9000)
        ('7 seconds', '3 minutes', '2.5 hours')
    """
    if seconds < 99.5:
        count, unit = f"{max(seconds, 1):.0f}", "second"
    elif seconds < 99.5 * 60:
        count, unit = f"{seconds / 60:.0f}", "minute"
    else:
        count, unit = f"{seconds / 3600:.1f}", "hour"
    return f"{count} {unit}" if count == "1" else f"{count} {unit}s"
