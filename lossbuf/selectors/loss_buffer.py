"""``LossBufferSelector``: one training with loss buffers, as a scikit-learn estimator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.data import standardised
from lossbuf.networks import default_network
from lossbuf.posterior import default_warmup
from lossbuf.thresholds import CutRule
from lossbuf.training import TrainSettings, build, train
from lossbuf.weighting import soft_weights


class LossBufferSelector(BaseEstimator):
    """Keeps the rows whose labels look right, after one training of a network on all of them.

    ``fit`` trains; ``transform`` keeps the clean rows of that same ``X``; ``fit_resample`` gives clean ``X`` and
    ``y``, as imbalanced-learn's samplers do. ``transform`` is there after ``fit`` only, since imbalanced-learn's
    ``Pipeline`` takes no step that has both.

    Args:
        module: Called as ``module(sample_shape, num_classes)``, makes the network; by default a ConvNet for images
            ``(n_samples, channels, height, width)`` and an MLP for everything else.
        epochs: Passes over the data.
        batch_size: Rows a step.
        lr: Highest learning rate.
        weight_decay: Of SGD.
        rank_by: What to rank by, ``"posterior"`` or one of :data:`~lossbuf.dynamics.SUSPICIONS`.
        noise_rate: Share of wrong labels, where it is known.
        max_fdr: Largest share of right labels among the suspects to put up with, as an alternative.
        cut: Rule for the cut, as another; by default as many rows are dropped as labels are estimated to be wrong.
        mode: ``"watch"``, ``"filter"`` or ``"reweight"``, as in :class:`~lossbuf.callback.LossBufferCallback`.
        warmup: Epochs before the mode begins; by default half of all, at most 6.
        window: Losses kept a class and ring.
        device: Where to train; by default the GPU where there is one.
        random_state: Seed, generator or ``None``; the same seed gives the same rows.
        progress: Show a progress bar, on a terminal only.

    Attributes:
        classes_: The labels found, shape ``(num_classes,)``.
        scores_: Suspicion of every row, higher is more suspect, shape ``(n_samples,)``.
        sample_indices_: Rows kept, ascending.
        sample_weight_: Soft weight in [0, 1] of every row, shape ``(n_samples,)``.
        suggested_labels_: For suspects the class they are likely of, else the given label, shape ``(n_samples,)``.
        noise_rate_: Estimated, or given, share of wrong labels.
        noise_rate_interval_: Around the estimate, see :class:`~lossbuf.verdict.Verdict`; ``None`` like ``transition_``.
        transition_: Estimated P(given | true), rows sum to 1, in the order of ``classes_``; ``None`` where
            ``rank_by`` is not ``"posterior"``.
        callback_: The :class:`~lossbuf.callback.LossBufferCallback`, with its ``report()``.
        module_: The trained network.
        n_features_in_: Size of the second axis of ``X``.

    Example:
        >>> from sklearn.datasets import make_blobs
        >>> X, y = make_blobs(60, centers=2, random_state=0, cluster_std=0.5)
        >>> y[0] = 1 - y[0]
        >>> selector = LossBufferSelector(epochs=10, noise_rate=1 / 60, random_state=0).fit(X, y)
        >>> selector.get_support()[0]
        np.False_
    """

    def __init__(
        self,
        module: Callable[[tuple[int, ...], int], nn.Module] | None = None,
        *,
        epochs: int = 20,
        batch_size: int = 128,
        lr: float = 0.05,
        weight_decay: float = 5e-4,
        rank_by: str = "posterior",
        noise_rate: float | None = None,
        max_fdr: float | None = None,
        cut: CutRule | None = None,
        mode: str = "filter",
        warmup: int | None = None,
        window: int = 512,
        device: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.module = module
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.rank_by = rank_by
        self.noise_rate = noise_rate
        self.max_fdr = max_fdr
        self.cut = cut
        self.mode = mode
        self.warmup = warmup
        self.window = window
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X: Any, y: Any) -> LossBufferSelector:
        """Train on all rows and find those to keep.

        Args:
            X: Samples, an array or tensor of shape ``(n_samples, n_features)`` or
                ``(n_samples, channels, height, width)``.
            y: Labels, possibly wrong, shape ``(n_samples,)``: integers or strings.

        Raises:
            ValueError: If shapes, values or settings are not usable.
        """
        self._fit(X, y)
        self._transforms = True
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Train on all rows and give the clean ones, in the containers they came in.

        Arguments and errors are those of :meth:`fit`.
        """
        self._fit(X, y)
        self._transforms = False
        return _rows(X, self.sample_indices_), _rows(y, self.sample_indices_)

    @property
    def transform(self) -> Callable[[Any], Any]:
        """``transform(X)`` keeps the clean rows of the ``X`` that was given to :meth:`fit`.

        Raises:
            NotFittedError: Before ``fit``, and after :meth:`fit_resample`; ``hasattr`` is then False.
            ValueError: If it is another ``X``: which rows of it are clean is not known.
        """
        # Not available_if, which turns the error into a bare AttributeError.
        if not getattr(self, "_transforms", False):
            raise NotFittedError("`transform` keeps rows of the X given to `fit`: call `fit(X, y)` first.")
        return self._transform

    def _transform(self, X: Any) -> Any:
        array = self._samples(X, reset=False)
        if _fingerprint(array) != self._fitted_on:
            mend = "New data has no rows to drop: pass it on as it is."
            raise ValueError(checks.problem("X", "must be the X that was given to `fit`", "another", mend))
        return _rows(X, self.sample_indices_)

    def get_support(self, indices: bool = False) -> NDArray[Any]:
        """Mask of the rows kept, shape ``(n_samples,)``, or their indices."""
        check_is_fitted(self, "sample_indices_")  # a fit that failed leaves n_features_in_
        if indices:
            return self.sample_indices_
        mask = np.zeros(len(self.scores_), dtype=bool)
        mask[self.sample_indices_] = True
        return mask

    def _fit(self, X: Any, y: Any) -> None:
        X_array, y_array = self._samples(X, _as_array(y))
        check_classification_targets(y_array)
        encoder = LabelEncoder()
        labels = torch.from_numpy(np.asarray(encoder.fit_transform(y_array), dtype=np.int64))
        classes: NDArray[Any] = np.asarray(encoder.classes_)
        num_classes = len(classes)
        settings = TrainSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            seed=int(check_random_state(self.random_state).randint(2**31)),
            device=self.device,
        )
        callback = LossBufferCallback(
            labels,
            num_classes,
            window=self.window,
            mode=self.mode,
            warmup=default_warmup(settings.epochs) if self.warmup is None else self.warmup,
            rank_by=self.rank_by,
            noise_rate=self.noise_rate,
            max_fdr=self.max_fdr,
            cut=self.cut,
        )
        (x,) = standardised(X_array)
        make = self.module or default_network
        network = build(lambda: make(tuple(x.shape[1:]), num_classes), settings)
        train(network, x, labels, settings, callback=callback, progress="training" if self.progress else None)
        self.callback_, self.module_, self.classes_ = callback.cpu(), network, classes
        verdict = callback.verdict()
        self.scores_ = verdict.suspicion
        self.noise_rate_ = verdict.cut.noise_rate
        self.noise_rate_interval_ = verdict.noise_rate_interval
        self.transition_ = verdict.transition
        self.sample_indices_ = np.flatnonzero(~verdict.cut.suspect_mask)
        self.sample_weight_ = soft_weights(verdict.suspicion, verdict.cut)
        suggested = verdict.suggested(labels.numpy())
        self.suggested_labels_ = self.classes_[suggested]
        self._fitted_on = _fingerprint(X_array)

    def _samples(self, X: Any, y: Any = "no_validation", reset: bool = True) -> Any:
        checked = validate_data(self, _as_array(X), y, reset=reset, allow_nd=True, dtype="numeric")
        found = np.shape(checked if isinstance(y, str) else checked[0])
        if len(found) == 4 and found[-1] in (1, 3) and found[1] not in (1, 3):
            mend = "Move the channels: np.moveaxis(X, -1, 1)."
            raise ValueError(
                checks.problem("X", "must be (n_samples, channels, height, width)", f"shape {found}", mend)
            )
        return checked


def _as_array(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _rows(values: Any, rows: NDArray[np.int64]) -> Any:
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    if isinstance(values, list | tuple):
        return [values[row] for row in rows]
    return values[rows]


def _fingerprint(array: NDArray[Any]) -> str:
    return hashlib.sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
