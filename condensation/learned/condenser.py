"""``Condenser``: the estimator that all methods share which learn a small set from real images."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from condensation.artifact import CondensedSet
from condensation.artifact.provenance import Provenance, described, names_of
from condensation.coresets.cleaning import CleaningTraining
from condensation.evaluate import EvalSettings
from condensation.learned.real_images import GivenImages, RealImages, Standardised, given_images, standardised_images
from condensation.learned.run import Callback, Job
from lossbuf import checks
from lossbuf.arrays.conversion import untensored
from lossbuf.arrays.image_layout import value_range
from lossbuf.selectors.labels import label_array
from lossbuf.selectors.samples import validated
from lossbuf.training import seeded

_Fitted = TypeVar("_Fitted", bound="Condenser")


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
        images, labels = checked
        given = given_images(images, labels, sample_weight)
        checks.positive_int("ipc", self.ipc)
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        standard = standardised_images(given.images)
        seed = int(check_random_state(self.random_state).randint(2**31))
        weights = torch.from_numpy(given.weights).to(device)
        real = RealImages(standard.x.to(device), given.labels.to(device), weights, given.images)
        job = Job(seed, device, None if checkpoint is None else Path(checkpoint), callback)
        with seeded(seed, device):  # so that nothing in it depends on the process
            learned = self._condense(real, job)
        self._keep(learned, given, standard)
        return self

    def _keep(self, learned: Learned, given: GivenImages, standard: Standardised) -> None:
        """Set the attributes that ``fit`` promises, and what :meth:`condensed_set` needs."""
        for name in ("sample_indices_", "sample_weight_"):  # of an earlier fit, which this one may not have
            vars(self).pop(name, None)
        if learned.rows is None:
            self.images_ = standard.undone(learned.images.detach().cpu().flatten(0, 1)).numpy()
        else:  # as they were given, without rounding
            self.sample_indices_ = given.rows[learned.rows.cpu().numpy()]
            self.images_ = standard.given[learned.rows.cpu()].numpy()
        if learned.weights is not None:
            self.sample_weight_ = learned.weights.cpu().numpy()
        self.classes_, soft = given.classes, learned.labels
        self.labels_ = np.repeat(given.classes, self.ipc) if soft is None else soft.detach().cpu().float().numpy()
        self._normalisation = standard.normalisation(*value_range(given.images))
        self._source = given.n_samples, given.fingerprint
        params = self.get_params(deep=False)
        seed = params.get("random_state")
        self._at_fit = {
            "settings": described(params),
            "seed": int(seed) if isinstance(seed, int | np.integer) else None,
            **self._to_train_with(),
        }

    @property
    def sample_classes(self) -> NDArray[np.int64]:
        """The class that each image was learned for, as a position in ``classes_``, shape ``(n_images,)``."""
        return np.arange(len(self.classes_)).repeat(len(self.labels_) // len(self.classes_))

    def informed_by(self: _Fitted, cleaning: CleaningTraining) -> _Fitted:
        """Take from the training that cleaned the data what this method would else train a network for.

        A subclass that can use it sets its own parameters; by default nothing changes, since matching and distillation
        take fresh networks, as published.

        Returns:
            The estimator itself.
        """
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

    def condensed_set(self, X: Any = None, y: Any = None, *, provenance: Provenance | None = None) -> CondensedSet:
        """What was learned, to be saved, loaded and trained on; ``dataclasses.replace`` adds what else is known.

        Args:
            X: Not used; a coreset needs the samples that it chose from.
            y: Not used.
            provenance: Of the real images; by default they are the source themselves.

        Raises:
            NotFittedError: If the estimator is not fitted.
            ValueError: If the images are real ones, and the provenance has not as many rows as there were in ``fit``.
        """
        check_is_fitted(self, "images_")
        normal = self._normalisation
        mean, std = (np.asarray(part, np.float32).reshape(1, -1, 1, 1) for part in (normal.mean, normal.std))
        labels = torch.from_numpy(self.labels_ if self.labels_.ndim == 2 else self.sample_classes)
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
