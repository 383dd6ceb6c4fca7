"""The cut of scores that come in parts is the one of the same scores in memory."""

import numpy as np
import pytest

from lossbuf.detection.thresholds import KnownRate, Mixture
from lossbuf.streams.cut import find_edge
from lossbuf.streams.sketch import ScoreSketch

KINDS = {
    "spread": lambda draws, size: draws.normal(size=size),
    "many zeros": lambda draws, size: np.maximum(draws.normal(-1, 1, size), 0),
    "few values": lambda draws, size: draws.integers(0, 4, size),
    "heaps": lambda draws, size: np.where(draws.random(size) < 0.2, draws.normal(6, 1, size), draws.normal(0, 1, size)),
    "far from 0": lambda draws, size: 1000 + draws.exponential(size=size),
    "one value": lambda draws, size: np.full(size, 2.5),
}


def cut_in_parts(rule, suspicion, label_loss):
    parts = np.array_split(np.arange(len(suspicion)), 5)
    sketch = ScoreSketch()
    for part in parts:
        sketch.update(suspicion[part])
    edge = find_edge(rule, sketch, lambda: ((suspicion[part], label_loss[part]) for part in parts))
    mask = np.concatenate([edge.suspects(suspicion[part], label_loss[part]) for part in parts])
    return edge, mask


@pytest.mark.parametrize("rule", [*map(KnownRate, (0.0, 0.001, 0.1, 1 / 3, 0.9, 1.0)), Mixture()], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 30, 3000])
@pytest.mark.parametrize("exact_rows", [10, 10**6])
def test_as_in_memory(rule, kind, size, exact_rows, monkeypatch):
    for module in ("detection.thresholds", "streams.cut"):
        monkeypatch.setattr(f"lossbuf.{module}.EXACT_ROWS", exact_rows)
    draws = np.random.default_rng(size)
    suspicion = KINDS[kind](draws, size).astype(np.float32)
    label_loss = draws.integers(0, 5, size).astype(np.float32)
    expected = rule(suspicion, label_loss)
    edge, mask = cut_in_parts(rule, suspicion, label_loss)
    assert np.array_equal(mask, expected.suspect_mask)
    assert edge.noise_rate == expected.noise_rate
    if mask.any():
        assert edge.threshold == expected.threshold


@pytest.mark.parametrize("rule", [KnownRate(0.3), Mixture()])
def test_no_scores(rule):
    edge, mask = cut_in_parts(rule, np.empty(0, np.float32), np.empty(0, np.float32))
    assert (edge.threshold, len(mask)) == (np.inf, 0)
