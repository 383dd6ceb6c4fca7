"""Subspaces against least squares and eigendecompositions, and that no other span leaves less."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from condensation.evaluate import EvalSettings, evaluate
from condensation.subspace import (
    LDAPCAImages,
    PCAImages,
    cluster_means,
    discriminants,
    reconstruction_error,
    reconstruction_errors,
    second_moment_images,
)
from lossbuf.networks.architectures import mlp
from tests.reference import subspace as reference


def digits(rows=400):
    x, y = load_digits(return_X_y=True)
    return x[:rows].reshape(-1, 1, 8, 8), y[:rows]


def standard(x):
    return (x - x.mean()) / x.std()


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spanned(basis):
    """Projection onto the span of rows."""
    left, values, _ = np.linalg.svd(basis.T, full_matrices=False)
    left = left[:, values > values[0] * 1e-6]
    return left @ left.T


# ---- the error -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipc", [1, 3, 20])
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 1.0])
def test_errors_match_least_squares(ipc, batch, ridge, device):
    real, synthetic = drawn(3, batch, 2, 3, 2), drawn(3, ipc, 2, 3, 2, seed=1) * 3
    weights = torch.rand(3, batch, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.1
    if batch > 1:
        weights[1, 3:] = 0
    found = reconstruction_errors(*(part.to(device) for part in (real, weights, synthetic)), ridge)
    parts = real.flatten(2).numpy(), weights.numpy(), synthetic.flatten(2).numpy()
    np.testing.assert_allclose(found.cpu().numpy(), reference.reconstruction_errors(*parts, ridge), rtol=1e-6)
    total = reconstruction_error(real, weights, synthetic, ridge)
    assert float(total) == pytest.approx(float(found.sum()))


def test_errors_of_unused_places_and_scales():
    real, synthetic, weights = drawn(2, 5, 6), drawn(2, 2, 6, seed=1), torch.ones(2, 5, dtype=torch.float64)
    weights[0, 3:] = 0
    other = real.clone()
    other[0, 3:] = 99.0
    found = reconstruction_errors(real, weights, synthetic)
    assert torch.equal(reconstruction_errors(other, weights, synthetic), found)
    torch.testing.assert_close(reconstruction_errors(real, weights * 7, synthetic), found)
    torch.testing.assert_close(reconstruction_errors(real * 5, weights, synthetic * 5), found * 25)
    # Classes have nothing to do with each other.
    torch.testing.assert_close(reconstruction_errors(real[1:], weights[1:], synthetic[1:]), found[1:])


@pytest.mark.parametrize("kind", ["any", "equal", "zero"])
def test_the_gradient_is_that_of_finite_differences(kind):
    real, synthetic, weights = drawn(2, 4, 5), drawn(2, 3, 5, seed=1), torch.ones(2, 4, dtype=torch.float64)
    if kind == "equal":
        synthetic[:] = synthetic[:, :1].clone()
    if kind == "zero":
        synthetic[:] = 0
    synthetic.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: reconstruction_error(real, weights, values, 0.01), (synthetic,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("ipc", [1, 50])
def test_equal_and_zero_images_do_no_harm(dtype, value, ipc, device):
    real = drawn(2, 6, 1, 4, 4).to(device, dtype)
    weights = torch.ones(2, 6, device=device)
    synthetic = torch.full((2, ipc, 1, 4, 4), value, dtype=dtype, device=device, requires_grad=True)
    for images in (real, torch.zeros_like(real)):
        error = reconstruction_error(images, weights, synthetic, 1e-5)
        error.backward()
        assert torch.isfinite(error)
        assert torch.isfinite(synthetic.grad).all()
    left = real.double().flatten(2)
    if value:  # their span is that of an image of ones
        left = left - left.mean(2, keepdim=True)
    error = reconstruction_error(real, weights, synthetic.detach(), 1e-5)
    if value != 1e-3:  # so small beside the real ones that the ridge counts
        assert float(error) == pytest.approx(float(left.square().mean((1, 2)).sum()), rel=1e-3)


def test_descent_finds_the_best_span():
    real, weights = drawn(1, 30, 8) * torch.linspace(0.2, 2, 8, dtype=torch.float64), torch.ones(1, 30)
    synthetic = drawn(1, 2, 8, seed=1).requires_grad_()
    optimizer = torch.optim.LBFGS([synthetic], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        error = reconstruction_error(real, weights, synthetic, 1e-6)
        error.backward()
        return error.detach()

    optimizer.step(closure)
    best = reference.smallest_error(real[0].numpy(), np.ones(30), 2)
    assert float(closure()) == pytest.approx(best, rel=1e-3)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan"), True])
def test_bad_ridge(ridge):
    with pytest.raises(ValueError, match="`ridge`"):
        reconstruction_error(torch.ones(1, 1, 2), torch.ones(1, 1), torch.ones(1, 1, 2), ridge)


# ---- PCA -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipc", [1, 2, 5, 12])
@pytest.mark.parametrize("rows", [1, 4, 30])
def test_images_have_the_second_moment_and_mean_of_the_samples(ipc, rows):
    x = drawn(rows, 1, 3, 3) + 0.7
    weights = torch.rand(rows, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    found = second_moment_images(x, weights, ipc)
    assert found.shape == (ipc, 1, 3, 3)
    flat, samples = found.reshape(ipc, -1), x.flatten(1).numpy()
    expected = reference.best_approximation(samples, weights.numpy(), ipc)
    np.testing.assert_allclose(flat.T @ flat / ipc, expected, atol=1e-9)
    mean = spanned(expected) @ (weights.numpy() @ samples / weights.numpy().sum())
    assert flat.mean(0) @ mean == pytest.approx(np.linalg.norm(flat.mean(0)) * np.linalg.norm(mean))
    rank = min(ipc, rows, 9)
    np.testing.assert_allclose(spanned(flat), spanned(expected), atol=1e-6)
    assert np.linalg.matrix_rank(flat, tol=1e-6) == rank


def test_samples_of_mean_zero_and_zero_samples():
    x = drawn(4, 6)
    x = torch.cat([x, -x])
    found = second_moment_images(x, torch.ones(8), 3)
    np.testing.assert_allclose(found.T @ found / 3, reference.best_approximation(x.numpy(), np.ones(8), 3), atol=1e-9)
    assert not second_moment_images(torch.zeros(4, 6), torch.ones(4), 3).any()
    same = second_moment_images(torch.full((4, 6), 2.0), torch.ones(4), 3)
    np.testing.assert_allclose(same, 2.0)


@pytest.mark.parametrize("ipc", [1, 3, 10])
def test_no_other_span_leaves_less(ipc):
    x, y = digits()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x)).astype(np.float32)
    found = PCAImages(ipc).fit(x, y, sample_weight=weights)
    images = ((found.images_ - x.mean()) / x.std()).reshape(10, ipc, 64)
    rows = standard(x).reshape(-1, 64)
    draws = np.random.default_rng(1)
    for label in range(10):
        own, shares = rows[y == label], weights[y == label]

        def error(base, own=own, shares=shares):
            gone = own - own @ spanned(base)
            return np.average((gone**2).mean(1), weights=shares)

        best = reference.smallest_error(own, shares, ipc)
        assert found.reconstruction_error_[label] == pytest.approx(best, rel=1e-4)
        assert error(images[label]) == pytest.approx(best, rel=1e-3)
        for scale in (0.03, 0.3):
            assert error(images[label] + scale * draws.normal(size=(ipc, 64))) > best
        assert error(draws.normal(size=(ipc, 64))) > best
        assert error(own[draws.permutation(len(own))[:ipc]]) > best
    assert (np.diff([PCAImages(k).fit(x, y).reconstruction_error_.sum() for k in (1, 2, 3)]) < 0).all()


def test_pca_images_are_of_their_class():
    x, y = digits()
    images, labels = PCAImages(3).fit_resample(x, y)
    means = np.stack([x[y == label].mean(0) for label in range(10)])
    distances = np.square(images[:, None] - means).sum((2, 3, 4))
    assert (distances.argmin(1) == labels).mean() > 0.8


# ---- LDA and PCA -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("components", [0.7, 40, 12, 3, 64])
def test_discriminants_are_those_of_scikit_learn(components):
    x, y = digits()
    x = standard(x).reshape(-1, 64)
    found = discriminants(x, y, np.full(len(x), 1 / len(x)), components)
    with np.errstate(all="ignore"):
        pca = PCA(min(components, 61) if isinstance(components, int) else components, svd_solver="full").fit(x)
        lda = LinearDiscriminantAnalysis().fit(pca.transform(x), y)
    theirs = lda.transform(pca.transform(x))
    ours = (x - x.mean(0)) @ found.T
    assert ours.shape == theirs.shape
    within = sum((y == label).sum() * np.cov(ours[y == label].T, bias=True) for label in range(10)) / len(x)
    np.testing.assert_allclose(within, np.eye(len(within)), atol=1e-3)
    for one, other in zip(ours.T, theirs.T, strict=True):
        assert abs(np.corrcoef(one, other)[0, 1]) > (0.95 if components == 64 else 0.9999)  # where the ridge tells


def test_weights_are_rows_seen_more_often():
    x, y = digits(120)
    times = np.random.default_rng(0).integers(1, 4, len(x))
    again = np.repeat(np.arange(len(x)), times)
    x = x.reshape(-1, 64)
    once = discriminants(x, y, times / times.sum(), 20)
    often = discriminants(x[again], y[again], np.full(len(again), 1 / len(again)), 20)
    np.testing.assert_allclose(once.T @ once, often.T @ often, atol=1e-6)
    np.testing.assert_allclose(
        second_moment_images(torch.from_numpy(x), torch.from_numpy(times).double(), 3),
        second_moment_images(torch.from_numpy(x[again]), torch.ones(len(again)), 3),
        atol=1e-6,
    )


@pytest.mark.parametrize("method", [PCAImages, LDAPCAImages])
def test_images_of_weight_0_do_not_count(method):
    x, y = digits(150)
    weights = np.ones(150)
    weights[100:] = 0
    found, expected = method(2).fit(x, y, sample_weight=weights), method(2).fit(x[:100], y[:100])
    if method is LDAPCAImages:
        found, expected = (
            method(2, random_state=0).fit(*given, sample_weight=some)
            for given, some in (((x, y), weights), ((x[:100], y[:100]), None))
        )
    np.testing.assert_array_equal(found.images_, expected.images_)


@pytest.mark.parametrize("ipc", [1, 4])
def test_images_are_the_means_of_clusters_where_classes_are_told_apart(ipc):
    x, y = digits()
    found = LDAPCAImages(ipc, components=15, random_state=3).fit(x, y)
    flat = standard(x).reshape(-1, 64)
    z = (flat - flat.mean(0)) @ discriminants(flat, y, np.full(len(x), 1 / len(x)), 15).T
    assert found.images_.shape == (10 * ipc, 1, 8, 8)
    for label in range(10):
        own, plane = x[y == label], z[y == label]
        images = found.images_[ipc * label : ipc * label + ipc]
        seed = int(np.random.RandomState(3).randint(2**31))
        clusters = KMeans(ipc, n_init=1, random_state=seed).fit(plane, sample_weight=np.full(len(own), 1 / len(x)))
        expected = [own[clusters.labels_ == number].mean(0) for number in range(ipc)]
        np.testing.assert_allclose(images, expected, atol=1e-4)


def test_cluster_means_are_weighted_and_never_empty():
    x, z = np.array([[0.0], [3.0], [10.0], [12.0]]), np.array([[0.0], [0.0], [5.0], [5.0]])
    found = cluster_means(x, z, np.array([1.0, 2.0, 1.0, 1.0]), 2, 0)
    assert sorted(found.flatten()) == [2.0, 11.0]
    few = cluster_means(x, np.zeros((4, 1)), np.ones(4), 3, 0)  # one place, so two clusters are empty
    assert few.flatten().tolist() == [6.25] * 3
    assert cluster_means(x[:2], z[:2], np.ones(2), 5, 0).flatten().tolist() == [0.0, 3.0, 0.0, 3.0, 0.0]


# ---- both ------------------------------------------------------------------------------------------------------------

BOTH = [PCAImages(2), LDAPCAImages(2, random_state=0)]


@pytest.mark.parametrize("method", BOTH)
def test_the_form(method, tmp_path):
    x, y = digits()
    names = np.array([f"digit {label}" for label in range(10)])[y]
    found = clone(method)
    images, labels = found.fit_resample(x.astype(np.uint8), names)
    assert images.shape == (20, 1, 8, 8)
    assert images.dtype == np.float32
    assert labels.tolist() == [f"digit {number // 2}" for number in range(20)]
    assert found.reconstruction_error_.shape == (10,)
    assert found.losses_.shape == (0,)
    again = clone(method).fit(torch.from_numpy(x.astype(np.uint8)), names)
    np.testing.assert_array_equal(again.images_, images)
    small = found.condensed_set()
    small.save(tmp_path / "set.npz")
    assert type(small).load(tmp_path / "set.npz").method == type(method).__name__
    assert small.synthetic


def test_another_seed_gives_other_clusters():
    x, y = digits()
    one, other = (LDAPCAImages(4, random_state=seed).fit(x, y).images_ for seed in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("value", [0, 7])
def test_constant_images(method, value):
    x = np.full((6, 1, 4, 4), value)
    found = clone(method).fit(x, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(found.images_, value)
    np.testing.assert_allclose(found.reconstruction_error_, 0, atol=1e-12)
    x[3:] += 5
    found = clone(method).fit(x, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(found.images_.reshape(4, -1).mean(1), [value, value, value + 5, value + 5], atol=1e-4)


@pytest.mark.parametrize("method", BOTH)
def test_more_images_than_rows(method):
    x, y = digits(40)
    kept = np.concatenate([[np.flatnonzero(y == 0)[0]], np.flatnonzero((y == 1) | (y == 2))])
    found = clone(method).set_params(ipc=6).fit(x[kept], y[kept])
    assert found.images_.shape == (18, 1, 8, 8)
    assert np.isfinite(found.images_).all()
    np.testing.assert_allclose(found.reconstruction_error_, 0, atol=1e-6)
    one = found.images_[:6].reshape(6, -1)  # of the class of one row: all of its images are that one
    np.testing.assert_allclose(one, np.repeat(x[kept[:1]].reshape(1, -1), 6, 0), atol=1e-4)


@pytest.mark.parametrize("method", BOTH)
def test_images_of_colour_and_of_more_numbers_than_rows(method):
    x = np.random.default_rng(0).normal(size=(12, 3, 9, 7))
    found = clone(method).fit(x, np.arange(12) % 3)
    assert found.images_.shape == (6, 3, 9, 7)
    if isinstance(method, PCAImages):
        rows = ((x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)).reshape(12, -1)
        expected = [reference.smallest_error(rows[label::3], np.ones(4), 2) for label in range(3)]
        np.testing.assert_allclose(found.reconstruction_error_, expected, rtol=1e-5)


@pytest.mark.parametrize("method", BOTH)
def test_better_to_train_on_than_random_rows(method):
    x, y = digits(1000)
    train, settings = y[:700], EvalSettings(epochs=60, networks=2, device="cpu")
    images, labels = clone(method).fit_resample(x[:700], train)
    rows = np.concatenate([np.flatnonzero(train == label)[:2] for label in range(10)])

    def accuracy(some, given):
        part = torch.from_numpy(((some - x.mean()) / x.std()).astype(np.float32))
        test = torch.from_numpy(standard(x)[700:]).float()
        return evaluate(part, torch.from_numpy(given), test, y[700:], network=mlp, settings=settings).mean

    assert accuracy(images, labels) > accuracy(x[rows], train[rows]) + 0.03


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("method", "settings", "name"),
    [(PCAImages, {"ipc": 0}, "ipc"), (LDAPCAImages, {"ipc": 0}, "ipc"),
     *((LDAPCAImages, {"components": value}, "components") for value in (0, 0.0, 1.0, float("nan"), True, "all"))],
)  # fmt: skip
def test_bad_settings(method, settings, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        method(**settings).fit(*digits(60))


@pytest.mark.parametrize("method", BOTH)
def test_bad_input(method):
    x, y = digits(60)
    with pytest.raises(ValueError, match="`y` must hold at least two classes"):
        clone(method).fit(x, np.zeros(60, int))
    with pytest.raises(ValueError, match="`X` must be images"):
        clone(method).fit(x.reshape(60, 64), y)
    with pytest.raises(ValueError, match="NaN"):
        clone(method).fit(np.where(x > 15, np.nan, x), y)
