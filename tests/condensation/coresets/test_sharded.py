"""Coresets in two rounds over shards; what holds for every method holds for them too."""
# ruff: noqa: F401, F811 (tests and their fixtures from another file)

import pickle

import joblib
import numpy as np
import pytest
import torch
from imblearn.pipeline import Pipeline
from joblib._parallel_backends import ThreadingBackend
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch import nn

from condensation import greedy
from condensation.artifact import CondensedSet
from condensation.coresets import (
    Craig,
    Crust,
    Forgetting,
    FreshNetwork,
    GradientNorm,
    Herding,
    KCenter,
    KMeans,
    LastLayerGradients,
    NetworkFeatures,
    Random,
    Sharded,
    rounds,
)
from condensation.coresets.rounds import deal
from lossbuf.training import TrainSettings
from tests.condensation.coresets.test_contract import (
    images,
    table,
    test_a_subset_of_the_size_asked,
    test_arrays_that_are_not_contiguous,
    test_bad_data,
    test_cleaned_rows_go_on_to_a_coreset,
    test_constant_features_and_copies,
    test_containers,
    test_features_far_from_zero,
    test_fitted_again_on_other_data,
    test_global_generators_are_untouched,
    test_images_of_all_types,
    test_labels_may_be_anything,
    test_one_class_and_one_row,
    test_sizes_are_checked_by_fit_and_not_before,
    test_small_classes_give_all_they_have,
    test_the_same_seed_gives_the_same_rows,
    test_transform_is_there_after_fit_only_and_of_the_same_rows,
    test_values_that_are_not_finite_are_refused,
)

NETWORK = FreshNetwork(settings=TrainSettings(epochs=2, batch_size=16, device="cpu"))
METHODS = {
    "herding": (Herding, {}),
    "k-center": (KCenter, {}),
    "k-means": (KMeans, {}),
    "craig": (Craig, {"features": LastLayerGradients(NETWORK)}),
    "crust": (Crust, {"features": NetworkFeatures(NETWORK)}),
    "centrality": (Crust, {"features": NetworkFeatures(NETWORK), "mode": "centrality"}),
    "stochastic": (Craig, {"features": LastLayerGradients(NETWORK), "strategy": "stochastic"}),
}


@pytest.fixture(params=METHODS)
def make(request):
    """Makes a sharded estimator of each method; settings are the selector's."""
    method, settings = METHODS[request.param]
    return lambda **more: Sharded(method(**{"random_state": 0} | settings | more), n_shards=3, random_state=0)


# ---- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_shards", [1, 2, 7, 40, 301])
def test_rows_are_dealt_evenly_by_class(n_shards):
    y = np.random.default_rng(0).choice(3, 300, p=[0.5, 0.3, 0.2])
    parts = deal(y, n_shards, np.random.RandomState(0))
    assert len(parts) == n_shards
    assert sorted(np.concatenate(parts)) == list(range(300))
    assert all((np.diff(part) > 0).all() for part in parts)
    sizes = [len(part) for part in parts]
    shares = np.array([np.bincount(y[part], minlength=3) for part in parts])
    assert max(sizes) - min(sizes) <= 1
    assert (shares.max(0) - shares.min(0) <= 1).all()
    again, other = (np.concatenate(deal(y, n_shards, np.random.RandomState(seed))) for seed in (0, 1))
    assert np.array_equal(np.concatenate(parts), again)
    assert n_shards == 1 or not np.array_equal(again, other)


def test_one_shard_is_the_selector(make, table):
    sharded = make(ipc=5).set_params(n_shards=1, random_state=7)
    found, expected = sharded.fit(*table), clone(sharded.selector).fit(*table)
    assert found.sample_indices_.tolist() == expected.sample_indices_.tolist()
    assert hasattr(found, "sample_weight_") == hasattr(expected, "sample_weight_")
    if hasattr(found, "sample_weight_"):
        assert found.sample_weight_.tolist() == expected.sample_weight_.tolist()


def test_the_selector_is_seeded_where_it_has_no_seed(table):
    for n_shards in (1, 3):
        one, again, other = (
            Sharded(KMeans(ipc=5), n_shards=n_shards, random_state=seed).fit(*table).sample_indices_.tolist()
            for seed in (0, 0, 1)
        )
        assert one == again != other
    whole = Sharded(KMeans(ipc=5), n_shards=1, random_state=3).fit(*table)
    assert whole.sample_indices_.tolist() == KMeans(ipc=5, random_state=3).fit(*table).sample_indices_.tolist()


def first_and_second(method, x, k):
    """Rows, in what order, and what each of them stands for: by a method, from the rows of one class."""
    if method == "k-center":
        return lambda rows, weights: (greedy.k_center(x[rows], k).indices, torch.ones(k))
    if method == "herding":
        return lambda rows, weights: (
            greedy.herding(x[rows], k, weights=weights),
            torch.full((k,), (len(rows) if weights is None else weights.sum()) / k).double(),
        )

    def medoids(rows, weights):
        pick = greedy.centrality if method == "centrality" else greedy.facility_location
        found = pick(x[rows], k, weights=weights)
        return found.indices, found.sizes

    return medoids


@pytest.mark.parametrize("method", ["herding", "k-center", "craig", "crust", "centrality"])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_two_rounds_step_by_step(method, balanced, table):
    X, y = table[0].astype(np.float32), table[1]
    size = {"ipc": 4} if balanced else {"size": 4, "balanced": False}
    kind = {"herding": Herding, "k-center": KCenter, "craig": Craig, "crust": Crust, "centrality": Crust}[method]
    mode = {"mode": "centrality"} if method == "centrality" else {}
    sharded = Sharded(kind(**size, **mode, **({} if kind in (Herding, KCenter) else {"features": X})))
    spans = [slice(0, 17), slice(17, 40), slice(40, 60)]
    if kind in (Craig, Crust):
        sharded.selector.features = lambda X, labels, seed: X
    sharded.fit_resample_shards([(X[span], y[span]) for span in spans])

    expected, weights = [], []
    chosen_of = first_and_second(method, torch.from_numpy(X), 4)
    for label in range(3) if balanced else [None]:
        among, stand_for = [], []
        for span in spans:
            rows = np.arange(60)[span]
            rows = rows[(y[span] == label) | (label is None)]
            chosen, many = (
                chosen_of(rows, None) if len(rows) > 4 else (torch.arange(len(rows)), torch.ones(len(rows)).long())
            )
            among += rows[chosen.numpy()].tolist()
            stand_for += many.tolist()
        assert len(among) > 4
        order = np.argsort(among)
        kept = np.array(among)[order]
        chosen, many = chosen_of(kept, torch.tensor(stand_for)[order])
        expected += kept[chosen.numpy()].tolist()
        weights += many.tolist()
    assert sharded.sample_indices_.tolist() == expected
    if kind in (Craig, Crust):
        scale = np.mean(weights) if kind is Craig else 1
        assert sum(weights) == 60
        assert sharded.sample_weight_.tolist() == (np.array(weights) / scale).tolist()


def test_shards_as_dealt_are_shards_as_they_come(make, table, monkeypatch):
    X, y = table
    dealt = []
    monkeypatch.setattr(rounds, "deal", lambda *args: dealt.append(deal(*args)) or dealt[-1])
    looks = np.tanh(X @ np.random.default_rng(2).normal(size=(4, 3)))
    sharded = make(ipc=4)
    if isinstance(sharded.selector, KMeans) or sharded.selector.get_params().get("strategy") == "stochastic":
        return  # of other draws where the shards are others
    there = clone(sharded).set_params(selector__features=looks).fit(X, y)
    here = clone(sharded).set_params(selector__features=lambda X, labels, seed: X)
    samples, labels = here.fit_resample_shards([(looks[rows], y[rows]) for rows in dealt[0]])
    assert np.concatenate(dealt[0])[here.sample_indices_].tolist() == there.sample_indices_.tolist()
    assert np.array_equal(samples, looks[there.sample_indices_])
    assert np.array_equal(labels, y[there.sample_indices_])
    assert (
        getattr(here, "sample_weight_", np.zeros(1)).tolist() == getattr(there, "sample_weight_", np.zeros(1)).tolist()
    )


# ---- side by side ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_the_same_rows_by_any_backend(backend, table):
    X, y = table
    for selector in (Herding(ipc=4), KCenter(ipc=4), KMeans(ipc=4), Craig(ipc=4, features=X, strategy="stochastic")):
        expected = Sharded(selector, n_shards=5, random_state=0).fit(X, y)
        by_name = Sharded(selector, n_shards=5, random_state=0, n_jobs=2)
        with joblib.parallel_config(backend=backend):
            assert by_name.fit(X, y).sample_indices_.tolist() == expected.sample_indices_.tolist()
        with joblib.parallel_config(backend=backend, n_jobs=2):
            found = Sharded(selector, n_shards=5, random_state=0).fit(X, y)
        assert found.sample_indices_.tolist() == expected.sample_indices_.tolist()
        if hasattr(expected, "sample_weight_"):
            assert found.sample_weight_.tolist() == expected.sample_weight_.tolist()


def test_a_backend_of_others_gets_the_shards(table):
    """As Dask's and Ray's are put in."""
    sent = []

    class Cluster(ThreadingBackend):
        def submit(self, func, callback=None):
            sent.append(len(func))
            return super().submit(func, callback)

    joblib.register_parallel_backend("cluster", Cluster)
    sharded = Sharded(KCenter(ipc=4), n_shards=5, random_state=0)
    expected = clone(sharded).fit(*table).sample_indices_
    with joblib.parallel_config(backend="cluster", n_jobs=2):
        assert sharded.fit(*table).sample_indices_.tolist() == expected.tolist()
        assert sum(sent) == 5
        sharded.fit_resample_shards([table, table])
    assert sum(sent) == 5 + 2 + 2


@pytest.mark.parametrize("of", ["X", "features"])
def test_an_array_on_disk_is_not_copied(of, tmp_path, monkeypatch):
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(20_000, 16)).astype(np.float32), draws.integers(0, 2, 20_000)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    X = mapped if of == "X" else x[:, :1]
    selector = KCenter(ipc=3, features=None if of == "X" else mapped)
    expected = Sharded(selector, n_shards=2, random_state=0).fit(X, y).sample_indices_.tolist()
    (tmp_path / "file").touch()
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path / "file"))  # where no copy can be put
    found = Sharded(selector, n_shards=2, random_state=0, n_jobs=2).fit(X, y)
    assert found.sample_indices_.tolist() == expected
    with pytest.raises((OSError, pickle.PicklingError)):  # as one in memory would be
        Sharded(KCenter(ipc=3), n_shards=2, random_state=0, n_jobs=2).fit(np.array(x), y)


def test_a_device_is_passed_on(table, device):
    X, y = table
    looks = torch.tensor(X, device=device)
    found = Sharded(Craig(ipc=4, features=looks), n_shards=2, random_state=0).fit(X, y)
    expected = Sharded(Craig(ipc=4, features=X), n_shards=2, random_state=0).fit(X, y)
    assert found.sample_indices_.tolist() == expected.sample_indices_.tolist()


# ---- as an estimator -------------------------------------------------------------------------------------------------


def test_weights(make, table):
    sharded = make(ipc=5).fit(*table)
    assert hasattr(sharded, "sample_weight_") == isinstance(sharded.selector, Craig | Crust)
    if hasattr(sharded, "sample_weight_"):
        assert sharded.sample_weight_.shape == (15,)
        assert (sharded.sample_weight_ >= 0).all()
        assert sharded.sample_weight_.sum() == pytest.approx(60 if isinstance(sharded.selector, Crust) else 15)


def test_what_is_left_of_another_fit(table):
    X, y = table
    sharded = Sharded(Crust(ipc=2, features=X), n_shards=2, random_state=0).fit(X, y)
    sharded.set_params(selector=KCenter(ipc=2)).fit_resample_shards([(X, y)])
    assert not hasattr(sharded, "sample_weight_")
    assert not hasattr(sharded, "transform")
    sharded.fit(X, y)
    assert not hasattr(sharded, "shard_rows_")
    assert len(sharded.transform(X)) == 6


@pytest.mark.parametrize("n_shards", [2, 10, 11, 60, 61, 500])
def test_shards_without_rows_of_a_class_or_any(make, table, n_shards):
    X, y = table
    for size, expected in (({"ipc": 1}, [1, 1, 1]), ({"ipc": 10}, [10, 10, 10]), ({"size": 1.0}, [30, 20, 10])):
        rows = make(**size).set_params(n_shards=n_shards).fit(X, y).sample_indices_
        assert len(set(rows)) == len(rows)
        assert np.bincount(y[rows]).tolist() == expected


def test_clone_parameters_and_pickle(make, table):
    sharded = make(ipc=3).set_params(oversample=2.0)
    params = sharded.get_params()
    assert params["selector__ipc"] == 3
    assert repr(clone(sharded)) == repr(sharded)
    sharded.fit(*table)
    assert sharded.get_params() == params
    assert not any(hasattr(sharded.selector, name) for name in ("sample_indices_", "sample_weight_", "n_features_in_"))
    copy = pickle.loads(pickle.dumps(sharded))
    assert np.array_equal(copy.transform(table[0]), sharded.transform(table[0]))
    assert clone(sharded).fit(*table).sample_indices_.tolist() == sharded.sample_indices_.tolist()
    assert sharded.set_params(selector__ipc=None, selector__size=6).fit(*table).get_support().sum() == 6
    with pytest.raises(TypeError, match="positional"):
        Sharded(KCenter(ipc=1), 3)


def test_pipelines_and_artifacts(make, table):
    X, y = table
    model = Pipeline([("coreset", make(ipc=4)), ("classifier", LogisticRegression())])
    search = GridSearchCV(model, {"coreset__selector__ipc": [1, 4]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_["coreset"].selector.ipc == search.best_params_["coreset__selector__ipc"]
    sharded = make(ipc=2).fit(X, y)
    made = CondensedSet.of_coreset(sharded, X[:, None, :2, None], y)
    assert len(made) == 6


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("n_shards", [1, 2])
@pytest.mark.parametrize(
    ("selector", "got"),
    [
        (Random(ipc=1), r"Random\. What judges each row by itself needs no shards\."),
        (Forgetting(ipc=1), "Forgetting"),
        (GradientNorm(ipc=1, norms=np.zeros(60)), "GradientNorm"),
        (LogisticRegression(), r"LogisticRegression\.$"),
        (Sharded(KCenter(ipc=1)), "Sharded"),
        (KCenter, "ABCMeta"),
        (None, "NoneType"),
    ],
)
def test_selectors_that_shards_do_not_serve(selector, got, n_shards, table):
    for call in (lambda one: one.fit(*table), lambda one: one.fit_resample_shards([table])):
        with pytest.raises(
            ValueError, match=rf"`selector` must be Herding, KCenter, KMeans, Craig or Crust, got {got}"
        ):
            call(Sharded(selector, n_shards=n_shards))


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("name", "value"),
    [("n_shards", 0), ("n_shards", -2), ("n_shards", 2.0), ("n_shards", True), ("n_shards", None),
     ("oversample", 0.5), ("oversample", float("nan")), ("oversample", float("inf")), ("oversample", "2")],
)  # fmt: skip
def test_bad_settings(name, value, table):
    sharded = Sharded(KCenter(ipc=1), **{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must"):
        sharded.fit(*table)
    assert not hasattr(sharded, "sample_indices_")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_shards", [1, 4])
def test_features_that_are_not_usable(dtype, n_shards, table):
    X, y = table
    for bad in (np.nan, np.inf):
        looks = X.astype(dtype)
        looks[37, 2] = bad
        with pytest.raises(ValueError, match=f"`features` must be finite, got {bad} at row 37"):
            Sharded(KCenter(ipc=2, features=looks), n_shards=n_shards).fit(X, y)
    for looks in (X[:59], X[0], np.array([["a"]] * 60), X[:, :0], nn.Linear(4, 4)):
        with pytest.raises(ValueError, match="`features` must"):
            Sharded(KCenter(ipc=2, features=looks), n_shards=n_shards).fit(X, y)


def test_a_bad_mode_is_told_before_a_training(table):
    def never(X, labels, seed):
        raise AssertionError("looked at")

    with pytest.raises(ValueError, match="`mode`"):
        Sharded(Crust(ipc=1, features=never, mode="other")).fit(*table)
