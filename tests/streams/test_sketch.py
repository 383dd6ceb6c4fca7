"""Tests of lossbuf.streams.sketch."""

import numpy as np
import pytest

from lossbuf.streams.sketch import ExactScores, ScoreSketch

KINDS = {
    "normal": lambda draws, size: draws.normal(size=size),
    "many zeros": lambda draws, size: np.maximum(draws.normal(size=size), 0),
    "signed zeros": lambda draws, size: draws.choice([0.0, -0.0, 1e-45, -1e-45], size),
    "few values": lambda draws, size: draws.integers(-2, 3, size),
    "close together": lambda draws, size: 1000 + draws.integers(0, 50, size) * 2.0**-14,
    "all sizes": lambda draws, size: draws.choice([-1, 1], size) * 10.0 ** draws.uniform(-45, 38.5, size),
}


def some(kind, size, seed=0):
    values = KINDS[kind](np.random.default_rng(seed), size).astype(np.float32)
    return values[np.isfinite(values)]


def sketched(*parts):
    sketch = ScoreSketch()
    for part in parts:
        sketch.update(part)
    return sketch


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 100, 5000])
def test_two_passes_give_every_rank_exactly(kind, size):
    values = some(kind, size)
    ranks = np.unique(np.linspace(0, len(values) - 1, 30).astype(int)).tolist()
    exact = ExactScores(sketched(values), ranks)
    for part in np.array_split(values, 3):
        exact.update(part)
    expected = np.sort(values)[ranks]
    assert exact.values().tolist() == expected.tolist()
    for place, value in enumerate(expected):
        assert exact.above(place) == ((values > value).sum(), (values == value).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_points_and_quantiles_are_close(kind):
    values = some(kind, 3000)
    sketch = sketched(values)
    points, counts = sketch.points()
    assert len(sketch) == counts.sum() == len(values)
    assert (np.diff(points) > 0).all()
    ordered = np.sort(values).astype(np.float64)
    error = np.abs(np.repeat(points, counts) - ordered)
    assert (error <= np.maximum(np.abs(ordered) * 2**-12, 2.0**-138)).all()  # below 2**-126 the bins are that wide
    for q in (0.0, 0.1, 0.5, 1.0):
        at = ordered[int(q * (len(values) - 1))]
        assert sketch.quantile(q) == pytest.approx(at, rel=2**-12, abs=2.0**-138)
    assert sketch.count_above(float(ordered[0])) <= (values > ordered[0]).sum()


def test_round_numbers_are_their_own_bins():
    values = np.array([0.0, 1.0, -2.0, 0.375, 4095.0, -7.0], dtype=np.float32)
    assert sketched(values).points()[0].tolist() == sorted(values.tolist())
    assert sketched(values).count_above(0.375) == 2


@pytest.mark.parametrize("seed", [0, 1])
def test_neither_order_nor_parts_matter(seed):
    draws = np.random.default_rng(seed)
    values = some("all sizes", 4000, seed)
    whole = sketched(values)
    merged = ScoreSketch()
    for part in np.array_split(draws.permutation(values), 7):
        merged.merge(sketched(part))
    assert np.array_equal(whole.counts, merged.counts)
    assert whole.counts.nbytes < 9e6


def test_rows_never_seen_do_not_count():
    sketch = sketched([np.nan, 1.0, np.nan], [], [np.nan])
    assert len(sketch) == 1
    exact = ExactScores(sketch, [0])
    exact.update([np.nan, 1.0])
    assert exact.values().tolist() == [1.0]


def test_an_empty_sketch():
    assert len(ScoreSketch()) == 0
    assert np.isnan(ScoreSketch().quantile(0.5))
    assert [part.tolist() for part in ScoreSketch().points()] == [[], []]
    with pytest.raises(ValueError, match=r"`ranks` must lie in \[0, 0\), the number of scores, got \[0\]"):
        ExactScores(ScoreSketch(), [0])


def test_what_is_refused():
    with pytest.raises(ValueError, match="`values` must be finite, or NaN for rows never seen, got infinite values"):
        sketched([1.0, -np.inf])
    with pytest.raises(ValueError, match=r"`values` must have shape \(n,\), got shape \(1, 2\)"):
        sketched([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"`q` must lie in \[0, 1\], got 1.5"):
        sketched([1.0]).quantile(1.5)
    with pytest.raises(ValueError, match="`value` must be a finite number, got nan"):
        sketched([1.0]).count_above(float("nan"))


@pytest.mark.parametrize("times", [0, 2])
def test_exact_values_need_every_score_once(times):
    exact = ExactScores(sketched([1.0, 2.0, 2.0]), [1])
    for _ in range(times):
        exact.update([1.0, 2.0, 2.0])
    with pytest.raises(ValueError, match=f"`update` must see all scores of the sketch once .*, got {2 * times} of 2"):
        exact.values()
