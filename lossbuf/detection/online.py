"""What happens to a network's outputs while it trains: they are recorded, and suspects lose weight, epoch by epoch."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
from jaxtyping import Integer
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.optim import Optimizer

from lossbuf import checks
from lossbuf.detection.neighbours import as_features, nearest
from lossbuf.detection.planted import planting
from lossbuf.detection.posterior import LabelPosterior
from lossbuf.detection.thresholds import CutRule
from lossbuf.detection.verdict import RANKINGS, Verdict, by_posterior, by_statistic
from lossbuf.detection.warmup import EpochLosses, Warmup, epoch_losses, label_shares
from lossbuf.detection.weighting import hard_weights, soft_weights
from lossbuf.recording.dynamics import SampleDynamics
from lossbuf.recording.process_group import PADDING, Block, check_agreement, world_size
from lossbuf.recording.recorder import Watching
from lossbuf.recording.sample_statistics import SampleStatistics

_HALF = 0.5  # the weight below which a row hardly counts as trained on
_REASONS = ("not_finite", "label_out_of_range", "unknown_row", "other_label")

_Detector = TypeVar("_Detector", bound="OnlineDetector")


class OnlineDetector(Watching):
    """Records the steps of a training, and decides after each epoch how much every row counts in the next.

    It is the part of :class:`~lossbuf.callback.LossBufferCallback` that runs while the network trains; see there for
    what the arguments mean. Rows are numbers here, and the cut is a rule.
    """

    sample_weights: Tensor
    class_probe: Tensor
    counter: Tensor

    def __init__(
        self,
        labels: Integer[Tensor, " n_samples"],
        num_classes: int,
        *,
        window: int,
        mode: str,
        warmup: int | str,
        epochs: int | None,
        features: ArrayLike | Tensor | None,
        rank_by: str,
        noise_rate: float | None,
        cut: CutRule | None,
        planted: float,
        planted_seed: int,
        storage: str | os.PathLike[str] | None,
    ) -> None:
        super().__init__(num_classes, window, _REASONS, log_probs=rank_by == "posterior")
        self.mode = checks.one_of("mode", mode, ("watch", "filter", "reweight"))
        checks.non_negative_int("planted_seed", planted_seed)
        self.warm_up = Warmup(
            len(labels), warmup, epochs, holds_back=mode != "watch", least=2 if planted else 1, seed=planted_seed
        )
        self.warmup = warmup
        self.rank_by = checks.one_of("rank_by", rank_by, RANKINGS)
        self.noise_rate = noise_rate
        self.cut = cut
        if features is not None and rank_by != "posterior":
            raise ValueError(checks.problem("features", "must be left out unless `rank_by` is 'posterior'", rank_by))
        self.dynamics = SampleDynamics(labels, storage)
        self.posterior = (
            LabelPosterior(
                len(labels),
                self.num_classes,
                warmup=self.warm_up.longest,
                drops=mode != "watch",
                storage=storage,
                nearest=None if features is None else nearest(as_features(features, len(labels)), labels),
                held=self.warm_up.held if self.warm_up.holds_back else None,
            )
            if rank_by == "posterior"
            else None
        )
        self.planted = planting(len(labels), planted, planted_seed, self.warm_up, rank_by)
        self.register_buffer("sample_weights", (~self.warm_up.held).float())
        self.weighted = self.warm_up.holds_back  # whether a sample weight is not 1
        self.dropped = False  # whether suspects were dropped or labels less weight

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.dynamics.n_samples

    @property
    def epoch(self) -> int:
        """Epochs ended so far."""
        return self.dynamics.epoch

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
            check_agreement(self._settings(), self.sample_weights.device)
            self._compared = True
        if self.stage.is_full(len(rows), world_size()):
            self._digest(self.stage.close(self.sample_weights.device))
        if len(rows):
            self.stage.add(logits, labels, rows)
        self.stage.steps += 1
        if self.warm_up.is_half_way(self.dynamics.rows_in_epoch + self.stage.filled * world_size(), self.epoch):
            self._end_warm_up_within()

    def _settings(self) -> dict[str, Any]:
        """What must be the same on all ranks."""
        now = {"noise_rate": self.noise_rate, "cut": self.cut, "stage": self.stage.cursors}
        return self.get_extra_state() | self.dynamics.get_extra_state() | now

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

    def attach(self: _Detector, network: nn.Module, optimizer: Optimizer, epochs: int | None = None) -> _Detector:
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
