"""Label distillation against slow references, finite differences, and itself resumed."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from condensation.artifact import CondensedSet
from condensation.artifact.provenance import Provenance
from condensation.distillation import LabelDistillation
from condensation.distillation.labels import _Ridge, as_probabilities, ridge_head, second_order_gradients, worn_out
from condensation.evaluate import EvalSettings, evaluate
from condensation.learned.networks import fresh_network
from condensation.learned.real_images import Batch, RealImages
from condensation.learned.run import drawn_from
from lossbuf.networks import ConvNet, architectures
from lossbuf.training import seeded
from tests.reference import distillation as reference

CPU = torch.device("cpu")
FORMS = ["ridge", "second-order"]


def perceptron(shape=(1, 2, 2), classes=3):
    pixels = int(np.prod(shape))
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 5), nn.Tanh(), nn.Linear(5, classes))


def small():
    with seeded(0, CPU):
        return perceptron().double()


def problem(few=4, seed=0):
    """Images, soft labels and real images, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(few, 1, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.rand(few, 3, generator=generator, dtype=torch.float64)
    real_x = torch.randn(7, 1, 2, 2, generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(7, generator=generator, dtype=torch.float64)
    real = Batch(real_x, torch.tensor([0, 1, 2, 0, 1, 2, 2]), weights)
    return x, labels / labels.sum(1, keepdim=True), real


def test_the_second_order_gradient_is_that_of_one_graph_and_of_finite_differences():
    network, (x, labels, real) = small(), problem()
    before = [value.clone() for value in network.parameters()]
    loss, gradient, slopes = second_order_gradients(network, x, labels, 0.3, real)
    parameters = list(network.parameters())

    def judged(labels):
        rows = torch.arange(4)[None]
        after = reference.trained(reference.perceptron, parameters, x, labels, rows, [0.3])
        return reference.mean_loss(reference.perceptron, after, *real)

    wanted = labels.clone().requires_grad_()
    torch.testing.assert_close(loss, judged(wanted).detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(judged(wanted), wanted)[0], rtol=1e-9, atol=1e-14)
    nudge = torch.zeros_like(labels)
    nudge[1, 2] = 1e-5
    difference = float((judged(labels + nudge) - judged(labels - nudge)).detach()) / 2e-5
    assert float(gradient[1, 2]) == pytest.approx(difference, rel=1e-6)
    own = torch.autograd.grad(reference.mean_loss(reference.perceptron, parameters, x, labels), parameters)
    for found, slope, value, old in zip(slopes, own, parameters, before, strict=True):
        torch.testing.assert_close(found, slope)
        assert torch.equal(value, old)


@pytest.mark.parametrize("penalty", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(("few", "many"), [(1, 4), (3, 7), (5, 5), (9, 4), (6, 1)])
def test_the_ridge_head_is_the_least_squares_one(few, many, penalty):
    generator = torch.Generator().manual_seed(few)
    features = torch.randn(few, many, generator=generator, dtype=torch.float64)
    features[-1] = features[0]  # a row twice
    labels = torch.rand(few, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(ridge_head(features, labels, penalty), reference.ridge(features, labels, penalty))
    inputs = (features.requires_grad_(), labels.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: ridge_head(a, b, penalty), inputs)


def test_an_iteration_of_ridge_is_that_of_the_formula():
    network, (x, labels, real) = small(), problem()
    form = _Ridge(network, 0.7, x[:1], 3)
    with torch.no_grad():
        form.scale.fill_(1.7)
        form.head.copy_(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)))
    parameters, scale = [value.detach().clone().requires_grad_() for value in network.parameters()], form.scale.detach()
    scale, given = scale.clone().requires_grad_(), labels.clone().requires_grad_()
    moved = as_probabilities(labels + 0.1)
    loss, own, head = reference.ridge_losses(parameters, scale, form.head.clone(), x, given, moved, real, 0.7)
    gradient = torch.autograd.grad(loss, given, retain_graph=True)[0]
    slopes = torch.autograd.grad(own, [scale, *parameters[:2]])
    told = []

    def move(found):
        told.append(found)
        return moved

    found = form.iterate(torch.optim.SGD(form.parameters(), lr=0.5), x, labels.clone(), real, move)
    torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(told[0], gradient)
    torch.testing.assert_close(form.head, head.detach())
    torch.testing.assert_close(form.scale.detach(), (scale - 0.5 * slopes[0]).detach())
    for number, value in enumerate(network.parameters()):
        step = 0.5 * slopes[number + 1] if number < 2 else 0.0  # the network's own last layer is idle
        torch.testing.assert_close(value.detach(), parameters[number].detach() - step)


def test_every_parameter_of_ridge_moves_at_its_rate():
    form = _Ridge(small(), 1.0, problem()[0][:1], 3)
    rates = {id(value): group["lr"] for group in form.groups(0.3) for value in group["params"]}
    assert rates == {id(value): 0.01 if value is form.scale else 0.3 for value in form.parameters()}


def test_labels_become_probabilities():
    labels = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels[0] = -1
    labels[1] = 3
    labels[2] = 0
    labels[3] = torch.tensor([-1, 1e-300, -1, 0])
    found = as_probabilities(labels)
    torch.testing.assert_close(found, reference.as_probabilities(labels))
    torch.testing.assert_close(found.sum(1), torch.ones(50, dtype=torch.float64))
    assert torch.equal(found[:3], torch.full((3, 4), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("patience", [1, 2, 7])
def test_a_network_is_worn_out_when_its_mean_loss_stays_above_its_least(patience):
    values = np.random.RandomState(0).normal(size=60) - 0.1 * np.minimum(np.arange(60), 30)
    values = values.round(1)  # ties too
    wanted = [reference.worn_out(values[:end].tolist(), patience) for end in range(61)]
    assert [worn_out(values[:end].tolist(), patience) for end in range(61)] == wanted
    assert any(wanted)
    assert not any(wanted[: 2 * patience])


def digits(rows=200):
    x, y = load_digits(return_X_y=True)
    return x[:rows].reshape(-1, 1, 8, 8), y[:rows]


def condenser(**settings):
    usual = {"ipc": 2, "network": perceptron, "iterations": 6, "batch_size": 32, "inner_batch": 12, "lr": 0.05}
    return LabelDistillation(**{**usual, "random_state": 0, "device": "cpu", **settings})


def double(batch):
    return Batch(*(part.double() if part.is_floating_point() else part for part in batch))


@pytest.mark.parametrize("form", FORMS)
def test_a_run_is_the_loop_of_the_formula(form):
    x, y = digits(60)
    weights = np.random.RandomState(0).uniform(0.2, 2, len(y)).astype(np.float32)
    settings = {"lr_network": 0.01, "lr_step": 0.3, "penalty": 0.7, "iterations": 3}
    found = condenser(form=form, **settings).fit(x, y, sample_weight=weights)
    seed = int(np.random.RandomState(0).randint(2**31))
    real = RealImages(
        torch.from_numpy((x - x.mean()) / x.std()).float(), torch.from_numpy(y), torch.from_numpy(weights)
    )
    generator = drawn_from(seed, 0)
    rows = real.some_rows(2, generator).flatten()
    images, labels = real.x[rows].double(), torch.full((20, 10), 0.1, dtype=torch.float64)
    parameters = list(fresh_network(perceptron, (1, 8, 8), 10, CPU, generator).double().parameters())
    scale, head = torch.ones((), dtype=torch.float64), torch.zeros(6, 10, dtype=torch.float64)
    mover, scale_mover = reference.Adam(0.05), reference.Adam(0.01)
    movers = [reference.Adam(0.01) for _ in parameters]
    losses = []
    for iteration in range(3):
        generator = drawn_from(seed, iteration + 1)
        chosen = torch.randperm(20, generator=generator)[:12]
        batch = double(real.of_all(32, generator))
        labels, scale = labels.requires_grad_(), scale.requires_grad_()
        parameters = [value.detach().requires_grad_() for value in parameters]
        if form == "ridge":
            body = parameters[:2]
            placeholder = labels.detach()[chosen]
            loss, _, _ = reference.ridge_losses(
                body, scale, head, images[chosen], labels[chosen], placeholder, batch, 0.7
            )
        else:
            after = reference.trained(
                reference.perceptron, parameters, images[chosen], labels[chosen], torch.arange(12)[None], [0.3]
            )
            loss = reference.mean_loss(reference.perceptron, after, *batch)
        (gradient,) = torch.autograd.grad(loss, labels)
        before = labels.detach()
        labels = reference.as_probabilities(mover.moved(before, gradient))
        if form == "ridge":
            _, own, head = reference.ridge_losses(
                body, scale, head, images[chosen], before[chosen], labels[chosen], batch, 0.7
            )
            slopes = torch.autograd.grad(own, [*body, scale])
            scale, head = scale_mover.moved(scale.detach(), slopes[2]), head.detach()
        else:
            own = reference.mean_loss(reference.perceptron, parameters, images[chosen], before[chosen])
            slopes = torch.autograd.grad(own, parameters)
        parameters = [
            movers[number].moved(value.detach(), slopes[number])
            if number < 2 or form != "ridge"
            else value.detach()
            for number, value in enumerate(parameters)
        ]  # fmt: skip
        losses.append(float(loss.detach()))
    np.testing.assert_allclose(found.losses_, losses, rtol=1e-4)
    np.testing.assert_allclose(found.labels_, labels.numpy(), atol=2e-3)
    np.testing.assert_array_equal(found.sample_indices_, rows.numpy())


@pytest.mark.parametrize("form", FORMS)
def test_the_same_seed_gives_the_same_bits_also_resumed(form, tmp_path):
    x, y = digits()
    names = np.array(list("abcdefghij"))[y]
    whole = condenser(form=form).fit(x, names)
    np.testing.assert_array_equal(condenser(form=form).fit(x, names).labels_, whole.labels_)
    assert not np.array_equal(condenser(form=form, random_state=1).fit(x, names).labels_, whole.labels_)
    path = tmp_path / "run.pt"
    condenser(form=form, iterations=3).fit(x, names, checkpoint=path)
    resumed = condenser(form=form)
    images, labels = resumed.fit_resample(x, names, checkpoint=path)
    np.testing.assert_array_equal(images, whole.images_)
    np.testing.assert_array_equal(labels, whole.labels_)
    np.testing.assert_array_equal(resumed.losses_, whole.losses_)
    other = FORMS[form == "ridge"]
    for change in ({"form": other}, {"lr_network": 0.1}, {"patience": 3}, {"inner_batch": 5}):
        with pytest.raises(ValueError, match=r"`checkpoint`"):
            condenser(**{"form": form, **change}).fit(x, names, checkpoint=path)


@pytest.mark.parametrize("form", FORMS)
def test_fresh_networks_take_over_also_in_a_resumed_run(form, tmp_path):
    x, y = digits()
    made = []

    def counted(shape, classes):
        made.append(shape)
        return perceptron(shape, classes)

    settings = {"form": form, "network": counted, "patience": 1, "lr": 0.5, "lr_network": 0.3, "iterations": 60}
    whole = condenser(**settings).fit(x, y)
    assert len(made) > 2
    assert condenser(**{**settings, "patience": 50}).fit(x, y).losses_[-1] != whole.losses_[-1]
    for stop in (7, 43):
        path = tmp_path / f"{stop}.pt"
        condenser(**{**settings, "iterations": stop}).fit(x, y, checkpoint=path)
        resumed = condenser(**settings).fit(x, y, checkpoint=path)
        np.testing.assert_array_equal(resumed.labels_, whole.labels_)
        np.testing.assert_array_equal(resumed.losses_, whole.losses_)


def test_images_are_rows_as_they_were_given():
    x, y = digits()
    x = x / 7  # no binary fractions
    weights = np.ones(len(y))
    weights[::3] = 0
    found = condenser().fit(x, y, sample_weight=weights)
    np.testing.assert_array_equal(found.images_, x[found.sample_indices_].astype(np.float32))
    np.testing.assert_array_equal(y[found.sample_indices_], np.repeat(np.arange(10), 2))
    assert len(set(found.sample_indices_.tolist())) == 20
    assert weights[found.sample_indices_].all()
    assert found.labels_.dtype == np.float32
    np.testing.assert_allclose(found.labels_.sum(1), 1, atol=1e-6)
    assert found.labels_.min() >= 0
    assert np.ptp(found.labels_) > 0.1


def test_the_set_tells_which_rows_it_is_made_of(tmp_path):
    x, y = digits()
    found = condenser().fit(x, y)
    found.condensed_set().save(tmp_path / "set.npz")
    small_set = CondensedSet.load(tmp_path / "set.npz")
    assert not small_set.synthetic
    assert small_set.learning_rates is None
    assert small_set.provenance.rows.tolist() == found.sample_indices_.tolist()
    assert small_set.provenance.n_samples == len(y)
    np.testing.assert_array_equal(small_set.labels.numpy(), found.labels_)
    cleaned = torch.arange(len(y)) * 3
    told = found.condensed_set(provenance=Provenance(rows=cleaned, n_samples=600)).provenance
    assert told.rows.tolist() == (found.sample_indices_ * 3).tolist()
    with pytest.raises(ValueError, match="`rows` must be 200"):
        found.condensed_set(provenance=Provenance(rows=cleaned[:-1]))
    weights = np.ones(len(y))
    weights[:50] = 0
    last = condenser().fit(x, y, sample_weight=weights)
    assert last.condensed_set().provenance.rows.tolist() == last.sample_indices_.tolist()


def test_a_class_of_one_image_gives_it_twice():
    x, y = digits(60)
    rows = np.append(np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:1])
    found = condenser(form="second-order").fit(x[rows], y[rows])
    assert found.sample_indices_[4] == found.sample_indices_[5] == len(rows) - 1
    np.testing.assert_allclose(found.labels_.sum(1), 1, atol=1e-6)


def test_global_generators_stay():
    before = torch.get_rng_state()
    condenser().fit(*digits(60))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_learned_labels_beat_the_given_ones_of_random_images():
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 1, 8, 8)
    train, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=0)
    found = LabelDistillation(10, iterations=1000, lr=0.005, batch_size=256, random_state=0, device="cpu")
    small_set = found.fit(x[train], y[train]).condensed_set()
    mean, deviation = small_set.normalisation.mean[0], small_set.normalisation.std[0]
    test_x = torch.from_numpy((x[test] - mean) / deviation).float()
    settings = EvalSettings(networks=3, lr=0.03, device="cpu")
    learned, given = (
        evaluate(small_set.x, labels, test_x, y[test], network=architectures.mlp, settings=settings)
        for labels in (small_set.labels, y[found.sample_indices_])
    )
    assert learned.mean - learned.std > given.mean + given.std


def dropping(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, classes))


def batch_norm(shape, classes):
    return ConvNet(1, classes, shape[1:], width=4, norm="batch")


def no_linear(shape, classes):
    return nn.Sequential(nn.Conv2d(1, classes, 8), nn.Flatten())


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"ipc": 0}, None, "`ipc`"),
        ({"form": "first-order"}, None, "`form`"),
        ({"iterations": 0}, None, "`iterations`"),
        ({"lr": 0.0}, None, "`lr`"),
        ({"lr_network": -1.0}, None, "`lr_network`"),
        ({"lr_step": 0.0}, None, "`lr_step`"),
        ({"penalty": 0.0}, None, "`penalty`"),
        ({"inner_batch": 0}, None, "`inner_batch`"),
        ({"batch_size": 0}, None, "`batch_size`"),
        ({"patience": 0}, None, "`patience`"),
        ({"network": lambda shape, classes: nn.Flatten()}, None, "`network`.*parameters"),
        ({"network": dropping}, None, "`network`.*dropout"),
        ({"network": batch_norm}, None, "`network`.*batch norm"),
        ({"network": no_linear}, None, "`network`.*linear"),
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


def test_a_run_that_diverges_is_told():
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        condenser(form="second-order", network=architectures.mlp, lr_step=1e30).fit(*digits(60))
