"""``LossBufferCallback``: loss buffers, dynamics, scores and cut, for any training loop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Integer, Real
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from lossbuf import checks
from lossbuf.detection import diagnostics as doubts
from lossbuf.detection.neighbours import as_features, nearest
from lossbuf.detection.planted import planting
from lossbuf.detection.posterior import LabelPosterior
from lossbuf.detection.thresholds import Cut, CutRule
from lossbuf.detection.verdict import RANKINGS, Verdict, by_posterior, by_statistic, cut_rule, table
from lossbuf.detection.warmup import AUTO, EpochLosses, Warmup, epoch_losses, label_shares
from lossbuf.detection.weighting import class_weights, hard_weights, soft_weights, with_class_weights
from lossbuf.errors import LossBufferWarning
from lossbuf.files import load_tensors, restoring, save_tensors
from lossbuf.recording.dynamics import SampleDynamics
from lossbuf.recording.losses import weighted_mean_loss
from lossbuf.recording.process_group import PADDING, Block, check_agreement, is_first, world_size
from lossbuf.recording.recorder import Watching
from lossbuf.recording.row_names import RowNames
from lossbuf.recording.sample_statistics import SampleStatistics
from lossbuf.recording.saved_state import check_same_kind, fingerprint

_KIND = "lossbuf.callback"
_VERSION = 5
_HALF = 0.5  # the weight below which a row hardly counts as trained on
_REASONS = ("not_finite", "label_out_of_range", "unknown_row", "other_label")


class LossBufferCallback(Watching):
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
        >>> callback = LossBufferCallback(torch.tensor([0, 1, 1]), noise_rate=1 / 3)
        >>> logits = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
        >>> loss = callback.loss(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
        >>> callback.end_epoch()
        >>> callback.select()
        array([0, 1])
    """

    sample_weights: Tensor
    class_probe: Tensor
    class_weight: Tensor | None
    counter: Tensor

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
        super().__init__(count, window, _REASONS, log_probs=rank_by == "posterior")
        self.mode = checks.one_of("mode", mode, ("watch", "filter", "reweight"))
        checks.non_negative_int("planted_seed", planted_seed)
        self.warm_up = Warmup(
            len(given), warmup, epochs, holds_back=mode != "watch", least=2 if planted else 1, seed=planted_seed
        )
        self.warmup = warmup
        self.rank_by = checks.one_of("rank_by", rank_by, RANKINGS)
        self.noise_rate = noise_rate
        self.cut = cut_rule(rank_by, noise_rate, max_fdr, cut)
        if features is not None and rank_by != "posterior":
            raise ValueError(checks.problem("features", "must be left out unless `rank_by` is 'posterior'", rank_by))
        self.names = RowNames(ids, len(given))
        self.ids = self.names.ids
        self.dynamics = SampleDynamics(given, storage)
        self.posterior = (
            LabelPosterior(
                len(given),
                self.num_classes,
                warmup=self.warm_up.longest,
                drops=mode != "watch",
                storage=storage,
                nearest=None if features is None else nearest(as_features(features, len(given)), given),
                held=self.warm_up.held if self.warm_up.holds_back else None,
            )
            if rank_by == "posterior"
            else None
        )
        self.planted = planting(len(given), planted, planted_seed, self.warm_up, rank_by)
        self.register_buffer("sample_weights", (~self.warm_up.held).float())
        self.register_buffer("class_weight", class_weights(class_weight, self.num_classes), persistent=False)
        self.weighted = self.warm_up.holds_back  # whether a sample weight is not 1
        self.dropped = False  # whether suspects were dropped or given less weight
        self._doubted: dict[tuple[int, ...], tuple[str, ...]] = {}  # what was warned of, at this state

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.dynamics.n_samples

    @property
    def epoch(self) -> int:
        """Epochs ended so far."""
        return self.dynamics.epoch

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

    def _update(self, logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        labels, rows = labels.long(), rows.long()
        self._come_to(logits)
        if logits.device.type == "cpu":
            weights = checks.looked_up("indices", self.sample_weights, rows)
            checks.looked_up("labels", self.class_probe, labels)
        else:
            weights = self.sample_weights.index_select(0, rows.clamp(0, self.n_samples - 1))
        if self.warm_up.within_epoch and self.posterior is not None:
            weights = weights * self.posterior.keeps(logits.detach(), labels)
        self._take(logits.detach(), labels, rows)
        return weights

    def _stage(self, logits: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Copy the batch to the block; what is there is closed first where the batch does not fit in."""
        if world_size() > 1 and not self._compared:  # before the first collective that would hang
            now = {"noise_rate": self.noise_rate, "cut": self.cut, "stage": self.stage.cursors}
            now["class_weight"] = None if self.class_weight is None else self.class_weight.tolist()
            check_agreement(self.get_extra_state() | self.dynamics.get_extra_state() | now, self.sample_weights.device)
            self._compared = True
        if self.stage.is_full(len(rows), world_size()):
            self._digest(self.stage.close(self.sample_weights.device))
        if len(rows):
            self.stage.add(logits, labels, rows)
        self.stage.steps += 1
        if self.warm_up.is_half_way(self.dynamics.rows_in_epoch + self.stage.filled * world_size(), self.epoch):
            self._end_warm_up_within()

    @torch.no_grad()
    def flush(self) -> None:
        """Digest the rows still in the block; in a process group all ranks must call it, before a save, too.

        Raises:
            ValueError: If the ranks made different numbers of steps.
        """
        self._digest(self.stage.empty(self.sample_weights.device, begun=self.dynamics.rows_in_epoch > 0))

    def _digest(self, blocks: list[Block]) -> None:
        for losses, labels, rows, log_probs in blocks:
            known_labels, known_rows = labels.clamp(0, self.num_classes - 1), rows.clamp(0, self.n_samples - 1)
            finite = losses.usable
            label_known, row_known = known_labels == labels, known_rows == rows
            fresh = self.dynamics.claim(known_rows, finite & label_known & row_known)
            given = self.dynamics.labels.index_select(0, known_rows)
            expected = given if self.planted is None else self.planted.trained_on(given, known_rows)
            other_label = (expected != known_labels) & fresh
            came = rows != PADDING
            faults = (came > finite, came > label_known, came > row_known, other_label)
            self.counter += torch.stack([fault.sum() for fault in faults])

            self.rings.update(losses, known_labels, fresh)
            means = (mean.index_select(0, known_labels) for mean in self.rings.class_means())
            self.dynamics.record(known_rows, fresh, losses, *means)
            if self.posterior is not None and log_probs is not None:
                in_training = self.sample_weights.index_select(0, known_rows) > _HALF
                self.posterior.record(known_rows, fresh, log_probs, self.epoch, in_training)

    def end_epoch(self) -> None:
        """Mark the end of a pass over the data; set the sample weights anew where the mode says so.

        Warns:
            LossBufferWarning: If rows of this epoch were left out (not finite, label or row out of range), or the
                labels in the steps differ from those given at the start.
        """
        self.flush()
        losses = self._epoch_losses()
        self.dynamics.end_epoch()
        given = self.dynamics.labels
        begun = self.warm_up.ended_after is not None
        ready = self.warm_up.end_epoch(self.epoch, losses, label_shares(given, self.num_classes))
        if self.posterior is not None:
            trained_on = given if self.planted is None else self.planted.all_labels(given)
            ready = self.posterior.end_epoch(self.epoch, trained_on, self.noise_rate, self.warm_up)
            if self.planted is not None and self.epoch == self.planted.after:
                self.planted.sow(self.posterior.outputs, given)
        if self.warm_up.ended_after is not None and not begun:
            self._end_warm_up()
        if self.mode != "watch" and ready:
            verdict = self._verdict(training=True)
            hard = self.mode == "filter"
            weights = hard_weights(verdict.cut) if hard else soft_weights(verdict.suspicion, verdict.cut)
            self.sample_weights.copy_(torch.from_numpy(weights))
            if self.posterior is not None and self.posterior.is_audit(self.epoch):
                self.sample_weights.masked_fill_(self.warm_up.held, 0.0)  # they stay out of sample
            self.weighted = True
            self.dropped = self.dropped or self.epoch != self.warm_up.epochs  # no step follows the last epoch
        self.warm_up.within_epoch = False
        self._tell(self.epoch)

    def _epoch_losses(self) -> EpochLosses:
        label_loss, margin, place = self.dynamics.in_epoch()
        if self.planted is not None and self.planted.sown:
            label_loss = label_loss.index_fill(0, self.planted.rows.to(label_loss.device), float("nan"))
        return epoch_losses(label_loss, margin, place, self.warm_up.held.to(label_loss.device))

    def _end_warm_up(self) -> None:
        """Give the rows held back to the training, and start that anew where labels were memorized."""
        self.sample_weights.fill_(1.0)
        self.weighted = False
        ready = self.warm_up.leaves_time and self.warm_up.learned
        self.warm_up.leave_start(restores=ready if self.posterior is None else self.posterior.audited)

    def _end_warm_up_within(self) -> None:
        """End the warm-up in the middle of the only epoch: from here on outputs decide as they come."""
        self.flush()
        found = self.posterior is not None and self.posterior.judge(self.dynamics.labels, self.noise_rate)
        self.warm_up.end_within(found)
        self.sample_weights.fill_(1.0)
        self.weighted = self.dropped = found

    def attach(self, network: nn.Module, optimizer: Optimizer, epochs: int | None = None) -> LossBufferCallback:
        """Name the network and the optimizer, so that what was memorized in the warm-up can be undone.

        Where labels were memorized by the end of the warm-up, the network and the state of the optimizer return to what
        they were when this was called, and the training goes on from there without the suspects. What the network says
        about these from then on is out of sample. Without it the network has to forget them, which it does slowly. In
        mode ``"watch"`` nothing is changed. The adapters call it themselves.

        Args:
            network: The network that trains, before its first step; or, in a training that resumes, after the state of
                this callback was loaded. Its weights are copied, until the warm-up has ended.
            optimizer: Its optimizer.
            epochs: Epochs of the whole training, where they are known and were not given before.

        Returns:
            This callback.

        Raises:
            ValueError: If the network or the optimizer is not one, or the training is shorter than the warm-up.
        """
        self.warm_up.attach(network, optimizer, None if self.epoch else epochs)
        if self.posterior is not None:
            self.posterior.warmup = self.warm_up.longest
        return self

    def statistics(self) -> SampleStatistics:
        """Statistics of every sample so far, each of shape ``(n_samples,)``, where the record lies.

        In mid-epoch this digests the rows still in the block, which ends the block early; in a process group they are
        left out, so that a rank may call this alone.
        """
        self._digest(self.stage.alone(self.sample_weights.device))
        return self.dynamics.statistics()

    def _save_to_state_dict(self, *arguments: Any, **settings: Any) -> None:
        self._digest(self.stage.arrived())
        super()._save_to_state_dict(*arguments, **settings)

    def _verdict(self, training: bool = False) -> Verdict:
        self._digest(self.stage.alone(self.sample_weights.device))
        posterior = self.posterior
        if posterior is None:
            return by_statistic(self.dynamics.ranking(self.rank_by), self.dynamics.labels, self.cut)
        return by_posterior(self.dynamics, posterior, self.cut, training=training, planted=self.planted)

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
