"""Statistics of every sample from its whole history."""

import itertools
import math
from collections import Counter
from typing import NamedTuple

from tests.reference import scores
from tests.reference.losses import Losses


class Seen(NamedTuple):
    """One sample in one epoch."""

    label_loss: float
    predicted_loss: float
    margin: float
    score: float
    score2: float
    score3: float
    predicted: int


class SampleDynamics:
    """Keeps all that every sample ever gave."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels
        self.history: list[list[Seen]] = [[] for _ in labels]
        self.in_epoch: set[int] = set()

    def claim(self, row: int) -> bool:
        """True where the row comes for the first time in this epoch."""
        first = row not in self.in_epoch
        self.in_epoch.add(row)
        return first

    def record(self, row: int, losses: Losses, mean_label_loss: float, mean_gap: float) -> None:
        """Keep the values of a row."""
        three = (
            scores.score(losses.label_loss, mean_label_loss),
            scores.score2(losses.margin, mean_label_loss),
            scores.score3(losses.margin, mean_gap),
        )
        seen = Seen(losses.label_loss, losses.predicted_loss, losses.margin, *three, losses.predicted)
        self.history[row].append(seen)

    def end_epoch(self) -> None:
        """Rows may come again."""
        self.in_epoch = set()

    def statistics(self) -> dict[str, list[float]]:
        """Every statistic by name, a value a sample."""
        rows = [_statistics(history, label) for history, label in zip(self.history, self.labels, strict=True)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def tracked(self) -> list[bool]:
        """True where a sample was predicted to be four classes at most."""
        return [len({seen.predicted for seen in history}) <= 4 for history in self.history]


def _statistics(history: list[Seen], label: int) -> dict[str, float]:
    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values) if values else math.nan

    right = [seen.predicted == label for seen in history]
    last = history[-1] if history else Seen(*[math.nan] * 6, -1)
    return {
        "count": len(history),
        "label_loss": mean([seen.label_loss for seen in history]),
        "predicted_loss": mean([seen.predicted_loss for seen in history]),
        "aum": mean([seen.margin for seen in history]),
        "score": mean([seen.score for seen in history]),
        "score2": mean([seen.score2 for seen in history]),
        "score3": mean([seen.score3 for seen in history]),
        "wrong_count": right.count(False),
        "forgetting_events": sum(before and not after for before, after in itertools.pairwise(right)),
        "most_frequent": _most_frequent([seen.predicted for seen in history]),
        "other_class": _most_frequent([seen.predicted for seen in history if seen.predicted != label]),
        "last_predicted": last.predicted,
        "last_label_loss": last.label_loss,
        "last_margin": last.margin,
        "last_score": last.score,
        "last_score2": last.score2,
        "last_score3": last.score3,
    }


def _most_frequent(classes: list[int]) -> int:
    """The lowest of the most frequent classes, -1 where there is none."""
    counts = Counter(classes)
    return min((one for one in counts if counts[one] == max(counts.values())), default=-1)
