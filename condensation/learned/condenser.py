"""What all methods that learn a small set have in common: real images by class, and the estimator's form."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from condensation.artifact import CondensedSet
from condensation.artifact.provenance import Normalisation, Provenance, described, fingerprint, names_of
from condensation.evaluate import EvalSettings
from condensation.learned.run import Callback, Job
from lossbuf import checks
from lossbuf.arrays.conversion import untensored
from lossbuf.arrays.image_layout import value_range
from lossbuf.selectors.labels import check_classes, label_array
from lossbuf.selectors.samples import validated
from lossbuf.training import seeded

_EXTREME = 2.0**60
"""Sample weights are divided by the largest where this is so large, or so small: their sums would leave float32."""

_Fitted = TypeVar("_Fitted", bound="Condenser")


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


class Learned(NamedTuple):
    """What a method gives.

    Attributes:
        images: Shape ``(num_classes, ipc, channels, height, width)``, in the units of the real images it was given.
        labels: Probability of every class, shape ``(num_classes * ipc, num_classes)``; ``None`` where every image has
            the label of its class.
        rows: Rows of the real images, shape ``(num_classes * ipc,)``, where ``images`` are some of these.
        weights: Of the images, shape ``(num_classes * ipc,)``, where they do not all count alike.
    """

    images: Tensor
    labels: Tensor | None = None
    rows: Tensor | None = None
    weights: Tensor | None = None


class Condenser(BaseEstimator, metaclass=ABCMeta):
    """Learns a few images a class from real ones; a subclass says how in ``_condense``.

    Attributes:
        images_: The condensed set in the units of ``X``, float32, shape ``(num_classes * ipc, channels, height,
            width)``, class after class.
        labels_: Its labels, of ``classes_``; or the probability of every class, float32, shape
            ``(num_classes * ipc, num_classes)``, where the method learns labels.
        classes_: The labels found, shape ``(num_classes,)``.
        sample_indices_: Rows of ``X`` that ``images_`` are, shape ``(num_classes * ipc,)``; only of a method that keeps
            real images.
        sample_weight_: Of ``images_``, shape ``(num_classes * ipc,)``; only of a method that gives weights.
        losses_: What every iteration gave, shape ``(iterations,)``.
    """

    ipc: int
    device: str | None
    random_state: int | np.random.RandomState | None
    losses_: NDArray[np.float64]

    @abstractmethod
    def _condense(self, real: RealImages, job: Job) -> Learned:
        """Learn a set; may set attributes of the subclass. What it draws must come from ``job.seed``."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(
        self: _Fitted,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        callback: Callback | None = None,
    ) -> _Fitted:
        """Learn from real images.

        Args:
            X: Images, shape ``(n_samples, channels, height, width)``, of any real dtype and range.
            y: Labels, shape ``(n_samples,)``: integers or strings.
            sample_weight: How much each image counts, at least 0, shape ``(n_samples,)``; images of weight 0 are left
                out. By default all count alike.
            checkpoint: A file that holds the state, written every few seconds and at the end. Where it exists, learning
                goes on from it and ends with the bits of a run that was never interrupted. The caller removes it.
            callback: Called after every iteration with a :class:`~condensation.learned.run.Progress`; where it gives
                True, learning ends there.

        Raises:
            ValueError: If shapes, values or settings are not usable, or the checkpoint is of another run.
            OSError: If the checkpoint cannot be written.
            RuntimeError: If gradients are switched off.
        """
        checks.gradients("fit")
        if callback is not None and not callable(callback):
            raise ValueError(checks.problem("callback", "must be callable", repr(callback)))
        X, sample_weight = map(untensored, (X, sample_weight))
        checked: Any = validated(self, X, label_array(y), allow_nd=True)
        images, given = checked
        if images.ndim != 4:
            rule = "must be images of shape (n_samples, channels, height, width)"
            raise ValueError(checks.problem("X", rule, f"shape {images.shape}"))
        checks.channels_first("X", images.shape)
        check_classes(given)
        counts = _check_sample_weight(sample_weight, images, dtype=np.float64, ensure_non_negative=True)
        most = counts.max(initial=0.0)
        if most and not 1 / _EXTREME < most < _EXTREME:
            counts = counts / most
        weights = counts.astype(np.float32)
        source, kept = (len(images), fingerprint(images, given)), weights > 0
        images, given, weights = images[kept], given[kept], weights[kept]
        encoder = LabelEncoder()
        labels = torch.from_numpy(np.asarray(encoder.fit_transform(given), dtype=np.int64))
        classes: NDArray[Any] = np.asarray(encoder.classes_)
        if len(classes) < 2:  # also where all images of the others have no weight
            raise ValueError(checks.problem("y", "must hold at least two classes", classes.tolist()))
        checks.positive_int("ipc", self.ipc)
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        with np.errstate(over="ignore"):  # told of below
            x = torch.from_numpy(np.require(images, np.float32, ["C", "W"]))
        if not bool(x.isfinite().all()):
            raise ValueError(checks.problem("X", "must be finite in float32", "values beyond 3.4e38"))
        deviation, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        seed = int(check_random_state(self.random_state).randint(2**31))
        standard, counts = ((x - mean) / deviation).to(device), torch.from_numpy(weights).to(device)
        real = RealImages(standard, labels.to(device), counts, images)
        job = Job(seed, device, None if checkpoint is None else Path(checkpoint), callback)
        with seeded(seed, device):  # so that nothing in it hangs on the process
            learned = self._condense(real, job)
        for name in ("sample_indices_", "sample_weight_"):  # of an earlier fit, which this one may not have
            vars(self).pop(name, None)
        if learned.rows is None:
            self.images_ = (learned.images.detach().cpu().flatten(0, 1) * deviation + mean).numpy()
        else:  # as they were given, without rounding
            self.sample_indices_ = np.flatnonzero(kept)[learned.rows.cpu().numpy()]
            self.images_ = x[learned.rows.cpu()].numpy()
        if learned.weights is not None:
            self.sample_weight_ = learned.weights.cpu().numpy()
        soft = learned.labels
        self.labels_ = np.repeat(classes, self.ipc) if soft is None else soft.detach().cpu().float().numpy()
        self.classes_ = classes
        black, white = value_range(images)
        self._normalisation = Normalisation(
            mean=mean.flatten().tolist(),
            std=deviation.flatten().tolist(),
            white=white,
            black=black,
        )
        self._source = source
        params = self.get_params(deep=False)
        seed = params.get("random_state")
        self._at_fit = {
            "settings": described(params),
            "seed": int(seed) if isinstance(seed, int | np.integer) else None,
            **self._to_train_with(),
        }
        return self

    def fit_resample(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        callback: Callback | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Learn from real images and give the condensed set: ``images_`` and ``labels_``.

        Arguments and errors are those of :meth:`fit`.
        """
        self.fit(X, y, sample_weight=sample_weight, checkpoint=checkpoint, callback=callback)
        return self.images_, self.labels_

    def _to_train_with(self) -> dict[str, Any]:
        """Fields of :class:`~condensation.artifact.CondensedSet` that say how to train on what was learned."""
        augment = getattr(self, "augment", None)
        schedule = asdict(EvalSettings(epochs=300 if augment is None else 1000))
        return {
            "augmentation": None if augment is None else described(augment),
            "schedule": {name: schedule[name] for name in ("epochs", "lr", "momentum", "weight_decay", "batch_size")},
        }

    def condensed_set(self, *, provenance: Provenance | None = None) -> CondensedSet:
        """What was learned, to be saved, loaded and trained on; ``dataclasses.replace`` adds what else is known.

        Args:
            provenance: Of the real images; by default they are the source themselves.

        Raises:
            NotFittedError: If the estimator is not fitted.
            ValueError: If the images are real ones, and the provenance has not as many rows as there were in ``fit``.
        """
        check_is_fitted(self, "images_")
        normal = self._normalisation
        mean, std = (np.asarray(part, np.float32).reshape(1, -1, 1, 1) for part in (normal.mean, normal.std))
        if self.labels_.ndim == 2:
            labels = torch.from_numpy(self.labels_)
        else:
            labels = torch.arange(len(self.classes_)).repeat_interleave(len(self.labels_) // len(self.classes_))
        n_samples, digest = self._source
        provenance = provenance or Provenance(n_samples=n_samples, fingerprint=digest)
        indices, weights = (getattr(self, name, None) for name in ("sample_indices_", "sample_weight_"))
        if indices is not None:
            rows, given = torch.from_numpy(indices), provenance.rows
            if given is not None and len(given) != n_samples:
                raise ValueError(checks.problem("rows", f"must be {n_samples}, as in `fit`", len(given)))
            provenance = replace(provenance, rows=rows if given is None else given[rows])
        return CondensedSet(
            **self._at_fit,
            x=torch.from_numpy((self.images_ - mean) / std),
            labels=labels,
            method=type(self).__name__,
            class_names=names_of(self.classes_),
            normalisation=normal,
            synthetic=indices is None,
            weights=None if weights is None else torch.from_numpy(weights),
            provenance=provenance,
        )
