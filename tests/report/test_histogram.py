"""Tests of lossbuf.report.histogram."""

import re

import numpy as np
import pytest

from lossbuf.report.histogram import BOTTOM, LEFT, RIGHT, TOP, histogram

NAN = float("nan")


def bars(path):
    """(left, right, height) of every bar of a path."""
    found = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)V\2Z", path)
    assert "".join(f"M{a} {b}V{c}H{d}V{b}Z" for a, b, c, d in found) == path
    return np.array([(float(a), float(d), float(b) - float(c)) for a, b, c, d in found]).reshape(-1, 3)


def two_heaps(n=1000, seed=0):
    draws = np.random.default_rng(seed)
    values = np.concatenate([draws.normal(-4, 1, n), draws.normal(4, 1, n // 4)])
    return values, values >= 0.7


def test_heights_are_counts():
    values, suspects = two_heaps()
    drawn = histogram(values, suspects, 0.7)
    assert not drawn.bent
    kept, found = bars(drawn.kept), bars(drawn.suspects)
    scale = (BOTTOM - TOP) / kept[:, 2].max()
    assert kept[:, 2].sum() / found[:, 2].sum() == pytest.approx((~suspects).sum() / suspects.sum(), rel=0.02)
    assert scale == pytest.approx(1, abs=0.01)
    for part in (kept, found):
        assert part[:, 0].min() >= LEFT
        assert part[:, 1].max() <= RIGHT


def test_cut_parts_the_bars():
    values, suspects = two_heaps()
    drawn = histogram(values, suspects, 0.7)
    assert drawn.cut.text == "0.7"
    assert bars(drawn.kept)[:, 1].max() <= drawn.cut.at <= bars(drawn.suspects)[:, 0].min()


def test_ticks_stand_where_their_values_are():
    values, suspects = two_heaps()
    drawn = histogram(values, suspects, 0.7)
    at = [tick.at for tick in drawn.x_ticks]
    says = [float(tick.text.replace("\N{MINUS SIGN}", "-")) for tick in drawn.x_ticks]
    assert len(says) >= 3
    slope = np.diff(at) / np.diff(says)
    assert slope == pytest.approx(np.full(len(slope), slope[0]), rel=1e-3)
    assert at[0] + slope[0] * (0.7 - says[0]) == pytest.approx(drawn.cut.at, abs=0.05)
    assert all(LEFT <= x <= RIGHT for x in at)


def test_a_few_suspects_can_be_seen():
    values = np.concatenate([np.random.default_rng(0).normal(size=10_000), [9.0, 9.0, 9.0]])
    drawn = histogram(values, values > 8, 8.0)
    assert drawn.bent
    (suspect,) = bars(drawn.suspects)
    highest = np.histogram(values, 48)[0].max()
    assert suspect[2] == pytest.approx((BOTTOM - TOP) * np.sqrt(3 / highest), rel=0.1)
    counts = [int(tick.text.replace(",", "")) for tick in drawn.y_ticks]
    heights = [BOTTOM - tick.at for tick in drawn.y_ticks]
    assert counts[0] == 0
    assert len(counts) >= 3
    assert np.array(heights[1:]) ** 2 / counts[1:] == pytest.approx(heights[1] ** 2 / counts[1], rel=0.01)


@pytest.mark.parametrize("values", [[], [NAN], [NAN, np.inf]])
def test_nothing_to_draw(values):
    values = np.array(values, dtype=np.float64)
    assert histogram(values, np.zeros(len(values), dtype=bool), 0.0) is None


@pytest.mark.parametrize("value", [0.0, 1.0, -3e-9, 1e12])
@pytest.mark.parametrize("n", [1, 50])
def test_one_value(value, n):
    drawn = histogram(np.full(n, value), np.zeros(n, dtype=bool), float("inf"))
    assert drawn.cut is None
    assert not drawn.suspects
    assert bars(drawn.kept)[:, 2] == pytest.approx([BOTTOM - TOP])
    assert drawn.x_ticks


def test_values_far_out_stand_at_the_ends():
    values, suspects = two_heaps()
    values, suspects = np.append(values, [np.inf, -np.inf, 1e9, NAN]), np.append(suspects, [True, False, True, False])
    drawn, plain = histogram(values, suspects, 0.7), histogram(values[:-4], suspects[:-4], 0.7)
    assert drawn.clipped
    assert bars(drawn.suspects)[-1, 1] == pytest.approx(RIGHT - 0.5, abs=0.01)
    assert bars(drawn.suspects)[:, 2].sum() > bars(plain.suspects)[:, 2].sum()
