"""Dataset distillation against one graph through all steps, finite differences, and itself resumed."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call

from condensation.artifact import CondensedSet
from condensation.coresets import Random
from condensation.distillation import DatasetDistillation, dataset, evaluate_distilled, train_as_distilled
from condensation.distillation.dataset import PUBLISHED, Unrolled, Xavier, unrolled_gradients
from condensation.evaluate import EvalSettings, evaluate, network_seeds
from condensation.learned.networks import fresh_network, plain_network
from condensation.learned.real_images import Batch, RealImages
from condensation.learned.run import drawn_from
from lossbuf.networks import ConvNet, architectures
from lossbuf.training import seeded
from tests.reference import distillation as reference

CPU = torch.device("cpu")


def perceptron(shape=(1, 2, 2), classes=3):
    pixels = int(np.prod(shape))
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 5), nn.Tanh(), nn.Linear(5, classes))


def convolutions(shape=(1, 4, 4), classes=3):
    return ConvNet(1, classes, shape[1:], width=2, depth=1)


def problem(shape, classes=3, ipc=2, epochs=2, seed=0):
    """Images, labels, steps, rates and real images, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(classes * ipc, *shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(classes).repeat_interleave(ipc)
    steps = torch.arange(classes * ipc).view(classes, ipc).T.repeat(epochs, 1)
    rates = 0.1 + torch.rand(len(steps), generator=generator, dtype=torch.float64)
    real_x = torch.randn(7, *shape, generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(7, generator=generator, dtype=torch.float64)
    return x, labels, steps, rates, Batch(real_x, torch.tensor([0, 1, 2, 0, 1, 2, 2]), weights)


def small(make, seed=0):
    with seeded(seed, CPU):
        return make().double()


@pytest.mark.parametrize("rows_at_once", [None, 3])
@pytest.mark.parametrize("steps_in_memory", [None, 0, 1, 9])
def test_gradients_are_those_of_one_graph_through_all_steps(steps_in_memory, rows_at_once):
    network, (x, labels, steps, rates, real) = small(perceptron), problem((1, 2, 2))
    before = [value.clone() for value in network.parameters()]
    found = unrolled_gradients(
        network, x, labels, steps, rates, real, steps_in_memory=steps_in_memory, rows_at_once=rows_at_once
    )
    x, rates = x.requires_grad_(), rates.requires_grad_()
    after = reference.trained(reference.perceptron, list(network.parameters()), x, labels, steps, rates)
    loss = reference.mean_loss(reference.perceptron, after, *real)
    expected = torch.autograd.grad(loss, (x, rates))
    torch.testing.assert_close(found.loss, loss.detach())
    torch.testing.assert_close(found.x_gradient, expected[0], rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found.rates_gradient, expected[1], rtol=1e-9, atol=1e-14)
    for value, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(value, old)
        assert value.grad is None
        assert value.requires_grad


@pytest.mark.parametrize("steps_in_memory", [None, 2])
def test_gradients_of_convolutions_with_instance_norm(steps_in_memory):
    network, (x, labels, steps, rates, real) = small(convolutions), problem((1, 4, 4))
    names = [name for name, _ in network.named_parameters()]

    def forward(parameters, sample):
        return functional_call(network, dict(zip(names, parameters, strict=True)), (sample[None],))[0]

    found = unrolled_gradients(network, x, labels, steps, rates, real, steps_in_memory=steps_in_memory)
    x, rates = x.requires_grad_(), rates.requires_grad_()
    after = reference.trained(forward, list(network.parameters()), x, labels, steps, rates)
    expected = torch.autograd.grad(reference.mean_loss(forward, after, *real), (x, rates))
    torch.testing.assert_close(found.x_gradient, expected[0], rtol=1e-8, atol=1e-13)
    torch.testing.assert_close(found.rates_gradient, expected[1], rtol=1e-8, atol=1e-13)


def test_gradients_are_those_of_finite_differences():
    network, (x, labels, steps, rates, real) = small(perceptron), problem((1, 2, 2), ipc=1)

    def loss(x, rates):
        after = reference.trained(reference.perceptron, list(network.parameters()), x, labels, steps, rates)
        return float(reference.mean_loss(reference.perceptron, after, *real).detach())

    found = unrolled_gradients(network, x, labels, steps, rates, real, steps_in_memory=1)
    for values, gradient in ((x, found.x_gradient), (rates, found.rates_gradient)):
        for place in range(values.numel()):
            value = float(values.view(-1)[place])
            values.view(-1)[place] = value + 1e-5
            above = loss(x, rates)
            values.view(-1)[place] = value - 1e-5
            below = loss(x, rates)
            values.view(-1)[place] = value
            assert float(gradient.view(-1)[place]) == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-9)


def digits(rows=200):
    x, y = load_digits(return_X_y=True)
    return x[:rows].reshape(-1, 1, 8, 8), y[:rows]


def condenser(**settings):
    usual = {"ipc": 2, "network": perceptron, "iterations": 4, "batch_size": 32, "lr": 0.1, "random_state": 0}
    return DatasetDistillation(**{**usual, "init_lr": 0.5, "halve_every": 2, "device": "cpu", **settings})


def test_a_run_is_the_loop_of_the_formula():
    x, y = digits(60)
    weights = np.random.RandomState(0).uniform(0.2, 2, len(y)).astype(np.float32)
    found = condenser(iterations=3, epochs=2).fit(x, y, sample_weight=weights)
    seed = int(np.random.RandomState(0).randint(2**31))
    mean, deviation = x.mean(), x.std()
    standard = torch.from_numpy((x - mean) / deviation).float()
    real = RealImages(standard, torch.from_numpy(y), torch.from_numpy(weights))
    images = real.start(2, False, drawn_from(seed, 0)).flatten(0, 1).double()
    raw = torch.full((4,), np.log(np.expm1(0.5)), dtype=torch.float64)
    labels = torch.arange(10).repeat_interleave(2)
    steps = torch.tensor([[2 * label + place for label in range(10)] for place in (0, 1, 0, 1)])
    movers, losses = [reference.Adam(0.1, (0.5, 0.999)) for _ in range(2)], []
    for iteration, lr in enumerate([0.1, 0.1, 0.05]):
        generator = drawn_from(seed, iteration + 1)
        network = fresh_network(perceptron, (1, 8, 8), 10, CPU, generator).double()
        batch = Batch(*(part.double() if part.is_floating_point() else part for part in real.of_all(32, generator)))
        images, raw = images.requires_grad_(), raw.requires_grad_()
        rates = (1 + raw.exp()).log()
        after = reference.trained(reference.perceptron, list(network.parameters()), images, labels, steps, rates)
        loss = reference.mean_loss(reference.perceptron, after, *batch)
        gradients = torch.autograd.grad(loss, (images, raw))
        images, raw = (
            mover.moved(value.detach(), gradient, lr)
            for mover, value, gradient in zip(movers, (images, raw), gradients, strict=True)
        )
        losses.append(float(loss.detach()))
    np.testing.assert_allclose(found.losses_, losses, rtol=1e-4)
    np.testing.assert_allclose(found.images_, images.numpy() * deviation + mean, atol=2e-2)  # of pixels from 0 to 16
    np.testing.assert_allclose(found.learning_rates_, (1 + raw.exp()).log().numpy(), rtol=1e-3)
    np.testing.assert_array_equal(found.steps_, steps.numpy())


def test_the_same_seed_gives_the_same_bits_also_resumed(tmp_path):
    x, y = digits()
    names = np.array(list("abcdefghij"))[y]
    whole = condenser().fit(x, names)
    again = condenser().fit(x, names)
    np.testing.assert_array_equal(again.images_, whole.images_)
    np.testing.assert_array_equal(again.learning_rates_, whole.learning_rates_)
    assert not np.array_equal(condenser(random_state=1).fit(x, names).images_, whole.images_)
    path = tmp_path / "run.pt"
    condenser(iterations=2).fit(x, names, checkpoint=path)
    resumed = condenser()
    images, labels = resumed.fit_resample(x, names, checkpoint=path)
    np.testing.assert_array_equal(images, whole.images_)
    assert labels.tolist() == [name for name in "abcdefghij" for _ in range(2)]
    np.testing.assert_array_equal(resumed.learning_rates_, whole.learning_rates_)
    np.testing.assert_array_equal(resumed.losses_, whole.losses_)
    for other in ({"init_lr": 0.4}, {"epochs": 2}, {"halve_every": 3}, {"network": PUBLISHED}):
        with pytest.raises(ValueError, match=r"`checkpoint`"):
            condenser(**other).fit(x, names, checkpoint=path)


def test_a_tenth_of_the_iterations_is_part_of_the_run(tmp_path):
    path = tmp_path / "run.pt"
    condenser(iterations=20, halve_every=None).fit(*digits(60), checkpoint=path)
    with pytest.raises(ValueError, match=r"`checkpoint`.*'halve_every': 2"):
        condenser(iterations=30, halve_every=None).fit(*digits(60), checkpoint=path)
    condenser(iterations=21, halve_every=2).fit(*digits(60), checkpoint=path)


def test_less_memory_changes_rounding_only():
    x, y = digits()
    whole, less = condenser().fit(x, y), condenser(steps_in_memory=1, rows_at_once=10).fit(x, y)
    np.testing.assert_allclose(less.images_, whole.images_, atol=1e-2)
    np.testing.assert_allclose(less.learning_rates_, whole.learning_rates_, rtol=1e-3)


def test_every_step_has_its_images_of_every_class():
    x, y = digits(60)
    found = condenser(ipc=4, steps=2, epochs=3).fit(x, y)
    assert found.steps_.shape == (6, 20)
    assert found.learning_rates_.shape == (6,)
    assert len(set(found.learning_rates_.tolist())) == 6
    for number, rows in enumerate(found.steps_):
        np.testing.assert_array_equal(found.labels_[rows], np.repeat(np.arange(10), 2))
        assert set(rows % 4) == ({0, 1} if number % 2 == 0 else {2, 3})
    assert condenser(ipc=3, iterations=1).fit(x, y).steps_.shape == (9, 10)


@pytest.mark.parametrize("soft", [False, True])
def test_training_as_distilled_is_plain_gradient_descent(soft):
    network, (x, labels, steps, rates, _) = small(perceptron), problem((1, 2, 2))
    targets = torch.softmax(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double(), 1)
    labels = targets if soft else labels
    expected = reference.trained(reference.perceptron, list(network.parameters()), x, labels, steps, rates)
    train_as_distilled(network, x, labels, steps, rates)
    assert not network.training
    for value, wanted in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(value, wanted, check_dtype=True, rtol=1e-10, atol=1e-12)


def test_a_saved_set_trains_networks_as_it_was_learned(tmp_path):
    x, y = digits()
    condenser(iterations=2).fit(x, y).condensed_set().save(tmp_path / "set.npz")
    small_set = CondensedSet.load(tmp_path / "set.npz")
    assert small_set.steps.shape == (6, 10)
    assert small_set.synthetic
    test_x = torch.from_numpy((x - x.mean()) / x.std()).float()
    found = evaluate_distilled(small_set, test_x, y, network=perceptron, networks=2, seed=3, device="cpu")
    again = evaluate_distilled(small_set, test_x, y, network=perceptron, networks=1, seed=3, device="cpu")
    assert found.accuracies[0] == again.accuracies[0]
    for number, accuracy in enumerate(found.accuracies):
        with seeded(network_seeds(3, number).weights, CPU):
            network = perceptron((1, 8, 8), 10)
        rates = [float(rate) for rate in small_set.learning_rates]
        after = reference.trained(
            reference.perceptron, list(network.parameters()), small_set.x, small_set.labels, small_set.steps, rates
        )
        right = [
            int(reference.perceptron(after, image).argmax()) == label for image, label in zip(test_x, y, strict=True)
        ]
        assert accuracy == pytest.approx(np.mean(right), abs=0.011)


@pytest.mark.slow
def test_images_beat_random_ones_however_these_are_trained_on():
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 1, 8, 8)
    train, test = slice(0, 1437), slice(1437, None)
    found = DatasetDistillation(iterations=600, lr=0.05, batch_size=256, device="cpu", random_state=0)
    small_set = found.fit(x[train], y[train]).condensed_set()
    mean, deviation = small_set.normalisation.mean[0], small_set.normalisation.std[0]
    test_x = torch.from_numpy((x[test] - mean) / deviation).float()
    learned = evaluate_distilled(small_set, test_x, y[test], device="cpu")
    chosen, labels = Random(ipc=1, random_state=0).fit_resample(x[train], y[train])
    random = evaluate(
        torch.from_numpy((chosen - mean) / deviation).float(), labels, test_x, y[test],
        network=PUBLISHED, settings=EvalSettings(networks=3, device="cpu"),
    )  # fmt: skip
    assert learned.mean - learned.std > random.mean + random.std


def test_published_weights():
    for shape in ((1, 28, 28), (1, 8, 8)):
        with seeded(0, CPU):
            network = Xavier()(shape, 10)
        layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        assert len(layers) == (5 if shape[1] == 28 else 3)
        assert all(not part.bias.any() for part in layers)
        widest = max((part for part in layers if isinstance(part, nn.Linear)), key=lambda part: part.weight.numel())
        wanted = (2 / sum(widest.weight.shape)) ** 0.5
        assert float(widest.weight.detach().std()) == pytest.approx(wanted, rel=0.05)


def dropping(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, classes))


def batch_norm(shape, classes):
    return ConvNet(1, classes, shape[1:], width=4, norm="batch")


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"ipc": 0}, None, "`ipc`"),
        ({"steps": 3}, None, "`steps`.*ipc=2"),
        ({"steps": 0}, None, "`steps`"),
        ({"epochs": 0}, None, "`epochs`"),
        ({"iterations": 0}, None, "`iterations`"),
        ({"lr": 0.0}, None, "`lr`"),
        ({"init_lr": -0.1}, None, "`init_lr`"),
        ({"halve_every": 0}, None, "`halve_every`"),
        ({"batch_size": 0}, None, "`batch_size`"),
        ({"steps_in_memory": -1}, None, "`steps_in_memory`"),
        ({"rows_at_once": 0}, None, "`rows_at_once`"),
        ({"init": "zeros"}, None, "`init`"),
        ({"network": lambda shape, classes: nn.Flatten()}, None, "`network`.*parameters"),
        ({"network": dropping}, None, "`network`.*dropout"),
        ({"network": batch_norm}, None, "`network`.*batch norm"),
        ({"network": architectures.lenet}, None, "`sample_shape`.*lenet"),
        ({}, lambda x, y: (x.reshape(len(x), -1), y), "`X`.*images"),
        ({}, lambda x, y: (np.where(x > 15, np.nan, x), y), "NaN"),
        ({}, lambda x, y: (x, y * 0), "`y`.*two classes"),
    ],
)
def test_bad_input(settings, change, message):
    x, y = digits(60)
    if change is not None:
        x, y = change(x, y)
    with pytest.raises(ValueError, match=message):
        condenser(**settings).fit(x, y)


def test_a_run_that_diverges_leaves_the_checkpoint_as_it_was(tmp_path):
    path = tmp_path / "run.pt"
    settings = {"network": plain_network, "init_lr": 1e20, "epochs": 3, "iterations": 2}
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        condenser(**settings).fit(*digits(60), checkpoint=path)
    assert not path.exists()


def test_a_gradient_that_overflows_is_told_though_the_loss_is_finite(monkeypatch, tmp_path):
    def overflowing(network, x, labels, steps, rates, real, **settings):
        return Unrolled(torch.ones(()), torch.full_like(x, torch.inf), torch.zeros_like(rates))

    monkeypatch.setattr(dataset, "unrolled_gradients", overflowing)
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        condenser(iterations=1).fit(*digits(60), checkpoint=tmp_path / "run.pt")
    assert not (tmp_path / "run.pt").exists()


def test_classes_of_one_image_and_uint8():
    x, y = digits(60)
    rows = np.append(np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:1])
    found = condenser(iterations=2, init="real").fit(x[rows].astype(np.uint8), y[rows])
    assert found.images_.shape == (6, 1, 8, 8)
    assert np.isfinite(found.images_).all()


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_sets():
    network, (x, labels, steps, rates, _) = small(perceptron), problem((1, 2, 2))
    with pytest.raises(ValueError, match="`labels` must be 6"):
        train_as_distilled(network, x, labels[:5], steps, rates)
    with pytest.raises(ValueError, match="`learning_rates` must be 4"):
        train_as_distilled(network, x, labels, steps, rates[:3])
    plain = CondensedSet(x=x.float(), labels=labels, method="DC")
    with pytest.raises(ValueError, match="`condensed` must have steps"):
        evaluate_distilled(plain, x.float(), labels)
    learned = CondensedSet(x=x.float(), labels=labels, method="DD", steps=steps, learning_rates=1e30 * rates.float())
    with pytest.raises(ValueError, match="`network` must give finite logits"):
        evaluate_distilled(learned, x.float(), labels, device="cpu")
    with pytest.raises(ValueError, match="`networks`"):
        evaluate_distilled(learned, x.float(), labels, networks=0)
    with pytest.raises(ValueError, match="`test_x`"):
        evaluate_distilled(learned, torch.full_like(x.float(), torch.nan), labels)
