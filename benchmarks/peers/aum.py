"""The ``aum`` package (Pleiss et al. 2020), driven as its README does."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from aum import AUMCalculator
from torch import Tensor

from benchmarks.peers import Found, Task

PERCENTILE = 99
"""Of the threshold samples' AUM, as in the paper."""


class AumPeer:
    """Records margins of every step; ids are the row numbers, turned into a list as the package wants them."""

    def __init__(self, folder: str) -> None:
        self.calculator = AUMCalculator(folder, compressed=True)

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Take note of a batch."""
        if len(logits) > 1:  # the package fails on a batch of one
            self.calculator.update(logits, labels, indices.tolist())

    def loss(self, logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Take note of a batch; the plain loss."""
        self.update(logits.detach(), labels, rows)
        return F.cross_entropy(logits, labels)

    def end_epoch(self) -> None:
        """Nothing to do."""

    def values(self, n_samples: int) -> np.ndarray:
        """AUM of every row."""
        self.calculator.finalize()
        table = pd.read_csv(f"{self.calculator.save_dir}/aum_values.csv").set_index("sample_id")["aum"]
        return table.reindex(np.arange(n_samples)).to_numpy()


def find(task: Task) -> Found:
    """Two trainings with threshold samples: N / (classes + 1) rows each get the label of a class that does not exist.

    A row is flagged where its AUM, in the training in which it kept its label, is below the 99th percentile of that
    training's threshold samples. Rows are ranked by the distance to that percentile, or the mean of the two.
    """
    size = len(task.labels)
    order = np.random.default_rng([task.seed, 2]).permutation(size)
    share = size // (task.num_classes + 1)
    gaps = np.full((2, size), np.nan)
    for turn in range(2):
        fake = order[turn * share : (turn + 1) * share]
        labels = task.labels.clone()
        labels[torch.from_numpy(fake)] = task.num_classes
        with TemporaryDirectory() as folder:
            peer = AumPeer(folder)
            task.fit(task.x, labels, task.num_classes + 1, peer)
            values = peer.values(size)
        gaps[turn] = np.nanpercentile(values[fake], PERCENTILE) - values
        gaps[turn, fake] = np.nan
    suspicion = np.nanmean(gaps, axis=0)
    return Found(suspicion, suspicion > 0, float((suspicion > 0).mean()), 2.0)
