"""``CleanAndCondense``: noisy rows in, a small clean set out, with its provenance."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from condensation.artifact import CondensedSet
from condensation.artifact.provenance import Cleaning, Provenance, described, fingerprint
from condensation.coresets.base import Coreset
from condensation.coresets.cleaning import CleaningTraining
from condensation.learned.condenser import Condenser
from condensation.learned.run import Callback
from lossbuf import checks
from lossbuf.arrays.conversion import untensored
from lossbuf.selectors import LossBufferSelector, RowSelector
from lossbuf.selectors.labels import check_classes, label_array
from lossbuf.selectors.samples import validated

_Fitted = TypeVar("_Fitted", bound="CleanAndCondense")


class CleanAndCondense(BaseEstimator):
    """Drops the rows whose labels look wrong; chooses or learns a small set from the rest.

    After a :class:`~lossbuf.selectors.LossBufferSelector` its one training serves both, where the condenser would else
    train a network by default: :class:`~condensation.coresets.Forgetting` without ``statistics`` and ``network`` reads
    the statistics of that training, a coreset with ``features=NetworkFeatures()`` looks at that network, and
    :class:`~condensation.distillation.KnowledgeDistillation` without ``teacher`` is taught by it. CRAIG, CRUST and
    ``GradientNorm`` need a network of the first epochs, which is not kept, and train their own on the rows kept, as
    the base of a ``KnowledgeDistillation`` does. Matching and distillation of data take fresh networks, as published.

    For several small sets from one cleaning, give a fitted cleaner as ``FrozenEstimator(cleaner)``, of
    :mod:`sklearn.frozen`; :meth:`fit` must then be given the very ``X`` and ``y`` that it was fitted on.

    Args:
        cleaner: Any estimator with ``fit(X, y)`` and ``get_support()``, a mask of the rows kept; ``None`` keeps all.
        condenser: A coreset, or a method that learns, as :class:`~condensation.matching.GradientMatching` is.
        random_state: Seeds those of the two that have a ``random_state`` of ``None``; ``None`` leaves them alone.

    Attributes:
        cleaner_: Fitted; ``None`` where there is none.
        condenser_: Fitted on the rows kept, with the settings that it read from the cleaning.
        kept_indices_: Rows of ``X`` kept, ascending.
        classes_: The labels found, shape ``(num_classes,)``.
        n_features_in_: Size of the second axis of ``X``.

    Example:
        >>> from sklearn.datasets import make_blobs
        >>> from condensation.coresets import Herding
        >>> X, y = make_blobs(60, centers=2, random_state=0, cluster_std=0.5)
        >>> y[0] = 1 - y[0]
        >>> cleaner = LossBufferSelector(epochs=10, noise_rate=1 / 60)
        >>> pipeline = CleanAndCondense(cleaner=cleaner, condenser=Herding(ipc=2), random_state=0)
        >>> small = pipeline.fit(X, y).condensed_set()
        >>> len(small), small.provenance.cleaning.dropped, 0 in small.provenance.rows
        (4, 1, False)
    """

    def __init__(
        self,
        *,
        cleaner: Any,
        condenser: Coreset | Condenser,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.cleaner = cleaner
        self.condenser = condenser
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags

    def fit(
        self: _Fitted,
        X: Any,
        y: Any,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        callback: Callback | None = None,
    ) -> _Fitted:
        """Clean, then condense. What fails after the cleaning leaves ``cleaner_``, to be frozen and given again.

        Args:
            X: Samples, an array or tensor of shape ``(n_samples, n_features)`` or
                ``(n_samples, channels, height, width)``; methods that learn want images.
            y: Labels, possibly wrong, shape ``(n_samples,)``: integers or strings.
            checkpoint: Of a method that learns, see :meth:`condensation.learned.condenser.Condenser.fit`. A resumed run
                cleans once more, so the cleaner must have a seed.
            callback: Of a method that learns, called after every iteration.

        Raises:
            ValueError: If shapes, values or settings are not usable, or cleaning leaves a class without rows.
        """
        self._check_settings(checkpoint, callback)
        X = untensored(X)
        checked: Any = validated(self, X, label_array(y), allow_nd=True)
        samples, labels = checked
        check_classes(labels)
        given = self.random_state
        seeds = (None, None) if given is None else check_random_state(given).randint(2**31, size=2).tolist()
        self.cleaner_ = None if self.cleaner is None else _seeded(self.cleaner, seeds[0]).fit(samples, labels)
        condenser = _seeded(self.condenser, seeds[1])
        mask = np.ones(len(samples), dtype=bool) if self.cleaner_ is None else _support(self.cleaner_, samples, labels)
        kept, classes = np.flatnonzero(mask), np.unique(labels)
        emptied = np.setdiff1d(classes, labels[kept])
        if len(emptied):
            told = ", ".join(f"none of the {(labels == label).sum()} of class {label}" for label in emptied)
            raise ValueError(checks.problem("cleaner", "must keep a row of every class", told, "Let it drop fewer."))
        fitted = _thawed(self.cleaner_)
        if isinstance(fitted, LossBufferSelector):
            condenser.informed_by(CleaningTraining(fitted, samples, kept))
        provenance = Provenance(
            rows=None if fitted is None else torch.from_numpy(kept),
            n_samples=len(samples),
            fingerprint=fingerprint(samples, labels),
            cleaning=None if fitted is None else cleaning_by(fitted, mask),
        )
        samples, labels = samples[kept], labels[kept]
        asked = {"checkpoint": checkpoint, "callback": callback}
        options = {name: value for name, value in asked.items() if value is not None}
        self._resampled = condenser.fit_resample(samples, labels, **options)
        self.condenser_, self.kept_indices_, self.classes_ = condenser, kept, classes  # whatever fails below
        self._set = condenser.condensed_set(samples, labels, provenance=provenance)
        return self

    def fit_resample(
        self,
        X: Any,
        y: Any,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        callback: Callback | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Clean, condense and give the small set, in the units of ``X``, and its labels, as arrays.

        Labels are of ``classes_``, or the probability of every class where the method learns labels. A coreset's
        weights are in ``condenser_``. Arguments and errors are those of :meth:`fit`.
        """
        return self.fit(X, y, checkpoint=checkpoint, callback=callback)._resampled

    def condensed_set(self) -> CondensedSet:
        """The small set, to be saved, loaded and trained on, with the rows it came from and how they were cleaned.

        Raises:
            NotFittedError: If the estimator is not fitted.
        """
        check_is_fitted(self, "condenser_")
        return self._set

    def _check_settings(self, checkpoint: object, callback: object) -> None:
        """What would else be found after the cleaning."""
        if self.cleaner is not None and not (hasattr(self.cleaner, "fit") and hasattr(self.cleaner, "get_support")):
            rule = "must have fit and get_support, or be None"
            raise ValueError(checks.problem("cleaner", rule, repr(self.cleaner)))
        if not isinstance(self.condenser, Coreset | Condenser):
            rule = "must be a coreset or a method that learns"
            raise ValueError(checks.problem("condenser", rule, repr(self.condenser)))
        for name, given in (("checkpoint", checkpoint), ("callback", callback)):
            if given is not None and not has_fit_parameter(self.condenser, name):
                raise ValueError(checks.problem(name, "must be None for a coreset, which has no iterations", given))


def cleaning_by(cleaner: Any, mask: NDArray[np.bool_]) -> Cleaning:
    """What an estimator did, for the provenance.

    The share of right labels among the rows kept is told by the planted labels it found, where there are any; else by
    its posterior, which errs on the high side. Of other estimators than
    :class:`~lossbuf.selectors.LossBufferSelector` neither this nor the noise rate is known.

    Args:
        cleaner: Fitted.
        mask: Rows it kept, shape ``(n_samples,)``.
    """
    noise_rate = pure_rate = None
    if isinstance(cleaner, LossBufferSelector):
        noise_rate = cleaner.noise_rate_
        if cleaner.planted_found_ is not None:
            pure_rate = 1 - min(noise_rate * (1 - cleaner.planted_found_) / mask.mean(), 1.0)
        elif cleaner.rank_by == "posterior":
            pure_rate = 1 - expit(cleaner.scores_[mask].astype(np.float64)).mean()
    return Cleaning(
        name=type(cleaner).__name__,
        settings=described(cleaner.get_params(deep=False)),
        dropped=int((~mask).sum()),
        noise_rate=noise_rate,
        pure_rate=pure_rate,
    )


def _seeded(estimator: Any, seed: int | None) -> Any:
    """A copy, with the seed where it has a ``random_state`` of ``None``."""
    copy: Any = clone(estimator)
    if "random_state" in copy.get_params(deep=False) and copy.random_state is None:
        copy.set_params(random_state=seed)
    return copy


def _thawed(estimator: Any) -> Any:
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator


def _support(cleaner: Any, samples: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.bool_]:
    """The mask of the rows kept; of a frozen cleaner those it was fitted on must be the ones given now."""
    mask = np.asarray(cleaner.get_support())
    if mask.dtype != bool or mask.shape != (len(samples),):
        rule = f"must give a mask of the {len(samples)} rows by get_support()"
        raise ValueError(checks.problem("cleaner", rule, f"{mask.dtype} of shape {mask.shape}"))
    fitted = _thawed(cleaner)
    if fitted is cleaner:
        return mask
    if isinstance(fitted, RowSelector):
        fitted.transform(samples)  # raises for another X
    if isinstance(fitted, LossBufferSelector):
        given = fitted.classes_[fitted.callback_.dynamics.labels.numpy()]
        if not np.array_equal(given, labels):
            raise ValueError(checks.problem("y", "must be the labels that the frozen cleaner was fitted on", "others"))
    return mask
