"""``LossBufferCallback``: loss buffers, dynamics, scores and cut, for any training loop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Integer
from numpy.typing import NDArray
from torch import Tensor, nn

from lossbuf import checks, doubts
from lossbuf.buffers import LossBuffers
from lossbuf.checks import LossBufferWarning
from lossbuf.distributed import PADDING, Block, gathered, is_first, world_size
from lossbuf.dynamics import MAX_CLASSES, SampleDynamics, SampleStatistics
from lossbuf.files import load_tensors, save_tensors
from lossbuf.losses import NARROW, sample_losses_, weighted_mean_loss
from lossbuf.planted import planting
from lossbuf.posterior import LabelPosterior
from lossbuf.rows import RowNames
from lossbuf.staging import Stage
from lossbuf.states import check_same_kind, fingerprint
from lossbuf.thresholds import Cut, CutRule
from lossbuf.verdict import RANKINGS, Verdict, by_posterior, by_statistic, cut_rule, table
from lossbuf.weighting import hard_weights, soft_weights

_KIND = "lossbuf.callback"
_VERSION = 2
_REASONS = ("not_finite", "label_out_of_range", "unknown_row", "other_label")


class LossBufferCallback(nn.Module):
    """Finds wrong labels while a network trains.

    In every training step call :meth:`loss` (or :meth:`update`, and weight the losses yourself); after every pass over
    the data call :meth:`end_epoch`; then read :meth:`report`, :meth:`select` and :meth:`weights`.

    A step copies its logits, labels and rows to a block on the training device and no more. A full block is digested
    in one pass: its losses enter the rings, and its rows are scored against the class means of the rings then. The
    block's size depends on the number of classes and the largest batch alone, so results do not depend on timing. No
    step waits for the GPU.

    What is bad is left out and told: logits or losses that are NaN or infinite are counted, labels or rows out of
    range raise at once on a CPU and are counted on a GPU, and :meth:`end_epoch` warns with the counts. A row that
    comes twice in an epoch counts once.

    Under ``torch.distributed`` every rank holds the same state, that of one process on the same global batches (the
    ranks' batches one after the other). All ranks must make the same number of steps with batches of the same size;
    only the last of an epoch may differ, and be smaller.

    Args:
        labels: Given labels of all rows, shape ``(n_samples,)``; rows are numbered from 0 in this order.
        num_classes: Number of classes; by default the largest label plus 1.
        ids: Hashable names of the rows, unique, ``n_samples`` of them; steps then give names instead of row numbers.
        window: Losses kept a class and ring.
        mode: ``"watch"`` changes nothing in training; ``"filter"`` gives suspects weight 0 and ``"reweight"`` less
            weight, anew after every epoch from the end of the warm-up (with ``"posterior"`` only if the rows kept are
            then expected to be pure enough, see :class:`~lossbuf.posterior.LabelPosterior`).
        warmup: Epochs before ``"filter"`` or ``"reweight"`` begins, at least 1: enough for the network to know the
            classes, too few for it to learn wrong labels by heart. Half of a short training, 5 or 6 of a long one.
        rank_by: What to rank by: ``"posterior"``, the log-odds that the label is wrong, or one of
            :data:`~lossbuf.dynamics.SUSPICIONS`.
        noise_rate: Share of wrong labels, where it is known.
        max_fdr: Largest share of right labels among the suspects to put up with, as an alternative; for ``"posterior"``
            only.
        cut: Rule that sets the cut, as another; by default as many rows are suspects as labels are estimated to be
            wrong, or with another ranking :class:`~lossbuf.thresholds.Mixture` decides.
        planted: Share of the rows that train with a wrong label planted on purpose from the middle of the warm-up on,
            to see how many are found (:class:`~lossbuf.planted.PlantedLabels`); .01 to .05 is usual. For
            ``"posterior"`` and :meth:`loss` only. Statistics of these rows speak of the planted label.
        planted_seed: Decides which.

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
    counter: Tensor

    def __init__(
        self,
        labels: Integer[Tensor, " n_samples"] | Sequence[int] | NDArray[np.integer] | pd.Series,
        num_classes: int | None = None,
        *,
        ids: Sequence[Hashable] | None = None,
        window: int = 512,
        mode: str = "watch",
        warmup: int = 5,
        rank_by: str = "posterior",
        noise_rate: float | None = None,
        max_fdr: float | None = None,
        cut: CutRule | None = None,
        planted: float = 0.0,
        planted_seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes is not None:
            checks.positive_int("num_classes", num_classes)
        given = checks.class_labels("labels", labels, num_classes)
        self.num_classes = int(given.max()) + 1 if num_classes is None else int(num_classes)
        if self.num_classes > MAX_CLASSES:
            raise ValueError(checks.problem("num_classes", f"must be at most {MAX_CLASSES}", self.num_classes))
        self.mode = checks.one_of("mode", mode, ("watch", "filter", "reweight"))
        self.warmup = checks.positive_int("warmup", warmup)
        self.rank_by = checks.one_of("rank_by", rank_by, RANKINGS)
        self.noise_rate = noise_rate
        self.cut = cut_rule(rank_by, noise_rate, max_fdr, cut)
        self.names = RowNames(ids, len(given))
        self.ids = self.names.ids
        self.dynamics = SampleDynamics(given)
        self.rings = LossBuffers(self.num_classes, window)
        self.posterior = (
            LabelPosterior(len(given), self.num_classes, warmup=self.warmup, drops=mode != "watch")
            if rank_by == "posterior"
            else None
        )
        self.planted = planting(len(given), planted, planted_seed, self.warmup, rank_by)
        self.stage = Stage(self.num_classes)
        self.register_buffer("sample_weights", torch.ones(len(given), dtype=torch.float32))
        self.register_buffer("class_probe", torch.zeros(self.num_classes, dtype=torch.float32), persistent=False)
        self.register_buffer("counter", torch.zeros(len(_REASONS), dtype=torch.int64))
        self.weighted, self._told = False, [0] * len(_REASONS)  # no sample weight changed yet, no fault told

    # ---- the step -------------------------------------------------------------------------------------------------

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
        rows = self.names.rows(indices, logits.device)
        if self.planted is not None and len(labels) == len(rows):
            labels = self.planted.to(logits.device).trained_on(labels, rows)
        weights = self._update(logits, labels, rows)
        return weighted_mean_loss(logits, labels, weights if self.weighted else None)

    forward = loss

    def update(
        self,
        logits: Float[Tensor, "batch num_classes"],
        labels: Integer[Tensor, " batch"],
        indices: Integer[Tensor, " batch"] | Sequence[Hashable],
    ) -> Float[Tensor, " batch"]:
        """Take note of a batch, without waiting for the GPU.

        Args:
            logits: Outputs of the network in training, shape ``(batch, num_classes)``, any floating dtype.
            labels: Labels as given, shape ``(batch,)``.
            indices: Rows of the samples in ``[0, n_samples)``, shape ``(batch,)``, or their ids.

        Returns:
            The weight of each sample in the loss, in [0, 1], shape ``(batch,)``; all 1 in mode ``"watch"``.

        Raises:
            ValueError: If shapes or dtypes do not fit, an id is unknown or, on a CPU, a label or row is out of range.
                Nothing of the batch is then noted.
        """
        return self._update(logits, labels, self.names.rows(indices, logits.device))

    def _update(self, logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        batch = checks.batch_logits("logits", logits, self.num_classes)
        checks.batch_vector("labels", labels, batch)
        checks.batch_vector("indices", rows, batch)
        labels, rows = labels.long(), rows.long()
        if self.sample_weights.device != logits.device:
            self.to(logits.device)
        if logits.device.type == "cpu":
            weights = checks.looked_up("indices", self.sample_weights, rows)
            checks.looked_up("labels", self.class_probe, labels)
        else:
            weights = self.sample_weights.index_select(0, rows.clamp(0, self.n_samples - 1))
        stage: Any = self._stage
        if torch.compiler.is_compiling():  # not as a decorator, which would import the compiler with the package
            stage = torch.compiler.disable(stage)
        stage(logits.detach(), labels, rows)
        return weights

    def _stage(self, logits: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Copy the batch to the block; what is there is digested first where the batch does not fit in."""
        if self.stage.is_full(len(rows), world_size()):
            self.flush()
        if len(rows):
            self.stage.add(logits, labels, rows)
        self.stage.steps += 1

    @torch.no_grad()
    def flush(self) -> None:
        """Digest the rows still in the block. Needed only before reading rings or dynamics yourself."""
        if not self.stage.steps:  # the same on every rank, so that all or none come to the collective
            return
        device = self.sample_weights.device
        to_gpu = device.type == "cuda"  # the other way the host would read before the copy is done
        logits, labels, rows, steps = (part.to(device, non_blocking=to_gpu) for part in self.stage.take())
        if self.num_classes < NARROW:
            logits = logits.t().contiguous().t()
        losses, log_probs = sample_losses_(logits, labels.clamp(0, self.num_classes - 1), self.posterior is not None)
        block = Block(losses, labels, rows, log_probs)
        self._digest(gathered(block, steps, self.stage.room(world_size())) if world_size() > 1 else block)

    def _digest(self, block: Block) -> None:
        losses, labels, rows, log_probs = block
        known_labels, known_rows = labels.clamp(0, self.num_classes - 1), rows.clamp(0, self.n_samples - 1)
        finite = (losses.label_loss - losses.margin).abs_() < float("inf")
        label_known, row_known = known_labels == labels, known_rows == rows
        fresh = self.dynamics.claim(known_rows, finite & label_known & row_known)
        given = self.dynamics.labels.index_select(0, known_rows)
        expected = given if self.planted is None else self.planted.trained_on(given, known_rows)
        other_label = (expected != known_labels) & fresh
        came = rows != PADDING
        faults = (came > finite, came > label_known, came > row_known, other_label)
        self.counter += torch.stack([fault.sum() for fault in faults])

        self.rings.update(losses, known_labels, fresh)
        mean_label_loss, mean_gap = self.rings.class_means()
        self.dynamics.record(
            known_rows,
            fresh,
            losses,
            mean_label_loss.index_select(0, known_labels),
            mean_gap.index_select(0, known_labels),
        )
        if self.posterior is not None and log_probs is not None:
            self.posterior.record(known_rows, fresh, log_probs, self.epoch)

    # ---- the end of an epoch --------------------------------------------------------------------------------------

    def end_epoch(self) -> None:
        """Mark the end of a pass over the data; set the sample weights anew where the mode says so.

        Warns:
            LossBufferWarning: If rows of this epoch were left out (not finite, label or row out of range), or the
                labels in the steps differ from those given at the start.
        """
        self.flush()
        self.dynamics.end_epoch()
        ready = self.epoch >= self.warmup
        if self.posterior is not None:
            given = self.dynamics.labels
            trained_on = given if self.planted is None else self.planted.all_labels(given)
            ready = self.posterior.end_epoch(self.epoch, trained_on, self.noise_rate)
            if self.planted is not None and self.epoch == self.planted.after:
                self.planted.sow(self.posterior.outputs, given)
        if self.mode != "watch" and ready:
            verdict = self._verdict(training=True)
            hard = self.mode == "filter"
            weights = hard_weights(verdict.cut) if hard else soft_weights(verdict.suspicion, verdict.cut)
            self.sample_weights.copy_(torch.from_numpy(weights))
            self.weighted = True
        self._tell()

    def rejected(self) -> dict[str, int]:
        """Rows with faults since the start, by reason; all but ``other_label`` were left out. Waits for the device."""
        return dict(zip(_REASONS, self.counter.cpu().numpy().tolist(), strict=True))

    def _tell(self) -> None:
        now = self.rejected()
        new = [count - told for count, told in zip(now.values(), self._told, strict=True)]
        self._told = list(now.values())
        for text in doubts.of_rejected(self.epoch, new):
            warnings.warn(text, LossBufferWarning, stacklevel=3)

    # ---- results --------------------------------------------------------------------------------------------------

    def statistics(self) -> SampleStatistics:
        """Statistics of every sample so far, each of shape ``(n_samples,)``, on the device.

        In mid-epoch this digests the rows still in the block, which ends the block early; in a process group they are
        left out, so that a rank may call this alone.
        """
        if world_size() == 1:
            self.flush()
        return self.dynamics.statistics()

    def _verdict(self, statistics: SampleStatistics | None = None, *, training: bool = False) -> Verdict:
        statistics, labels = statistics or self.statistics(), self.dynamics.labels
        if self.posterior is None:
            return by_statistic(statistics, labels, self.rank_by, self.cut)
        return by_posterior(statistics, labels, self.posterior, self.cut, training=training, planted=self.planted)

    def verdict(self) -> Verdict:
        """Suspicion, cut, likely classes and transition matrix, as they are now.

        Warns:
            LossBufferWarning: If most labels of a class seem wrong, the two estimates of the noise rate disagree,
                nothing was dropped where it should have been, or ``end_epoch`` seems to be missing.
        """
        return self._told_verdict()

    def _told_verdict(self, statistics: SampleStatistics | None = None) -> Verdict:
        verdict = self._verdict(statistics)
        found = doubts.of_verdict(verdict) + doubts.of_epochs(self.dynamics.rows_in_epoch, self.n_samples)
        if self.mode != "watch" and self.epoch and not self.weighted:
            found += doubts.of_nothing_dropped(self.epoch, self.warmup, self.posterior)
        for doubt in found:
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
            statistic of :class:`~lossbuf.dynamics.SampleStatistics`. The index is the row number.
        """
        statistics = self.statistics()
        return table(self._told_verdict(statistics), statistics, self.dynamics.labels, self.ids)

    def select(self) -> NDArray[np.int64]:
        """Row numbers of the samples kept, ascending; rows never seen are among them."""
        return np.flatnonzero(~self._told_verdict().suspect_mask)

    def weights(self) -> NDArray[np.float32]:
        """Soft sample weights in [0, 1] from the scores so far, shape ``(n_samples,)``."""
        verdict = self._told_verdict()
        return soft_weights(verdict.suspicion, verdict.cut)

    # ---- saving ---------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """The cursors that are no tensors, and what the state belongs to."""
        return {
            "version": _VERSION,
            "num_classes": self.num_classes,
            "n_samples": self.n_samples,
            "window": self.rings.window,
            "mode": self.mode,
            "rank_by": self.rank_by,
            "warmup": self.warmup,
            "planted": None if self.planted is None else self.planted.identity,
            "data": fingerprint(self.dynamics.labels, self.ids),
            "stage": self.stage.state(),
            "told": list(self._told),
            "weighted": self.weighted,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.stage.load(state["stage"])
        self._told = list(state["told"])
        self.weighted = bool(state["weighted"])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Restore a state, whole or not at all.

        Raises:
            ValueError: If it is of other settings or another data set. What was collected so far then stays.
        """
        check_same_kind(self.state_dict(), state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state to a file; in a process group rank 0 writes."""
        if is_first():
            save_tensors(path, {"kind": _KIND, "state": dict(self.state_dict())})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Restore what :meth:`save` wrote, into a callback made for the same labels and settings.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, holds code, or is of other settings or another data set. What was
                collected so far then stays.
        """
        self.load_state_dict(load_tensors(path, _KIND).get("state", {}))
