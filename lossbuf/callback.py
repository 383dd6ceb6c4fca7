"""``LossBufferCallback``: loss buffers, dynamics, scores and cut, for any training loop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer, Real
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.detection import diagnostics as doubts
from lossbuf.detection.online import OnlineDetector
from lossbuf.detection.thresholds import Cut, CutRule
from lossbuf.detection.verdict import RANKINGS, Verdict, cut_rule, table
from lossbuf.detection.warmup import AUTO
from lossbuf.detection.weighting import class_weights, soft_weights, with_class_weights
from lossbuf.errors import LossBufferWarning
from lossbuf.files import load_tensors, restoring, save_tensors
from lossbuf.recording.losses import weighted_mean_loss
from lossbuf.recording.process_group import is_first
from lossbuf.recording.row_names import RowNames
from lossbuf.recording.saved_state import check_same_kind, fingerprint

_KIND = "lossbuf.callback"
_VERSION = 5


class LossBufferCallback(OnlineDetector):
    """Finds wrong labels while a network trains.

    In every training step call :meth:`loss` (or :meth:`update`, and weight the losses yourself); after every pass over
    the data call :meth:`end_epoch`; then read :meth:`report`, :meth:`select` and :meth:`weights`.

    A step copies its logits, labels and rows to a block on the training device and no more. A full block is digested
    in one pass: its losses enter the rings, and its rows are scored against the class means of the rings then. The
    block's size depends on the number of classes and the largest batch alone, so results do not depend on timing. No
    step waits for the GPU.

    What is bad is left out and told: logits or losses that are NaN, infinite or beyond 1e30 are counted, labels or rows
    out of range raise at once on a CPU and are counted on a GPU, and :meth:`end_epoch` warns with the counts. A row
    that comes twice in an epoch counts once.

    Under ``torch.distributed`` every rank holds the same state, that of one process on the same global batches (the
    ranks' batches one after the other). All ranks must make the same number of steps with batches of the same size;
    only the last of an epoch may differ, and be smaller. In the first step they compare their settings.

    Args:
        labels: Given labels of all rows, shape ``(n_samples,)``; rows are numbered from 0 in this order.
        num_classes: Number of classes; by default the largest label plus 1.
        ids: Hashable names of the rows, unique, ``n_samples`` of them; steps then give names instead of row numbers.
        window: Losses kept a class and ring.
        mode: ``"watch"`` changes nothing in training; ``"filter"`` gives suspects weight 0 and ``"reweight"`` less
            weight, anew after every epoch from the end of the warm-up (with ``"posterior"`` only if the rows kept are
            then expected to be pure enough, see :class:`~lossbuf.detection.posterior.LabelPosterior`).
        warmup: Epochs before ``"filter"`` or ``"reweight"`` begins, at least 1: enough for the network to know the
            classes, too few for it to memorize wrong labels. With ``"auto"`` the data decide: 5 to 10 % of the rows
            are recorded but not trained on until then, and their label losses show when labels start to be memorized
            (:class:`~lossbuf.detection.warmup.Warmup`). In mode ``"watch"`` no row is held back.
        epochs: Epochs of the whole training, where they are known. An automatic warm-up then takes at most half of
            them.
        features: Features of all rows, such as the columns of a table or embeddings of a pretrained network, finite,
            shape ``(n_samples, n_features)``. The given labels of the ten nearest neighbours of each row are then
            combined with the outputs of the network (:mod:`lossbuf.detection.neighbours`). For ``"posterior"`` only.
        rank_by: What to rank by: ``"posterior"``, the log-odds that the label is wrong, or one of
            :data:`~lossbuf.recording.sample_statistics.SUSPICIONS`.
        noise_rate: Share of wrong labels, where it is known.
        max_fdr: Largest share of right labels among the suspects to put up with, as an alternative; for ``"posterior"``
            only.
        cut: Rule that sets the cut, as another. By default :class:`~lossbuf.detection.thresholds.MaxF1` where suspects
            were dropped while training, else as many rows are suspects as labels are estimated to be wrong; with
            another ranking :class:`~lossbuf.detection.thresholds.Mixture` decides.
        planted: Share of the rows that train with a wrong label planted on purpose from the middle of the warm-up on,
            to see how many are found (:class:`~lossbuf.detection.planted.PlantedLabels`); .01 to .05 is usual. For
            ``"posterior"`` and :meth:`loss` only. Statistics of these rows speak of the planted label.
        planted_seed: Decides which, and which rows an automatic warm-up holds back.
        class_weight: How much each class counts in :meth:`loss`, shape ``(num_classes,)``, as the ``weight`` of
            :class:`torch.nn.CrossEntropyLoss`: the loss is the mean over the rows kept, each counting by its weight
            times that of its class. The losses that are recorded stay unweighted. By default all count alike.
        storage: Where the record of the samples lies: ``None`` with the network, ``"cpu"`` in the host's memory, or a
            folder, in files mapped to memory there. On a GPU it then takes 20 bytes a sample.

    Raises:
        ValueError: If labels are out of range, ids are not unique, or a setting has no meaning.

    Example:
        >>> import torch
        >>> callback = LossBufferCallback(torch.tensor([0, 1, 1]), noise_rate=1 / 3)
        >>> logits = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
        >>> loss = callback.loss(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
        >>> callback.end_epoch()
        >>> callback.select()
        array([0, 1])
    """

    class_weight: Tensor | None

    def __init__(
        self,
        labels: Integer[Tensor, " n_samples"] | Sequence[int] | NDArray[np.integer] | pd.Series,
        num_classes: int | None = None,
        *,
        ids: Sequence[Hashable] | None = None,
        window: int = 512,
        mode: str = "watch",
        warmup: int | str = AUTO,
        epochs: int | None = None,
        features: ArrayLike | Tensor | None = None,
        rank_by: str = "posterior",
        noise_rate: float | None = None,
        max_fdr: float | None = None,
        cut: CutRule | None = None,
        planted: float = 0.0,
        planted_seed: int = 0,
        class_weight: Real[Tensor, " num_classes"] | Sequence[float] | NDArray[np.number] | None = None,
        storage: str | os.PathLike[str] | None = None,
    ) -> None:
        if num_classes is not None:
            checks.positive_int("num_classes", num_classes)
        given = checks.class_labels("labels", labels, num_classes)
        count = int(given.max()) + 1 if num_classes is None else num_classes
        names = RowNames(ids, len(given))
        super().__init__(
            given,
            count,
            window=window,
            mode=mode,
            warmup=warmup,
            epochs=epochs,
            features=features,
            rank_by=rank_by,
            noise_rate=noise_rate,
            cut=cut_rule(checks.one_of("rank_by", rank_by, RANKINGS), noise_rate, max_fdr, cut),
            planted=planted,
            planted_seed=planted_seed,
            storage=storage,
        )
        self.names, self.ids = names, names.ids
        self.register_buffer("class_weight", class_weights(class_weight, self.num_classes), persistent=False)
        self._doubted: dict[tuple[int, ...], tuple[str, ...]] = {}  # what was warned of, at this state

    def loss(
        self,
        logits: Float[Tensor, "batch num_classes"],
        labels: Integer[Tensor, " batch"],
        indices: Integer[Tensor, " batch"] | Sequence[Hashable],
    ) -> Float[Tensor, ""]:
        """Take note of a batch and give its weighted mean cross-entropy, to call ``backward`` on.

        Arguments and errors are those of :meth:`update`. Where all weights, or all rows, are gone the loss is 0.
        """
        rows = self._rows(logits, labels, indices)
        if self.planted is not None:
            labels = self.planted.to(logits.device).trained_on(labels, rows)
        weights = self._update(logits, labels, rows)
        if self.class_weight is not None:
            weights = with_class_weights(weights, labels, self.class_weight)
        elif not self.weighted:
            weights = None
        return weighted_mean_loss(logits, labels, weights)

    forward = loss

    def update(
        self,
        logits: Float[Tensor, "batch num_classes"],
        labels: Integer[Tensor, " batch"],
        indices: Integer[Tensor, " batch"] | Sequence[Hashable],
    ) -> Float[Tensor, " batch"]:
        """Take note of a batch, without waiting for the GPU but once, in the middle of a training of one epoch.

        Args:
            logits: Outputs of the network in training, shape ``(batch, num_classes)``, any floating dtype.
            labels: Labels as given, shape ``(batch,)``.
            indices: Rows of the samples in ``[0, n_samples)``, shape ``(batch,)``, or their ids.

        Returns:
            The weight of each sample in the loss, in [0, 1], shape ``(batch,)``; all 1 in mode ``"watch"``. Weights of
            classes are not among them.

        Raises:
            ValueError: If shapes or dtypes do not fit, an id is unknown or, on a CPU, a label or row is out of range.
                Nothing of the batch is then noted.
        """
        return self._update(logits, labels, self._rows(logits, labels, indices))

    def _rows(self, logits: Tensor, labels: Tensor, indices: Tensor | Sequence[Hashable]) -> Tensor:
        self._check_batch(logits, labels)
        rows = self.names.rows(indices, logits.device)
        checks.batch_vector("indices", rows, logits)
        return rows

    def verdict(self, *, warn: bool = True) -> Verdict:
        """Suspicion, cut, likely classes and transition matrix, as they are now.

        Args:
            warn: Whether to warn of doubts; those that are not warned of now are warned of by whoever asks next.

        Warns:
            LossBufferWarning: If most labels of a class seem wrong, the two estimates of the noise rate disagree,
                nothing was dropped where it should have been, or ``end_epoch`` seems to be missing. Between two steps
                each of these is warned of once, however often the callback is asked.
        """
        return self._told_verdict() if warn else self._verdict()

    def _told_verdict(self) -> Verdict:
        verdict = self._verdict()
        found = doubts.of_nothing_seen(verdict) or doubts.of_verdict(verdict, self.noise_rate, self.cut is not None)
        found += doubts.of_epochs(self.dynamics.rows_in_epoch, self.n_samples)
        found = doubts.of_disagreement(self.warm_up, verdict, self.noise_rate) + found
        found = doubts.of_memory(self.warm_up, verdict, self.mode) + found
        if self.mode != "watch" and self.epoch and not self.dropped:
            found += doubts.of_nothing_dropped(self.epoch, self.warm_up, self.posterior)
        state = (self.epoch, self.dynamics.rows_in_epoch, self.stage.steps)
        before = self._doubted.pop(state, ())
        self._doubted = {state: (*before, *found)}
        for doubt in found:
            if doubt not in before:  # whoever asks for a table after a cut is warned once
                warnings.warn(doubt, LossBufferWarning, stacklevel=3)
        return verdict

    def find_cut(self) -> Cut:
        """The cut by the settings of this callback: threshold, noise rate and suspects."""
        return self._told_verdict().cut

    def report(self) -> pd.DataFrame:
        """All samples, most suspect first.

        Returns:
            A table with one row a sample: ``id``, ``given_label``, ``suggested_label`` (for a suspect the class it is
            likely of, else the given label), ``is_suspect``, ``wrong_probability`` (with ``"posterior"``), and every
            statistic of :class:`~lossbuf.recording.sample_statistics.SampleStatistics`. The index is the row number.
        """
        return table(self._told_verdict(), self.statistics(), self.dynamics.labels, self.ids)

    def select(self) -> NDArray[np.int64]:
        """Row numbers of the samples kept, ascending; rows never seen are among them."""
        return np.flatnonzero(~self._told_verdict().suspect_mask)

    def weights(self) -> NDArray[np.float32]:
        """Soft sample weights in [0, 1] from the scores so far, shape ``(n_samples,)``."""
        verdict = self._told_verdict()
        return soft_weights(verdict.suspicion, verdict.cut)

    def get_extra_state(self) -> dict[str, Any]:
        """The cursors that are no tensors, and what the state belongs to."""
        return {
            "version": _VERSION,
            "num_classes": self.num_classes,
            "n_samples": self.n_samples,
            "window": self.rings.window,
            "mode": self.mode,
            "rank_by": self.rank_by,
            "warmup": self.warm_up.identity,
            "neighbours": self.posterior is not None and self.posterior.nearest is not None,
            "planted": None if self.planted is None else self.planted.identity,
            "data": fingerprint(self.dynamics.labels, self.ids),
            "stage": self.stage.state(),
            "told": list(self._told),
            "weighted": self.weighted,
            "dropped": self.dropped,
        }

    def _settings(self) -> dict[str, Any]:
        weights = None if self.class_weight is None else self.class_weight.tolist()
        return super()._settings() | {"class_weight": weights}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.stage.load(state["stage"])
        self._told = list(state["told"])
        self.weighted, self.dropped = bool(state["weighted"]), bool(state["dropped"])

    def check_state(self, state_dict: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` where a state is of other settings, another data set or another network."""
        check_same_kind(self.state_dict(), state_dict)
        start = state_dict["warm_up._extra_state"]["start"]
        if self.warm_up.start is not None and start is not None:
            self.warm_up.start.check(start)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Restore a state, whole or not at all.

        Raises:
            ValueError: If it is of other settings or another data set. What was collected so far then stays.
        """
        self.check_state(state_dict)
        found = super().load_state_dict(state_dict, strict, assign)
        if self.posterior is not None:
            self.posterior.warmup = self.warm_up.longest
        self._digest(self.stage.loaded(self.sample_weights.device))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state to a file; in a process group rank 0 writes.

        Raises:
            ValueError: If there were steps in a process group since :meth:`flush`.
        """
        if is_first():
            self.stage.check_sent()
            save_tensors(path, {"kind": _KIND, "state": dict(self.state_dict())})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Restore what :meth:`save` wrote, into a callback made for the same labels and settings.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, holds code, or is of other settings or data. What was collected stays.
        """
        with restoring(path):
            self.load_state_dict(load_tensors(path, _KIND).get("state", {}))
