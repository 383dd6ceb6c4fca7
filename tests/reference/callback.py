"""The callback, composed of the other references: steps are staged in a block, and a block is digested at once."""

import math

from tests.reference.buffers import LossBuffers
from tests.reference.dynamics import SampleDynamics
from tests.reference.losses import sample_losses


class Callback:
    """Rings and dynamics over blocks of at most ``capacity`` rows, or of one larger step."""

    def __init__(self, labels: list[int], num_classes: int, window: int, capacity: int) -> None:
        self.rings = LossBuffers(num_classes, window)
        self.dynamics = SampleDynamics(labels)
        self.capacity = capacity
        self.largest = 0
        self.block: list[tuple[list[float], int, int]] = []

    def update(self, logits: list[list[float]], labels: list[int], rows: list[int]) -> None:
        """Stage a step; the block is digested first where a step of the largest size would not fit."""
        self.largest = max(self.largest, len(rows))
        if len(self.block) + self.largest > max(self.capacity, self.largest):
            self.flush()
        self.block += zip(logits, labels, rows, strict=True)

    def flush(self) -> None:
        """First all losses of the block enter the rings, then its rows are scored."""
        fresh = []
        for logits, label, row in self.block:
            losses = sample_losses(logits, label)
            if math.isfinite(losses.label_loss) and self.dynamics.claim(row):
                self.rings.append(losses, label)
                fresh.append((losses, label, row))
        mean_label_loss, mean_gap = self.rings.class_means()
        for losses, label, row in fresh:
            self.dynamics.record(row, losses, mean_label_loss[label], mean_gap[label])
        self.block = []

    def end_epoch(self) -> None:
        """Digest what is left."""
        self.flush()
        self.dynamics.end_epoch()
