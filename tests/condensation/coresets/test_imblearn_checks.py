"""imbalanced-learn's common checks of samplers; those that fail are listed with the reason."""

import datetime
import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.utils import estimator_checks
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import get_tags

from condensation.coresets import Craig, Herding, KCenter, KMeans, Random
from lossbuf import LossBufferSelector

_CANNOT_BE_SEEN = "which neither networks nor distances can take: how to make numbers of them is for the user to decide"
EXPECTED_FAILURES = {
    "check_samplers_one_label": "it wants a single class to be refused, for want of anything to balance; but rows "
    "of one class can be chosen, too",
    "check_samplers_nan": f"it wants missing values to be accepted, {_CANNOT_BE_SEEN}",
    "check_samplers_string": f"it wants texts to be accepted, {_CANNOT_BE_SEEN}",
}
"""Only ``Random``, which does not look at the samples, passes the last two."""

LOOKS_AT_NOTHING = {"check_samplers_nan", "check_samplers_string"}
CHECKS = [
    name
    for name, _ in inspect.getmembers(estimator_checks, inspect.isfunction)
    if name.startswith(("check_sampler", "check_target"))
]
SAMPLERS = [
    Random(ipc=5, random_state=0),
    Herding(ipc=5),
    KCenter(ipc=5, random_state=0),
    KMeans(ipc=5, random_state=0),
    LossBufferSelector(epochs=1, batch_size=64, device="cpu", random_state=0),
]


@pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning", "ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_common_checks(sampler, check):
    expected = set(EXPECTED_FAILURES) - (LOOKS_AT_NOTHING if isinstance(sampler, Random) else set())
    run = getattr(estimator_checks, check)
    if check in expected:
        with pytest.raises((AssertionError, AttributeError, ValueError)):  # one that passes must leave the list
            run(type(sampler).__name__, clone(sampler))
    else:
        run(type(sampler).__name__, clone(sampler))


def test_the_list_names_checks_that_are_run():
    assert set(EXPECTED_FAILURES) <= set(CHECKS)
    assert len(CHECKS) > 15


X = np.random.default_rng(0).normal(size=(40, 3)).round(1)
Y = np.arange(40) % 2


def test_what_was_chosen_is_told_as_samplers_tell_it():
    sampler = Random(ipc=4, random_state=0)
    assert not hasattr(sampler, "sampling_strategy_")
    _, y = sampler.fit_resample(X, np.where(Y == 0, "a", "b"))
    assert sampler.sampling_strategy_ == {"a": 4, "b": 4} == dict(zip(*np.unique(y, return_counts=True), strict=True))
    assert get_tags(sampler).sampler_tags.sample_indices


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, sparse.lil_matrix])
@pytest.mark.parametrize("sampler", [Random(ipc=3, random_state=0), Herding(ipc=3), Craig(ipc=3, random_state=0)])
def test_sparse_rows_are_those_of_dense_ones(sampler, make):
    dense, labels = clone(sampler).fit_resample(X, Y)
    found, same = clone(sampler).fit_resample(make(X), Y)
    assert type(found) is type(make(X))
    np.testing.assert_array_equal(found.toarray(), dense)
    np.testing.assert_array_equal(same, labels)
    fitted = clone(sampler).fit(make(X), Y)
    np.testing.assert_array_equal(fitted.transform(make(X)).toarray(), dense)
    with pytest.raises(ValueError, match="must be the X that was given"):
        fitted.transform(make(X * 2))


@pytest.mark.parametrize(
    "values",
    [
        pd.DataFrame({"a": ["x", None] * 20, "b": [np.nan, 1.0] * 20}),
        np.array([["text", 1, None]] * 40, dtype=object),
        np.full((40, 2), np.nan),
        pd.DataFrame({"when": pd.date_range("2020", periods=40)}),
        np.array([["a", "b"]] * 40),
        sparse.random(40, 6, random_state=0, format="csr"),
        sparse.random(40, 6, random_state=0, format="dia"),
        np.array([[b"a", b"b"]] * 40),
        np.array(["2020-01-01"] * 80, "datetime64[D]").reshape(40, 2),
        pd.DataFrame({"long": pd.to_timedelta(range(40), "D"), "month": pd.period_range("2020", periods=40, freq="M")}),
        pd.DataFrame({"kind": pd.Categorical(["u", "v"] * 20), "n": pd.array([1, None] * 20, dtype="Int64")}),
        np.full((40, 3, 4, 4), np.inf),
        torch.full((40, 2), float("nan")),
        pd.DataFrame({"text": pd.array(["a", pd.NA] * 20, dtype="string")}),
    ],
)
def test_random_rows_of_anything(values):
    chosen = Random(ipc=3, random_state=0).fit(values, Y)
    rows, labels = Random(ipc=3, random_state=0).fit_resample(values, Y)
    assert rows.shape[0] == len(labels) == 6
    assert chosen.transform(values).shape[0] == 6
    assert (Y[chosen.sample_indices_] == labels).all()


@pytest.mark.parametrize("form", [lambda y: y, pd.DataFrame, lambda y: y.astype(float), lambda y: y.astype(bool)])
def test_one_hot_labels(form):
    hot = form(np.eye(2, dtype=int)[Y])
    rows, labels = Herding(ipc=3).fit_resample(X, hot)
    expected, numbers = Herding(ipc=3).fit_resample(X, Y)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(np.asarray(labels).argmax(1), numbers)


@pytest.mark.parametrize(
    ("values", "labels", "said"),
    [
        (
            X,
            np.eye(2)[Y] * 0.5 + 0.25,
            r"`y` must be a label a row, or one-hot, got shape \(40, 2\)",
        ),
        (X, np.ones((40, 2)), r"Give the class: y\.argmax\(1\)"),
        (np.array(["2020-01-01"] * 80, "datetime64[D]").reshape(40, 2), Y, "`X` must hold numbers, got dates"),
        (pd.DataFrame({"a": X[:, 0], "when": pd.date_range("2020", periods=40)}), Y, "dates in the columns when"),
        (pd.DataFrame({"a": X[:, 0], "long": pd.to_timedelta(np.arange(40), "D")}), Y, "dates in the columns long"),
        (pd.DataFrame({"when": pd.date_range("2020", periods=40, tz="UTC")}), Y, "dates in the columns when"),
        (pd.DataFrame({"month": pd.period_range("2020", periods=40, freq="M")}), Y, "dates in the columns month"),
        (pd.DataFrame({"day": [datetime.date(2020, 1, 1)] * 40}), Y, "dates in the columns day, such as 2020-01-01"),
        (np.array([[1, datetime.datetime(2020, 1, 1)]] * 40), Y, "dates in the columns 1, such as 2020-01-01 00:00:00"),
        ([[1.5, datetime.date(2020, 1, 1)]] * 40, Y, "dates in the columns 1, such as 2020-01-01"),
        (pd.DataFrame({"day": ["2020-01-01"] * 40}), Y, "texts in the columns day, such as '2020-01-01'. Encode"),
        (pd.DataFrame({"size": pd.interval_range(0, 40)}), Y, "intervals in the columns size"),
        (pd.DataFrame({"kind": pd.Categorical(["u", "v"] * 20)}), Y, "texts in the columns kind, such as 'u'"),
        (X, [None, *Y[1:]], "`y` must hold a label in every row, got None at row 0"),
    ],
)
def test_what_cannot_be_looked_at_is_named(values, labels, said):
    for sampler in (Herding(ipc=3), LossBufferSelector(epochs=1)):
        with pytest.raises(ValueError, match=said):
            sampler.fit(values, labels)
