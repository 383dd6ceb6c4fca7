"""The scores of one sample at a time."""

import math

FLOOR = 0.01


def denominator(mean: float) -> float:
    """A class mean that can be divided by."""
    return 1.0 if math.isnan(mean) else max(mean, FLOOR)


def score(label_loss: float, mean_label_loss: float) -> float:
    """Label loss over its class mean."""
    return label_loss / denominator(mean_label_loss)


def score2(margin: float, mean_label_loss: float) -> float:
    """Label loss minus predicted loss, over the class mean of the label loss."""
    return max(-margin, 0.0) / denominator(mean_label_loss)


def score3(margin: float, mean_gap: float) -> float:
    """Label loss minus predicted loss, over the class mean of the same."""
    return max(-margin, 0.0) / denominator(mean_gap)


def suspicion_order(suspicion: list[float], tie_break: list[float]) -> list[int]:
    """Rows from most to least suspect by insertion, NaN last; equals by the tie break, then by row."""
    order: list[int] = []
    for row in range(len(suspicion)):
        place = 0
        while place < len(order) and not _before(row, order[place], suspicion, tie_break):
            place += 1
        order.insert(place, row)
    return order


def _before(row: int, other: int, suspicion: list[float], tie_break: list[float]) -> bool:
    for values in (suspicion, tie_break):
        if math.isnan(values[row]) and math.isnan(values[other]):
            continue
        if math.isnan(values[row]) or math.isnan(values[other]):
            return math.isnan(values[other])
        if values[row] != values[other]:
            return values[row] > values[other]
    return row < other
