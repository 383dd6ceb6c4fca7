"""cleanlab (Northcutt et al. 2021), with its defaults on five-fold out-of-sample probabilities."""

from __future__ import annotations

import numpy as np
import torch
from cleanlab.count import estimate_joint
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.model_selection import StratifiedKFold

from benchmarks.peers import Found, Task
from lossbuf.training import predict

FOLDS = 5


def find(task: Task) -> Found:
    """Five trainings, each on four fifths of the rows."""
    labels = task.labels.numpy()
    probs = np.zeros((len(labels), task.num_classes))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=task.seed)
    for train_rows, test_rows in folds.split(labels, labels):
        rows = torch.from_numpy(train_rows)
        network = task.fit(task.x[rows], task.labels[rows], task.num_classes, None)
        probs[test_rows] = predict(network, task.x[torch.from_numpy(test_rows)]).softmax(1).double().numpy()
    probs /= probs.sum(1, keepdims=True)
    mask = np.asarray(find_label_issues(labels, probs, n_jobs=1), dtype=bool)
    joint = np.asarray(estimate_joint(labels, probs))
    quality = np.asarray(get_label_quality_scores(labels, probs))
    return Found(1 - quality, mask, float(1 - np.trace(joint)), FOLDS * (FOLDS - 1) / FOLDS)
