"""The evaluation protocol against a plain loop, its seeds, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from condensation.augmentation.random_changes import Crop
from condensation.evaluate import EvalSettings, Evaluation, evaluate, network_seeds
from condensation.evaluate.ensemble import Ensemble, stackable
from lossbuf.networks import ConvNet
from lossbuf.training import seeded
from tests.reference import evaluate as reference

SETTINGS = EvalSettings(epochs=3, lr=0.1, batch_size=4, networks=3, seed=7, device="cpu")
CPU = torch.device("cpu")


class Factory:
    """Makes networks and remembers them: after an evaluation they are trained."""

    def __init__(self, make):
        self.make, self.made = make, []

    def __call__(self, sample_shape, num_classes):
        self.made.append(self.make(sample_shape, num_classes))
        return self.made[-1]

    def weights(self):
        return [torch.cat([part.detach().flatten() for part in network.parameters()]) for network in self.made]


def small_convnet(sample_shape, num_classes):
    return ConvNet(sample_shape[0], num_classes, sample_shape[1:], width=4, first_padding=3)


def batch_norm(sample_shape, num_classes):
    return ConvNet(sample_shape[0], num_classes, sample_shape[1:], width=4, norm="batch")


def dropout(sample_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(math.prod(sample_shape), num_classes))


@pytest.fixture
def data(generator):
    """A set of 10 images of 3 classes, a batch of 4 and one of 2 left over, and a test set of 50."""
    labels, test_labels = torch.arange(10) % 3, torch.arange(50) % 3
    middle = torch.randn(3, 1, 8, 8, generator=generator)
    noise = torch.randn(60, 1, 8, 8, generator=generator)
    return middle[labels] + noise[:10], labels, middle[test_labels] + noise[10:], test_labels


def in_double(data):
    return [part.double() if part.is_floating_point() else part for part in data]


def orders_of(seeds, epochs, size):
    generator = torch.Generator().manual_seed(seeds.order)
    return [torch.randperm(size, generator=generator).tolist() for _ in range(epochs)]


# ---- against a plain loop --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "together"), [(batch_norm, 1), *((small_convnet, size) for size in (1, 2, 3))])
@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 3), (2, 4), (5, 4), (4, 10), (3, 256)])
@pytest.mark.parametrize("kind", ["hard", "soft", "weighted"])
def test_against_a_plain_loop(data, make, together, epochs, batch_size, kind, generator, device):
    x, labels, test_x, test_labels = in_double(data)
    probabilities = F.one_hot(labels, 3).double()
    weights = None
    if kind == "soft":
        labels = probabilities = torch.rand(10, 3, generator=generator, dtype=torch.float64).softmax(1)
    if kind == "weighted":
        weights = torch.rand(10, generator=generator, dtype=torch.float64) * 5
    settings = replace(SETTINGS, epochs=epochs, batch_size=batch_size, weight_decay=0.01, device=str(device))
    factory = Factory(make)
    found = evaluate(
        x, labels, test_x, test_labels, network=factory, settings=settings, weights=weights, together=together
    )
    for number, weight in enumerate(factory.weights()):
        seeds = network_seeds(settings.seed, number)
        with seeded(seeds.weights, CPU):
            network = make((1, 8, 8), 3).double()
        reference.trained(
            network, x, probabilities, [1.0] * 10 if weights is None else weights.tolist(),
            orders_of(seeds, epochs, 10), lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=batch_size,
        )  # fmt: skip
        expected = torch.cat([part.detach().flatten() for part in network.parameters()])
        torch.testing.assert_close(weight.cpu(), expected, rtol=1e-9, atol=1e-11)
        assert found.accuracies[number] == reference.accuracy(network, test_x, test_labels)
    assert len(found.accuracies) == len(factory.made) == 3


def test_more_rows_than_a_cpu_handles_at_once(generator, device):
    labels = torch.arange(75) % 3
    x = torch.randn(75, 1, 8, 8, generator=generator, dtype=torch.float64)
    settings = replace(SETTINGS, batch_size=70, networks=1, device=str(device))
    for make in (small_convnet, batch_norm):
        factory = Factory(make)
        evaluate(x, labels, x, labels, network=factory, settings=settings)
        seeds = network_seeds(settings.seed, 0)
        with seeded(seeds.weights, CPU):
            network = make((1, 8, 8), 3).double()
        reference.trained(
            network, x, F.one_hot(labels, 3).double(), [1.0] * 75, orders_of(seeds, 3, 75),
            lr=0.1, momentum=0.9, weight_decay=5e-4, batch_size=70,
        )  # fmt: skip
        expected = torch.cat([part.detach().flatten() for part in network.parameters()])
        torch.testing.assert_close(factory.weights()[0].cpu(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("augment", [None, Crop(2)])
def test_together_is_one_by_one(data, augment, device):
    settings = replace(SETTINGS, device=str(device), lr=0.02)
    weights = []
    for together in (1, 2, 3, 8, None):
        factory = Factory(small_convnet)
        evaluate(*data, network=factory, settings=settings, augment=augment, together=together)
        weights.append(torch.stack(factory.weights()))
    assert weights[0].dtype == torch.float32
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(weights[0][0], weights[0][1], atol=1e-2)


def test_the_rate_falls_to_a_tenth_at_half(data):
    # Without momentum and decay, on one sample whose gradient is all but constant, a step is the rate.
    x, labels = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)

    class Watched(nn.Linear):
        def forward(self, input):
            if self.training:
                steps.append(self.weight[0, 0].item())
            return super().forward(input)

    for epochs, full in ((1, 1), (2, 1), (5, 3), (6, 3)):
        steps = []
        settings = EvalSettings(epochs=epochs, lr=1e-4, momentum=0.0, weight_decay=0.0, networks=1, device="cpu")
        factory = Factory(lambda *_: Watched(1, 2, bias=False))
        evaluate(x.double(), labels, x.double(), labels, network=factory, num_classes=2, settings=settings)
        steps.append(factory.made[0].weight[0, 0].item())
        sizes = np.diff(steps)
        assert sizes / sizes[0] == pytest.approx([1.0] * full + [0.1] * (epochs - full), rel=1e-3)


# ---- labels and weights ----------------------------------------------------------------------------------------------


def trained_with(data, labels=None, **arguments):
    factory = Factory(small_convnet)
    x, hard, test_x, test_labels = data
    settings = arguments.pop("settings", SETTINGS)
    found = evaluate(
        x, hard if labels is None else labels, test_x, test_labels, network=factory, settings=settings, **arguments
    )
    return torch.stack(factory.weights()), found


def test_soft_one_hot_labels_are_hard_ones(data):
    hard, one = trained_with(data)
    soft, other = trained_with(data, F.one_hot(data[1], 3).float())
    torch.testing.assert_close(soft, hard, rtol=1e-5, atol=1e-6)
    assert one.accuracies == pytest.approx(other.accuracies, abs=0.021)
    assert not torch.allclose(trained_with(data, torch.full((10, 3), 1 / 3))[0], hard, atol=1e-3)


def test_equal_weights_are_none(data):
    plain = trained_with(data)[0]
    assert torch.equal(trained_with(data, weights=torch.ones(10))[0], plain)
    assert torch.equal(trained_with(data, weights=torch.full((10,), 8.0))[0], plain)
    assert not torch.allclose(trained_with(data, weights=torch.arange(10.0) + 1)[0], plain, atol=1e-3)


@pytest.mark.parametrize("soft", [False, True])
def test_a_weight_of_0_leaves_the_row_out(data, soft):
    x, labels, *test = data
    kept = torch.tensor([0, 2, 3, 7, 8])
    labels = F.one_hot(labels, 3).float() if soft else labels
    weights = torch.zeros(10).index_fill(0, kept, 2.0)
    found = trained_with(data, labels, weights=weights)[0]
    assert torch.equal(found, trained_with((x[kept], labels[kept], *test))[0])


def test_classes_may_be_missing(data):
    x, labels, test_x, test_labels = data
    kept = labels != 2
    settings = replace(SETTINGS, epochs=30, networks=1)
    # The test labels name a class that the set lacks: of that the network is never right.
    found = trained_with((x[kept], labels[kept], test_x, test_labels), settings=settings)[1]
    assert 0.4 < found.mean <= 34 / 50
    factory = Factory(small_convnet)
    evaluate(*data, network=factory, settings=replace(SETTINGS, epochs=1), num_classes=6)
    assert {network.classifier.out_features for network in factory.made} == {6}


def test_training_learns(data):
    found = trained_with(data, settings=replace(SETTINGS, epochs=30))[1]
    assert found.mean > 0.8
    assert found.seconds > 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (5,), (2, 3)])
def test_default_networks(shape, generator):
    x, labels = torch.randn(6, *shape, generator=generator), torch.arange(6) % 2
    found = evaluate(x, labels, x, labels, settings=EvalSettings(epochs=1, networks=2, device="cpu"))
    assert len(found.accuracies) == 2


def test_mean_and_deviation():
    found = Evaluation((0.5, 0.7, 0.9), 1.0)
    assert found.mean == pytest.approx(0.7)
    assert found.std == pytest.approx(math.sqrt(0.08 / 3))


def test_more_epochs_with_augmentation(data):
    def passes(augment):
        count = 0

        class Counting(nn.Linear):
            def forward(self, input):
                nonlocal count
                count += self.training
                return super().forward(input.flatten(1))

        settings = EvalSettings(networks=1, device="cpu")
        evaluate(*data, network=lambda *_: Counting(64, 3), settings=settings, augment=augment)
        return count

    assert passes(None) == 300
    assert passes(lambda x, _: x) == 1000


# ---- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small_convnet, batch_norm, dropout])
@pytest.mark.parametrize("augment", [None, Crop(2)])
def test_same_seed_same_bits(data, make, augment, device):
    def run(seed=7, networks=3):
        factory = Factory(make)
        settings = replace(SETTINGS, seed=seed, networks=networks, device=str(device))
        found = evaluate(*data, network=factory, settings=settings, augment=augment, together=1)
        return torch.stack(factory.weights()).cpu(), found.accuracies

    weights, accuracies = run()
    again, same = run()
    assert torch.equal(weights, again)
    assert accuracies == same
    # A network depends neither on how many there are nor on the one before it.
    for networks in (1, 2):
        assert torch.equal(run(networks=networks)[0], weights[:networks])
    other = run(seed=8)[0]
    for one in weights:
        assert sum(torch.equal(one, each) for each in [*weights, *other]) == 1


def test_global_generators_are_untouched(data, device):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    evaluate(*data, network=dropout, settings=replace(SETTINGS, device=str(device)), augment=Crop(1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    torch.manual_seed(3)
    first = trained_with(data)[0]
    torch.manual_seed(4)
    assert torch.equal(trained_with(data)[0], first)


def test_every_network_has_an_order_and_weights_of_its_own():
    seeds = [seed for run in range(3) for number in range(3) for seed in network_seeds(run, number)]
    assert len(set(seeds)) == 36


@pytest.mark.parametrize("together", [1, 3])
def test_every_network_has_augmentations_of_its_own(data, together):
    drawn = []

    def augment(x, generator):
        drawn.append(torch.rand((), generator=generator).item())
        assert x.shape[1:] == (1, 8, 8)
        return x

    settings = replace(SETTINGS, epochs=1, batch_size=10)
    evaluate(*data, network=small_convnet, settings=settings, augment=augment, together=together)
    seeds = [network_seeds(settings.seed, number).augment for number in range(3)]
    assert drawn == [torch.rand((), generator=torch.Generator().manual_seed(seed)).item() for seed in seeds]


def test_the_set_stays_as_it_is(data):
    before = [part.clone() for part in data]
    evaluate(*data, network=small_convnet, settings=SETTINGS, weights=torch.arange(10.0), augment=Crop(1))
    assert all(torch.equal(*pair) for pair in zip(data, before, strict=True))


def test_half_precision_and_other_layouts_train_in_single(data):
    x, labels, test_x, test_labels = data
    settings = replace(SETTINGS, networks=1)
    x, test_x = x.half(), test_x.half()
    found = trained_with((x, labels, test_x, test_labels), settings=settings)[0]
    single = trained_with((x.float(), labels, test_x.double(), test_labels), settings=settings)[0]
    assert found.dtype == torch.float32
    assert torch.equal(found, single)
    turned = x.float().permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    assert torch.equal(trained_with((turned, labels, test_x, test_labels), settings=settings)[0], found)


# ---- stacks ----------------------------------------------------------------------------------------------------------


def test_what_can_be_stacked():
    assert stackable(small_convnet((1, 8, 8), 3))
    assert not stackable(batch_norm((1, 8, 8), 3))
    assert not stackable(dropout((1, 8, 8), 3))


def test_an_ensemble_calls_each_network_on_its_own_batch(generator):
    networks = [small_convnet((1, 8, 8), 3) for _ in range(3)]
    x = torch.randn(3, 5, 1, 8, 8, generator=generator)
    ensemble = Ensemble(networks)
    for network, part, logits in zip(networks, x, ensemble(x), strict=True):
        torch.testing.assert_close(logits, network(part), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for stack in ensemble.parameters:
            stack.add_(1.0)
    before = [part.clone() for part in networks[1].parameters()]
    for was, now in zip(before, ensemble.unstack()[1].parameters(), strict=True):
        torch.testing.assert_close(now, was + 1)


# ---- arguments -------------------------------------------------------------------------------------------------------

X, LABELS = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 1])
NAN = torch.full_like(X, math.nan)
INF = X.clone().index_fill(0, torch.tensor([2]), math.inf)
SOFT = F.one_hot(LABELS, 3).float()
BAD = {
    "no rows": ({"x": X[:0], "labels": LABELS[:0]}, "`x` must be .* with at least one row, got shape \\(0, 1, 8, 8\\)"),
    "no features": ({"x": X[:, 0, 0, 0]}, "`x` must be \\(n_samples, ...\\) .*got shape \\(4,\\)"),
    "no test rows": ({"test_x": X[:0], "test_labels": LABELS[:0]}, "`test_x` must be .* with at least one row"),
    "uint8": ({"x": X.byte()}, "`x` must be floating point, got dtype torch.uint8. Standardise both sets alike"),
    "uint8 test": ({"test_x": X.byte()}, "`test_x` must be floating point, got dtype torch.uint8"),
    "nan": ({"x": NAN}, "`x` must be finite, got NaN or infinite values"),
    "inf": ({"x": INF}, "`x` must be finite"),
    "nan test": ({"test_x": NAN}, "`test_x` must be finite"),
    "other shape": ({"test_x": X[..., :7]}, "`test_x` must have samples of shape \\(1, 8, 8\\) .*got \\(1, 8, 7\\)"),
    "too few labels": ({"labels": LABELS[:3]}, "`labels` must be 4, one a sample, got 3"),
    "too few soft": ({"labels": SOFT[:3]}, "`labels` must be 4, one a sample, got 3"),
    "too few test": ({"test_labels": LABELS[:3]}, "`test_labels` must be 4, one a sample, got 3"),
    "label range": ({"num_classes": 2}, "`labels` must lie in \\[0, 2\\), got 2 at row 2"),
    "negative label": ({"labels": LABELS - 1}, "`labels` must lie in .*got -1 at row 0"),
    "test label range": ({"labels": SOFT[:, :2].softmax(1)}, "`test_labels` must lie in \\[0, 2\\), got 2 at row 2"),
    "float labels": ({"labels": LABELS.float()}, "`labels` must be integers, got dtype torch.float32"),
    "column labels": ({"labels": LABELS[:, None]}, "`labels` must have shape \\(n_samples,\\)"),
    "soft width": ({"labels": SOFT, "num_classes": 4}, "`labels` must be 4 probabilities a row, got 3"),
    "soft negative": ({"labels": SOFT * 3 - 2 / 3}, "`labels` must be at least 0 and sum to 1 .* in row 0"),
    "soft sum": ({"labels": SOFT * 2}, "`labels` must be at least 0 and sum to 1 .*got \\[2.0, 0.0, 0.0\\]"),
    "soft nan": ({"labels": SOFT * math.nan}, "`labels` must be at least 0 and sum to 1"),
    "num_classes": ({"num_classes": 0}, "`num_classes` must be an integer of at least 1, got 0"),
    "weights shape": ({"weights": torch.ones(3)}, "`weights` must have shape \\(4,\\), got shape \\(3,\\)"),
    "weights below 0": ({"weights": -LABELS.float()}, "`weights` must be finite and at least 0, got -1.0 in row 1"),
    "weights nan": ({"weights": LABELS * math.nan}, "`weights` must be finite and at least 0, got nan in row 0"),
    "weights 0": ({"weights": torch.zeros(4)}, "`weights` must not all be 0"),
    "together": ({"together": 0}, "`together` must be an integer of at least 1, got 0"),
    "together bool": ({"together": True}, "`together` must be an integer of at least 1, got True"),
    "together norm": ({"together": 2, "network": batch_norm}, "`together` must be 1 for a network with buf.*got 2"),
    "width": ({"network": lambda *_: dropout((1, 8, 8), 7)}, "`network` must give 3 logits a sample, got shape"),
    "no logits": ({"network": lambda *_: nn.Sequential(dropout((1, 8, 8), 1), nn.Flatten(0))}, "`network` must give 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("no_shape_checks")
def test_bad_arguments(name):
    arguments, message = BAD[name]
    given = {"x": X, "labels": LABELS, "test_x": X, "test_labels": LABELS, "settings": SETTINGS} | arguments
    with pytest.raises(ValueError, match=message):
        evaluate(**given)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("epochs", 1.5), ("lr", 0.0), ("lr", math.nan), ("momentum", 1.1), ("weight_decay", -1.0),
     ("batch_size", 0), ("networks", 0), ("seed", -1)],
)  # fmt: skip
@pytest.mark.usefixtures("no_shape_checks")
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must"):
        EvalSettings(**{name: value})


NAMED = np.array(["cat", "dog", "eel"])


@pytest.mark.parametrize("form", [lambda y: NAMED[y], lambda y: NAMED[y].astype(object), lambda y: NAMED[y].tolist()])
@pytest.mark.usefixtures("no_shape_checks")
def test_labels_may_be_names(form):
    labels, test_labels = np.array([0, 1, 2, 0, 1, 2]), np.array([2, 1, 0, 0])
    x, test_x = np.eye(3, dtype=np.float32)[labels], np.eye(3, dtype=np.float32)[test_labels]
    settings = EvalSettings(networks=2, epochs=20, device="cpu")
    expected = evaluate(x, labels, test_x, test_labels, settings=settings)
    found = evaluate(x, form(labels), test_x, form(test_labels), settings=settings)
    assert found.accuracies == expected.accuracies


@pytest.mark.usefixtures("no_shape_checks")
def test_names_beside_numbers_are_refused():
    x, names = np.eye(3, dtype=np.float32), NAMED
    with pytest.raises(ValueError, match="`labels` must hold names of classes as `test_labels` does, got numbers"):
        evaluate(x, np.arange(3), x, names)
    with pytest.raises(ValueError, match="`test_labels` must hold names of classes as `labels` does, got numbers"):
        evaluate(x, names, x, np.arange(3))
