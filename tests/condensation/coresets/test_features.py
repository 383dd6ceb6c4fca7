"""Tests of condensation.coresets.features."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from condensation.coresets import Herding, features
from condensation.coresets.features import FeatureGradients, FreshNetwork, LastLayerGradients, NetworkFeatures, Pixels
from lossbuf.data import standardised
from lossbuf.networks import MLP, ConvNet, resnet9
from lossbuf.training import TrainSettings, build, predict, train
from tests.reference import coresets as reference

QUICK = FreshNetwork(settings=TrainSettings(epochs=2, batch_size=16, device="cpu"))
SOURCES = [Pixels(), NetworkFeatures(QUICK), LastLayerGradients(QUICK), FeatureGradients(QUICK)]


@pytest.fixture(scope="module")
def table():
    draws = np.random.default_rng(0)
    y = np.arange(40) % 3
    return (np.eye(4)[y] * 2 + draws.normal(size=(40, 4))).astype(np.float32), y


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3))


def test_pixels(table):
    X = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    found = Pixels()(X, np.zeros(2, np.int64), 0)
    assert found.tolist() == [list(range(12)), list(range(12, 24))]
    assert found.dtype == torch.float32
    assert Pixels()(table[0].astype(np.float64), table[1], 0).dtype == torch.float64


@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_outputs_are_those_of_the_network(table, network, batch_size):
    x = torch.from_numpy(table[0])
    network.train()
    network[1].eval()  # as one that is frozen
    modes = [module.training for module in network.modules()]
    outputs = features.network_outputs(network, x, batch_size)
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())
    network.eval()
    torch.testing.assert_close(outputs.logits, network(x))
    torch.testing.assert_close(outputs.features, network[:-1](x))
    assert torch.equal(outputs.weight, network[-1].weight)
    assert outputs.has_bias
    assert not outputs.features.requires_grad


@pytest.mark.parametrize(
    "make", [lambda: MLP(64, 3), lambda: ConvNet(1, 3, (8, 8), width=4), lambda: resnet9(1, 3, width=2)]
)
def test_networks_of_this_package(make):
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(5, 1, 8, 8)
    outputs = features.network_outputs(network, x)
    torch.testing.assert_close(outputs.logits, predict(network, x))
    if hasattr(network, "features"):
        torch.testing.assert_close(outputs.features, network.features(x))
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    torch.testing.assert_close(torch.nn.functional.linear(outputs.features, last.weight, last.bias), outputs.logits)


class _OtherEnds(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.first, self.unused = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        first = self.first(x)
        given = {"own": x[:, :3], "half": first[:, :2], "scaled": first / 2, "tokens": self.first(x[:, None])}
        return given.get(self.kind, given)


@pytest.mark.parametrize("kind", ["own", "half", "scaled", "tokens", "all of them"])
def test_networks_that_end_otherwise_are_refused(table, kind):
    network = _OtherEnds(kind)
    with pytest.raises(ValueError, match=r"`network` must end in an nn.Linear that gives the logits, got _OtherEnds"):
        features.network_outputs(network, torch.from_numpy(table[0]))
    assert network.training
    assert not network.first._forward_hooks


@pytest.mark.parametrize("standardise", [True, False])
def test_features_and_gradients_are_those_of_autograd(table, network, standardise):
    X, y = table
    labels = torch.from_numpy(y)
    network.eval()
    x = standardised(X)[0] if standardise else torch.from_numpy(X)
    expected = reference.last_layer_gradients(network[:-1](x).detach(), network[-1].weight, network[-1].bias, labels)
    for source, position in ((LastLayerGradients, 0), (FeatureGradients, 1)):
        found = source(network, standardise=standardise)(X, y, 0)
        np.testing.assert_allclose(found, np.stack([one[position].detach() for one in expected]), rtol=1e-4, atol=1e-6)
    found = NetworkFeatures(network, standardise=standardise)(X, y, 0)
    torch.testing.assert_close(found, network[:-1](x).detach())


def test_a_given_network_may_know_more_classes_but_not_fewer(table):
    X, y = table
    assert LastLayerGradients(nn.Sequential(nn.Linear(4, 5)))(X, y, 0).shape == (40, 5)
    with pytest.raises(ValueError, match="`network` must have an output for each of the 3 classes, got 2"):
        NetworkFeatures(nn.Sequential(nn.Linear(4, 2)))(X, y, 0)


def test_a_fresh_network_is_trained_as_the_settings_say(table):
    X, y = table
    (x,), settings = standardised(X), TrainSettings(epochs=2, batch_size=16, device="cpu", seed=7)
    network = build(lambda: MLP(4, 3), settings)
    train(network, x, torch.from_numpy(y), settings)
    found = NetworkFeatures(QUICK)(X, y, 7)
    torch.testing.assert_close(found, network.features(x).detach())
    assert not torch.equal(found, NetworkFeatures(QUICK)(X, y, 8))
    own = FreshNetwork(
        lambda shape, classes: nn.Sequential(nn.Linear(*shape, 2), nn.Linear(2, classes)), QUICK.settings
    )
    assert NetworkFeatures(own)(X, y, 0).shape == (40, 2)


def test_a_training_that_diverged_is_told(table):
    wild = FreshNetwork(settings=TrainSettings(epochs=3, batch_size=4, lr=1e20, device="cpu"))
    with pytest.raises(ValueError, match=r"`network` must give finite logits, .* Did its training diverge\?"):
        NetworkFeatures(wild)(*table, 0)


def test_probabilities_of_one_are_no_nan():
    found = features.logit_gradients(torch.tensor([[1e4, 0.0], [-1e4, 1e4]]), torch.tensor([0, 0]))
    assert found.tolist() == [[0.0, 0.0], [-1.0, 1.0]]


# ---- sources ---------------------------------------------------------------------------------------------------------


def test_an_array_a_tensor_and_a_function_are_the_same(table):
    X, y = table
    asked = []

    def own(samples, labels, seed):
        asked.append((samples is not None, labels.tolist(), seed))
        return samples[:, :2].tolist()

    sources = [X[:, :2], torch.from_numpy(X[:, :2]), X[:, :2].tolist(), own]
    rows = [Herding(ipc=4, features=source, random_state=3).fit(X, y).sample_indices_.tolist() for source in sources]
    assert rows[0] == rows[1] == rows[2] == rows[3] != Herding(ipc=4).fit(X, y).sample_indices_.tolist()
    assert asked == [(True, y.tolist(), int(np.random.RandomState(3).randint(2**31)))]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint64, np.float16, np.float32, np.float64, bool])
def test_types_of_features(dtype):
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    found = features.as_features("x", values)
    assert found.tolist() == values.tolist()
    wide = np.dtype(dtype).itemsize >= 4 and dtype != np.float32
    assert found.dtype == (torch.float64 if wide else torch.float32)
    assert features.as_features("x", torch.from_numpy(values)).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros(40), r"`features` must have shape \(n_samples, n_features\), both at least 1, got shape \(40,\)"),
        (np.zeros((40, 0)), r"both at least 1, got shape \(40, 0\)"),
        (np.zeros((40, 2, 2)), r"both at least 1, got shape \(40, 2, 2\)"),
        (np.zeros((39, 2)), "`features` must have 40 rows, as many as X, got 39"),
        (torch.full((40, 2), torch.nan), "`features` must be finite, got nan at row 0"),
        (np.where(np.arange(80).reshape(40, 2) == 7, -np.inf, 0.0), "`features` must be finite, got -inf at row 3"),
        (np.array([["a", "b"]] * 40), "`features` must be numbers, got ndarray"),
        (np.array([["a", None]] * 40), "`features` must be numbers, got ndarray"),
        (lambda X, labels, seed: X[1:], "`features` must have 40 rows, as many as X, got 39"),
        ("pixels", r"`features` must be an array or a Features, got str. Wrap a network: NetworkFeatures\(network\)"),
        (nn.Linear(4, 3), "`features` must be an array or a Features, got Linear. Wrap a network"),
        (QUICK, "`features` must be an array or a Features, got FreshNetwork. Wrap a network"),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_features_without_meaning_are_refused(table, source, message):
    with pytest.raises(ValueError, match=message):
        Herding(ipc=2, features=source).fit(*table)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_sources_compare_clone_and_pickle(table, source):
    assert isinstance(source, features.Features)
    for other in (copy.deepcopy(source), pickle.loads(pickle.dumps(source)), clone(Herding(features=source)).features):
        assert other == source
        assert repr(other) == repr(source)
        torch.testing.assert_close(other(*table, 0), source(*table, 0))
    assert len({repr(source) for source in SOURCES}) == len(SOURCES)
