"""``LossBufferSelector``: one training with loss buffers, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor, nn

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.data import standardised
from lossbuf.detection.neighbours import features_of
from lossbuf.detection.thresholds import CutRule
from lossbuf.detection.verdict import Verdict
from lossbuf.detection.weighting import soft_weights
from lossbuf.networks import batch_size_of, default_lr, default_network
from lossbuf.selectors.base import RowSelector
from lossbuf.training import TrainSettings, build, train


class LossBufferSelector(RowSelector):
    """Keeps the rows whose labels look right, after one training of a network on all of them.

    ``fit`` trains; ``transform`` keeps the clean rows of that same ``X``; ``fit_resample`` gives clean ``X`` and
    ``y``, as imbalanced-learn's samplers do. ``transform`` is there after ``fit`` only, since imbalanced-learn's
    ``Pipeline`` takes no step that has both.

    Args:
        module: Called as ``module(sample_shape, num_classes)``, makes the network; by default
            :func:`~lossbuf.networks.default_network`, a ConvNet for images ``(n_samples, channels, height, width)``,
            and a perceptron or, with fewer than 1,000 rows, a linear layer for everything else.
        epochs: Passes over the data.
        batch_size: Rows per step; by default at most 128, and at least 32 steps per epoch.
        lr: Highest learning rate; by default .05, and .02 where the default network is linear.
        weight_decay: Of SGD.
        rank_by: What to rank by, ``"posterior"`` or one of :data:`~lossbuf.recording.sample_statistics.SUSPICIONS`.
        noise_rate: Share of wrong labels, where it is known.
        max_fdr: Largest share of right labels among the suspects to put up with, as an alternative.
        cut: Rule for the cut, as another; by default as many rows are dropped as labels are estimated to be wrong.
        mode: ``"watch"``, ``"filter"`` or ``"reweight"``, as in :class:`~lossbuf.callback.LossBufferCallback`.
        warmup: Epochs before the mode begins; ``"auto"`` lets the data decide, within half of all and at most 6.
        window: Losses kept a class and ring.
        planted: Share of the rows that train with a wrong label planted on purpose, to see how many are found, which
            the noise rate is then estimated from as well. .02 to .05 is usual.
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
        noise_rate_interval_: Around the estimate, see :class:`~lossbuf.detection.verdict.Verdict`; ``None`` like
            ``transition_``.
        transition_: Estimated P(given | true), rows sum to 1, in the order of ``classes_``; ``None`` where
            ``rank_by`` is not ``"posterior"``.
        planted_found_: Share of the planted labels that are suspects: an estimate of the share of all wrong labels that
            was found; ``None`` where nothing was planted.
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
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float = 5e-4,
        rank_by: str = "posterior",
        noise_rate: float | None = None,
        max_fdr: float | None = None,
        cut: CutRule | None = None,
        mode: str = "filter",
        warmup: int | str = "auto",
        window: int = 512,
        planted: float = 0.0,
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
        self.planted = planted
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def _select(self, X: NDArray[Any], labels: Tensor, classes: NDArray[Any]) -> NDArray[np.int64]:
        num_classes = len(classes)
        settings = TrainSettings(
            epochs=self.epochs,
            batch_size=batch_size_of(len(X)) if self.batch_size is None else self.batch_size,
            lr=self._default_lr(X) if self.lr is None else self.lr,
            weight_decay=self.weight_decay,
            seed=int(check_random_state(self.random_state).randint(2**31)),
            device=self.device,
        )
        callback = LossBufferCallback(
            labels,
            num_classes,
            window=self.window,
            mode=self.mode,
            warmup=self.warmup,
            epochs=settings.epochs,
            features=features_of(X) if self.rank_by == "posterior" else None,
            rank_by=self.rank_by,
            noise_rate=self.noise_rate,
            max_fdr=self.max_fdr,
            cut=self.cut,
            planted=self.planted,
            planted_seed=settings.seed,
        )
        (x,) = standardised(X)
        make = self.module or partial(default_network, n_samples=len(x))
        network = build(lambda: make(tuple(x.shape[1:]), num_classes), settings)
        train(network, x, labels, settings, callback=callback, progress="training" if self.progress else None)
        return self._take(callback.cpu(), network, callback.verdict(), classes)

    def _default_lr(self, X: NDArray[Any]) -> float:
        return default_lr(X.shape[1:], len(X) if self.module is None else None)

    def _take(
        self, callback: LossBufferCallback, network: nn.Module, verdict: Verdict, classes: NDArray[Any]
    ) -> NDArray[np.int64]:
        """Keep what a training said; the rows to keep."""
        self.callback_, self.module_ = callback, network
        self.scores_ = verdict.suspicion
        self.noise_rate_ = verdict.cut.noise_rate
        self.noise_rate_interval_ = verdict.noise_rate_interval
        self.transition_ = verdict.transition
        self.planted_found_ = None if verdict.planted is None else verdict.planted.found
        self.sample_weight_ = soft_weights(verdict.suspicion, verdict.cut)
        self.suggested_labels_ = classes[verdict.suggested(callback.dynamics.labels.numpy())]
        return np.flatnonzero(~verdict.cut.suspect_mask)

    @classmethod
    def from_training(
        cls, callback: LossBufferCallback, module: nn.Module, X: Any, y: Any, *, verdict: Verdict | None = None
    ) -> LossBufferSelector:
        """A fitted selector from a training of your own, for what asks for one, as a pipeline of condensation does.

        Args:
            callback: What the training was seen to do; it moves to the CPU.
            module: The network, which takes ``X`` as :func:`~lossbuf.data.standardised` gives it.
            X: Samples, as :meth:`fit` takes them.
            y: Their labels: integers or strings, in whose sorted order ``callback`` numbers them.
            verdict: On the labels, by default the callback's.

        Raises:
            ValueError: If the callback is not of these labels.
        """
        selector = cls(
            epochs=max(callback.epoch, 1),
            rank_by=callback.rank_by,
            cut=callback.cut,
            mode=callback.mode,
            warmup=callback.warmup,
            window=callback.rings.window,
        )

        def select(_: NDArray[Any], labels: Tensor, classes: NDArray[Any]) -> NDArray[np.int64]:
            if not torch.equal(labels, callback.dynamics.labels.cpu()):
                raise ValueError(checks.problem("y", "must be the labels that `callback` was made for", "others"))
            return selector._take(callback.cpu(), module, verdict or callback.verdict(), classes)

        selector._fit(X, y, select)
        selector._transforms = True
        return selector
