"""Slow, obvious versions of what the end of the warm-up is decided by."""

from __future__ import annotations

import math


def epoch_losses(losses: list[float | None], places: list[int], held: list[bool]) -> tuple[list[float], float, float]:
    """Mean losses of the trained rows by quarters of the epoch, that of the rows held back, and the error.

    ``None`` stands for a row that was not seen.
    """
    seen = [row for row, loss in enumerate(losses) if loss is not None]
    trained = sorted((row for row in seen if not held[row]), key=lambda row: places[row])
    if not trained:
        return [math.nan] * 4, math.nan, math.nan
    values = [losses[row] for row in trained]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    quarters, start = [], 0
    for quarter in range(4):
        size = len(values) // 4 + (quarter < len(values) % 4)
        part = values[start : start + size]
        quarters.append(sum(part) / len(part) if part else mean)
        start += size
    of_held = [losses[row] for row in seen if held[row]]
    if of_held:
        center = sum(of_held) / len(of_held)
        spread = sum((value - center) ** 2 for value in of_held) / len(of_held)
        return quarters, center, math.sqrt(spread / len(of_held) + variance / len(values))
    return quarters, math.nan, math.sqrt(8 * variance / len(values)) if len(values) >= 100 else math.inf
