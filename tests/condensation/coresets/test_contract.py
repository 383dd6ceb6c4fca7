"""What holds for every coreset method."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import Pipeline
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from condensation.coresets import (
    Craig,
    Crust,
    FeatureGradients,
    Forgetting,
    FreshNetwork,
    GradientNorm,
    Herding,
    KCenter,
    KMeans,
    LastLayerGradients,
    NetworkFeatures,
    Random,
)
from lossbuf import LossBufferCallback, LossBufferSelector, LossBufferWarning
from lossbuf.training import TrainSettings

NETWORK = FreshNetwork(settings=TrainSettings(epochs=2, batch_size=16, device="cpu"))
METHODS = {
    "random": (Random, {}),
    "herding": (Herding, {}),
    "herding of features": (Herding, {"features": NetworkFeatures(NETWORK)}),
    "k-center": (KCenter, {}),
    "k-means": (KMeans, {}),
    "forgetting": (Forgetting, {"network": NETWORK}),
    "el2n": (GradientNorm, {"network": NETWORK, "networks": 2}),
    "grand": (GradientNorm, {"network": NETWORK, "networks": 1, "norm": "grand"}),
    "craig": (Craig, {"features": LastLayerGradients(NETWORK)}),
    "crust": (Crust, {"features": FeatureGradients(NETWORK)}),
    "centrality": (Crust, {"features": FeatureGradients(NETWORK), "mode": "centrality"}),
    "stochastic": (Craig, {"features": LastLayerGradients(NETWORK), "strategy": "stochastic"}),
}
WITH_FEATURES = (Herding, KCenter, KMeans, Craig, Crust)


@pytest.fixture(params=METHODS)
def make(request):
    """Makes an estimator of each method."""
    method, settings = METHODS[request.param]
    return lambda **more: method(**{"random_state": 0} | settings | more)


@pytest.fixture(scope="module")
def table():
    """60 rows in three classes of 30, 20 and 10, in no order."""
    draws = np.random.default_rng(0)
    y = draws.permutation(np.repeat([0, 1, 2], [30, 20, 10]))
    X = np.eye(4)[y] * 3 + draws.normal(size=(60, 4))
    X.setflags(write=False)
    y.setflags(write=False)
    return X, y


@pytest.fixture(scope="module")
def images(table):
    """The same as uint8 images of 8x8 pixels, of which the upper left ones say something."""
    X = np.zeros((60, 1, 8, 8), dtype=np.uint8)
    X[:, 0, :2, :2] = ((table[0] + 4) * 20).astype(np.uint8).reshape(60, 2, 2)
    X[:, 0, 4:, 4:] = np.random.default_rng(1).integers(0, 20, (60, 4, 4))
    return X, table[1]


def counts(y, rows):
    return [int((np.asarray(y)[rows] == label).sum()) for label in np.unique(y)]


SIZES = [
    ({"ipc": 1}, [1, 1, 1]), ({"ipc": 10}, [10, 10, 10]), ({"size": 3}, [1, 1, 1]), ({"size": 11}, [4, 4, 3]),
    ({"size": 0.5}, [15, 10, 5]), ({"size": 0.01}, [1, 1, 1]), ({"size": 1.0}, [30, 20, 10]),
    ({"size": 1, "balanced": False}, 1), ({"size": 17, "balanced": False}, 17),
    ({"size": 60, "balanced": False}, 60), ({"size": 0.25, "balanced": False}, 15),
]  # fmt: skip


@pytest.mark.parametrize(("size", "expected"), SIZES)
def test_a_subset_of_the_size_asked(make, table, size, expected):
    X, y = table
    chosen = make(**size).fit(X, y)
    rows = chosen.sample_indices_
    assert rows.dtype == np.int64
    assert len(set(rows.tolist())) == len(rows)
    if isinstance(expected, list):
        assert counts(y, rows) == expected
        assert y[rows].tolist() == sorted(y[rows])  # class after class
    else:
        assert len(rows) == expected
    assert chosen.get_support(indices=True) is rows
    assert np.flatnonzero(chosen.get_support()).tolist() == sorted(rows)
    assert chosen.get_support().shape == (60,)
    assert np.array_equal(chosen.transform(X), X[rows])
    small, labels = make(**size).fit_resample(X, y)
    assert np.array_equal(small, X[rows])
    assert np.array_equal(labels, y[rows])


def test_small_classes_give_all_they_have(make, table):
    X, y = table
    for size, expected in (({"ipc": 15}, [15, 15, 10]), ({"size": 57}, [19, 19, 10]), ({"ipc": 60}, [30, 20, 10])):
        names = np.array(["cat", "dog", "eel"])[y]
        with pytest.warns(
            LossBufferWarning, match=r"than asked give all they have: .*eel has 10 of (15|19|60)\."
        ) as told:
            chosen = make(**size).fit(X, names)
        assert ("cat has 30 of 60, dog has 20 of 60, eel" in str(told[0].message)) == (size == {"ipc": 60})
        assert counts(y, chosen.sample_indices_) == expected


def test_the_same_seed_gives_the_same_rows(make, table):
    first, again, other = (
        make(ipc=5, random_state=state()).fit(*table).sample_indices_.tolist()
        for state in (lambda: 3, lambda: np.random.RandomState(3), lambda: 4)
    )
    assert first == again
    if isinstance(make(), Random):
        assert first != other
    state = np.random.RandomState(3)
    assert make(ipc=5, random_state=state).fit(*table).sample_indices_.tolist() == first
    assert state.randint(2**31) != np.random.RandomState(3).randint(2**31)  # it was drawn from


def test_global_generators_are_untouched(make, table):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    make(ipc=3).fit(*table)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


# Few rows: two that are left to serve but each other are as good as each other, which is a tie in any data.
@pytest.mark.parametrize("size", [{"ipc": 3}, {"size": 6, "balanced": False}])
def test_permuted_rows(make, table, size):
    X, y = table
    order = np.random.default_rng(1).permutation(60)
    there, here = make(**size).fit(X[order], y[order]), make(**size).fit(X, y)
    if "ipc" in size:
        assert counts(y[order], there.sample_indices_) == counts(y, here.sample_indices_)
    known, permuted = deterministic(make, X, y)
    if known is None:  # it draws, or trains a network, which sees rows in another order
        return
    expected = make(**size, **known).fit(X, y)
    found = make(**size, **permuted(order)).fit(X[order], y[order])
    assert order[found.sample_indices_].tolist() == expected.sample_indices_.tolist()
    if hasattr(expected, "sample_weight_"):
        assert found.sample_weight_.tolist() == expected.sample_weight_.tolist()


def deterministic(make, X, y):
    """Settings under which a method draws nothing, and the same for permuted rows."""
    method = type(make())
    if method in (Random, KMeans) or make().get_params().get("strategy") == "stochastic":
        return None, None
    if method in WITH_FEATURES:
        looks = np.tanh(X @ np.random.default_rng(2).normal(size=(4, 3)))
        return {"features": looks}, lambda order: {"features": torch.from_numpy(looks[order])}
    if method is GradientNorm:
        norms = np.random.default_rng(3).normal(size=60)
        return {"norms": norms}, lambda order: {"norms": norms[order]}
    events = torch.from_numpy(np.random.default_rng(3).permutation(60))

    def statistics(order):
        found = LossBufferCallback(y[order]).statistics()
        values = {"count": events[order] * 0 + 99, "wrong_count": events[order] * 0, "forgetting_events": events[order]}
        for name, value in values.items():
            getattr(found, name).copy_(value)
        return {"statistics": found}

    return statistics(np.arange(60)), statistics


def test_weights(make, table):
    chosen = make(ipc=5).fit(*table)
    if isinstance(chosen, Craig | Crust):
        assert chosen.sample_weight_.shape == (15,)
        assert (chosen.sample_weight_ >= 0).all()
        total = 60 if isinstance(chosen, Crust) else 15
        assert chosen.sample_weight_.sum() == pytest.approx(total)
    else:
        assert not hasattr(chosen, "sample_weight_")


# ---- data of all kinds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["dog", "cat", "eel"], [-5, 7, 1000], [0.0, 1.0, 2.0], [True, False, False]])
def test_labels_may_be_anything(make, table, names):
    X, y = table
    given = np.array(names)[y]
    chosen = make(ipc=4).fit(X, given)
    assert chosen.classes_.tolist() == sorted(set(names))
    assert counts(given, chosen.sample_indices_) == [4] * len(set(names))
    as_list = make(ipc=4).fit(X.tolist(), given.tolist())
    assert as_list.sample_indices_.tolist() == chosen.sample_indices_.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.int64])
def test_images_of_all_types(make, images, dtype):
    X, y = images[0].astype(dtype), images[1]
    small, labels = make(ipc=2).fit_resample(X, y)
    assert small.dtype == dtype
    assert small.shape == (6, 1, 8, 8)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    exact = make(ipc=2).fit(images[0], y).sample_indices_  # whole numbers are the same in all of these types
    assert make(ipc=2).fit(X, y).sample_indices_.tolist() == exact.tolist()


def test_arrays_that_are_not_contiguous(make, images):
    X, y = images
    expected = make(ipc=2).fit(X, y).sample_indices_.tolist()
    spread = np.zeros((120, 1, 8, 16), np.uint8)
    spread[::2, :, :, ::2] = X
    for view, labels in (
        (spread[::2, :, :, ::2], np.repeat(y, 2)[::2]),
        (np.asfortranarray(X), y),
        (X[::-1][::-1], y[::-1][::-1]),
        (torch.from_numpy(X).contiguous(memory_format=torch.channels_last), torch.from_numpy(y.copy())),
    ):
        assert make(ipc=2).fit(view, labels).sample_indices_.tolist() == expected


@pytest.mark.parametrize("container", ["pandas", "tensor", "list"])
def test_containers(make, table, container):
    X, y = table
    rows = make(ipc=3).fit(X, y).sample_indices_
    frame = pd.DataFrame(X, columns=list("abcd"), index=np.arange(60) * 7)
    given_X, given_y = {
        "pandas": (frame, pd.Series(y, index=frame.index)),
        "tensor": (torch.tensor(X), torch.tensor(y)),
        "list": (X.tolist(), y.tolist()),
    }[container]
    small, labels = make(ipc=3).fit_resample(given_X, given_y)
    assert type(small) is type(given_X)
    assert type(labels) is type(given_y)
    assert np.array_equal(np.asarray(small), X[rows])
    assert np.array_equal(np.asarray(labels), y[rows])
    fitted = make(ipc=3).fit(given_X, given_y)
    assert np.array_equal(np.asarray(fitted.transform(given_X)), X[rows])
    if container == "pandas":
        assert small.index.tolist() == labels.index.tolist() == (rows * 7).tolist()
        assert fitted.feature_names_in_.tolist() == list("abcd")


def test_one_class_and_one_row(make, table):
    X, _ = table
    chosen = make(ipc=5).fit(X, ["only"] * 60)
    assert chosen.classes_.tolist() == ["only"]
    assert len(set(chosen.sample_indices_)) == 5
    for size in ({"ipc": 1}, {"size": 1}, {"size": 0.3}, {"size": 1, "balanced": False}):
        assert make(**size).fit([[4.0, 2.0]], [8]).sample_indices_.tolist() == [0]


@pytest.mark.parametrize("size", [{"ipc": 4}, {"size": 12, "balanced": False}, {"size": 1.0}])
def test_constant_features_and_copies(make, size):
    y = np.repeat([0, 1], [6, 10])
    for X in (np.zeros((16, 3)), np.full((16, 3), 1e9), np.arange(16)[:, None] // 5 * np.ones((1, 3))):
        rows = make(**size).fit(X, y).sample_indices_
        assert len(set(rows.tolist())) == len(rows) == (8 if "ipc" in size else 12 if "balanced" in size else 16)


@pytest.mark.parametrize("shift", [1e3, 1e8])
def test_features_far_from_zero(make, table, shift):
    whole = np.round(table[0] * 64)  # so that it can be moved without rounding
    expected = make(ipc=5).fit(whole, table[1]).sample_indices_
    assert make(ipc=5).fit(whole + shift, table[1]).sample_indices_.tolist() == expected.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(make, table, bad):
    X = table[0].copy()
    X[5, 1] = bad
    if isinstance(make(), Random):  # which never looks at them
        assert len(make(ipc=2).fit(X, table[1]).sample_indices_) == len(make(ipc=2).fit(*table).sample_indices_)
        return
    for method in ("fit", "fit_resample"):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            getattr(make(ipc=2), method)(X, table[1])
    if isinstance(make(), WITH_FEATURES):
        with pytest.raises(ValueError, match=f"`features` must be finite, got {bad} at row 5"):
            make(ipc=2, features=X).fit(*table)


def test_bad_data(make, table, images):
    X, y = table
    for bad_X, bad_y, message in (
        (X, y[1:], "inconsistent numbers of samples"),
        (X, None, "requires y to be passed"),
        (X[:0], y[:0], "minimum of 1 is required"),
        (X[:, :0], y, "0 feature"),
        (X, X[:, :2], "must be a label a row, or one-hot"),
        (X, X[:, 0], "Unknown label type"),
        (X, [np.nan] + [0.0] * 59, "Input y contains NaN"),
        (np.moveaxis(images[0], 1, -1), y, r"np.moveaxis\(X, -1, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            make(ipc=2).fit(bad_X, bad_y)


@pytest.mark.parametrize(
    ("size", "name"),
    [({}, "ipc"), ({"ipc": 2, "size": 4}, "ipc"), ({"ipc": 0}, "ipc"), ({"ipc": 61}, "ipc"), ({"size": 61}, "size"),
     ({"size": 0}, "size"), ({"size": -0.5}, "size"), ({"size": 2}, "size"), ({"ipc": 2, "balanced": False}, "ipc")],
)  # fmt: skip
def test_sizes_are_checked_by_fit_and_not_before(make, table, size, name):
    chosen = make(**size)
    for method in (chosen.fit, chosen.fit_resample):
        with pytest.raises(ValueError, match=f"`{name}` "):
            method(*table)
    assert not hasattr(chosen, "transform")
    with pytest.raises(NotFittedError):
        chosen.get_support()


# ---- as an estimator -------------------------------------------------------------------------------------------------


def test_transform_is_there_after_fit_only_and_of_the_same_rows(make, table):
    X, y = table
    chosen = make(ipc=2)
    assert not hasattr(chosen, "transform")
    chosen.fit(X, y)
    for other in (X + 1e-9, X[::-1], X[:-1], X[chosen.sample_indices_]):
        with pytest.raises(ValueError, match="`X` must be the X that was given to `fit`, got another"):
            chosen.transform(other)
    assert len(chosen.transform(X.copy())) == 6
    chosen.fit_resample(X, y)
    assert not hasattr(chosen, "transform")
    assert chosen.get_support().sum() == 6


def test_fitted_again_on_other_data(make, table):
    X, y = table
    chosen = make(ipc=2).fit(X, y)
    chosen.fit(X[:40, :3], y[:40])
    fresh = make(ipc=2).fit(X[:40, :3], y[:40])
    assert chosen.sample_indices_.tolist() == fresh.sample_indices_.tolist()
    assert chosen.get_support().shape == (40,)


def test_clone_parameters_and_pickle(make, table):
    chosen = make(ipc=3)
    params = chosen.get_params()
    assert all(params[name] is getattr(chosen, name) for name in params)
    assert repr(clone(chosen)) == repr(chosen)
    chosen.fit(*table)
    assert chosen.get_params() == params
    assert not any(hasattr(clone(chosen), name) for name in ("sample_indices_", "transform", "n_features_in_"))
    copy = pickle.loads(pickle.dumps(chosen))
    assert copy.get_params() == params
    assert np.array_equal(copy.transform(table[0]), chosen.transform(table[0]))
    assert clone(chosen).fit(*table).sample_indices_.tolist() == chosen.sample_indices_.tolist()
    assert make(ipc=3).set_params(ipc=None, size=6).fit(*table).get_support().sum() == 6


def test_settings_are_given_by_name(make):
    with pytest.raises(TypeError, match="positional"):
        type(make())(3)


def test_pipelines(make, table):
    X, y = table
    model = Pipeline([("coreset", make(ipc=4)), ("classifier", LogisticRegression())])
    rows = make(ipc=4).fit(X, y).sample_indices_
    expected = LogisticRegression().fit(X[rows], y[rows])
    for _ in range(2):
        assert np.array_equal(model.fit(X, y).predict_proba(X), expected.predict_proba(X))
    search = GridSearchCV(model, {"coreset__ipc": [1, 4]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_["coreset"].ipc == search.best_params_["coreset__ipc"]


def test_cleaned_rows_go_on_to_a_coreset(make, table):
    X, true = table
    y = true.copy()
    y[[3, 17]] = (y[[3, 17]] + 1) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossBufferWarning)
        selector = LossBufferSelector(epochs=4, batch_size=16, noise_rate=2 / 60, device="cpu", random_state=0)
        model = Pipeline([("clean", selector), ("coreset", make(size=0.2)), ("classifier", LogisticRegression())])
        model.fit(X, y)
    assert model["coreset"].get_support().shape == (58,)
    assert model.score(X, true) > 0.6
