"""The real images that a set is learned from: checked, standardised by channel, and drawn by class or from all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor

from condensation.artifact.provenance import Normalisation, fingerprint
from lossbuf import checks
from lossbuf.selectors.labels import check_classes

_EXTREME = 2.0**60
"""Sample weights are divided by the largest where it is so large, or so small: their sums would leave float32."""


class Batch(NamedTuple):
    """Some real images.

    Attributes:
        x: Shape ``(batch, channels, height, width)``.
        labels: Classes, shape ``(batch,)``.
        weights: Above 0, shape ``(batch,)``.
    """

    x: Tensor
    labels: Tensor
    weights: Tensor


class RealImages:
    """Real images, to be drawn class by class or of all.

    Args:
        x: Images, shape ``(n_samples, channels, height, width)``.
        labels: Classes in ``[0, num_classes)``, each with an image at least, on the same device.
        weights: Of the images, above 0; by default all 1.
        given: The images as they were given, not standardised, for whoever chooses among them; by default ``x``.
    """

    def __init__(
        self,
        x: Float[Tensor, "n_samples c h w"],
        labels: Int[Tensor, " n_samples"],
        weights: Float[Tensor, " n_samples"] | None = None,
        given: NDArray[Any] | None = None,
    ) -> None:
        self.x, self.labels = x, labels
        self.given = x.cpu().numpy() if given is None else given
        self.weights = torch.ones(len(x), device=x.device) if weights is None else weights
        self.by_class = [torch.nonzero(labels == label).flatten() for label in range(int(labels.max()) + 1)]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.by_class)

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Different images of every class, drawn by a generator on the CPU.

        Returns:
            Images, shape ``(num_classes, most, ...)``, with ``most`` the ``size`` or the rows of the largest class; and
            their weights, shape ``(num_classes, most)``, with 0 for places that a class of fewer rows leaves.
        """
        most = min(size, max(len(rows) for rows in self.by_class))
        chosen, weights = [], torch.zeros(self.num_classes, most, device=self.x.device)
        for label, rows in enumerate(self.by_class):
            drawn = torch.randperm(len(rows), generator=generator)[:most]
            places = rows[torch.cat([drawn, drawn.new_zeros(most - len(drawn))]).to(rows.device)]
            weights[label, : len(drawn)] = self.weights[places[: len(drawn)]]
            chosen.append(places)
        return self.x[torch.stack(chosen)], weights

    def of_all(self, size: int, generator: torch.Generator) -> Batch:
        """Different images of whatever class, all where there are no more than ``size``."""
        rows = torch.randperm(len(self.x), generator=generator)[:size].to(self.x.device)
        return Batch(self.x[rows], self.labels[rows], self.weights[rows])

    def some(self, each: int, generator: torch.Generator) -> Tensor:
        """``each`` images of every class, shape ``(num_classes, each, ...)``; some again where a class has fewer."""
        return self.x[self.some_rows(each, generator)]

    def some_rows(self, each: int, generator: torch.Generator) -> Tensor:
        """The rows of :meth:`some`, shape ``(num_classes, each)``."""
        chosen = []
        for rows in self.by_class:
            drawn = torch.randperm(len(rows), generator=generator).repeat(-(-each // len(rows)))[:each]
            chosen.append(rows[drawn.to(rows.device)])
        return torch.stack(chosen)

    def start(self, ipc: int, from_real: bool, generator: torch.Generator) -> Tensor:
        """Images to begin with, shape ``(num_classes, ipc, ...)``: real ones, or noise of mean 0 and deviation 1."""
        if from_real:
            return self.some(ipc, generator)
        noise = torch.randn((self.num_classes, ipc, *self.x.shape[1:]), generator=generator)
        return noise.to(self.x.device)


class GivenImages(NamedTuple):
    """What ``fit`` was given, checked; images of weight 0 are left out.

    Attributes:
        images: As they were given, shape ``(n_kept, channels, height, width)``.
        labels: Classes in ``[0, num_classes)``, shape ``(n_kept,)``.
        weights: Above 0, float32, shape ``(n_kept,)``.
        classes: The labels found, shape ``(num_classes,)``.
        rows: Rows of ``X`` that are left, shape ``(n_kept,)``.
        n_samples: Rows of ``X``.
        fingerprint: Of all of ``X`` and ``y``.
    """

    images: NDArray[Any]
    labels: Tensor
    weights: NDArray[np.float32]
    classes: NDArray[Any]
    rows: NDArray[np.intp]
    n_samples: int
    fingerprint: str


def given_images(images: NDArray[Any], y: NDArray[Any], sample_weight: Any) -> GivenImages:
    """Check images, labels and weights that belong together.

    Raises:
        ValueError: If the shapes or values are not usable, or fewer than two classes are left.
    """
    if images.ndim != 4:
        rule = "must be images of shape (n_samples, channels, height, width)"
        raise ValueError(checks.problem("X", rule, f"shape {images.shape}"))
    checks.channels_first("X", images.shape)
    check_classes(y)
    weights = _weights(sample_weight, images)
    rows = np.flatnonzero(weights > 0)
    encoder = LabelEncoder()
    labels = torch.from_numpy(np.asarray(encoder.fit_transform(y[rows]), dtype=np.int64))
    classes: NDArray[Any] = np.asarray(encoder.classes_)
    if len(classes) < 2:  # also where all images of the others have no weight
        raise ValueError(checks.problem("y", "must hold at least two classes", classes.tolist()))
    return GivenImages(images[rows], labels, weights[rows], classes, rows, len(images), fingerprint(images, y))


def _weights(sample_weight: Any, images: NDArray[Any]) -> NDArray[np.float32]:
    counts = _check_sample_weight(sample_weight, images, dtype=np.float64, ensure_non_negative=True)
    most = counts.max(initial=0.0)
    if most and not 1 / _EXTREME < most < _EXTREME:
        counts = counts / most
    return counts.astype(np.float32)


class Standardised(NamedTuple):
    """Images with mean 0 and deviation 1 by channel, and the way back to the units they were given in.

    Attributes:
        x: Standardised, float32, shape ``(n_samples, channels, height, width)``.
        given: The same in the units given, float32.
        mean: By channel, shape ``(1, channels, 1, 1)``.
        deviation: By channel, above 0, of the same shape.
    """

    x: Tensor
    given: Tensor
    mean: Tensor
    deviation: Tensor

    def undone(self, images: Tensor) -> Tensor:
        """Standardised images in the units given."""
        return images * self.deviation + self.mean

    def normalisation(self, black: float, white: float) -> Normalisation:
        """Mean and deviation for the file of a set, with the values that are black and white in the units given."""
        mean, deviation = self.mean.flatten().tolist(), self.deviation.flatten().tolist()
        return Normalisation(mean=mean, std=deviation, white=white, black=black)


def standardised_images(images: NDArray[Any]) -> Standardised:
    """Bring images to mean 0 and deviation 1 by channel; a channel of one value has mean 0.

    Raises:
        ValueError: If a value is not finite in float32.
    """
    with np.errstate(over="ignore"):  # reported below
        x = torch.from_numpy(np.require(images, np.float32, ["C", "W"]))
    if not bool(x.isfinite().all()):
        raise ValueError(checks.problem("X", "must be finite in float32", "values beyond 3.4e38"))
    deviation, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return Standardised((x - mean) / deviation, x, mean, deviation)
