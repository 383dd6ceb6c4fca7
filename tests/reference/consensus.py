"""Places in rankings and values dealt by them, in loops over Python floats."""

import math


def mean_place(rankings: list[list[float]]) -> list[float]:
    """One more than how many rows are lower, and half of how many others are equal; NaN for NaN."""
    found = []
    for row in range(len(rankings[0])):
        places = []
        for ranking in rankings:
            mine, known = ranking[row], [value for value in ranking if not math.isnan(value)]
            lower = sum(value < mine for value in known)
            equal = sum(value == mine for value in known)
            places.append(math.nan if math.isnan(mine) else lower + (equal + 1) / 2)
        found.append(sum(places) / len(places))
    return found


def in_order_of(values: list[float], places: list[float], tie_break: list[float]) -> list[float]:
    """The highest value to the highest place, ties to the higher tie break and then to the earlier row."""
    rows = [row for row, value in enumerate(values) if not math.isnan(value)]
    heap = sorted(values[row] for row in rows)
    found = list(values)
    for row in sorted(rows, key=lambda row: (-places[row], -tie_break[row], row)):
        found[row] = heap.pop()
    return found
