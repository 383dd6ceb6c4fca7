"""Cuts by trying all of them."""

import math
from collections.abc import Sequence


def known_rate(suspicion: Sequence[float], tie_break: Sequence[float], noise_rate: float) -> set[int]:
    """Rows of the share ``noise_rate`` with the highest suspicion; of equals those with the higher tie break first."""
    seen = [row for row, value in enumerate(suspicion) if not math.isnan(value)]
    worst_first = sorted(seen, key=lambda row: (-suspicion[row], -tie_break[row], row))
    return set(worst_first[: round(noise_rate * len(seen))])


def max_f1(log_odds: Sequence[float], least: float) -> set[int]:
    """Rows above the threshold with the largest expected F1, of thresholds at rows with a probability of ``least``."""
    wrong = {row: 1 / (1 + math.exp(-value)) for row, value in enumerate(log_odds) if not math.isnan(value)}
    expected_wrong, best, found = math.fsum(wrong.values()), -1.0, set[int]()
    for threshold in sorted({p for p in wrong.values() if p >= least}, reverse=True):
        suspects = {row for row, p in wrong.items() if p >= threshold}
        f1 = 2 * math.fsum(wrong[row] for row in suspects) / (len(suspects) + expected_wrong)
        if f1 > best:
            best, found = f1, suspects
    return found


def between_variance(values: Sequence[float], threshold: float) -> float:
    """Variance between the values below the threshold and the rest; 0 where a side is empty."""
    below = [value for value in values if value < threshold]
    above = [value for value in values if value >= threshold]
    if not below or not above:
        return 0.0
    distance = math.fsum(below) / len(below) - math.fsum(above) / len(above)
    return len(below) * len(above) / len(values) ** 2 * distance**2


def otsu(values: Sequence[float]) -> float:
    """The largest variance between two sides that any cut can reach."""
    return max(between_variance(values, threshold) for threshold in values)


def crossing(lower: tuple[float, float, float], upper: tuple[float, float, float]) -> float:
    """Where two weighted Gaussians (mean, deviation, weight) are equally high between their means, by bisection."""

    def log_height(gaussian: tuple[float, float, float], at: float) -> float:
        mean, deviation, weight = gaussian
        return math.log(weight / deviation) - (at - mean) ** 2 / (2 * deviation**2)

    low, high = lower[0], upper[0]
    for _ in range(100):
        middle = (low + high) / 2
        if log_height(lower, middle) > log_height(upper, middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2
