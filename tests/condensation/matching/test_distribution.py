"""Distribution matching against a slow reference, and itself resumed."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from condensation.augmentation.siamese import SiameseAugmentation
from condensation.coresets import Random
from condensation.coresets.features import last_input
from condensation.matching import DistributionMatching
from condensation.matching.distribution import mean_distance
from lossbuf.networks import ConvNet
from lossbuf.training import seeded


def narrow(shape, classes):
    return ConvNet(shape[0], classes, shape[1:], width=8, depth=2)


def digits(rows=200):
    x, y = load_digits(return_X_y=True)
    return x[:rows].reshape(-1, 1, 8, 8), y[:rows]


def condenser(**settings):
    usual = {"ipc": 2, "network": narrow, "iterations": 3, "batch_size": 32, "lr": 0.3, "random_state": 0}
    return DistributionMatching(**{**usual, "device": "cpu", **settings})


def test_distance_matches_the_loop_and_finite_differences():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    synthetic = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)
    weights = torch.ones(3, 5, dtype=torch.float64)
    weights[1, 2:] = 0
    expected = 0.0
    for label in range(3):
        rows = [real[label, row] for row in range(5) if weights[label, row]]
        gap = sum(rows) / len(rows) - (synthetic[label, 0] + synthetic[label, 1]) / 2
        expected += float((gap * gap).sum())
    assert float(mean_distance(real, weights, synthetic)) == pytest.approx(expected)
    synthetic.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: mean_distance(real, weights, values), (synthetic,))


def test_the_first_step_is_that_of_the_formula():
    x, y = digits(60)
    found = condenser(iterations=1, augment=None, batch_size=1000, ipc=1, momentum=0.0)
    before = condenser(iterations=1, augment=None, batch_size=1000, ipc=1, lr=1e-12).fit(x, y).images_
    found.fit(x, y)
    standard = (torch.from_numpy(x).float() - x.mean()) / x.std()
    images = ((torch.from_numpy(before) - x.mean()) / x.std()).float().requires_grad_()
    # The network's weights are the first thing that the iteration draws.
    state = np.random.SeedSequence(int(np.random.RandomState(0).randint(2**31)), spawn_key=(1,))
    generator = torch.Generator().manual_seed(int(state.generate_state(1, np.uint64)[0]))
    with seeded(int(torch.randint(2**62, (1,), generator=generator)), torch.device("cpu")):
        network = narrow((1, 8, 8), 10)
    loss = 0.0
    for label in range(10):
        mean = network.features(standard[torch.from_numpy(y == label)]).mean(0).detach()
        loss = loss + (network.features(images[label : label + 1])[0] - mean).square().sum()
    loss.backward()
    moved = images.detach() - 0.3 * images.grad
    np.testing.assert_allclose(found.images_, moved.numpy() * x.std() + x.mean(), atol=2e-3)
    assert found.losses_[0] == pytest.approx(float(loss.detach()) / 10, rel=1e-4)


@pytest.mark.parametrize("augment", [None, SiameseAugmentation(("crop", "scale"))], ids=["plain", "siamese"])
def test_the_same_seed_gives_the_same_bits_also_resumed(augment, tmp_path):
    x, y = digits()
    whole = condenser(augment=augment).fit(x, y)
    np.testing.assert_array_equal(condenser(augment=augment).fit(x, y).images_, whole.images_)
    assert not np.array_equal(condenser(augment=augment, random_state=1).fit(x, y).images_, whole.images_)
    path = tmp_path / "run.pt"
    condenser(augment=augment, iterations=1).fit(x, y, checkpoint=path)
    resumed = condenser(augment=augment)
    images, labels = resumed.fit_resample(x, y, checkpoint=path)
    np.testing.assert_array_equal(images, whole.images_)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 2))
    np.testing.assert_array_equal(resumed.losses_, whole.losses_)
    with pytest.raises(ValueError, match=r"`checkpoint`.*batch_size"):
        condenser(augment=augment, batch_size=16).fit(x, y, checkpoint=path)


def test_means_come_closer_than_those_of_random_rows():
    x, y = digits()
    found = condenser(iterations=60, augment=None).fit(x, y)
    assert found.losses_[-10:].mean() < 0.5 * found.losses_[:5].mean()

    def gap(images):
        means = [
            np.square(x[y == label].mean(0) - images[2 * label : 2 * label + 2].mean(0)).sum() for label in range(10)
        ]
        return np.sum(means)

    assert gap(found.images_) < gap(Random(ipc=2, random_state=0).fit_resample(x, y)[0])


def test_features_are_what_the_last_linear_layer_is_given():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(last_input(network, x), network[:3](x))
    assert not network[1]._forward_pre_hooks
    with pytest.raises(ValueError, match="`network`"):
        last_input(nn.Flatten(), x)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("settings", "name"),
    [({"ipc": 0}, "ipc"), ({"iterations": 0}, "iterations"), ({"init": "zeros"}, "init"), ({"lr": 0.0}, "lr")],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        condenser(**settings).fit(*digits(60))
