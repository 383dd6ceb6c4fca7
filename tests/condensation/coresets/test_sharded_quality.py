"""Coresets over shards are nearly as good as those of all rows at once."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

from condensation.coresets import Craig, Crust, Herding, KCenter, KMeans, Random, Sharded


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


def served(x, y, rows):
    """Facility location's objective, class by class in float64."""
    total = 0.0
    for label in np.unique(y):
        mine = torch.from_numpy(x[y == label]).double()
        far = torch.cdist(mine, torch.from_numpy(x[rows[y[rows] == label]]).double())
        total += float((torch.cdist(mine, mine).max() - far.amin(1)).sum())
    return total


def reach(x, y, rows):
    """The largest distance of a row to the nearest chosen one of its class."""
    return max(
        float(
            torch.cdist(*(torch.from_numpy(part).double() for part in (x[y == one], x[rows[y[rows] == one]])))
            .amin(1)
            .max()
        )
        for one in np.unique(y)
    )


def off(x, y, rows):
    """How far the means of the classes are missed."""
    return sum(float(np.linalg.norm(x[rows[y[rows] == one]].mean(0) - x[y == one].mean(0))) for one in np.unique(y))


def test_as_good_as_without_shards(digits):
    X, y = digits

    def both(selector):
        shards = Sharded(selector, n_shards=8, random_state=0).fit(X, y)
        return shards.sample_indices_, clone(selector).fit(X, y).sample_indices_

    drawn = Random(ipc=10, random_state=0).fit(X, y).sample_indices_
    found, whole = both(Craig(ipc=10, features=X))
    assert served(X, y, found) > 0.97 * served(X, y, whole) > served(X, y, drawn)
    found, whole = both(KCenter(ipc=10))
    assert reach(X, y, found) < 1.1 * reach(X, y, whole) < reach(X, y, drawn)
    found, whole = both(Herding(ipc=10))
    assert off(X, y, found) < 1.4 * off(X, y, whole) < off(X, y, drawn)
    found, whole = both(KMeans(ipc=10, random_state=0))
    assert served(X, y, found) > 0.97 * served(X, y, whole) > served(X, y, drawn)


def test_weights_make_up_for_shards_of_unequal_size():
    """A shard of nearly all rows and a shard of a few: the few must not count for half."""
    draws = np.random.default_rng(0)
    X = np.concatenate([draws.normal(0, 1, (400, 2)), draws.normal(20, 1, (20, 2))]).astype(np.float32)
    shards = [(X[:400], np.zeros(400)), (X[400:], np.zeros(20))]
    herding = Sharded(Herding(ipc=20))
    samples, _ = herding.fit_resample_shards(shards)
    assert np.linalg.norm(samples.mean(0) - X.mean(0)) < 0.2
    crust = Sharded(Crust(ipc=10, features=lambda X, labels, seed: X))
    samples, _ = crust.fit_resample_shards(shards)
    assert crust.sample_weight_[samples[:, 0] > 10].sum() == 20
    means = Sharded(KMeans(ipc=10, random_state=0))
    samples, _ = means.fit_resample_shards(shards)
    assert (samples[:, 0] > 10).sum() < 5


def test_more_candidates_do_better(digits):
    X, y = digits
    reached = [
        served(X, y, Sharded(Craig(ipc=5, features=X), oversample=times, random_state=0).fit(X, y).sample_indices_)
        for times in (1, 4)
    ]
    assert reached[0] < reached[1]
