"""Adapters that run other libraries on the same data, with the same network, epochs and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


class Found(NamedTuple):
    """What a method found.

    Attributes:
        suspicion: Higher is more suspect, shape ``(n_samples,)``.
        suspect_mask: Rows the method itself would flag, shape ``(n_samples,)``.
        noise_rate: Its estimate of the share of wrong labels.
        trainings: Trainings it needed, each on the share of the rows it used.
    """

    suspicion: NDArray[Any]
    suspect_mask: NDArray[np.bool_]
    noise_rate: float
    trainings: float


@dataclass(frozen=True)
class Task:
    """Data with given labels, and how to train on it.

    Attributes:
        x: Samples, shape ``(n_samples, ...)``.
        labels: Given labels, shape ``(n_samples,)``.
        num_classes: Number of classes.
        seed: Seeds what a method draws.
        fit: ``fit(x, labels, num_classes, callback)`` trains a fresh network and gives it back; the callback has
            ``loss(logits, labels, rows)`` and ``end_epoch()``, or is ``None``.
    """

    x: Tensor
    labels: Tensor
    num_classes: int
    seed: int
    fit: Callable[[Tensor, Tensor, int, Any], nn.Module]
