"""Gradient matching against slow references, finite differences, and itself resumed."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from condensation.augmentation.siamese import SiameseAugmentation
from condensation.learned.real_images import RealImages
from condensation.matching.class_gradients import class_gradients, freeze_statistics
from condensation.matching.distance import gradient_distance
from condensation.matching.gradient import GradientMatching, loops
from condensation.subspace import reconstruction_error
from lossbuf.networks import ConvNet
from lossbuf.training import seeded
from tests.reference import matching as reference


def small(norm="instance", channels=1, classes=3, seed=0):
    with seeded(seed, torch.device("cpu")):
        return ConvNet(channels, classes, (4, 4), width=3, depth=2, norm=norm).double()


def images(classes=3, batch=5, channels=1, size=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(classes, batch, channels, size, size, generator=generator, dtype=torch.float64)


def test_distance_matches_the_loop():
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 2, 3, 3), (4,), (5, 7), (5,), (1, 1)]
    real, other = ([torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(2))
    torch.testing.assert_close(gradient_distance(real, other), reference.gradient_distance(real, other))
    assert float(gradient_distance(real, real)) < 1e-4
    real[0][2] = 0  # a dead output
    torch.testing.assert_close(gradient_distance(real, other), reference.gradient_distance(real, other))


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("real", "other"),
    [([torch.ones(2, 2)], []), ([torch.ones(2, 2)], [torch.ones(2, 3)]), ([torch.ones(2)], [torch.ones(2)])],
)
def test_bad_gradients(real, other):
    with pytest.raises(ValueError, match=r"`(real|synthetic)`"):
        gradient_distance(real, other)


@pytest.mark.parametrize("norm", ["instance", "none", "batch"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"together": True}, {"rows_at_once": 2}, {"rows_at_once": 2, "together": True}, {"create_graph": True}],
    ids=str,
)
def test_class_gradients_match_the_loop(norm, settings):
    network, x = small(norm), images()
    weights = torch.ones(3, 5, dtype=torch.float64)
    weights[1, 3:] = 0
    weights[2] = torch.arange(1, 6)
    freeze_statistics(network, x.flatten(0, 1))
    expected = reference.class_gradients(network, x, weights)
    found = class_gradients(network, x, weights, **settings)
    for parameter, rows in enumerate(found):
        for label in range(3):
            torch.testing.assert_close(rows[label].detach(), expected[label][parameter], rtol=1e-9, atol=1e-12)


def test_frozen_statistics_are_those_of_the_images_given():
    network, x = small("batch"), images().flatten(0, 1)
    assert not freeze_statistics(small(), x)
    with torch.no_grad():
        before = [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for _ in range(3):
            network.train()(10 * x)
        assert freeze_statistics(network, x)
        assert before == [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        first = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        conv = network.features[0](x)
    torch.testing.assert_close(first.running_mean, conv.mean((0, 2, 3)))
    assert not first.training
    assert network.training


@pytest.mark.parametrize("together", [False, True])
def test_the_gradient_of_the_images_is_that_of_finite_differences(together):
    network, real = small(), images(batch=4)
    ones = torch.ones(3, 4, dtype=torch.float64)
    target = class_gradients(network, real, ones)

    def distance(synthetic):
        found = class_gradients(network, synthetic, ones[:, :1], together=together, create_graph=True)
        pairs = [(a.detach().flatten(0, 1), b.flatten(0, 1)) for a, b in zip(target, found, strict=True) if a.ndim > 2]
        return gradient_distance([a for a, _ in pairs], [b for _, b in pairs])

    synthetic = images(batch=1, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(distance, (synthetic,), eps=1e-6, atol=1e-5)
    # The sum over classes of the loop's distances.
    expected = sum(
        reference.gradient_distance([a[label] for a in target], found)
        for label, found in enumerate(reference.class_gradients(network, synthetic.detach(), ones[:, :1]))
    )
    torch.testing.assert_close(distance(synthetic), expected)


def test_real_images_are_drawn_by_class():
    labels = torch.tensor([0] * 7 + [1] * 3 + [2] * 5)
    x = torch.arange(15.0).view(15, 1, 1, 1)
    real = RealImages(x, labels)
    generator = torch.Generator().manual_seed(0)
    drawn, weights = real.batch(4, generator)
    assert drawn.shape == (3, 4, 1, 1, 1)
    assert weights.sum(1).tolist() == [4, 3, 4]
    for label in range(3):
        rows = drawn[label, weights[label] > 0].flatten().long()
        assert labels[rows].tolist() == [label] * len(rows)
        assert len(rows.unique()) == len(rows)
    assert real.batch(100, generator)[0].shape[1] == 7
    some = real.some(6, generator).flatten(1).long()
    assert torch.equal(labels[some], torch.arange(3).view(3, 1).expand(3, 6))
    assert sorted(set(some[1].tolist())) == [7, 8, 9]


def test_published_loops_and_the_rule_between():
    assert [loops(ipc) for ipc in (1, 10, 20, 30, 40, 50)] == [(1, 1), (10, 50), (20, 25), (30, 20), (40, 15), (50, 10)]
    assert loops(2) == (2, 50)
    assert loops(25) == (25, 20)
    assert loops(1000) == (1000, 1)


def digits(rows=200):
    x, y = load_digits(return_X_y=True)
    return x[:rows].reshape(-1, 1, 8, 8), y[:rows]


def narrow(shape, classes):
    return ConvNet(shape[0], classes, shape[1:], width=8, depth=2)


def condenser(**settings):
    usual = {"ipc": 2, "network": narrow, "iterations": 3, "outer_steps": 2, "inner_epochs": 2, "random_state": 0}
    return GradientMatching(**{**usual, "batch_size": 32, "device": "cpu", **settings})


@pytest.mark.parametrize("augment", [None, SiameseAugmentation(("color", "crop", "rotate"))], ids=["DC", "DSA"])
def test_the_same_seed_gives_the_same_bits_also_resumed(augment, tmp_path):
    x, y = digits()
    names = np.array(list("abcdefghij"))[y]
    whole = condenser(augment=augment).fit(x, names)
    assert whole.images_.shape == (20, 1, 8, 8)
    assert whole.labels_.tolist() == [name for name in "abcdefghij" for _ in range(2)]
    assert len(whole.losses_) == 3
    np.testing.assert_array_equal(condenser(augment=augment).fit(x, names).images_, whole.images_)
    assert not np.array_equal(condenser(augment=augment, random_state=1).fit(x, names).images_, whole.images_)
    path = tmp_path / "run.pt"
    condenser(augment=augment, iterations=2).fit(x, names, checkpoint=path)
    resumed = condenser(augment=augment).fit(x, names, checkpoint=path)
    np.testing.assert_array_equal(resumed.images_, whole.images_)
    np.testing.assert_array_equal(resumed.losses_, whole.losses_)
    with pytest.raises(ValueError, match=r"`checkpoint`.*lr"):
        condenser(augment=augment, lr=0.2).fit(x, names, checkpoint=path)
    with pytest.raises(ValueError, match=r"`checkpoint`.*data"):
        condenser(augment=augment).fit(x + 1e-3 * x**2, names, checkpoint=path)


def test_one_pass_equals_the_loop():
    x, y = digits()
    loop, one = (condenser(classes_at_once=many, iterations=2).fit(x, y).images_ for many in (1, 4))
    np.testing.assert_allclose(one, loop, atol=1e-3)  # of pixels from 0 to 16
    assert np.abs(one - condenser(iterations=1).fit(x, y).images_).max() > 0.1


def test_gradients_come_closer_and_global_generators_stay():
    x, y = digits()
    before = torch.get_rng_state()
    found = condenser(ipc=1, iterations=40, outer_steps=1, lr=0.03).fit(x, y)
    assert torch.equal(before, torch.get_rng_state())
    assert found.losses_[-10:].mean() < 0.8 * found.losses_[:10].mean()


def test_initial_images_and_units():
    x, y = digits()
    still = condenser(iterations=1, lr=1e-12, init="real").fit(x, y)
    for image, label in zip(still.images_, still.labels_, strict=True):
        assert np.abs(x[y == label] - image).max((1, 2, 3)).min() < 1e-3
    noise = condenser(iterations=1, lr=1e-12).fit(x, y)
    assert abs(noise.images_.mean() - x.mean()) < 1
    assert abs(noise.images_.std() - x.std()) < 1


def test_a_class_of_one_image_and_unequal_classes():
    x, y = digits(60)
    rows = np.flatnonzero((y == 0) | (y == 1))
    rows = np.append(rows, np.flatnonzero(y == 2)[:1])
    found = condenser(iterations=1, init="real").fit(x[rows], y[rows])
    assert found.images_.shape == (6, 1, 8, 8)
    assert np.isfinite(found.images_).all()


def linear(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, classes))


def test_the_error_of_reconstruction_is_added_and_falls():
    x, y = digits()
    usual = {"ipc": 2, "iterations": 30, "outer_steps": 1, "lr": 0.03}
    without, some = (condenser(reconstruction=weight, **usual).fit(x, y) for weight in (0.0, 50.0))
    standard = torch.from_numpy((x - x.mean()) / x.std()).float()

    def error(found):
        total = 0.0
        for label in range(10):
            images = torch.from_numpy(found.images_[found.labels_ == label])
            real = standard[torch.from_numpy(y == label)].unsqueeze(0)
            images = ((images - x.mean()) / x.std()).float().unsqueeze(0)
            total += float(reconstruction_error(real, torch.ones(real.shape[:2]), images))
        return total

    assert error(some) < 0.9 * error(without)
    first = [condenser(reconstruction=weight, **usual | {"iterations": 1}).fit(x, y) for weight in (0.0, 1.0, 2.0)]
    none, one, two = (found.losses_[0] for found in first)
    assert two - one == pytest.approx(one - none, rel=1e-3)
    assert one > none


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"ipc": 0}, None, "`ipc`"),
        ({"iterations": 0}, None, "`iterations`"),
        ({"lr": -1.0}, None, "`lr`"),
        ({"reconstruction": -1.0}, None, "`reconstruction`"),
        ({"classes_at_once": 0}, None, "`classes_at_once`"),
        ({"rows_at_once": 0}, None, "`rows_at_once`"),
        ({"init": "zeros"}, None, "`init`"),
        ({"network": lambda shape, classes: nn.Flatten()}, None, "`network`.*weights"),
        ({"network": linear}, None, "`network`.*drop"),
        ({}, lambda x, y: (x.reshape(len(x), -1), y), "`X`.*images"),
        ({}, lambda x, y: (np.where(x > 15, np.nan, x), y), "NaN"),
        ({}, lambda x, y: (x, y * 0), "`y`.*two classes"),
        ({}, lambda x, y: (x, y[:-1]), "inconsistent"),
    ],
)
def test_bad_input(settings, change, message):
    x, y = digits(60)
    if change is not None:
        x, y = change(x, y)
    with pytest.raises(ValueError, match=message):
        condenser(**settings).fit(x, y)


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"run\.pt"):
        condenser().fit(*digits(60), checkpoint=path)
    assert path.read_bytes() == b"nonsense"
