"""What all methods that learn images have in common: the real images by class, and the estimator's form."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_X_y
from torch import Tensor

from lossbuf import checks

_Fitted = TypeVar("_Fitted", bound="Condenser")


class RealImages:
    """Real images, to be drawn class by class.

    Args:
        x: Images, shape ``(n_samples, channels, height, width)``.
        labels: Classes in ``[0, num_classes)``, each with an image at least, on the same device.
    """

    def __init__(self, x: Float[Tensor, "n_samples c h w"], labels: Int[Tensor, " n_samples"]) -> None:
        self.x = x
        self.by_class = [torch.nonzero(labels == label).flatten() for label in range(int(labels.max()) + 1)]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.by_class)

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Different images of every class, drawn by a generator on the CPU.

        Returns:
            Images, shape ``(num_classes, most, ...)``, with ``most`` the ``size`` or the rows of the largest class; and
            their weights, shape ``(num_classes, most)``: 1, and 0 for places that a class of fewer rows leaves.
        """
        most = min(size, max(len(rows) for rows in self.by_class))
        chosen, weights = [], torch.zeros(self.num_classes, most, device=self.x.device)
        for label, rows in enumerate(self.by_class):
            drawn = torch.randperm(len(rows), generator=generator)[:most]
            weights[label, : len(drawn)] = 1.0
            chosen.append(rows[torch.cat([drawn, drawn.new_zeros(most - len(drawn))]).to(rows.device)])
        return self.x[torch.stack(chosen)], weights

    def some(self, each: int, generator: torch.Generator) -> Tensor:
        """``each`` images of every class, shape ``(num_classes, each, ...)``; some again where a class has fewer."""
        chosen = []
        for rows in self.by_class:
            drawn = torch.randperm(len(rows), generator=generator).repeat(-(-each // len(rows)))[:each]
            chosen.append(rows[drawn.to(rows.device)])
        return self.x[torch.stack(chosen)]


class Condenser(BaseEstimator, metaclass=ABCMeta):
    """Learns a few images a class from real ones; a subclass says how in ``_condense``.

    Attributes:
        images_: The condensed set in the units of ``X``, float32, shape ``(num_classes * ipc, channels, height,
            width)``, class after class.
        labels_: Its labels, of ``classes_``.
        classes_: The labels found, shape ``(num_classes,)``.
    """

    ipc: int
    device: str | None
    random_state: int | np.random.RandomState | None

    @abstractmethod
    def _condense(self, real: RealImages, seed: int, device: torch.device, checkpoint: Path | None) -> Tensor:
        """Learn images, shape ``(num_classes, ipc, channels, height, width)``, in the units of ``real``."""

    def fit(self: _Fitted, X: Any, y: Any, *, checkpoint: str | os.PathLike[str] | None = None) -> _Fitted:
        """Learn from real images.

        Args:
            X: Images, shape ``(n_samples, channels, height, width)``, of any real dtype and range.
            y: Labels, shape ``(n_samples,)``: integers or strings.
            checkpoint: A file that holds the state, written now and then. Where it exists, learning goes on from it and
                ends with the bits of a run that was never interrupted. The caller removes it.

        Raises:
            ValueError: If shapes, values or settings are not usable, or the checkpoint is of another run.
        """
        images, given = (part.detach().cpu().numpy() if isinstance(part, Tensor) else part for part in (X, y))
        images, given = check_X_y(images, given, allow_nd=True, dtype="numeric", estimator=self)
        if images.ndim != 4:
            rule = "must be images of shape (n_samples, channels, height, width)"
            raise ValueError(checks.problem("X", rule, f"shape {images.shape}"))
        check_classification_targets(given)
        encoder = LabelEncoder()
        labels = torch.from_numpy(np.asarray(encoder.fit_transform(given), dtype=np.int64))
        classes: NDArray[Any] = np.asarray(encoder.classes_)
        if len(classes) < 2:
            raise ValueError(checks.problem("y", "must hold at least two classes", classes.tolist()))
        checks.positive_int("ipc", self.ipc)
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        x = torch.from_numpy(np.require(images, np.float32, ["C", "W"]))
        deviation, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        seed = int(check_random_state(self.random_state).randint(2**31))
        real = RealImages(((x - mean) / deviation).to(device), labels.to(device))
        learnt = self._condense(real, seed, device, None if checkpoint is None else Path(checkpoint))
        self.images_ = (learnt.detach().cpu().flatten(0, 1) * deviation + mean).numpy()
        self.labels_ = np.repeat(classes, self.ipc)
        self.classes_ = classes
        return self

    def fit_resample(
        self, X: Any, y: Any, *, checkpoint: str | os.PathLike[str] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Learn from real images and give the condensed set: ``images_`` and ``labels_``.

        Arguments and errors are those of :meth:`fit`.
        """
        self.fit(X, y, checkpoint=checkpoint)
        return self.images_, self.labels_
