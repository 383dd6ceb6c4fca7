"""What estimators that choose rows of their ``X`` have in common."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from lossbuf import checks
from lossbuf.arrays.content_hash import content_hash
from lossbuf.arrays.conversion import untensored
from lossbuf.selectors.labels import check_classes, label_array
from lossbuf.selectors.samples import of_anything, validated

# Not typing.Self, which beartype does not take on a method by itself.
_Fitted = TypeVar("_Fitted", bound="RowSelector")
_Select = Callable[[NDArray[Any], Tensor, NDArray[Any]], NDArray[np.int64]]


@dataclass
class _GivesIndices:
    sample_indices: bool = True


@dataclass
class SamplerTags(Tags):
    """scikit-learn's tags of an estimator, and what imbalanced-learn asks of a sampler.

    Attributes:
        sampler_tags: Says that the sampler has ``sample_indices_``.
    """

    sampler_tags: _GivesIndices = field(default_factory=_GivesIndices)

    @classmethod
    def of(cls, tags: Tags) -> SamplerTags:
        """The same tags, with those of a sampler."""
        return cls(**{part.name: getattr(tags, part.name) for part in fields(tags)})


class RowSelector(BaseEstimator, metaclass=ABCMeta):
    """An estimator whose result is some of the rows it was given; a subclass says which in ``_select``.

    ``fit`` chooses; ``transform`` gives the chosen rows of that same ``X``; ``fit_resample`` gives them of ``X`` and
    ``y``, as imbalanced-learn's samplers do. ``transform`` is there after ``fit`` only, since imbalanced-learn's
    ``Pipeline`` takes no step that has both.

    Attributes:
        classes_: The labels found, shape ``(num_classes,)``.
        sample_indices_: Rows chosen.
        n_features_in_: Size of the second axis of ``X``.
    """

    def __sklearn_tags__(self) -> Any:
        tags = SamplerTags.of(super().__sklearn_tags__())
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = tags.input_tags.string = not self._looks_at_samples
        return tags

    n_features_in_: int
    _looks_at_samples: ClassVar[bool] = True
    """False where the choice depends on the labels only: ``X`` may then hold anything, in any container."""

    @abstractmethod
    def _select(self, X: NDArray[Any], labels: Tensor, classes: NDArray[Any]) -> NDArray[np.int64]:
        """The rows to choose; sets the attributes of the subclass.

        Args:
            X: Samples, checked.
            labels: Number of each row's class in ``classes``, int64, shape ``(n_samples,)``.
            classes: The labels found.
        """

    def fit(self: _Fitted, X: Any, y: Any) -> _Fitted:
        """Choose among all rows.

        Args:
            X: Samples, an array, tensor, data frame or sparse matrix of shape ``(n_samples, n_features)``, or an array
                or tensor of shape ``(n_samples, channels, height, width)``. Sparse ones are made dense to be looked at.
            y: Labels, possibly wrong, shape ``(n_samples,)``: integers or strings; or one-hot, shape
                ``(n_samples, num_classes)``.

        Raises:
            ValueError: If shapes, values or settings are not usable.
        """
        self._fit(X, y)
        self._transforms = True
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Choose among all rows and give those chosen, in the containers they came in.

        Arguments and errors are those of :meth:`fit`.
        """
        self._fit(X, y)
        self._transforms = False
        return _rows(X, self.sample_indices_), _rows(y, self.sample_indices_)

    @property
    def transform(self) -> Callable[[Any], Any]:
        """``transform(X)`` gives the chosen rows of the ``X`` that was given to :meth:`fit`.

        Raises:
            NotFittedError: Before ``fit``, and after :meth:`fit_resample`; ``hasattr`` is then False.
            ValueError: If it is another ``X``: which rows of it to choose is not known.
        """
        # Not available_if, which turns the error into a bare AttributeError.
        if not getattr(self, "_transforms", False):
            raise NotFittedError("`transform` keeps rows of the X given to `fit`: call `fit(X, y)` first.")
        return self._transform

    def _transform(self, X: Any) -> Any:
        if _fingerprint(self._samples(X, reset=False)) != self._fitted_on:
            advice = "New data has no rows to drop: pass it on as it is."
            raise ValueError(checks.problem("X", "must be the X that was given to `fit`", "another", advice))
        return _rows(X, self.sample_indices_)

    @property
    def sample_classes(self) -> NDArray[np.int64]:
        """Classes in ``[0, num_classes)`` of the rows chosen, as given to :meth:`fit`, shape ``(k,)``."""
        return self._sample_classes

    @property
    def fitted_params(self) -> dict[str, Any]:
        """The settings at the time of :meth:`fit`."""
        return self._fitted_params

    @property
    def sampling_strategy_(self) -> dict[Any, int]:
        """Number of rows chosen per class, under the name that imbalanced-learn's samplers give it."""
        check_is_fitted(self, "sample_indices_")
        counts = np.bincount(self._sample_classes, minlength=len(self.classes_))
        return dict(zip(self.classes_.tolist(), counts.tolist(), strict=True))

    def get_support(self, indices: bool = False) -> NDArray[Any]:
        """Mask of the rows chosen, shape ``(n_samples,)``, or their indices."""
        check_is_fitted(self, "sample_indices_")  # a fit that failed leaves n_features_in_
        if indices:
            return self.sample_indices_
        mask = np.zeros(self._n_samples, dtype=bool)
        mask[self.sample_indices_] = True
        return mask

    def _fit(self, X: Any, y: Any, select: _Select | None = None) -> None:
        """Choose by ``select``, by default the subclass's ``_select``."""
        X_array, y_array = self._samples(X, label_array(y))
        check_classes(y_array)
        encoder = LabelEncoder()
        labels = torch.from_numpy(np.asarray(encoder.fit_transform(y_array), dtype=np.int64))
        classes: NDArray[Any] = np.asarray(encoder.classes_)
        # Sparse samples are here only where nothing looks at them.
        samples = np.empty((X_array.shape[0], 0)) if issparse(X_array) else X_array
        chosen = (select or self._select)(samples, labels, classes)
        self._keep(classes, chosen, labels.numpy(), _fingerprint(X_array))

    def _keep(
        self, classes: NDArray[Any], chosen: NDArray[np.int64], labels: NDArray[np.int64], fitted_on: str | None
    ) -> None:
        """Keep what was chosen, and what it was chosen from: classes, labels of all rows and their fingerprint."""
        self.classes_, self.sample_indices_, self._n_samples = classes, chosen, len(labels)
        self._sample_classes, self._fitted_params, self._fitted_on = labels[chosen], self.get_params(False), fitted_on

    def _samples(self, X: Any, y: Any = "no_validation", reset: bool = True) -> Any:
        X = untensored(X)
        if not self._looks_at_samples:
            checks.channels_first("X", getattr(X, "shape", ()))
            return of_anything(self, X, y, reset)
        checked = validated(self, X, y, reset=reset, allow_nd=True, accept_sparse="csr")
        samples, *labels = (checked,) if isinstance(y, str) else checked
        samples = samples.toarray() if issparse(samples) else samples
        checks.channels_first("X", samples.shape)
        return (samples, *labels) if labels else samples

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the features of the rows chosen: those of ``X``, or ``x0``, ``x1`` and so on.

        Args:
            input_features: The same names, or ``None``.

        Raises:
            NotFittedError: Before ``fit``.
            ValueError: If these are other names.
        """
        check_is_fitted(self, "sample_indices_")
        numbered = np.array([f"x{place}" for place in range(self.n_features_in_)], dtype=object)
        names = getattr(self, "feature_names_in_", numbered)
        if input_features is None:
            return names
        given = np.asarray(input_features, dtype=object)
        if hasattr(self, "feature_names_in_") and not np.array_equal(given, names):
            raise ValueError(
                "`input_features` must be those of `fit`: input_features is not equal to feature_names_in_."
            )
        if len(given) != self.n_features_in_:
            rule = f"should have length equal to number of features ({self.n_features_in_})"
            raise ValueError(f"input_features {rule}, got {len(given)}.")
        return given


def _rows(values: Any, rows: NDArray[np.int64]) -> Any:
    if issparse(values) and values.format not in ("csr", "csc", "lil"):
        return values.tocsr()[rows].asformat(values.format)
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    if isinstance(values, list | tuple):
        return [values[row] for row in rows]
    if isinstance(values, memoryview) or not hasattr(values, "shape"):
        return np.asarray(values)[rows]
    return values[rows]


def _fingerprint(array: Any) -> str:
    if issparse(array) or array.dtype.hasobject:  # whose bytes would be addresses
        return str(joblib.hash(array.tocsr() if issparse(array) else array))
    return content_hash(repr(array.shape), array)
