"""Greedy selection in loops over exact fractions: what is equal is equal."""

import math
from fractions import Fraction

Rows = list[list[float]]


def distance(one: list[float], other: list[float]) -> float:
    """Euclidean."""
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def cosine_distance(one: list[float], other: list[float]) -> float:
    """One less the cosine, rounded so that rows of one direction are at distance 0."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return round(1 - product / math.hypot(*one) / math.hypot(*other), 12)


def similarities(rows: Rows, measure=distance) -> list[list[Fraction]]:
    """The largest distance of all, less the distance."""
    distances = [[Fraction(measure(one, other)) for other in rows] for one in rows]
    farthest = max(max(row) for row in distances)
    return [[farthest - value for value in row] for row in distances]


def objective(similar: list[list[Fraction]], chosen: list[int], weights: list[int] | None = None) -> Fraction:
    """Sum over the rows of the largest similarity to a chosen one, each as often as its weight says."""
    often = weights or [1] * len(similar)
    best = [max(row[j] for j in chosen) if chosen else Fraction(0) for row in similar]
    return sum((many * value for many, value in zip(often, best, strict=True)), Fraction(0))


def facility_location(
    rows: Rows, k: int, measure=distance, weights: list[int] | None = None
) -> tuple[list[int], list[float]]:
    """The best of all that are left, k times, and what each added."""
    similar = similarities(rows, measure)
    chosen: list[int] = []
    gains = []
    for _ in range(k):
        before = objective(similar, chosen, weights)
        values = {j: objective(similar, [*chosen, j], weights) for j in range(len(rows)) if j not in chosen}
        best = max(values, key=lambda j: (values[j], -j))
        gains.append(float(values[best] - before))
        chosen.append(best)
    return chosen, gains


def centrality(rows: Rows, k: int, weights: list[int] | None = None) -> list[int]:
    """By the sum of similarities."""
    often = weights or [1] * len(rows)
    totals = [sum(many * value for many, value in zip(often, row, strict=True)) for row in similarities(rows)]
    return sorted(range(len(rows)), key=lambda j: (-totals[j], j))[:k]


def nearest(rows: Rows, chosen: list[int]) -> list[int]:
    """Position of the chosen row nearest to each row, of equals the first."""
    return [min(range(len(chosen)), key=lambda c: (distance(row, rows[chosen[c]]), c)) for row in rows]


def k_center(rows: Rows, k: int, given: list[int]) -> tuple[list[int], float]:
    """Farthest first, and the radius."""
    chosen = list(given)

    def gap(j: int) -> float:
        return min(distance(rows[j], rows[c]) for c in chosen)

    while len(chosen) < k:
        chosen.append(max((j for j in range(len(rows)) if j not in chosen), key=lambda j: (gap(j), -j)))
    return chosen, max(gap(j) for j in range(len(rows)))


def herding(rows: Rows, k: int, weights: list[int] | None = None) -> list[int]:
    """The row that brings the mean of the chosen nearest to the mean of all, k times."""
    often = weights or [1] * len(rows)
    exact = [[Fraction(value) for value in row] for row in rows]
    features = range(len(rows[0]))
    mean = [sum(many * row[f] for many, row in zip(often, exact, strict=True)) / sum(often) for f in features]
    chosen: list[int] = []
    for _ in range(k):

        def miss(j: int) -> Fraction:
            now = [exact[c] for c in [*chosen, j]]
            return sum(((sum(row[f] for row in now) / len(now) - mean[f]) ** 2 for f in features), Fraction(0))

        chosen.append(min((j for j in range(len(rows)) if j not in chosen), key=lambda j: (miss(j), j)))
    return chosen
