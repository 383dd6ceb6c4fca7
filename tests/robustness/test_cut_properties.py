"""Cuts on whatever values Hypothesis thinks of: against slow references, and what must hold of every rule."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lossbuf.detection.thresholds import Cut, KnownRate, MaxFDR, Mixture, Otsu, with_floor
from tests.reference import thresholds as reference

TIED = st.integers(-4, 4).map(float)
KNOWN = st.integers(-(10**6), 10**6).map(lambda part: part / 64) | TIED
VALUE = KNOWN | st.just(math.nan)
VALUES = st.lists(VALUE, max_size=40)
RATE = st.floats(0, 1)
RULES = st.one_of(RATE.map(KnownRate), st.just(Mixture()), RATE.map(MaxFDR), st.just(Otsu()))


def rows_of(cut):
    return set(np.flatnonzero(cut.suspect_mask).tolist())


# ---- every rule ------------------------------------------------------------------------------------------------------


@given(RULES, VALUES)
def test_suspects_are_the_upper_side(rule, values):
    values = np.array(values, dtype=np.float64)
    cut = rule(values, values)
    assert isinstance(cut, Cut)
    assert cut.suspect_mask.shape == values.shape
    assert 0 <= cut.noise_rate <= 1
    assert not cut.suspect_mask[np.isnan(values)].any()
    if cut.suspect_mask.any():
        others = values[~cut.suspect_mask & ~np.isnan(values)]
        assert values[cut.suspect_mask].min() >= max(cut.threshold, others.max(initial=-np.inf))
    else:
        assert cut.threshold == np.inf


@given(RULES, st.lists(st.tuples(VALUE, KNOWN), max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rule, rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    values, ties = (np.array([row[place] for row in rows], dtype=np.float64) for place in (0, 1))
    one, other = rule(values, ties), rule(values[order], ties[order])
    assert one.threshold == other.threshold
    assert one.noise_rate == pytest.approx(other.noise_rate, abs=1e-12)
    suspects = sorted((values[row], ties[row]) for row in rows_of(one))
    assert suspects == sorted((values[order][row], ties[order][row]) for row in rows_of(other))


@given(RULES, VALUES, st.integers(0, 5))
def test_rows_never_seen_change_nothing(rule, values, more):
    plain, padded = rule(values, values), rule(values + [math.nan] * more, values + [0.0] * more)
    assert plain[:2] == padded[:2]
    assert plain.suspect_mask.tolist() == padded.suspect_mask[: len(values)].tolist()
    assert not padded.suspect_mask[len(values) :].any()


@given(RULES, st.lists(VALUE, max_size=10), st.sampled_from([math.inf, -math.inf]), st.integers(0, 10))
def test_infinite_values_are_refused(rule, values, infinite, place):
    with pytest.raises(ValueError, match="`suspicion` must be finite"):
        rule([*values[:place], infinite, *values[place:]])


@given(st.sampled_from([Mixture(), Otsu()]), VALUES, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_does_not_matter(rule, values, factor):
    one, other = rule(values), rule([factor * value for value in values])  # exact in binary
    assert other.threshold == factor * one.threshold
    assert other.noise_rate == one.noise_rate
    assert rows_of(one) == rows_of(other)


# ---- each against its reference --------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.lists(st.tuples(VALUE, KNOWN), max_size=40) | st.lists(st.tuples(TIED, TIED), max_size=40), RATE)
def test_known_rate(rows, rate):
    values, ties = [row[0] for row in rows], [row[1] for row in rows]
    cut = KnownRate(rate)(values, ties)
    assert rows_of(cut) == reference.known_rate(values, ties, rate)
    assert cut.noise_rate == rate


@given(st.lists(KNOWN, min_size=2, max_size=30))
def test_otsu(values):
    assume(min(values) < max(values))
    cut = Otsu()(values)
    found = reference.between_variance(values, cut.threshold)
    assert found == pytest.approx(reference.otsu(values), rel=1e-9)
    assert cut.noise_rate == pytest.approx(np.mean(np.array(values) >= cut.threshold))


@settings(max_examples=300)
@given(st.lists(st.integers(-2560, 2560).map(lambda part: part / 64), max_size=30) | st.lists(TIED, max_size=30), RATE)
def test_max_fdr(values, rate):
    cut = MaxFDR(rate)(values)

    def share_right(threshold):
        suspects = [1 / (1 + math.exp(value)) for value in values if value >= threshold]
        return math.fsum(suspects) / len(suspects)

    if cut.suspect_mask.any():
        assert share_right(cut.threshold) <= rate + 1e-9
    deeper = [value for value in values if value < cut.threshold]
    if deeper:
        assert share_right(max(deeper)) >= rate - 1e-9  # or it would have cut there
    assert rows_of(cut) == {row for row, value in enumerate(values) if value >= cut.threshold}


@given(st.lists(KNOWN, min_size=1, max_size=30))
def test_a_mixture_does_not_cut_what_does_not_differ(values):
    cut = Mixture()([values[0]] * len(values))
    assert cut.threshold == math.inf
    assert cut.noise_rate == 0
    assert not rows_of(cut)


@given(st.lists(KNOWN, min_size=2, max_size=40))
def test_a_mixture_cuts_between_its_values(values):
    cut = Mixture()(values)
    assert cut.threshold == math.inf or min(values) < cut.threshold <= max(values)


# ---- the floor -------------------------------------------------------------------------------------------------------


@given(RULES, st.lists(st.tuples(VALUE, st.integers(0, 3)), max_size=40), st.integers(0, 8))
def test_no_class_is_cut_below_the_floor(rule, rows, eighths):
    floor = eighths / 8
    values, labels = [row[0] for row in rows], np.array([row[1] for row in rows], dtype=np.int64)
    before = rule(values, values)
    after = with_floor(before, values, labels, floor)
    assert rows_of(after) <= rows_of(before)
    assert after.noise_rate == before.noise_rate
    for label in range(4):
        seen = [row for row in range(len(rows)) if labels[row] == label and not math.isnan(values[row])]
        needed = math.ceil(Fraction(eighths, 8) * len(seen))
        was, now = (rows_of(cut) & set(seen) for cut in (before, after))
        assert len(seen) - len(now) == max(needed, len(seen) - len(was))  # no more than must be let off
        let_off = was - now
        assert not let_off or not now or max(values[row] for row in let_off) <= min(values[row] for row in now)
    if not rows_of(after):
        assert after.threshold == math.inf
    elif rows_of(after) == rows_of(before):
        assert after.threshold == before.threshold
