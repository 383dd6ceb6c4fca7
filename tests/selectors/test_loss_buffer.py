"""Tests of lossbuf.selectors.LossBufferSelector."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import Pipeline
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch import nn

from lossbuf import LossBufferSelector, Otsu
from lossbuf.data import standardised
from lossbuf.networks import MLP, ConvNet, default_network
from lossbuf.noise import corrupt, symmetric

FLIPPED = [3, 17, 40]


def selector(**settings):
    """A quick one, that knows how many labels are wrong."""
    quick = {"epochs": 6, "batch_size": 16, "noise_rate": 3 / 48, "device": "cpu", "random_state": 0}
    return LossBufferSelector(**quick | settings)


@pytest.fixture(scope="module")
def table():
    """48 rows in three heaps, three of them with the label of another."""
    draws, labels = np.random.default_rng(0), np.arange(48) % 3
    X = np.eye(4)[labels] * 5 + draws.normal(size=(48, 4)) * 0.4
    labels[FLIPPED] = (labels[FLIPPED] + 1) % 3
    X.setflags(write=False)
    labels.setflags(write=False)
    return X, labels


@pytest.fixture(scope="module")
def images(table):
    """The same as uint8 images of 8x8 pixels."""
    X = np.zeros((48, 1, 8, 8), dtype=np.uint8)
    X[:, 0, :2, :2] = (table[0].clip(0) * 20).astype(np.uint8).reshape(48, 2, 2)
    return X.repeat(2, axis=2)[:, :, :8], table[1]


def kept_rows():
    return [row for row in range(48) if row not in FLIPPED]


# ---- what it finds ---------------------------------------------------------------------------------------------------


def test_attributes(table):
    X, y = table
    fitted = selector().fit(X, y)
    assert fitted.sample_indices_.tolist() == kept_rows()
    assert fitted.get_support(indices=True).tolist() == kept_rows()
    assert np.flatnonzero(~fitted.get_support()).tolist() == FLIPPED
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.n_features_in_ == 4
    assert fitted.noise_rate_ == 3 / 48
    assert fitted.scores_.shape == fitted.sample_weight_.shape == fitted.suggested_labels_.shape == (48,)
    assert fitted.scores_[FLIPPED].min() > np.delete(fitted.scores_, FLIPPED).max()
    assert fitted.sample_weight_[FLIPPED].max() <= 0.5 <= np.delete(fitted.sample_weight_, FLIPPED).min()
    assert fitted.suggested_labels_.tolist() == [row % 3 for row in range(48)]  # the true labels, flipped rows too
    assert set(fitted.callback_.report().index[:3]) == set(FLIPPED)
    assert isinstance(fitted.module_, MLP)


def test_finds_planted_flips_in_digits():
    X, true = load_digits(return_X_y=True)
    noisy = corrupt(true, symmetric(10, 0.2), 0)
    rate = float(noisy.noise_mask.mean())
    fitted = selector(epochs=12, batch_size=64, noise_rate=rate).fit(X, noisy.labels)
    found = ~fitted.get_support()
    assert found.sum() == noisy.noise_mask.sum()
    assert (found & noisy.noise_mask).sum() >= 0.9 * noisy.noise_mask.sum()
    suggested = fitted.suggested_labels_[found & noisy.noise_mask]
    assert (suggested == true[found & noisy.noise_mask]).mean() > 0.9


@pytest.mark.parametrize("mode", ["filter", "reweight"])
@pytest.mark.parametrize("rank_by", ["label_loss", "aum"])
def test_settings_arrive(table, mode, rank_by):
    fitted = selector(mode=mode, rank_by=rank_by, warmup=2, window=9, weight_decay=0.0, lr=0.1).fit(*table)
    callback = fitted.callback_
    assert (callback.mode, callback.rank_by, callback.warmup, callback.rings.window) == (mode, rank_by, 2, 9)
    assert set(FLIPPED) == set(np.flatnonzero(~fitted.get_support()))
    statistics = callback.statistics()
    assert np.array_equal(fitted.scores_, (-statistics.aum if rank_by == "aum" else statistics.label_loss).numpy())


@pytest.mark.parametrize("settings", [{"epochs": 15}, {"batch_size": 9}, {"lr": 0.02}, {"weight_decay": 0.1}])
def test_training_settings_arrive(table, settings):
    assert selector(**settings).fit(*table).scores_.tobytes() != selector().fit(*table).scores_.tobytes()


def test_the_cut_may_be_a_rule(table):
    fitted = selector(noise_rate=None, cut=Otsu()).fit(*table)
    assert fitted.noise_rate_ == pytest.approx(3 / 48)
    assert fitted.sample_indices_.tolist() == kept_rows()
    default = selector(noise_rate=None).fit(*table)
    assert set(np.argsort(-default.scores_)[:3]) == set(FLIPPED)
    assert set(np.flatnonzero(~default.get_support())) <= set(FLIPPED)


# ---- containers ------------------------------------------------------------------------------------------------------


def as_frame(X):
    return pd.DataFrame(X, columns=[f"column {number}" for number in range(X.shape[1])], index=np.arange(len(X)) * 7)


CONTAINERS = {
    "array": (np.array, np.array),
    "float32": (lambda X: X.astype(np.float32), lambda y: y.astype(np.uint8)),
    "tensor": (torch.tensor, torch.tensor),
    "pandas": (as_frame, lambda y: pd.Series(y, index=np.arange(len(y)) * 7)),
    "list": (np.ndarray.tolist, np.ndarray.tolist),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("how", ["fit_resample", "fit then transform"])
def test_containers(table, name, how):
    X, y = (container(values) for container, values in zip(CONTAINERS[name], table, strict=True))
    chosen = selector()
    if how == "fit_resample":
        kept_X, kept_y = chosen.fit_resample(X, y)
        assert type(kept_y) is type(y)
        assert np.array_equal(np.asarray(kept_y), table[1][kept_rows()])
    else:
        kept_X = chosen.fit(X, y).transform(X)
    assert type(kept_X) is type(X)
    assert np.array_equal(np.asarray(kept_X), np.asarray(X)[kept_rows()])
    if name == "pandas":
        assert kept_X.index.tolist() == [7 * row for row in kept_rows()]
        assert chosen.feature_names_in_.tolist() == list(X.columns)


def test_tensors_may_want_a_gradient(table):
    kept, _ = selector().fit_resample(torch.tensor(table[0], requires_grad=True), torch.tensor(table[1]))
    assert kept.requires_grad


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, lambda y: pd.Series(pd.Categorical(y))])
def test_labels_may_be_strings(table, kind):
    X, y = table
    names = np.array(["dog", "cat", "eel"])
    fitted = selector().fit(X, kind(names[y].tolist()))
    assert fitted.classes_.tolist() == ["cat", "dog", "eel"]
    assert fitted.sample_indices_.tolist() == kept_rows()
    assert fitted.suggested_labels_.tolist() == names[np.arange(48) % 3].tolist()


@pytest.mark.parametrize("labels", [[-5, 7, 1000], [0.0, 1.0, 2.0], [False, True, True]])
def test_labels_need_not_count_from_zero(table, labels):
    X, y = table
    kept, _ = selector().fit_resample(X, np.array(labels)[y])
    assert len(kept) == 45


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images(images, dtype):
    X, y = images[0].astype(dtype), images[1]
    chosen = selector(epochs=10, lr=0.02)
    kept, labels = chosen.fit_resample(X, y)
    assert kept.dtype == dtype
    assert kept.shape == (45, 1, 8, 8)
    assert isinstance(chosen.module_, ConvNet)
    assert chosen.n_features_in_ == 1
    assert np.array_equal(kept, X[chosen.sample_indices_])
    assert np.array_equal(labels, y[chosen.sample_indices_])
    assert len(set(FLIPPED) & set(chosen.sample_indices_)) == 0


def test_channels_last_is_refused_with_the_mend(images):
    for channels in (1, 3):
        X = np.moveaxis(images[0], 1, -1).repeat(channels, axis=-1)
        with pytest.raises(ValueError, match=r"`X` must be \(n_samples, channels, .*np.moveaxis\(X, -1, 1\)"):
            selector().fit(X, images[1])


def test_samples_are_standardised_by_feature_or_channel():
    draws = np.random.default_rng(0)
    for X, axes in ((draws.normal(3, 5, (50, 4)), 0), (draws.normal(3, 5, (50, 2, 4, 4)), (0, 2, 3))):
        for dtype in (np.float64, np.float32, np.uint8):
            values = X.clip(0).astype(dtype)
            expected = (values - values.mean(axes, keepdims=True)) / values.std(axes, keepdims=True, dtype=np.float64)
            (found,) = standardised(values)
            assert found.dtype == torch.float32
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert standardised(np.full((3, 2), 7))[0].tolist() == [[0.0, 0.0]] * 3


def test_features_far_from_zero_are_told_apart(table):
    X, y = table
    assert selector().fit(X + 1e10, y).sample_indices_.tolist() == kept_rows()
    assert selector().fit((X * 1000 + 1e12).astype(np.int64), y).sample_indices_.tolist() == kept_rows()


# ---- as an estimator -------------------------------------------------------------------------------------------------


def test_same_random_state_same_rows(table):
    scores = [selector(random_state=state).fit(*table).scores_ for state in (0, 0, 1, np.random.RandomState(0))]
    assert scores[0].tobytes() == scores[1].tobytes() == scores[3].tobytes() != scores[2].tobytes()
    state = np.random.RandomState(0)
    again = selector(random_state=state)
    assert again.fit(*table).scores_.tobytes() != again.fit(*table).scores_.tobytes()
    assert selector(random_state=None).fit(*table).scores_.tobytes() != scores[0].tobytes()


def test_global_generators_are_untouched(table):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    selector().fit(*table)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_clone_and_parameters(table):
    rule = Otsu()
    original = selector(noise_rate=None, cut=rule, module=default_network)
    copy = clone(original)
    assert copy.get_params() == original.get_params() | {"cut": copy.cut, "module": copy.module}
    original.fit(*table)
    assert not any(hasattr(clone(original), name) for name in ("sample_indices_", "transform", "n_features_in_"))


@pytest.mark.parametrize("fitted", [False, True])
def test_pickle(table, fitted):
    chosen = selector(mode="filter")
    if fitted:
        chosen.fit(*table)
    copy = pickle.loads(pickle.dumps(chosen))
    assert copy.get_params() == chosen.get_params()
    assert hasattr(copy, "transform") == fitted
    if fitted:
        assert np.array_equal(copy.transform(table[0]), chosen.transform(table[0]))
        assert copy.callback_.report().equals(chosen.callback_.report())
    assert np.array_equal(copy.fit(*table).scores_, chosen.fit(*table).scores_)


def test_a_network_of_ones_own(table):
    asked = []

    def module(sample_shape, num_classes):
        asked.append((sample_shape, num_classes))
        return nn.Linear(4, num_classes)

    fitted = selector(module=module).fit(*table)
    assert asked == [((4,), 3)]
    assert isinstance(fitted.module_, nn.Linear)
    assert fitted.sample_indices_.tolist() == kept_rows()


def test_transform_is_there_after_fit_only(table):
    X, y = table
    chosen = selector()
    assert not hasattr(chosen, "transform")
    with pytest.raises(NotFittedError, match=r"call `fit\(X, y\)` first"):
        chosen.transform(X)
    with pytest.raises(NotFittedError):
        chosen.get_support()
    assert hasattr(chosen.fit(X, y), "transform")
    chosen.fit_resample(X, y)
    assert not hasattr(chosen, "transform")
    assert chosen.get_support().sum() == 45
    assert hasattr(chosen.fit(X, y), "transform")


def test_transform_of_other_rows_is_refused(table):
    X, y = table
    fitted = selector().fit(X, y)
    changed = X + 1e-9 * (np.arange(48) == 7)[:, None]
    for other in (changed, X[::-1], X[:-1], X[FLIPPED], np.vstack((X, X))):
        with pytest.raises(ValueError, match="`X` must be the X that was given to `fit`, got another"):
            fitted.transform(other)
    with pytest.raises(ValueError, match="expecting 4 features"):
        fitted.transform(X[:, :3])
    assert np.array_equal(fitted.transform(X.copy()), X[kept_rows()])
    assert fitted.transform(pd.DataFrame(X)).index.tolist() == kept_rows()


# ---- in pipelines ----------------------------------------------------------------------------------------------------


def pipeline(memory=None):
    return Pipeline([("selector", selector()), ("classifier", LogisticRegression())], memory=memory)


def test_pipeline_fits_its_classifier_on_the_clean_rows(table):
    X, y = table
    model = pipeline()
    expected = LogisticRegression().fit(X[kept_rows()], y[kept_rows()])
    for _ in range(2):  # the same pipeline, fitted twice
        assert np.array_equal(model.fit(X, y).predict_proba(X), expected.predict_proba(X))
    assert model.predict(X).tolist() == [row % 3 for row in range(48)]
    assert model.score(X, np.arange(48) % 3) == 1
    assert np.array_equal(clone(model).fit(X, y).predict_proba(X), expected.predict_proba(X))


def test_pipeline_with_memory(table, tmp_path):
    X, y = table
    memory = joblib.Memory(tmp_path, verbose=0)
    predictions = []
    for _ in range(2):
        model = pipeline(memory).fit(X, y)
        predictions.append(model.predict_proba(X))
        assert model["selector"].sample_indices_.tolist() == kept_rows()
    assert np.array_equal(*predictions)
    assert np.array_equal(predictions[0], pipeline().fit(X, y).predict_proba(X))


def test_grid_search_over_the_noise_rate(table):
    X, y = table
    search = GridSearchCV(pipeline(), {"selector__noise_rate": [0.0, 0.0625, 0.5]}, cv=3, error_score="raise")
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_["selector"].noise_rate_ == search.best_params_["selector__noise_rate"]


# ---- small and bad data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 8, 8), (1, 3, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("settings", [{"noise_rate": 0.0}, {"noise_rate": 1.0}, {"noise_rate": None}])
def test_one_sample(shape, settings):
    fitted = selector(**settings).fit(np.ones(shape), [4])
    assert fitted.sample_indices_.tolist() == ([] if settings["noise_rate"] == 1 else [0])
    assert fitted.suggested_labels_.tolist() == [4]
    assert len(fitted.transform(np.ones(shape))) == len(fitted.sample_indices_)


def test_one_class(table):
    fitted = selector(noise_rate=0.25).fit(table[0], np.full(48, "only"))
    assert len(fitted.sample_indices_) == 36
    assert set(fitted.suggested_labels_) == {"only"}
    assert len(selector(noise_rate=None).fit(table[0], np.full(48, "only")).sample_indices_) == 48


def test_a_class_with_one_sample(table, images):
    for X, y in (table, images):
        labels = y.copy()
        labels[9] = 77
        fitted = selector().fit(X, labels)
        assert fitted.classes_.tolist() == [0, 1, 2, 77]
        assert np.isfinite(fitted.scores_).all()
        assert len(fitted.sample_indices_) == 45


@pytest.mark.parametrize("method", ["fit", "fit_resample"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(table, method, bad):
    X = table[0].copy()
    X[5, 1] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        getattr(selector(), method)(X, table[1])


@pytest.mark.parametrize("method", ["fit", "fit_resample"])
def test_bad_data(table, method):
    X, y = table
    run = getattr(selector(), method)
    for bad_X, bad_y, message in (
        (X, y[1:], "inconsistent numbers of samples"),
        (X, None, "requires y to be passed"),
        (X[:0], y[:0], "minimum of 1 is required"),
        (X[:, :0], y, "0 feature"),
        (X, X[:, :2], "must be a label a row, or one-hot"),
        (X, X[:, 0], "Unknown label type"),
        (X, [None] * 48, "must hold a label in every row, got None at row 0"),
        (X, [np.nan] + [0.0] * 47, "Input y contains NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            run(bad_X, bad_y)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"noise_rate": 1.5}, "noise_rate"), ({"noise_rate": -0.1}, "noise_rate"),
        ({"noise_rate": 0.1, "cut": Otsu()}, "cut"), ({"rank_by": "none"}, "rank_by"), ({"mode": "drop"}, "mode"),
        ({"epochs": 0}, "epochs"), ({"batch_size": 0}, "batch_size"), ({"lr": -1.0}, "lr"),
        ({"warmup": 0}, "warmup"), ({"window": 0}, "window"),
    ],
)  # fmt: skip
def test_settings_are_checked_by_fit_and_not_before(table, settings, name):
    chosen = selector(**settings)
    for method in (chosen.fit, chosen.fit_resample):
        with pytest.raises(ValueError, match=f"`{name}` must"):
            method(*table)
    assert not hasattr(chosen, "transform")
    with pytest.raises(NotFittedError):
        chosen.get_support()
