"""lossbuf.detection.from_probabilities: wrong labels from out-of-sample probabilities, beside cleanlab on the same."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import lossbuf
from lossbuf import find_label_issues, label_quality, noise
from lossbuf.detection import from_probabilities as interchange
from lossbuf.detection import transition
from lossbuf.errors import LossBufferWarning

DIGITS_NOISE = {
    "symmetric .2": noise.symmetric(10, 0.2),
    "symmetric .4": noise.symmetric(10, 0.4),
    "pair-flip .4": noise.pair_flip(10, 0.4),
    "class-dependent .4": noise.class_dependent(10, 0.4, {label: label + 1 for label in range(0, 10, 2)}),
}


def some_probs(size, num_classes, seed=0, clarity=3.0, rate=0.2):
    """Probabilities of a fair classifier, labels of which the share ``rate`` is wrong, and which are."""
    draws = np.random.default_rng(seed)
    true = draws.integers(0, num_classes, size)
    logits = draws.normal(size=(size, num_classes)) + clarity * np.eye(num_classes)[true]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = draws.random(size) < rate
    return np.where(wrong, (true + 1) % num_classes, true), probs, wrong & (num_classes > 1)


def f1(mask, wrong):
    return 2 * (mask & wrong).sum() / (mask.sum() + wrong.sum())


@pytest.fixture(scope="module")
def digits():
    """Given labels, out-of-sample probabilities of a logistic regression and the wrong labels, a kind of noise each."""
    x, y = load_digits(return_X_y=True)
    found = {}
    for name, matrix in DIGITS_NOISE.items():
        noisy = noise.corrupt(y, matrix, 0)
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        model = LogisticRegression(max_iter=300)
        probs = cross_val_predict(model, x / 16, noisy.labels, cv=folds, method="predict_proba")
        found[name] = (noisy.labels, probs, noisy.noise_mask)
    return found


# ---- against cleanlab ------------------------------------------------------------------------------------------------

LEAST = {"symmetric .2": -0.02, "symmetric .4": -0.01, "pair-flip .4": 0.2, "class-dependent .4": 0.05}


@pytest.mark.parametrize("kind", DIGITS_NOISE)
def test_no_worse_than_cleanlab_on_digits(digits, kind):
    peer = pytest.importorskip("cleanlab.filter")
    labels, probs, wrong = digits[kind]
    ours, theirs = (f1(find(labels, probs), wrong) for find in (find_label_issues, peer.find_label_issues))
    assert ours > theirs + LEAST[kind]
    assert interchange.judge(labels, probs).noise_rate == pytest.approx(wrong.mean(), abs=0.05)


@pytest.mark.parametrize("name", ["self_confidence", "normalized_margin", "confidence_weighted_entropy"])
def test_their_rankings_are_theirs(name):
    rank = pytest.importorskip("cleanlab.rank")
    labels, probs, _ = some_probs(500, 4)
    rows = find_label_issues(labels, probs, return_indices_ranked_by=name)
    quality = rank.get_label_quality_scores(labels, probs, method=name)
    assert len(rows) > 50
    assert rows.tolist() == rows[np.argsort(quality[rows], kind="stable")].tolist()


# ---- our own scores --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("max_fdr", [None, 0.1])
def test_the_verdict_is_that_of_one_epoch_of_watching(num_classes, max_fdr):
    # Outputs clear enough to be 1 to the last bit tie as anchors, and rounding would decide.
    labels, probs, _ = some_probs(400, num_classes, clarity=1.0)
    callback = lossbuf.LossBufferCallback(labels, num_classes, warmup=1, max_fdr=max_fdr)
    callback.update(torch.from_numpy(probs).log(), torch.from_numpy(labels), torch.arange(400))
    callback.end_epoch()
    wanted = callback.verdict()
    found = interchange.judge(labels, probs, max_fdr=max_fdr)
    # Even noise is ranked in the order of several statistics, which one look at probabilities does not have.
    log_odds = callback.posterior.read(callback.dynamics.labels).log_odds.numpy()
    np.testing.assert_allclose(found.suspicion, log_odds, atol=1e-3)
    np.testing.assert_allclose(np.sort(found.suspicion), np.sort(wanted.suspicion), atol=1e-3)
    even = transition.is_even(torch.from_numpy(wanted.transition))
    np.testing.assert_allclose(found.tie_break, wanted.tie_break, atol=1e-3)
    np.testing.assert_allclose(found.transition, wanted.transition, atol=1e-6)
    np.testing.assert_allclose(found.noise_rate_interval, wanted.noise_rate_interval, atol=1e-6)
    assert found.noise_rates == pytest.approx(wanted.noise_rates, abs=1e-6)
    assert found.noise_rate == pytest.approx(wanted.noise_rate, abs=1e-6)
    assert found.bounded == wanted.bounded == (max_fdr is not None)
    assert found.suspect_mask.sum() == wanted.suspect_mask.sum()
    assert even or found.suspect_mask.tolist() == wanted.suspect_mask.tolist()
    assert found.likely.tolist() == wanted.likely.tolist()
    assert found.hidden.tolist() == wanted.hidden.tolist()


def test_mask_indices_table_and_quality_agree():
    labels, probs, wrong = some_probs(500, 4)
    mask = find_label_issues(labels, probs)
    rows = find_label_issues(labels, probs, return_indices_ranked_by="label_quality")
    table = find_label_issues(labels, probs, return_table=True)
    quality = label_quality(labels, probs)
    assert mask.dtype == bool
    assert f1(mask, wrong) > 0.8
    assert set(rows) == set(np.flatnonzero(mask))
    assert (np.diff(quality[rows]) >= 0).all()
    assert quality[mask].max() <= quality[~mask].min()
    assert 0 <= quality.min() < 0.1 < 0.9 < quality.max() <= 1
    assert quality[wrong].mean() < 0.3 < 0.8 < quality[~wrong].mean()
    assert table["is_label_issue"].tolist() == mask.tolist()
    assert table["label_quality"].tolist() == quality.tolist()
    assert table["given_label"].tolist() == labels.tolist()
    assert list(table.index) == list(table["id"]) == list(range(500))
    true = np.where(wrong, (labels - 1) % 4, labels)
    assert (table["suggested_label"] == true)[mask & wrong].mean() > 0.95
    assert (table["predicted_label"] == true).mean() > 0.9


def test_a_known_rate_and_a_bound_decide():
    labels, probs, wrong = some_probs(500, 4)
    assert find_label_issues(labels, probs, noise_rate=0.1).sum() == 50
    few, more = (find_label_issues(labels, probs, max_fdr=bound) for bound in (0.02, 0.2))
    assert 0 < few.sum() < more.sum()
    assert not (few & ~more).any()
    assert (~wrong[few]).mean() < 0.1


@pytest.mark.parametrize("form", [list, torch.tensor, pd.Series, lambda values: np.asarray(values, dtype=np.uint8)])
def test_labels_in_any_form(form):
    labels, probs, _ = some_probs(100, 3)
    expected = find_label_issues(labels, probs)
    assert expected.any()
    shifted = form(labels.tolist())
    if isinstance(shifted, pd.Series):
        shifted.index = shifted.index + 7  # rows go by position
    assert find_label_issues(shifted, probs).tolist() == expected.tolist()


@pytest.mark.parametrize("form", [np.ndarray.tolist, torch.from_numpy, pd.DataFrame, lambda p: p.astype(np.float16)])
def test_probabilities_in_any_form(form):
    labels, probs, _ = some_probs(100, 3)
    before = probs.copy()
    found = find_label_issues(labels, form(probs))
    assert (found == find_label_issues(labels, probs)).mean() >= 0.99
    assert np.array_equal(probs, before)


# ---- small and odd data ----------------------------------------------------------------------------------------------


def test_one_row():
    assert find_label_issues([0], [[0.9, 0.1]]).tolist() == [False]
    assert label_quality([0], [[0.9, 0.1]])[0] > 0.8


def test_one_class():
    assert not find_label_issues([0] * 20, np.ones((20, 1))).any()
    assert (label_quality([0] * 20, np.ones((20, 1))) > 0.99).all()


def test_classes_that_no_label_names():
    labels, probs, wrong = some_probs(400, 3)
    wide = np.concatenate((probs * 0.9, np.full((400, 2), 0.05)), axis=1)
    found = interchange.judge(labels, wide)
    assert f1(found.suspect_mask, wrong) > 0.8
    np.testing.assert_allclose(found.transition.sum(1), 1)
    # All rows are given one of three classes.
    alone = find_label_issues(np.zeros(60, dtype=int), some_probs(60, 3)[1])
    assert alone.sum() <= 57


@pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning")
@pytest.mark.parametrize("settings", [{}, {"max_fdr": 1.0}])
def test_every_class_keeps_some_rows(settings):
    labels = np.arange(200) % 2
    probs = np.tile([0.98, 0.02], (200, 1))  # every row of class 1 looks like one of class 0
    mask = find_label_issues(labels, probs, **settings)
    assert (~mask[labels == 1]).sum() >= 5
    assert (~mask[labels == 0]).sum() >= 5
    assert mask[labels == 1].sum() > 50


def test_certain_probabilities():
    labels = np.arange(300) % 3
    probs = np.eye(3)[labels]
    wrong = np.random.default_rng(0).permutation(300) < 15
    labels[wrong] = (labels[wrong] + 1) % 3
    quality = label_quality(labels, probs)
    assert np.isfinite(quality).all()
    assert quality[wrong].max() < 0.01
    assert quality[~wrong].min() > 0.99
    found = find_label_issues(labels, probs)
    assert found[wrong].mean() > 0.8
    assert found.mean() < 0.08


def test_clean_labels_are_left_alone():
    labels, probs, _ = some_probs(1000, 5, clarity=8.0, rate=0.0)
    assert find_label_issues(labels, probs).mean() < 0.01


def test_most_labels_of_a_class_wrong_is_told():
    labels, probs, _ = some_probs(600, 3, clarity=6.0, rate=0.0)
    labels[np.flatnonzero(labels == 0)[::5]] = 2
    labels[np.flatnonzero(labels == 0)[: int(0.8 * (labels == 0).sum())]] = 1
    with pytest.warns(LossBufferWarning, match="More than half of the labels of true class 0 seem wrong"):
        find_label_issues(labels, probs)


# ---- what is refused -------------------------------------------------------------------------------------------------

GOOD = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        (["cat", "dog"], GOOD, r"`labels` must be integers, got .*Encode other labels first"),
        (np.array(["cat", "dog"]), GOOD, r"`labels` must be integers, got .*Encode other labels first"),
        (pd.Series(["cat", "dog"], dtype="category"), GOOD, r"`labels` must be integers, got .*Encode"),
        ([0.0, 1.0], GOOD, "`labels` must be integers, got dtype float64"),
        ([0, 2], GOOD, r"`labels` must lie in \[0, 2\), got 2 at row 1"),
        ([0, -1], GOOD, r"`labels` must lie in \[0, 2\), got -1 at row 1"),
        ([0], GOOD, r"`pred_probs` must have 1 rows, one a label, got shape \(2, 2\)"),
        ([[0], [1]], GOOD, r"`labels` must have shape \(n_samples,\), got shape \(2, 1\)"),
        ([], np.empty((0, 2)), "`labels` must hold at least one label"),
        ([0, 1], GOOD[0], r"`pred_probs` must have shape \(n_samples, num_classes\), got shape \(2,\)"),
        ([0, 1], np.empty((2, 0)), r"`pred_probs` must have shape \(n_samples, num_classes\), got shape \(2, 0\)"),
        ([0, 1], [["a", "b"], ["c", "d"]], "`pred_probs` must be numbers"),
        ([0, 1], GOOD * 1j, "`pred_probs` must be real numbers"),
        ([0, 1], [[0.9, 0.1], [float("nan"), 0.8]], r"`pred_probs` must be no NaN, got \[nan, 0.8\] in row 1"),
        ([0, 1], [[0.9, 0.1], [-0.2, 1.2]], r"must lie in \[0, 1\], got \[-0.2, 1.2\] in row 1. Are they logits\?"),
        ([0, 1], [[0.9, 0.1], [float("inf"), 0.0]], r"must lie in \[0, 1\], got \[inf, 0\] in row 1"),
        ([0, 1], [[0.9, 0.2], [0.2, 0.8]], r"must have rows that sum to 1, got \[0.9, 0.2\] in row 0"),
    ],
)
@pytest.mark.parametrize("function", [find_label_issues, label_quality, interchange.judge])
def test_bad_input(labels, probs, message, function, no_shape_checks):
    with pytest.raises(ValueError, match=message):
        function(labels, probs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_rate": 1.5}, "`noise_rate` must lie in"),
        ({"max_fdr": -0.1}, "`max_fdr` must lie in"),
        ({"noise_rate": 0.1, "max_fdr": 0.1}, "`max_fdr` must be left out where `noise_rate` is given"),
        ({"return_indices_ranked_by": "nonsense"}, "`return_indices_ranked_by` must be one of 'label_quality'"),
        ({"return_indices_ranked_by": "label_quality", "return_table": True}, "`return_table` must be left out"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        find_label_issues([0, 1], GOOD, **settings)
