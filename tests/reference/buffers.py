"""Loss buffers of deques."""

import math
from collections import deque

from tests.reference.losses import Losses


class ClassLossBuffer:
    """The most recent losses of every class."""

    def __init__(self, num_classes: int, window: int) -> None:
        self.rows: list[deque[float]] = [deque(maxlen=window) for _ in range(num_classes)]
        self.seen = [0] * num_classes
        self.rejected = 0

    def update(self, losses: list[float], labels: list[int]) -> None:
        """Append a batch, one loss after the other."""
        for loss, label in zip(losses, labels, strict=True):
            self.append(loss, label)

    def append(self, loss: float, label: int) -> None:
        """Append one loss, or reject it."""
        if math.isfinite(loss) and 0 <= label < len(self.rows):
            self.rows[label].append(loss)
            self.seen[label] += 1
        else:
            self.rejected += 1

    def mean(self) -> list[float]:
        """Mean of every row, NaN where it is empty."""
        return [math.fsum(row) / len(row) if row else math.nan for row in self.rows]


class LossBuffers:
    """Label loss and predicted loss by given class, predicted loss by predicted class."""

    def __init__(self, num_classes: int, window: int) -> None:
        self.label_loss = ClassLossBuffer(num_classes, window)
        self.predicted_loss = ClassLossBuffer(num_classes, window)
        self.predicted_class_loss = ClassLossBuffer(num_classes, window)

    def append(self, losses: Losses, label: int) -> None:
        """Append one sample; without a finite label loss it goes nowhere."""
        if not math.isfinite(losses.label_loss) or not 0 <= label < len(self.label_loss.rows):
            for ring in (self.label_loss, self.predicted_loss, self.predicted_class_loss):
                ring.rejected += 1
            return
        self.label_loss.append(losses.label_loss, label)
        self.predicted_loss.append(losses.predicted_loss, label)
        self.predicted_class_loss.append(losses.predicted_loss, losses.predicted)

    def class_means(self) -> tuple[list[float], list[float]]:
        """Class means of the label loss and of label loss minus predicted loss."""
        label, predicted = self.label_loss.mean(), self.predicted_loss.mean()
        gaps = [
            math.nan if math.isnan(one) else max(one - other, 0.0) for one, other in zip(label, predicted, strict=True)
        ]
        return label, gaps
