"""Tests of lossbuf.detection.thresholds."""

import numpy as np
import pytest

from lossbuf.detection.thresholds import (
    EXACT_ROWS,
    LEAST_SUSPECT,
    Cut,
    CutRule,
    KnownRate,
    MaxF1,
    MaxFDR,
    Mixture,
    Otsu,
    with_floor,
)
from tests.reference import thresholds as reference

NAN = float("nan")
RULES = [KnownRate(0.3), MaxF1(), Mixture(), Otsu()]


def two_heaps(size=4000, share=0.3, far=6.0, seed=0):
    """Values around 0 and, for the share of them, around ``far``; which are the far ones."""
    draws = np.random.default_rng(seed)
    upper = np.arange(size) < round(share * size)
    return np.where(upper, draws.normal(far, 1.2, size), draws.normal(0, 1, size)), upper


def some_values(kind, size, seed=0):
    draws = np.random.default_rng(seed)
    if kind == "few values":
        return draws.integers(0, 4, size).astype(float)
    if kind == "many zeros":
        return np.maximum(draws.normal(size=size), 0)
    if kind == "far from 0":
        return draws.exponential(size=size) - 1e6
    return draws.normal(size=size) ** 3


KINDS = ("few values", "many zeros", "far from 0", "heavy tails")


# ---- what all rules have in common -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 60])
def test_suspects_are_the_upper_side(rule, kind, size):
    values = some_values(kind, size)
    cut = rule(values, values)
    assert isinstance(rule, CutRule)
    assert isinstance(cut, Cut)
    assert cut.suspect_mask.shape == (size,)
    assert cut.suspect_mask.dtype == bool
    assert 0 <= cut.noise_rate <= 1
    if cut.suspect_mask.any():
        assert values[cut.suspect_mask].min() >= max(cut.threshold, values[~cut.suspect_mask].max(initial=-np.inf))
    else:
        assert cut.threshold == np.inf
    if not isinstance(rule, KnownRate):
        assert np.array_equal(cut.suspect_mask, values >= cut.threshold)


@pytest.mark.parametrize("rule", RULES)
def test_rows_never_seen_change_nothing(rule):
    values, _ = two_heaps(50)
    padded = np.full(120, NAN)
    rows = np.sort(np.random.default_rng(1).permutation(120)[:50])
    padded[rows] = values
    cut, expected = rule(padded, padded), rule(values, values)
    assert cut[:2] == expected[:2]
    assert np.array_equal(cut.suspect_mask[rows], expected.suspect_mask)
    assert cut.suspect_mask.sum() == expected.suspect_mask.sum() > 0


@pytest.mark.parametrize("rule", [KnownRate(0.4), MaxF1(), Mixture(), Otsu()])
@pytest.mark.parametrize("values", [[], [NAN], [NAN] * 3])
def test_nothing_seen(rule, values):
    cut = rule(values)
    assert cut.threshold == np.inf
    assert cut.suspect_mask.tolist() == [False] * len(values)
    assert cut.noise_rate == (0.4 if isinstance(rule, KnownRate) else 0.0)


@pytest.mark.parametrize("rule", [Mixture(), Otsu()])
@pytest.mark.parametrize("values", [[3.0], [0.0] * 20, [7.5, NAN, 7.5], [1e300] * 3])
def test_no_cut_through_equal_values(rule, values):
    cut = rule(values)
    assert (cut.threshold, cut.noise_rate) == (np.inf, 0.0)
    assert not cut.suspect_mask.any()


@pytest.mark.parametrize("rule", [Mixture(), Otsu()])
@pytest.mark.parametrize("values", [[1.0, 2.0], [2.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0 + 2**-40]])
def test_two_different_values_are_cut_apart(rule, values):
    cut = rule(values)
    assert cut.suspect_mask.tolist() == [value == max(values) for value in values]
    assert min(values) < cut.threshold <= max(values)
    assert cut.noise_rate == pytest.approx(cut.suspect_mask.mean(), abs=0.01)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [float("inf"), -float("inf")])
def test_infinite_values_are_refused(rule, bad):
    with pytest.raises(ValueError, match="`suspicion` must be finite and within 1e\\+300, or NaN for rows never seen"):
        rule([0.0, 1.0, bad, NAN])


@pytest.mark.parametrize("rule", RULES)
def test_other_shapes_are_refused(rule):
    with pytest.raises(ValueError, match=r"`suspicion` must have shape \(n_samples,\), got shape \(2, 2\)"):
        rule([[0.0, 1.0], [2.0, 3.0]])


@pytest.mark.parametrize("rule", [KnownRate(0.3), Mixture(), Otsu()])
@pytest.mark.parametrize(("scale", "shift"), [(2.0**40, 0.0), (2.0**-40, 0.0), (3.7, -11.0), (1.0, 1e3)])
def test_scale_and_shift_move_the_threshold_only(rule, scale, shift):
    values, _ = two_heaps(300, far=12.0)
    cut, moved = rule(values), rule(values * scale + shift)
    assert np.array_equal(cut.suspect_mask, moved.suspect_mask)
    assert moved.noise_rate == pytest.approx(cut.noise_rate, rel=1e-6)
    # The threshold of a mixture lies on a grid.
    assert moved.threshold == pytest.approx(cut.threshold * scale + shift, rel=1e-9, abs=0.03 * scale)
    assert cut.suspect_mask.sum() == 90


@pytest.mark.parametrize("rule", RULES)
def test_order_of_the_rows_does_not_matter(rule):
    values = some_values("heavy tails", 200)
    order = np.random.default_rng(3).permutation(200)
    cut, other = rule(values), rule(values[order])
    assert np.array_equal(cut.suspect_mask[order], other.suspect_mask)
    assert other.threshold == pytest.approx(cut.threshold, rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_the_same_bits_twice_and_input_untouched(rule):
    values, _ = two_heaps(200)
    copy = values.copy()
    first, second = rule(values, values), rule(values, values)
    assert first[:2] == second[:2]
    assert np.array_equal(first.suspect_mask, second.suspect_mask)
    assert np.array_equal(values, copy)


# ---- a known rate ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1, 1 / 3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_known_rate_matches_the_slow_version(rate, size):
    draws = np.random.default_rng(size)
    values, ties = draws.integers(0, 3, size).astype(float), draws.integers(0, 3, size).astype(float)
    values[draws.random(size) < 0.2] = NAN
    cut = KnownRate(rate)(values, ties)
    assert set(np.flatnonzero(cut.suspect_mask)) == reference.known_rate(values.tolist(), ties.tolist(), rate)
    assert cut.noise_rate == rate
    chosen = values[cut.suspect_mask]
    assert cut.threshold == (chosen.min() if len(chosen) else np.inf)


def test_known_rate_breaks_ties():
    rule = KnownRate(0.5)
    assert rule([0.0] * 4, [1.0, 3.0, 0.0, 2.0]).suspect_mask.tolist() == [False, True, False, True]
    assert rule([5.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0]).suspect_mask.tolist() == [True, False, False, True]
    assert rule([0.0] * 4, [NAN, 1.0, NAN, NAN]).suspect_mask.tolist() == [True, True, False, False]
    assert rule([0.0] * 4).suspect_mask.tolist() == [True, True, False, False]


def test_known_rate_one_never_suspects_rows_never_seen():
    assert KnownRate(1.0)([NAN, 0.0, NAN, -5.0]).suspect_mask.tolist() == [False, True, False, True]


@pytest.mark.parametrize("rate", [-0.01, 1.01, NAN])
def test_known_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=r"`noise_rate` must lie in \[0, 1\], got"):
        KnownRate(rate)


# ---- Otsu ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [2, 3, 4, 17, 80])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_otsu_finds_the_best_of_all_cuts(kind, size, seed):
    values = some_values(kind, size, seed)
    cut = Otsu()(values)
    assert cut.noise_rate == pytest.approx(cut.suspect_mask.mean())
    best = reference.otsu(values.tolist())
    assert reference.between_variance(values.tolist(), cut.threshold) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1.0, 1e200, 9e299])
@pytest.mark.parametrize("rule", [Otsu(), Mixture(), KnownRate(0.4)])
def test_scale_does_not_matter(rule, scale):
    values = np.array([-1.0, -0.9, -0.95, 0.9, 1.0])
    cut = rule(values * scale)
    assert cut.suspect_mask.tolist() == [False, False, False, True, True]
    assert -0.9 * scale < cut.threshold <= 0.9 * scale
    assert cut.noise_rate == pytest.approx(rule(values).noise_rate)


def test_otsu_cuts_in_the_middle_of_the_gap():
    assert Otsu()([0.0, 1.0, 10.0, 12.0]).threshold == 5.5


def test_otsu_cuts_between_neighbouring_floats():
    for low in (1.0, 1.0 + 2**-52, 1e9, -1.0):
        high = float(np.nextafter(low, np.inf))
        cut = Otsu()([low, high])
        assert cut.suspect_mask.tolist() == [False, True]
        assert cut.threshold == high


def test_otsu_does_not_cut_through_duplicates():
    assert Otsu()([0.0, 0.0, 0.0, 1.0, 1.0]).suspect_mask.tolist() == [False, False, False, True, True]
    assert Otsu()([0.0] + [1.0] * 9).suspect_mask.sum() == 9


# ---- the mixture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("far", [5.0, 8.0])
def test_mixture_recovers_two_gaussians(share, far):
    values, _ = two_heaps(8000, share, far)
    cut = Mixture()(values)
    assert cut.noise_rate == pytest.approx(share, abs=0.02)
    assert cut.threshold == pytest.approx(reference.crossing((0, 1, 1 - share), (far, 1.2, share)), abs=0.2)


def test_mixture_bears_a_few_outliers():
    values, upper = two_heaps(4000, 0.3, 8.0)
    values[[3, 4]] = 1e6
    cut = Mixture()(values)
    assert (cut.suspect_mask == upper).mean() > 0.99
    assert cut.noise_rate == pytest.approx(0.3, abs=0.02)


def test_mixture_where_one_component_covers_the_other_does_not_cut():
    # Half normal samples for which the smaller component is nowhere the likelier one.
    for seed, size in ((34, 21), (576, 18)):
        draws = np.random.default_rng(seed)
        assert draws.integers(3, 300) == size
        cut = Mixture()(np.maximum(draws.normal(size=size), 0))
        assert (cut.threshold, cut.noise_rate, cut.suspect_mask.any()) == (np.inf, 0.0, False)


def test_a_tie_break_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"`tie_break` must have shape \(4,\) as `suspicion` has, got shape \(3,\)"):
        KnownRate(0.5)([1.0, 1.0, 1.0, 0.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("share", [0.001, 0.02, 0.05, 0.95, 0.98])
def test_nearly_one_value(share):
    """The rate told is that of the suspects, also where both percentiles the fit starts from are the same."""
    values = (np.arange(5000) < share * 5000).astype(float)
    cut = Mixture()(values)
    assert cut.suspect_mask.tolist() == (values == 1).tolist()
    assert cut.noise_rate == pytest.approx(share, abs=1e-3)


def test_mixture_says_nothing_of_a_fit_that_did_not_converge():
    draws = np.random.default_rng(59)
    Mixture()(draws.uniform(size=int(draws.integers(3, 300))) ** 3)  # a warning is an error here


def test_mixture_where_all_but_a_few_are_equal():
    values = np.zeros(5000)
    values[:3] = [1.0, 2.0, 3.0]
    cut = Mixture()(values)
    assert 0 < cut.suspect_mask.sum() <= 3
    assert not cut.suspect_mask[3:].any()
    assert cut.noise_rate < 0.01


# ---- rules on log-odds -----------------------------------------------------------------------------------------------


def _probabilities(values):
    return 1 / (1 + np.exp(-np.asarray(values)))


@pytest.mark.parametrize("max_fdr", [0.0, 0.02, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 5, 80])
def test_max_fdr_is_the_lowest_cut_allowed(max_fdr, kind, size):
    values = np.clip(some_values(kind, size, seed=2), -30, 30)
    mask = MaxFDR(max_fdr)(values).suspect_mask
    allowed = [np.zeros(size, dtype=bool)]
    for threshold in np.unique(values):
        flagged = values >= threshold
        if (1 - _probabilities(values[flagged])).mean() <= max_fdr:
            allowed.append(flagged)
    assert mask.sum() == max(one.sum() for one in allowed)
    assert not mask.any() or values[mask].min() > values[~mask].max(initial=-np.inf)


@pytest.mark.parametrize("bad", [-0.1, 1.1, NAN])
def test_max_fdr_out_of_range(bad):
    with pytest.raises(ValueError, match="`max_fdr` must lie in"):
        MaxFDR(bad)


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.5, 1.0])
def test_every_class_keeps_its_floor(floor):
    draws = np.random.default_rng(0)
    labels, values = draws.integers(0, 4, 101), draws.normal(size=101)
    values[labels == 2] += 9  # all of them suspects
    cut = KnownRate(0.6)(values)
    found = with_floor(cut, values, labels, floor)
    assert not (found.suspect_mask & ~cut.suspect_mask).any()
    for label in range(4):
        mine = labels == label
        least = int(np.ceil(floor * mine.sum()))
        assert (~found.suspect_mask[mine]).sum() == max(least, (~cut.suspect_mask[mine]).sum())
        let_off = cut.suspect_mask & ~found.suspect_mask & mine
        assert not let_off.any() or values[let_off].max() <= values[found.suspect_mask & mine].min(initial=np.inf)
    assert found.noise_rate == cut.noise_rate


def test_floor_out_of_range():
    with pytest.raises(ValueError, match="`floor` must lie in"):
        with_floor(KnownRate(0.5)([1.0, 2.0]), [1.0, 2.0], [0, 1], 1.5)


def test_mixture_has_the_same_bits_in_any_order():
    values, _ = two_heaps(3000)
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(values)
        assert Mixture()(shuffled)[:2] == Mixture()(values)[:2]


@pytest.mark.parametrize(("share", "far"), [(0.05, 8.0), (0.3, 6.0), (0.5, 4.0)])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-6, 1e3)])
def test_mixture_of_many_rows_hardly_moves_by_its_grid(share, far, scale, shift, monkeypatch):
    values, _ = two_heaps(EXACT_ROWS + 1, share, far)
    values = values * scale + shift
    grid = Mixture()(values)
    monkeypatch.setattr("lossbuf.detection.thresholds.EXACT_ROWS", len(values))
    exact = Mixture()(values)
    assert grid.threshold == pytest.approx(exact.threshold, abs=1e-4 * scale * far)
    assert grid.noise_rate == pytest.approx(exact.noise_rate, abs=1e-4)
    assert (grid.suspect_mask != exact.suspect_mask).mean() < 1e-5


def test_counts_on_the_grid_add_up():
    values, _ = two_heaps(1000)
    span = (values.min(), values.max())
    parts = [Mixture().grid_counts(part, span) for part in np.array_split(values, 7)]
    assert np.array_equal(sum(parts), Mixture().grid_counts(values, span))
    assert sum(parts).sum() == 1000


@pytest.mark.parametrize("size", [2, 3, 999, 1000, 1001, 5000])
def test_span_is_between_the_percentiles(size):
    values = np.sort(np.random.default_rng(size).normal(size=size))
    span = Mixture().span(values[list(Mixture().ranks(size))], size)
    assert span == pytest.approx(np.percentile(values, [0.1, 99.9]), rel=1e-12)
    ones = np.ones(size)
    ones[-1] = 2.0
    if size > 1001:
        assert Mixture().span(ones[list(Mixture().ranks(size))], size) == (1.0, 2.0)


@pytest.mark.parametrize("kind", ["rounded", "two heaps", "vague", "all alike"])
@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_the_expected_f1_is_highest(kind, size):
    draws = np.random.default_rng(size)
    values = {
        "rounded": np.round(draws.normal(-1, 2, size)),
        "two heaps": np.where(draws.random(size) < 0.3, draws.normal(6, 2, size), draws.normal(-6, 2, size)),
        "vague": draws.normal(-0.5, 0.3, size),
        "all alike": np.full(size, -0.7),
    }[kind]
    values[draws.random(size) < 0.1] = NAN
    cut = MaxF1()(values)
    assert set(np.flatnonzero(cut.suspect_mask)) == reference.max_f1(values.tolist(), LEAST_SUSPECT)
    seen = values[~np.isnan(values)]
    assert cut.noise_rate == ((seen > 0).mean() if len(seen) else 0)


def test_labels_of_which_none_is_likely_wrong_are_no_suspects():
    """However small the best F1 is: of many labels that are wrong with a probability of .1 all would be suspects."""
    cut = MaxF1()(np.full(1000, np.log(0.1 / 0.9)))
    assert (cut.threshold, cut.noise_rate, cut.suspect_mask.any()) == (np.inf, 0.0, False)


def test_with_floor_takes_a_share_for_each_class():
    suspicion, labels = np.arange(12.0), np.repeat([0, 1, 2], 4)
    flagged = Cut(-1.0, 1.0, np.ones(12, dtype=bool))
    cut = with_floor(flagged, suspicion, labels, np.array([0.0, 0.5, 0.7]))
    assert (~cut.suspect_mask).reshape(3, 4).tolist() == [[False] * 4, [True, True, False, False], [True] * 3 + [False]]
    with pytest.raises(ValueError, match="`floor`"):
        with_floor(flagged, suspicion, labels, np.array([0.0, 0.5, 1.5]))
