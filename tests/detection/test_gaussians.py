"""Tests of lossbuf.detection.gaussians."""

import warnings

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from lossbuf.detection.gaussians import ITERATIONS, REGULARISATION, TOLERANCE, two_gaussians


def points(kind, size, seed):
    draws = np.random.default_rng(seed)
    if kind == "heaps":
        values = np.where(draws.random(size) < 0.3, draws.normal(0.7, 0.1, size), draws.normal(0.2, 0.1, size))
    elif kind == "one heap":
        values = draws.normal(0.4, 0.1, size)
    elif kind == "nearly one value":
        values = np.where(draws.random(size) < 0.95, 0.0, 1.0)
        values[-1] = 1.0
    else:
        values = draws.exponential(0.1, size)
    return np.sort(np.clip(np.round(values, 2), 0, 1))


def by_scikit_learn(values):
    """The same start, by trying every split, and then scikit-learn's iterations."""
    splits = [np.flatnonzero(values >= value)[0] for value in np.unique(values)[1:]]
    split = min(splits, key=lambda at: at * values[:at].var() + (len(values) - at) * values[at:].var())
    parts = values[:split], values[split:]
    start = [values[int(np.ceil(q * len(values))) - 1] for q in (0.1, 0.9)]
    if start[0] == start[1]:
        start = [part.mean() for part in parts]
    model = GaussianMixture(
        2,
        max_iter=ITERATIONS,
        tol=TOLERANCE,
        reg_covar=REGULARISATION,
        weights_init=[len(part) / len(values) for part in parts],
        means_init=np.array(start)[:, None],
        precisions_init=np.array([1 / (part.var() + REGULARISATION) for part in parts])[:, None, None],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(values[:, None])
    order = np.argsort(model.means_.ravel())
    return [part.ravel()[order] for part in (model.means_, model.covariances_, model.weights_)]


@pytest.mark.parametrize("kind", ["heaps", "one heap", "tail", "nearly one value"])
@pytest.mark.parametrize("size", [10, 100, 2000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matches_scikit_learn(kind, size, seed):
    values = points(kind, size, seed)
    once, often = np.unique(values, return_counts=True)
    expected = by_scikit_learn(values)
    for found in (two_gaussians(values, np.ones(size)), two_gaussians(once, often.astype(float))):
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-9)


def test_the_lower_mean_comes_first():
    for seed in range(20):
        found = two_gaussians(points("one heap", 30, seed), np.ones(30))
        assert found.means[0] <= found.means[1]
        assert found.weights.sum() == pytest.approx(1)
        assert (found.variances >= REGULARISATION).all()


def test_two_points():
    found = two_gaussians(np.array([0.0, 1.0]), np.array([3.0, 1.0]))
    assert found.means.tolist() == pytest.approx([0, 1], abs=1e-9)
    assert found.weights.tolist() == pytest.approx([0.75, 0.25], abs=1e-9)
