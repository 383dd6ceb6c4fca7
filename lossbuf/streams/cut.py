"""The cut of a stream's scores from sketches of them: the one that the same values in memory would have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossbuf import checks
from lossbuf.detection.thresholds import EXACT_ROWS, KnownRate, Mixture
from lossbuf.streams.sketch import ExactScores, ScoreSketch

Scores = NDArray[np.float32]
Pass = Callable[[], Iterable[tuple[Scores, Scores]]]
"""Goes over the suspicions and label losses of all rows, some at a time, whenever it is called."""


@dataclass
class Edge:
    """Where suspects begin. Of equal suspicions those with the larger label loss are suspects, of equals the first.

    Attributes:
        threshold: Suspects lie above it, or at it if the rest says so; infinite where there are none.
        noise_rate: Estimated share of wrong labels.
        tie: Label loss above which a row at the threshold is a suspect.
        left: How many of the rows at the threshold with this label loss are.
    """

    threshold: float
    noise_rate: float
    tie: float = float("-inf")
    left: int = 0

    def suspects(self, suspicion: Scores, label_loss: Scores) -> NDArray[np.bool_]:
        """True for suspects among the next rows; every row must come once, in the order that decides between equals."""
        at = suspicion.astype(np.float64) == self.threshold
        found = (suspicion.astype(np.float64) > self.threshold) | (at & (label_loss > self.tie))
        equal = np.flatnonzero(at & (label_loss == self.tie))[: self.left]
        found[equal] = True
        self.left -= len(equal)
        return found


def find_edge(rule: KnownRate | Mixture, sketch: ScoreSketch, rows: Pass) -> Edge:
    """What ``rule`` says of all rows, with a few passes over them.

    Args:
        rule: Where to cut.
        sketch: Of the suspicions of all rows.
        rows: The rows.
    """
    if isinstance(rule, KnownRate):
        return _known_rate(rule, sketch, rows)
    size = len(sketch)
    if size <= EXACT_ROWS:
        values = np.concatenate([np.empty(0, dtype=np.float32), *(suspicion for suspicion, _ in rows())])
        cut = rule(values)
        return Edge(cut.threshold, cut.noise_rate)
    exact = ExactScores(sketch, rule.ranks(size))
    for suspicion, _ in rows():
        exact.update(suspicion)
    at_ranks = exact.values().astype(np.float64)
    if at_ranks[0] == at_ranks[-1]:
        return Edge(float("inf"), 0.0)
    span = rule.span(at_ranks, size)
    counts = sum(rule.grid_counts(suspicion.astype(np.float64), span) for suspicion, _ in rows())
    return Edge(*rule.fit_grid(np.asarray(counts), span))


def _known_rate(rule: KnownRate, sketch: ScoreSketch, rows: Pass) -> Edge:
    size = len(sketch)
    count = round(rule.noise_rate * size)
    if not count:
        return Edge(float("inf"), float(rule.noise_rate))
    exact = ExactScores(sketch, [size - count])
    for suspicion, _ in rows():
        exact.update(suspicion)
    threshold = exact.values()[0]
    above, equal = exact.above(0)
    edge = Edge(float(threshold), float(rule.noise_rate))
    wanted = count - above
    if wanted == equal:
        return edge
    ties = ScoreSketch()
    for suspicion, label_loss in rows():
        ties.update(label_loss[suspicion == threshold])
    exact = ExactScores(ties, [equal - wanted])
    for suspicion, label_loss in rows():
        exact.update(label_loss[suspicion == threshold])
    edge.tie = float(exact.values()[0])
    edge.left = wanted - exact.above(0)[0]
    return edge


def checked_rule(noise_rate: float | None, cut: object) -> KnownRate | Mixture:
    """The rule that the settings ask for.

    Raises:
        ValueError: If both are given, or the rule needs all scores at once.
    """
    if noise_rate is not None:
        if cut is not None:
            raise ValueError(checks.problem("cut", "must be left out where `noise_rate` is given", cut))
        return KnownRate(noise_rate)
    if cut is None:
        return Mixture()
    if not isinstance(cut, KnownRate | Mixture):
        raise ValueError(checks.problem("cut", "must be KnownRate(...) or Mixture() for a stream", repr(cut)))
    return cut
