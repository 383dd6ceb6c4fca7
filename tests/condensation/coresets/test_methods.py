"""Each coreset method against its slow reference."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from condensation.coresets import (
    Craig,
    Crust,
    ErrorNorms,
    Forgetting,
    FreshNetwork,
    GradientNorm,
    Herding,
    KCenter,
    KMeans,
    LastLayerGradients,
    Random,
    craig,
    crust,
    features,
    forgetting,
    gradient_norm,
    k_means,
)
from condensation.coresets.base import Chosen, by_group
from lossbuf import LossBufferCallback, LossBufferWarning
from lossbuf.training import TrainSettings, train
from tests.reference import coresets as reference

QUICK = FreshNetwork(settings=TrainSettings(epochs=2, batch_size=16, device="cpu"))


def table(kind, size=36, dim=3, seed=0):
    """Rows of unequal classes: few whole numbers have many ties, corners of a cube many duplicates."""
    draws = np.random.default_rng(seed)
    y = np.sort(draws.integers(0, 3, size))
    if kind == "normal":
        return draws.normal(size=(size, dim)).astype(np.float32), y
    span = {"ties": 5, "duplicates": 2, "constant": 1}[kind]
    return draws.integers(0, span, (size, 1 if kind == "ties" else dim)).astype(np.float32), y


def by_class(x, y, counts, choose):
    """What a reference that knows no classes chooses from each."""
    return reference.by_class(y.tolist(), counts, lambda rows, k: [rows[one] for one in choose(x[rows].tolist(), k)])


KINDS = ["normal", "ties", "duplicates", "constant"]


CASES = {
    "herding": (Herding, reference.herding, KINDS),
    "k-center": (KCenter, reference.k_center, KINDS),
    # Distances are rounded: 1 + 1 is not quite 2, but the roots between the corners of a cube add up to no other sums.
    "craig": (Craig, lambda x, k: reference.medoids(x, k)[0], ["normal", "duplicates", "constant"]),
    "crust": (Crust, lambda x, k: reference.medoids(x, k)[0], ["normal", "duplicates", "constant"]),
    "centrality": (
        lambda **settings: Crust(mode="centrality", **settings),
        lambda x, k: reference.centrality(x, k)[0],
        ["normal", "duplicates", "constant"],
    ),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, case in CASES.items() for kind in case[2]])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ipc", [1, 2, 5, 36])
def test_rows_are_those_of_the_reference(name, kind, seed, ipc):
    (method, choose, _), (X, y) = CASES[name], table(kind, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossBufferWarning)
        found = method(ipc=ipc, features=X).fit(np.zeros((36, 1)), y).sample_indices_
    assert found.tolist() == by_class(X, y, [ipc] * 3, choose)
    over_all = method(size=min(ipc, 9), balanced=False, features=X).fit(np.zeros((36, 1)), y).sample_indices_
    assert over_all.tolist() == choose(X.tolist(), min(ipc, 9))


@pytest.mark.parametrize("kind", ["normal", "duplicates", "constant"])
@pytest.mark.parametrize("mode", ["medoids", "centrality"])
def test_weights_are_sizes_of_clusters(kind, mode):
    X, y = table(kind)
    expected = []
    for label in range(3):
        rows = X[y == label].tolist()
        expected += (reference.medoids if mode == "medoids" else reference.centrality)(rows, 4)[1]
    chosen = Crust(ipc=4, features=X, mode=mode).fit(X, y)
    assert chosen.sample_weight_.tolist() == expected
    assert sum(expected) == 36
    if mode == "medoids":
        found = Craig(ipc=4, features=X).fit(X, y)
        np.testing.assert_allclose(found.sample_weight_, np.array(expected) / 3)
        assert found.sample_weight_.mean() == pytest.approx(1)


@pytest.mark.parametrize("pick", [craig.pick, crust.pick])
def test_picking_is_a_function(pick):
    X, y = table("normal")
    counts = [4, 1, 0]  # of the third class none
    chosen = pick(torch.from_numpy(X), torch.from_numpy(y), counts)
    assert chosen.indices.tolist() == by_class(X, y, counts, lambda x, k: reference.medoids(x, k)[0] if k else [])
    assert len(chosen.weights) == 5
    lazy = pick(torch.from_numpy(X), torch.from_numpy(y), [9, 9, 9], strategy="stochastic", generator=torch.Generator())
    assert len(set(lazy.indices.tolist())) == 27
    assert pick(torch.from_numpy(X), torch.from_numpy(y), [0, 0, 0]).indices.tolist() == []


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("name", ["strategy", "mode", "memory"])
def test_settings_of_the_greedy_arrive(name):
    X, y = table("normal", 60)
    bad = {"strategy": "none", "mode": "none", "memory": 0}[name]
    for method in (Craig, Crust) if name != "mode" else (Crust,):
        chosen = method(ipc=3, features=X, **{name: bad})
        with pytest.raises(ValueError, match=f"`{name}` must"):
            chosen.fit(X, y)
    for strategy in ("exact", "batched", "lazy"):
        found = Craig(ipc=3, features=X, strategy=strategy).fit(X, y).sample_indices_
        assert found.tolist() == Craig(ipc=3, features=X).fit(X, y).sample_indices_.tolist()


# ---- k-means ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 3, 8, 20])
def test_nearest_rows(kind, seed, k):
    x = table(kind, 20, seed=seed)[0]
    clusters = np.random.default_rng(seed).integers(0, k, 20)
    centres = np.stack([x[clusters == one].mean(0) if (clusters == one).any() else x[0] * 0 for one in range(k)])
    whole = np.round(centres * 4) / 4  # quarters, so that ties are ties
    found = k_means.nearest_rows(torch.from_numpy(x), torch.from_numpy(whole), torch.from_numpy(clusters))
    assert found.indices.tolist() == reference.nearest_rows(x.tolist(), whole.tolist(), clusters.tolist())


def heaps(sizes, seed=0, offset=0.0):
    """Heaps far apart, in a random order, with the heap of each row."""
    draws = np.random.default_rng(seed)
    heap = draws.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = draws.permutation(len(sizes))[:, None] * [50.0, 20.0]
    return centres[heap] + draws.normal(size=(len(heap), 2)) + offset, heap


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e9])
@pytest.mark.parametrize("random_state", range(3))
def test_k_means_finds_heaps(large, offset, random_state, monkeypatch):
    monkeypatch.setattr(k_means, "LARGE", 1 if large else 10**9)
    X, heap = heaps([30, 9, 22, 5], offset=offset)
    means = np.stack([X[heap == one].mean(0) for one in range(4)])
    expected = reference.nearest_rows((X - offset).tolist(), (means - offset).tolist(), heap.tolist())
    found = KMeans(ipc=4, random_state=random_state).fit(X, np.zeros(66, int)).sample_indices_
    if large:  # in small batches centres are not quite the means
        assert heap[found].tolist() == heap[expected].tolist()
    else:
        assert found.tolist() == expected


def test_k_means_of_fewer_different_rows_than_asked():
    X = np.repeat([[0.0, 1.0], [5.0, 5.0]], [5, 4], axis=0)
    found = KMeans(ipc=6, random_state=0).fit(X, [7] * 9).sample_indices_
    assert found[:2].tolist() == [0, 5]
    assert len(set(found.tolist())) == 6


# ---- what a training run tells ---------------------------------------------------------------------------------------


def statistics_of_run(predicted, labels):
    """What a callback makes of given predictions, ``None`` where a row is not seen."""
    callback = LossBufferCallback(labels, 3, rank_by="aum")
    for epoch in predicted:
        rows = [row for row, found in enumerate(epoch) if found is not None]
        logits = torch.nn.functional.one_hot(torch.tensor([epoch[row] for row in rows]), 3) * 4.0
        callback.update(logits, torch.tensor([labels[row] for row in rows]), torch.tensor(rows))
        callback.end_epoch()
    return callback.statistics()


@pytest.fixture(scope="module")
def run():
    """Predictions of 9 epochs for 40 rows; two rows are never seen, some now and then; some are never learnt."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 3, 40).tolist()
    predicted = draws.integers(0, 3, (9, 40)).tolist()
    for row in (0, 5, 17, 30):
        for epoch in predicted:
            epoch[row] = (labels[row] + 1) % 3
    for epoch in predicted:
        epoch[3] = epoch[20] = None
        epoch[int(draws.integers(40))] = None
    return predicted, labels


@pytest.mark.parametrize("never_learned", ["first", "last"])
def test_forgetting(run, never_learned):
    predicted, labels = run
    statistics = statistics_of_run(*run)
    expected = reference.forgetting(predicted, labels, never_learned)
    assert forgetting.forgetfulness(statistics, never_learned).tolist() == expected
    assert {-2.0, float("inf") if never_learned == "first" else -1.0, 0.0, 1.0, 3.0} <= set(expected)
    X = np.arange(40.0)[:, None]
    for ipc in (1, 4, 9):
        chosen = Forgetting(ipc=ipc, statistics=statistics, never_learned=never_learned).fit(X, labels)

        def most(rows, k):
            return [rows[one] for one in reference.largest_first([expected[row] for row in rows], k)]

        assert chosen.sample_indices_.tolist() == reference.by_class(labels, [ipc] * 3, most)
    assert chosen.scores_.tolist() == expected
    over_all = Forgetting(size=1.0, balanced=False, statistics=statistics, never_learned=never_learned)
    with pytest.warns(LossBufferWarning, match="2 of the 40 rows chosen were never seen"):
        over_all.fit(X, labels)
    assert set(over_all.sample_indices_[-2:]) == {3, 20}
    assert (set(over_all.sample_indices_[:4]) >= {0, 5, 17, 30}) == (never_learned == "first")


def test_forgetting_of_the_rows_that_cleaning_kept(run):
    predicted, labels = run
    kept = np.array([2, 0, 39, 5, 8, 9, 10, 11])
    found = forgetting.statistics_of(statistics_of_run(*run), kept)
    expected = reference.forgetting(
        [[epoch[row] for row in kept] for epoch in predicted], np.take(labels, kept), "first"
    )
    assert forgetting.forgetfulness(found).tolist() == expected
    assert found.aum.shape == (8,)
    with pytest.raises(
        ValueError, match=r"`statistics` must be of 40 rows, .* got 8. Those of some rows: statistics_of"
    ):
        Forgetting(ipc=1, statistics=found).fit(np.zeros((40, 1)), labels)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("settings", [{"never_learned": "leave"}, {"never_learned": None}])
def test_never_learned_is_one_of_two(settings):
    with pytest.raises(ValueError, match="`never_learned` must be one of 'first', 'last'"):
        Forgetting(ipc=1, **settings).fit([[0.0], [1.0]], [0, 1])


def test_forgetting_trains_where_there_are_no_statistics():
    X, y = table("normal")
    labels = torch.from_numpy(y)
    settings = TrainSettings(epochs=6, batch_size=8, device="cpu")
    chosen = Forgetting(ipc=3, network=FreshNetwork(settings=settings), random_state=1).fit(X, y)
    seed = int(np.random.RandomState(1).randint(2**31))
    callback = LossBufferCallback(labels, 3, rank_by="aum")
    FreshNetwork(settings=settings).trained(X, y, seed, callback)
    statistics = callback.statistics()
    assert statistics.count.tolist() == [6] * 36
    again = Forgetting(ipc=3, statistics=statistics).fit(X, y)
    assert chosen.sample_indices_.tolist() == again.sample_indices_.tolist()
    assert len(set(chosen.scores_.tolist())) > 2


def own_network(bias=True, dim=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(dim, 5), nn.Tanh(), nn.Linear(5, 3, bias=bias))


@pytest.mark.parametrize("bias", [True, False])
def test_norms_are_those_of_autograd(bias):
    X, y = table("normal")
    network, labels = own_network(bias), torch.from_numpy(y)
    outputs = features.network_outputs(network, torch.from_numpy(X))
    gradients = reference.last_layer_gradients(outputs.features, network[-1].weight, network[-1].bias, labels)
    el2n = gradient_norm.error_norms(outputs.logits, labels)
    assert el2n.tolist() == pytest.approx([float(one[0].norm()) for one in gradients], rel=1e-4)
    grand = gradient_norm.last_layer_norms(outputs, labels)
    assert grand.tolist() == pytest.approx([float(one[2].norm()) for one in gradients], rel=1e-4)


@pytest.mark.parametrize("norm", ["el2n", "grand"])
def test_norms_are_means_over_networks(norm):
    X, y = table("normal", 60)
    chosen = GradientNorm(ipc=2, norm=norm, network=QUICK, networks=3, random_state=5).fit(X, y)
    seed = int(np.random.RandomState(5).randint(2**31))
    seeds = np.random.RandomState(seed).randint(2**31, size=3).tolist()
    expected, labels = torch.zeros(60, dtype=torch.float64), torch.from_numpy(y)
    for one in seeds:
        outputs = features.outputs_of(QUICK, X, y, one)
        probs = outputs.logits.double().softmax(1) - torch.nn.functional.one_hot(labels, 3)
        squares = outputs.features.double().square().sum(1) + 1 if norm == "grand" else torch.ones(60)
        expected += probs.norm(dim=1) * squares.sqrt() / 3
    np.testing.assert_allclose(chosen.scores_, expected, rtol=1e-4)

    def longest(rows, k):
        return [rows[one] for one in reference.largest_first([chosen.scores_[row] for row in rows], k)]

    assert chosen.sample_indices_.tolist() == reference.by_class(y.tolist(), [2] * 3, longest)


def test_known_norms():
    X, y = np.zeros((6, 1)), [0, 0, 0, 1, 1, 1]
    norms = [0.2, np.nan, 0.2, 0.1, 0.9, 0.3]
    for given in (norms, np.array(norms), torch.tensor(norms)):
        with pytest.warns(LossBufferWarning, match="1 of the 6 rows chosen were never seen"):
            chosen = GradientNorm(ipc=3, norms=given).fit(X, y)
        assert chosen.sample_indices_.tolist() == [0, 2, 1, 4, 5, 3]
    with pytest.raises(ValueError, match=r"`norms` must have shape \(6,\), got shape \(5,\)"):
        GradientNorm(ipc=3, norms=norms[1:]).fit(X, y)
    for settings, name in (({"norm": "l2"}, "norm"), ({"networks": 0}, "networks")):
        with pytest.raises(ValueError, match=f"`{name}` must"):
            GradientNorm(ipc=3, network=QUICK, **settings).fit(X, y)


def test_error_norms_go_with_a_training_that_cleans():
    X, y = table("normal")
    x, labels = torch.from_numpy(X), torch.from_numpy(y)
    settings = TrainSettings(epochs=3, batch_size=7, device="cpu")
    taken = []

    class Taken(LossBufferCallback):
        def loss(self, logits, labels, indices):
            for row, logit, label in zip(indices.tolist(), logits.detach().double(), labels.tolist(), strict=True):
                one_hot = torch.eye(3, dtype=torch.float64)[label]
                taken.append((row, float((logit.softmax(0) - one_hot).norm())))
            return super().loss(logits, labels, indices)

    cleans = {"mode": "reweight", "warmup": 1, "rank_by": "aum", "noise_rate": 0.2}
    cleaning = Taken(labels, 3, **cleans)
    norms, network = ErrorNorms(36, then=cleaning), own_network()
    train(network, x, labels, settings, callback=norms)
    expected = [np.mean([value for row, value in taken if row == one]) for one in range(36)]
    assert norms.means().tolist() == pytest.approx(expected, rel=1e-5)
    alone = own_network()
    train(
        alone, x, labels, settings, callback=Taken(labels, 3, mode="reweight", warmup=1, rank_by="aum", noise_rate=0.2)
    )
    assert torch.equal(alone[0].weight, network[0].weight)  # the steps were the other callback's
    assert cleaning.epoch == 3
    plain, watched = own_network(), own_network()
    train(plain, x, labels, settings)
    train(watched, x, labels, settings, callback=ErrorNorms(36))
    assert torch.equal(plain[0].weight, watched[0].weight)
    assert not torch.equal(plain[0].weight, network[0].weight)


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_random_draws_all_rows_alike():
    X, y = np.zeros((12, 1)), [0] * 8 + [1] * 4
    counts = np.zeros(12)
    for random_state in range(400):
        counts += Random(ipc=2, random_state=random_state).fit(X, y).get_support()
    assert np.abs(counts[:8] - 100).max() < 35  # deviation 8.7
    assert np.abs(counts[8:] - 200).max() < 40
    firsts = {int(Random(size=3, balanced=False, random_state=one).fit(X, y).sample_indices_[0]) for one in range(100)}
    assert firsts == set(range(12))


def test_default_features_are_gradients_of_a_network():
    X, y = table("normal", 60)
    seed = int(np.random.RandomState(2).randint(2**31))
    by_logits, by_features = LastLayerGradients(), features.FeatureGradients()
    for method, source, others, pick in (
        (Craig, by_logits, by_features, craig.pick),
        (Crust, by_features, by_logits, crust.pick),
    ):
        chosen = method(ipc=8, random_state=2).fit(X, y)
        found, other = (
            pick(one(X, y, seed), torch.from_numpy(y), [8] * 3).indices.tolist() for one in (source, others)
        )
        assert chosen.sample_indices_.tolist() == found != other


def test_groups_by_themselves():
    groups = torch.tensor([2, 0, 2, 0, 2])
    asked = []

    def last(rows, k):
        asked.append((rows.tolist(), k))
        return Chosen(torch.arange(len(rows)).flip(0)[:k], torch.ones(k))

    chosen = by_group(groups, [1, 5, 2], last)
    assert asked == [([1, 3], 1), ([0, 2, 4], 2)]
    assert chosen.indices.tolist() == [3, 4, 2]
    assert chosen.weights.tolist() == [1, 1, 1]
