"""Out-of-sample probabilities of features by logistic regression, for cleanlab."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from benchmarks.peers import Task
from benchmarks.peers.confident_learning import out_of_sample

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the regularization among which one is chosen."""

ITERATIONS = 50


def by_regression(task: Task) -> NDArray[np.float64]:
    """Out-of-sample probabilities, shape ``(n_samples, num_classes)``.

    The strength with the least log loss on a fifth of the rows, by the given labels, is used in all folds.
    """
    x, labels = task.x.flatten(1).numpy(), task.labels.numpy()
    rare = np.bincount(labels, minlength=task.num_classes)[labels] < 2  # cannot be split
    rows = np.flatnonzero(~rare)
    parts = train_test_split(rows, test_size=max(0.2, task.num_classes / len(rows)), random_state=task.seed,
                             stratify=labels[rows])  # fmt: skip
    train_rows, test_rows = np.asarray(parts[0]), np.asarray(parts[1])

    def probabilities(strength: float, train_rows: NDArray[np.int64], test_rows: NDArray[np.int64]) -> NDArray:
        return _probabilities(x, labels, task.num_classes, strength, train_rows, test_rows)

    losses = [
        log_loss(labels[test_rows], probabilities(strength, train_rows, test_rows), labels=range(task.num_classes))
        for strength in STRENGTHS
    ]
    best = STRENGTHS[int(np.argmin(losses))]
    return out_of_sample(task, lambda train_rows, test_rows: probabilities(best, train_rows, test_rows))


def _probabilities(
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
    num_classes: int,
    strength: float,
    train_rows: NDArray[np.int64],
    test_rows: NDArray[np.int64],
) -> NDArray[np.float64]:
    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[train_rows], labels[train_rows])
    probs = np.full((len(test_rows), num_classes), 1e-9)  # a class that no row had keeps almost nothing
    probs[:, np.asarray(model.classes_)] += model.predict_proba(x[test_rows])
    return probs / probs.sum(1, keepdims=True)
