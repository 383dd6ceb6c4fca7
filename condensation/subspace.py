"""Images whose span holds what a class varies by: PCA, LDA on PCA, and the error of reconstruction from a span."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from condensation.learned.condenser import Condenser, Learned
from condensation.learned.real_images import RealImages
from condensation.learned.run import Job
from lossbuf import checks

Array = NDArray[np.float64]

_EXACT = 1e-10
"""A ridge that float64 tells from none where images are equal, and that changes no other error."""


def reconstruction_errors(
    real: Float[Tensor, "num_classes batch *pixels"],
    weights: Float[Tensor, "num_classes batch"],
    synthetic: Float[Tensor, "num_classes ipc *pixels"],
    ridge: float = 1e-3,
) -> Float[Tensor, " num_classes"]:
    """What is left of each class's real images outside the span of its synthetic ones: mean square a number.

    Each real image is written as the sum of the synthetic images of its class that comes nearest to it, by ridge
    regression. The penalty is ``ridge`` times the mean squared length of the synthetic images plus that of the real
    ones: the images' scale changes nothing, and images that are equal, zero or more than there are numbers in one do no
    harm. Without it the error were smallest for the leading eigenvectors of the class's second moment.

    Args:
        real: Real images.
        weights: Of the real images, 0 for places that hold none.
        synthetic: Synthetic images; the errors can be differentiated in them.
        ridge: Above 0; from 1e-5 on safe in float32.

    Raises:
        ValueError: If ``ridge`` is not above 0.

    Example:
        >>> real = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
        >>> reconstruction_errors(real, torch.ones(1, 2), torch.tensor([[[3.0, 0.0]]]), ridge=1e-6)
        tensor([1.])
    """
    checks.positive_float("ridge", ridge)
    x, images = real.flatten(2), synthetic.flatten(2)
    shares = weights.to(x) / weights.to(x).sum(1, keepdim=True)
    gram = images @ images.mT
    lengths = gram.diagonal(dim1=1, dim2=2).mean(1) + (shares * x.square().sum(2)).sum(1)
    penalty = ridge * lengths.clamp(min=torch.finfo(x.dtype).eps)
    # Not cholesky, which waits for the GPU to look for failures.
    factor = torch.linalg.cholesky_ex(gram + penalty[:, None, None] * torch.eye(images.shape[1]).to(x)).L
    coefficients = torch.cholesky_solve(images @ x.mT, factor)
    return (shares * (x - coefficients.mT @ images).square().mean(2)).sum(1)


def reconstruction_error(
    real: Float[Tensor, "num_classes batch *pixels"],
    weights: Float[Tensor, "num_classes batch"],
    synthetic: Float[Tensor, "num_classes ipc *pixels"],
    ridge: float = 1e-3,
) -> Float[Tensor, ""]:
    """Sum of :func:`reconstruction_errors` over the classes: a term to be added to another loss of the images."""
    return reconstruction_errors(real, weights, synthetic, ridge).sum()


def second_moment_images(x: Float[Tensor, "n_samples ..."], weights: Float[Tensor, " n_samples"], ipc: int) -> Array:
    """Images with the second moment that samples have in their best span, and a mean along theirs there.

    With the ``ipc`` leading eigenvectors V of the weighted second moment as rows, its eigenvalues L and an orthogonal Q
    the images are sqrt(ipc) Q sqrt(L) V. Their second moment is that of the samples in the span for any Q. The one
    reflection that makes their mean a multiple of the samples' keeps each a picture of its class; with one image it is
    the leading eigenvector, as long as the samples are.

    Args:
        x: Samples, one at least.
        weights: Of the samples, above 0.
        ipc: Images to make. Where the samples span less, some are sums of the others.

    Returns:
        Images, float64, shape ``(ipc, ...)``.

    Example:
        >>> second_moment_images(torch.tensor([[2.0, 0.0], [2.0, 1.0], [2.0, -1.0]]), torch.ones(3), 1).round(3) + 0.0
        array([[2., 0.]])
    """
    rows, shares = _flat(x), _shares(weights)
    values, vectors = _leading(rows, shares, ipc)
    scales = np.zeros(ipc)
    scales[: len(values)] = np.sqrt(values)
    wanted = np.zeros(ipc)  # the coordinates of the mean, which are to be those of the images' sum, each by its scale
    wanted[: len(values)] = vectors @ (shares @ rows) / scales[: len(values)]
    mixed = np.sqrt(ipc) * _reflection(np.full(ipc, ipc**-0.5), wanted) * scales
    return (mixed[:, : len(values)] @ vectors).reshape(ipc, *x.shape[1:])


def _reflection(one: Array, other: Array) -> Array:
    """The symmetric orthogonal matrix that turns a direction into another; the identity where one is none."""
    length = np.linalg.norm(other)
    gap = one - other / length if length > 1e-9 else np.zeros_like(one)
    square = gap @ gap
    return np.eye(len(one)) - (2 / square * np.outer(gap, gap) if square > 1e-18 else 0.0)


class PCAImages(Condenser):
    """``ipc`` images a class that span the best subspace: the one nearest to the class's real images.

    They are mixtures of the leading principal components (of the second moment about zero), such that all look like
    their class and together vary as it does: see :func:`second_moment_images`. Nothing is drawn; it takes seconds, and
    a checkpoint is neither read nor written.

    Args:
        ipc: Images a class. A class of fewer rows has images that are sums of its others.

    Attributes:
        images_: See :class:`~condensation.learned.condenser.Condenser`, like ``labels_`` and ``classes_``.
        reconstruction_error_: What the span leaves of each class, mean square a number of standardised images, shape
            ``(num_classes,)``: no other span of as many images leaves less.
        losses_: Empty: there are no iterations.

    Source:
        Principal component analysis; the choice of the images is ours. On digits (ConvNet) they are as good as the
        centres of k-means and far better than the mean plus a deviation times each component.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(20, 1, 4, 4)) + np.arange(20).reshape(20, 1, 1, 1) % 2
        >>> images, labels = PCAImages(2).fit_resample(X, np.arange(20) % 2)
        >>> images.shape, labels
        ((4, 1, 4, 4), array([0, 0, 1, 1]))
    """

    device = "cpu"
    random_state = None
    reconstruction_error_: Array

    def __init__(self, ipc: int = 1) -> None:
        self.ipc = ipc

    def _condense(self, real: RealImages, job: Job) -> Learned:
        parts = [second_moment_images(real.x[rows], real.weights[rows], self.ipc) for rows in real.by_class]
        return _learned(self, real, np.stack(parts))


class LDAPCAImages(Condenser):
    """``ipc`` images a class that stand for it where classes are told apart best: LDA on the PCA of all classes.

    All images are described by principal components, these by the linear discriminants of the classes, and there the
    rows of a class are put into ``ipc`` clusters. A cluster's image is the one nearest to its rows in least squares,
    their mean; so with one image a class it is the mean of the class. It takes seconds, and a checkpoint is neither
    read nor written.

    Args:
        ipc: Images a class. A class of no more rows gives its rows, and some again.
        components: Principal components: a number, or the share of the variance they are to hold, in (0, 1).
        random_state: Of the clusters; the same seed gives the same images.

    Attributes:
        images_: See :class:`~condensation.learned.condenser.Condenser`, like ``labels_`` and ``classes_``.
        reconstruction_error_: What the images' span leaves of each class, mean square a number of standardised images,
            shape ``(num_classes,)``.
        losses_: Empty: there are no iterations.

    Source:
        Belhumeur et al. 1997, "Eigenfaces vs. Fisherfaces", for the map; the clusters are ours. The linear inverse of
        the map would give images that vary in ``num_classes - 1`` ways only: on digits (ConvNet, ipc 10) 91 % right,
        below random rows, in place of 95 %.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(20, 1, 4, 4)) + np.arange(20).reshape(20, 1, 1, 1) % 2
        >>> LDAPCAImages(2, components=3, random_state=0).fit(X, np.arange(20) % 2).images_.shape
        (4, 1, 4, 4)
    """

    device = "cpu"
    reconstruction_error_: Array

    def __init__(
        self,
        ipc: int = 1,
        *,
        components: int | float = 0.95,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.ipc = ipc
        self.components = components
        self.random_state = random_state

    def _condense(self, real: RealImages, job: Job) -> Learned:
        x, shares = _flat(real.x), _shares(real.weights)
        z = (x - shares @ x) @ discriminants(x, real.labels.cpu().numpy(), shares, self.components).T
        parts = [cluster_means(x[rows], z[rows], shares[rows], self.ipc, job.seed)
                 for rows in (one.cpu().numpy() for one in real.by_class)]  # fmt: skip
        return _learned(self, real, np.stack(parts).reshape(len(parts), self.ipc, *real.x.shape[1:]))


def discriminants(x: Array, labels: NDArray[np.int64], shares: Array, components: int | float) -> Array:
    """Linear discriminants of principal components.

    Args:
        x: Samples, shape ``(n_samples, d)``.
        labels: Classes in ``[0, num_classes)``, each with a row at least, shape ``(n_samples,)``.
        shares: Weights of the samples, which sum to 1.
        components: As in :class:`LDAPCAImages`.

    Returns:
        What to multiply centred samples by, best first, shape ``(k, d)``: as many as there are classes less one, or
        components where these are fewer. What it gives has covariance 1 within classes.

    Raises:
        ValueError: If ``components`` is neither a positive integer nor a share.
    """
    share = isinstance(components, float)
    if share and not 0 < components < 1:
        raise ValueError(checks.problem("components", "must be a positive integer or lie in (0, 1)", components))
    centred = x - shares @ x
    count = min(x.shape) if share else checks.positive_int("components", components)
    values, vectors = _leading(centred, shares, count)
    if share:
        vectors = vectors[: int(np.searchsorted(np.cumsum(values) / values.sum(), components)) + 1]
    p, size = centred @ vectors.T, len(vectors)
    one_hot = np.eye(int(labels.max()) + 1)[labels] * shares[:, None]
    means = one_hot.T @ p / one_hot.sum(0)[:, None]
    between = (means.T * one_hot.sum(0)) @ means
    apart = p - means[labels]
    within = (apart.T * shares) @ apart
    # A direction in which no class varies would tell them apart without bounds, and one row a class varies in none.
    within += np.eye(size) * (1e-6 * np.trace(within + between) / size or 1.0)
    most = min(len(means) - 1, size)
    return scipy.linalg.eigh(between, within, subset_by_index=[size - most, size - 1])[1][:, ::-1].T @ vectors


def cluster_means(x: Array, z: Array, weights: Array, ipc: int, seed: int) -> Array:
    """Mean samples of clusters, shape ``(ipc, d)``; where there are no more rows, these, and some again.

    Args:
        x: Samples, shape ``(n, d)``.
        z: What to cluster them by, shape ``(n, k)``.
        weights: Of the samples, above 0, shape ``(n,)``.
        ipc: Number of clusters.
        seed: Of what is drawn.
    """
    if len(x) <= ipc:
        return x[np.arange(ipc) % len(x)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some are empty
        model = KMeans(ipc, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]
        found = np.asarray(model.fit(z, sample_weight=weights).labels_)
    shares = np.eye(ipc)[found] * weights[:, None]
    sums = shares.sum(0)[:, None]
    means = shares.T @ x / np.maximum(sums, np.finfo(float).tiny)
    return np.where(sums > 0, means, weights @ x / weights.sum())


def _leading(x: Array, shares: Array, count: int) -> tuple[Array, Array]:
    """Largest eigenvalues of the weighted second moment, and eigenvectors as rows; those of value 0 are left out."""
    scaled = x * np.sqrt(shares)[:, None]
    small = scaled @ scaled.T if len(x) < x.shape[1] else scaled.T @ scaled
    size = len(small)
    values, vectors = scipy.linalg.eigh(small, subset_by_index=[max(0, size - count), size - 1])
    kept = values[::-1] > max(values[-1] * 1e-10, 0.0)
    kept[0] = True
    values, vectors = np.maximum(values[::-1][kept], np.finfo(float).tiny), vectors[:, ::-1].T[kept]
    return values, vectors @ scaled / np.sqrt(values)[:, None] if len(x) < x.shape[1] else vectors


def _flat(x: Tensor) -> Array:
    return x.detach().flatten(1).double().cpu().numpy()


def _shares(weights: Tensor) -> Array:
    values = weights.detach().double().cpu().numpy()
    return values / values.sum()


def _learned(condenser: PCAImages | LDAPCAImages, real: RealImages, images: Array) -> Learned:
    """What was found, with the errors of its spans told."""
    found = torch.from_numpy(images)
    errors = [
        reconstruction_errors(real.x[rows][None].cpu().double(), real.weights[rows][None].cpu(), part[None], _EXACT)
        for rows, part in zip(real.by_class, found, strict=True)
    ]
    condenser.reconstruction_error_ = torch.cat(errors).numpy()
    condenser.losses_ = np.zeros(0)
    return Learned(found.float())
