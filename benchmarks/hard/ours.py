"""What lossbuf itself finds in a cell of the hard suite, through its public interface and with its defaults."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peers import Found, Task
from lossbuf import LossBufferCallback, LossBufferWarning
from lossbuf.noise import NoisyLabels
from lossbuf.selectors import LossBufferSelector


class Own(NamedTuple):
    """What was found, and what was said of it.

    Attributes:
        found: Suspicion, flagged rows and noise rate.
        interval: The noise rate's interval, where there is one.
        transition: The estimated transition matrix, where there is one.
        suggested: The class that is suggested for each row, shape ``(n_samples,)``.
        warnings: Texts of the warnings, each once.
    """

    found: Found
    interval: tuple[float, float] | None
    transition: NDArray[np.float64] | None
    suggested: NDArray[np.int64]
    warnings: list[str]


def by_selector(x: Tensor, labels: Tensor, seed: int, device: str | None) -> Own:
    """Found by :class:`LossBufferSelector` on arrays, shape ``(n_samples, n_features)``."""
    selector = LossBufferSelector(random_state=seed, device=device)
    _, texts = _heard(lambda: selector.fit(x.numpy(), labels.numpy()))
    found = Found(selector.scores_, ~selector.get_support(), selector.noise_rate_, 1.0)
    interval, transition = selector.noise_rate_interval_, selector.transition_
    return Own(found, interval, transition, np.asarray(selector.suggested_labels_), texts)


def by_callback(task: Task) -> Own:
    """Found by :class:`LossBufferCallback` in the task's own training."""
    callback = LossBufferCallback(task.labels, task.num_classes, mode="filter")

    def judge() -> Any:
        task.fit(task.x, task.labels, task.num_classes, callback)
        return callback.verdict()

    verdict, texts = _heard(judge)
    found = Found(verdict.suspicion, verdict.suspect_mask, verdict.noise_rate, 1.0)
    suggested = verdict.suggested(task.labels.numpy())
    return Own(found, verdict.noise_rate_interval, verdict.transition, suggested, texts)


def _heard(compute: Callable[[], Any]) -> tuple[Any, list[str]]:
    """A result, and the texts of the warnings on the way to it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LossBufferWarning)
        result = compute()
    texts = [str(warning.message) for warning in caught if issubclass(warning.category, LossBufferWarning)]
    return result, list(dict.fromkeys(texts))


def described(own: Own, true_labels: NDArray[np.int64], noisy: NoisyLabels) -> dict[str, Any]:
    """Values of a cell that only ours has.

    Args:
        own: What was found.
        true_labels: True labels, shape ``(n_samples,)``.
        noisy: The given labels, and the noise that made them.
    """
    comparable = own.transition is not None and np.shape(own.transition) == noisy.transition.shape
    found = own.found.suspect_mask & noisy.noise_mask
    return {
        "noise_rate_interval": own.interval,
        "warnings": own.warnings,
        "transition_error": float(np.abs(np.asarray(own.transition) - noisy.transition).mean()) if comparable else None,
        "suggestion_right": float((own.suggested == true_labels)[found].mean()) if found.any() else None,
    }
