"""cleanlab (Northcutt et al. 2021), with its defaults on five-fold out-of-sample probabilities."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from cleanlab.count import estimate_joint
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from benchmarks.peers import Found, Task
from lossbuf.training import predict

FOLDS = 5
TRAININGS = FOLDS * (FOLDS - 1) / FOLDS


def find(task: Task) -> Found:
    """Five trainings, each on four fifths of the rows."""
    return judged(task.labels.numpy(), by_training(task))


def by_training(task: Task) -> NDArray[np.float64]:
    """Out-of-sample probabilities of the task's own network, shape ``(n_samples, num_classes)``."""

    def probabilities(train_rows: NDArray[np.int64], test_rows: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = torch.from_numpy(train_rows)
        network = task.fit(task.x[rows], task.labels[rows], task.num_classes, None)
        return predict(network, task.x[torch.from_numpy(test_rows)]).softmax(1).double().numpy()

    return out_of_sample(task, probabilities)


def out_of_sample(
    task: Task, probabilities: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Probabilities of every row by a model that was trained on the other folds.

    Args:
        task: The data.
        probabilities: Called with the rows to train on and those to predict, gives the probabilities of the latter.
    """
    labels = task.labels.numpy()
    probs = np.zeros((len(labels), task.num_classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with fewer rows than there are folds
        folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=task.seed).split(labels, labels))
    for train_rows, test_rows in folds:
        probs[test_rows] = probabilities(train_rows, test_rows)
    return probs / probs.sum(1, keepdims=True)


def judged(labels: NDArray[np.int64], probs: NDArray[np.float64]) -> Found:
    """What cleanlab's defaults find by out-of-sample probabilities of shape ``(n_samples, num_classes)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with very few rows
        mask = np.asarray(find_label_issues(labels, probs, n_jobs=1), dtype=bool)
    joint = np.asarray(estimate_joint(labels, probs))
    quality = np.asarray(get_label_quality_scores(labels, probs))
    return Found(1 - quality, mask, float(1 - np.trace(joint)), TRAININGS)
