"""How likely is each label wrong? The outputs of a training run, read through the label noise estimated from them."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lossbuf import checks
from lossbuf.detection import neighbours, transition
from lossbuf.detection.reading import Reading, reconciled, shifted
from lossbuf.detection.warmup import Warmup
from lossbuf.errors import LossBufferWarning
from lossbuf.recording.host_record import HostRecord
from lossbuf.recording.mean_outputs import MeanOutputs

LARGE = 2**28
"""Numbers in the record, samples times classes, from which on its size is told: 1 GiB."""

PURITY = 0.75
"""Expected share of right labels among the rows kept, without which nothing is dropped."""


AUDIT_FACTOR, AUDIT_MARGIN = 1.1, 0.02
"""An audit takes this many times the estimated noise rate from training, and this share of all rows more."""

MOST_AUDITED = 0.85
"""Largest share of the rows that an audit takes from training."""

HELD_WEIGHT = 50
"""Rows held back that count as much as all others in the share of an audit: of fewer the noise rate is hardly known."""

HELD_ANCHORS = 10
"""Least number of anchors per class among rows held back, of which there are few."""

IN_SAMPLE = 1e-3
"""What outputs for rows in training count in an audit, against 1 for the others."""


class LabelPosterior(HostRecord):
    """P(label wrong | outputs, label) of every sample, with the transition matrix estimated on the way.

    While the network trains on all rows its mean output is a mixture of the classes that share a label. The transition
    matrix comes from the most confident rows (:func:`~lossbuf.detection.transition.from_anchors`), and the mixture is
    undone with it (:func:`~lossbuf.detection.transition.deconvolved`). The first epochs, when the network knows little,
    count less: epoch e of a record has weight ``min(e, warmup)``.

    At the end of the warm-up the matrix is settled: later, wrong labels that are learnt by heart hide. Where training
    is to drop suspects, it does so from then on if the rows kept are expected to be pure enough (:data:`PURITY`), and
    the record starts anew: the network no longer learns wrong labels, so its outputs speak of the true class, for a
    dropped row as for one it never trained on. They are read with the mean of the settled matrix and the one under
    which the labels are most likely now.

    Memory: ``num_classes + 4`` numbers of 4 bytes a sample.

    Args:
        n_samples: Number of rows.
        num_classes: Number of classes.
        warmup: Epochs before the matrix may settle, at least 1, and the largest weight of an epoch.
        drops: Training is to drop or down-weight suspects.
        storage: Where the record lies, see :class:`~lossbuf.recording.host_record.HostRecord`; it is read there, too.
        nearest: The nearest neighbours of every row, see :func:`~lossbuf.detection.neighbours.nearest`, shape
            ``(n_samples, count)``. Their labels are then combined with the outputs of the network. They are not part of
            the state.
        held: True for rows that the warm-up holds back, shape ``(n_samples,)``; the weight of the neighbours is chosen
            by them.

    Raises:
        ValueError: If a number is not a positive integer.

    Warns:
        LossBufferWarning: If the record takes more than :data:`LARGE` numbers.
    """

    settled_transition: Tensor
    settled_rate: Tensor
    settled_error: Tensor
    hidden: Tensor
    before: Tensor
    likely_before: Tensor
    purity: Tensor
    audited_share: Tensor

    def __init__(
        self,
        n_samples: int,
        num_classes: int,
        *,
        warmup: int,
        drops: bool,
        storage: str | os.PathLike[str] | None = None,
        nearest: Int[Tensor, "n_samples count"] | None = None,
        held: Bool[Tensor, " n_samples"] | None = None,
    ) -> None:
        super().__init__(storage)
        self.outputs = MeanOutputs(n_samples, num_classes, storage)
        if max(n_samples, num_classes) * num_classes > LARGE:
            warnings.warn(
                f"The outputs of {n_samples} rows and {num_classes} classes take {n_samples * num_classes / 2**28:.1f} "
                "GiB, and a reading several times as much. Another `rank_by`, such as 'aum', keeps none.",
                LossBufferWarning,
                stacklevel=3,
            )
        self.warmup = checks.positive_int("warmup", warmup)
        self.drops = drops
        self.settled = self.dropping = self.audited = False
        self.unmeasured = False  # whether it is unknown if labels were memorized
        self.audit_ends = 0  # epochs ended when the audit does
        self.begun = 0  # epochs ended when the record started
        self.nearest, self.held = nearest, held
        self.weights = neighbours.USUAL_WEIGHTS
        self.register_record("settled_transition", (num_classes, num_classes), torch.float64)
        self.settled_transition.fill_diagonal_(1.0)
        self.register_record("settled_rate", (), torch.float64)
        self.register_record("settled_error", (), torch.float64)
        self.register_record("hidden", (num_classes,), torch.bool)
        self.register_record("before", (n_samples,), torch.float32, float("nan"))
        self.register_record("likely_before", (n_samples,), torch.int64)
        self.register_record("purity", (), torch.float64, 1.0)
        self.register_record("audited_share", (), torch.float64)

    def record(
        self,
        rows: Int[Tensor, " batch"],
        fresh: Bool[Tensor, " batch"],
        log_probs: Float[Tensor, "batch num_classes"],
        epoch: int,
        in_training: Bool[Tensor, " batch"] | None = None,
    ) -> None:
        """Add the outputs of rows that are fresh in this epoch, without waiting for the GPU.

        Args:
            rows: Rows in ``[0, n_samples)``, shape ``(batch,)``.
            fresh: Where False the row is left out.
            log_probs: Shape ``(batch, num_classes)``.
            epoch: The epoch, counted from 0.
            in_training: Whether the network is trained on the row, shape ``(batch,)``; matters after an audit began.
        """
        weight = float(min(epoch + 1 - self.begun, self.warmup))
        if not self.audited or in_training is None:
            self.outputs.record(rows, fresh, log_probs, weight)
            return
        counts = torch.where(in_training, IN_SAMPLE * weight, weight).to(log_probs.dtype)
        self.outputs.record(rows, fresh, log_probs, counts)

    @torch.no_grad()
    def end_epoch(
        self,
        epoch: int,
        labels: Int[Tensor, " n_samples"],
        noise_rate: float | None = None,
        warm_up: Warmup | None = None,
    ) -> bool:
        """At the end of the warm-up settle the matrix, and decide whether to drop; waits for the GPU.

        Args:
            epoch: Epochs ended so far.
            labels: Labels trained on, shape ``(n_samples,)``.
            noise_rate: Share of wrong labels, where it is known.
            warm_up: Says whether the warm-up has ended, which rows were held back and whether labels were memorized; by
                default it ends after ``warmup`` epochs.

        Returns:
            True where suspects are to be dropped anew.
        """
        if self.settled:
            return self.dropping and (epoch == self.audit_ends if self.audited else True)
        over = epoch >= self.warmup if warm_up is None else warm_up.ended_after is not None
        if not over or not bool(self.outputs.seen.any()):
            return False
        labels = labels.to(self.before.device)
        reading = self._read(labels, refine=True)
        share = float(reading.noise_rate) if noise_rate is None else noise_rate
        self.purity.copy_(self._purity(reading, share))
        if self.drops and bool(self.purity < PURITY) and warm_up is not None and warm_up.prolong():
            return False
        self.settled_transition.copy_(reading.transition)
        self.settled_rate.copy_(reading.noise_rate)
        self.settled_error.copy_(reading.estimates[2])
        self.hidden.copy_(reading.hidden)
        self.settled = True
        self.dropping = self.drops and bool(self.purity >= PURITY)
        self.unmeasured = warm_up is not None and warm_up.automatic and len(warm_up.history) < 2
        if warm_up is not None and warm_up.memorized:
            self._believe_held(labels, warm_up.held)
            if warm_up.leaves_time:
                self._begin_audit(epoch, noise_rate, warm_up)
            else:
                self.unmeasured = True
        if self.dropping:
            self.before.copy_(reading.log_odds)
            self.likely_before.copy_(reading.likely)
            self.outputs.restart()
            self.begun = epoch
        return self.dropping

    @torch.no_grad()
    def judge(self, labels: Int[Tensor, " n_samples"], noise_rate: float | None = None) -> bool:
        """Settle a matrix in the middle of an epoch, by which :meth:`keeps` decides; waits for the GPU.

        Args:
            labels: Labels trained on, shape ``(n_samples,)``.
            noise_rate: Share of wrong labels, where it is known.

        Returns:
            True where the rows kept are expected to be pure enough.
        """
        if not bool(self.outputs.seen.any()):
            return False
        reading = self._read(labels.to(self.before.device), refine=True)
        self.settled_transition.copy_(reading.transition)
        share = reading.noise_rate if noise_rate is None else noise_rate
        self.purity.copy_(self._purity(reading, float(share)))
        return self.drops and bool(self.purity >= PURITY)

    @torch.no_grad()
    def keeps(
        self, logits: Float[Tensor, "batch num_classes"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """1 for rows whose label looks right by this output alone, else 0; does not wait for the GPU."""
        matrix = self.settled_transition.to(logits.device, non_blocking=True)
        true = transition.deconvolved(logits.float().softmax(1), matrix.float())
        known = labels.clamp(0, logits.shape[1] - 1)
        return (transition.wrong_log_odds(true, known, matrix) <= 0).float()

    def _purity(self, reading: Reading, share: float) -> Tensor:
        right = torch.sigmoid(-reading.log_odds[self.outputs.seen]).sort(descending=True).values
        return right[: max(1, round((1 - share) * len(right)))].mean()

    def _begin_audit(self, epoch: int, noise_rate: float | None, warm_up: Warmup) -> None:
        """Decide how many rows leave the training for how long."""
        share = float(self.settled_rate) if noise_rate is None else noise_rate
        self.audited_share.fill_(min(MOST_AUDITED, AUDIT_FACTOR * share + AUDIT_MARGIN))
        self.dropping = self.audited = self.drops and warm_up.learned
        # Of a training of unknown length it is not known how much a third is.
        length = epoch if warm_up.remaining is None else math.ceil(warm_up.remaining / 3)
        self.audit_ends = epoch + max(1, length)

    def _believe_held(self, labels: Tensor, held_back: Tensor) -> None:
        """Take the noise rate from the rows held back, as far as there are enough of them."""
        rows = held_back.to(labels.device) & self.outputs.seen
        count = int(rows.sum())
        in_sample = float(self.settled_rate)
        if count:
            anchored = transition.from_anchors(self.outputs.probabilities()[rows], labels[rows], least=HELD_ANCHORS)
            rate = float(transition.noise_rate(anchored.matrix, labels[rows]))
            held = (count * rate + HELD_WEIGHT * in_sample) / (count + HELD_WEIGHT)
            self.settled_rate.fill_(max(in_sample, held))
            self.settled_error.fill_(math.sqrt(held * (1 - held) / (count + HELD_WEIGHT)))

    @property
    def is_cautious(self) -> bool:
        """Whether labels were memorized, or may have been: estimates from rows in training are then too low."""
        return self.audited or self.unmeasured

    def is_audit(self, epoch: int) -> bool:
        """Whether an audit is under way after so many epochs."""
        return self.audited and epoch < self.audit_ends

    @torch.no_grad()
    def read(self, labels: Int[Tensor, " n_samples"], refine: bool = True) -> Reading:
        """The reading of the outputs so far; waits for the GPU.

        Args:
            labels: Labels trained on, shape ``(n_samples,)``.
            refine: Let the outputs since the matrix was settled change it.

        Returns:
            What was found, on the device of the labels.
        """
        reading = self._read(labels.to(self.before.device), refine)
        return Reading(*(part.to(labels.device) for part in reading))

    def _read(self, labels: Tensor, refine: bool) -> Reading:
        seen, probs = self.outputs.seen, self.outputs.probabilities()
        matrix, rate, hidden = self.settled_transition, self.settled_rate, self.hidden
        error = self.settled_error
        if not self.settled:
            anchored = transition.from_anchors(probs, labels, seen)
            matrix, hidden = anchored.matrix, anchored.hidden()
            counted = labels[seen] if bool(seen.any()) else labels
            rate, error = transition.noise_rate(matrix, counted), anchored.rate_error(counted)
        estimates = torch.stack([rate, rate, error])
        refine = refine and self.dropping and bool(seen.any())
        if not self.dropping:
            probs = transition.deconvolved(probs, matrix)
        elif refine and self.audited:
            probs = transition.sharpened(probs, transition.sharpness(probs[seen], labels[seen], matrix))
        if self.nearest is not None and bool(seen.any()):
            probs = self._with_neighbours(self.nearest.to(labels.device), probs, labels, matrix)
        if refine:
            now = transition.from_joint(probs[seen], labels[seen], matrix)
            estimates[1] = transition.noise_rate(now, labels[seen])
            matrix = now if self.audited else (matrix + now) / 2  # counted in sample, the settled one is too mild
            rate = transition.noise_rate(matrix, labels[seen])
        log_odds = transition.wrong_log_odds(probs, labels, matrix)
        if refine:
            named = torch.zeros_like(matrix[0]).index_add_(0, labels, (log_odds > 0).double())
            mostly_wrong = named > torch.bincount(labels, minlength=len(matrix)) / 2
            hidden = hidden & ((matrix.diagonal() < 0.5) | mostly_wrong)  # early outputs may have been too vague
        if refine and self.is_cautious:
            wrong = (log_odds[seen] > 0).double().mean()
            estimates[1] = (estimates[1] + wrong) / 2 if self.audited else wrong
            rate = reconciled(*estimates)
            log_odds = shifted(log_odds, seen, float(rate))
        log_odds = log_odds.float()
        return Reading(
            log_odds=torch.where(seen, log_odds, self.before),
            likely=torch.where(seen, transition.likely_labels(probs, labels, matrix), self.likely_before),
            transition=matrix,
            noise_rate=rate,
            estimates=estimates,
            hidden=hidden,
        )

    def _with_neighbours(self, nearest: Tensor, probs: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
        """Probabilities of the true class, combined with the votes of the nearest neighbours."""
        counts = neighbours.votes(nearest, labels, len(matrix))
        by_neighbours = neighbours.true_probabilities(counts, labels, matrix)
        if self.held is not None and (self.audited or not self.settled):  # else they are in training
            out_of_sample = self.held.to(labels.device) & self.outputs.seen
            self.weights = neighbours.best_weights(probs, by_neighbours, labels, matrix, out_of_sample)
        return neighbours.combined(probs, by_neighbours, self.weights)

    @torch.no_grad()
    def read_also(
        self,
        rows: Int[Tensor, " batch"],
        labels: Int[Tensor, " batch"],
        matrix: Float[Tensor, "classes classes"],
        trained_on: Int[Tensor, " n_samples"],
    ) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
        """Log-odds that other labels of some rows are wrong, NaN where never seen, and the classes likely then."""
        on_host = rows.to(self.before.device)
        seen, probs = (part[on_host].to(rows.device) for part in (self.outputs.seen, self.outputs.probabilities()))
        if not self.dropping:
            probs = transition.deconvolved(probs, matrix)
        if self.nearest is not None:
            votes = neighbours.votes(self.nearest.to(trained_on.device)[rows], trained_on, self.outputs.num_classes)
            probs = neighbours.combined(probs, neighbours.true_probabilities(votes, labels, matrix), self.weights)
        log_odds = transition.wrong_log_odds(probs, labels, matrix).float()
        unknown = torch.full_like(log_odds, float("nan"))
        return log_odds.where(seen, unknown), transition.likely_labels(probs, labels, matrix)

    def get_extra_state(self) -> dict[str, Any]:
        """What is no tensor."""
        names = ("settled", "dropping", "audited", "unmeasured", "audit_ends", "begun")
        return {**{name: getattr(self, name) for name in names}, "weights": tuple(self.weights)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.settled, self.dropping = bool(state["settled"]), bool(state["dropping"])
        self.audited, self.unmeasured = bool(state["audited"]), bool(state["unmeasured"])
        self.audit_ends, self.begun = int(state["audit_ends"]), int(state["begun"])
        self.weights = neighbours.Weights(*map(float, state["weights"]))
