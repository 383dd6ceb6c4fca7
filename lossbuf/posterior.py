"""How likely is each label wrong? The outputs of a training run, read through the label noise estimated from them."""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lossbuf import checks, transition
from lossbuf.checks import LossBufferWarning
from lossbuf.outputs import MeanOutputs
from lossbuf.storage import HostRecord

LARGE = 2**28
"""Numbers in the record, samples times classes, from which on its size is told: 1 GiB."""

PURITY = 0.75
"""Expected share of right labels among the rows kept, without which nothing is dropped."""


def default_warmup(epochs: int) -> int:
    """Epochs to watch before suspects are dropped: half of all, at most 6."""
    return min(6, (epochs + 1) // 2)


class Reading(NamedTuple):
    """What the outputs so far say of the labels.

    Attributes:
        log_odds: Log-odds that the given label is wrong; NaN for rows never seen, shape ``(n_samples,)``.
        likely: The most likely class other than the given label, shape ``(n_samples,)``.
        transition: P(given | true), rows sum to 1, float64, shape ``(num_classes, num_classes)``.
        noise_rate: Share of wrong labels, a float64 scalar.
        estimates: The noise rate by the anchors, the same from all outputs since (equal to it where nothing is
            dropped), and the standard error of the first, float64, shape ``(3,)``.
        hidden: True for classes of which more than half of the labels seem wrong, shape ``(num_classes,)``.
    """

    log_odds: Tensor
    likely: Tensor
    transition: Tensor
    noise_rate: Tensor
    estimates: Tensor
    hidden: Tensor


class LabelPosterior(HostRecord):
    """P(label wrong | outputs, label) of every sample, with the transition matrix estimated on the way.

    While the network trains on all rows its mean output is a mixture of the classes that share a label. The transition
    matrix comes from the most confident rows (:func:`~lossbuf.transition.from_anchors`), and the mixture is undone with
    it (:func:`~lossbuf.transition.deconvolved`). The first epochs, when the network knows little, count less: epoch e
    of a record has weight ``min(e, warmup)``.

    At the end of the warm-up the matrix is settled: later, wrong labels that are learnt by heart hide. Where training
    is to drop suspects, it does so from then on if the rows kept are expected to be pure enough (:data:`PURITY`), and
    the record starts anew: the network no longer learns wrong labels, so its outputs speak of the true class, for a
    dropped row as for one it never trained on. They are read with the mean of the settled matrix and the one under
    which the labels are most likely now.

    Memory: ``num_classes + 4`` numbers of 4 bytes a sample.

    Args:
        n_samples: Number of rows.
        num_classes: Number of classes.
        warmup: Epochs before the matrix may settle, at least 1.
        drops: Training is to drop or down-weight suspects.
        storage: Where the record lies, see :class:`~lossbuf.storage.HostRecord`; it is read there, too.

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

    def __init__(
        self,
        n_samples: int,
        num_classes: int,
        *,
        warmup: int,
        drops: bool,
        storage: str | os.PathLike[str] | None = None,
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
        self.settled = self.dropping = False
        self.begun = 0  # epochs ended when the record started
        self.register_record("settled_transition", (num_classes, num_classes), torch.float64)
        self.settled_transition.fill_diagonal_(1.0)
        self.register_record("settled_rate", (), torch.float64)
        self.register_record("settled_error", (), torch.float64)
        self.register_record("hidden", (num_classes,), torch.bool)
        self.register_record("before", (n_samples,), torch.float32, float("nan"))
        self.register_record("likely_before", (n_samples,), torch.int64)
        self.register_record("purity", (), torch.float64, 1.0)

    def record(
        self,
        rows: Int[Tensor, " batch"],
        fresh: Bool[Tensor, " batch"],
        log_probs: Float[Tensor, "batch num_classes"],
        epoch: int,
    ) -> None:
        """Add the outputs of rows that are fresh in this epoch, counted from 0; does not wait for the GPU."""
        self.outputs.record(rows, fresh, log_probs, float(min(epoch + 1 - self.begun, self.warmup)))

    @torch.no_grad()
    def end_epoch(self, epoch: int, labels: Int[Tensor, " n_samples"], noise_rate: float | None = None) -> bool:
        """At the end of the warm-up settle the matrix, and decide whether to drop; waits for the GPU.

        Args:
            epoch: Epochs ended so far.
            labels: Labels trained on, shape ``(n_samples,)``.
            noise_rate: Share of wrong labels, where it is known.

        Returns:
            True from the epoch on from which suspects are to be dropped.
        """
        if self.settled or epoch < self.warmup or not bool(self.outputs.seen.any()):
            return self.dropping
        reading = self._read(labels.to(self.before.device), refine=True)
        self.settled_transition.copy_(reading.transition)
        self.settled_rate.copy_(reading.noise_rate)
        self.settled_error.copy_(reading.estimates[2])
        self.hidden.copy_(reading.hidden)
        self.settled = True
        share = reading.noise_rate if noise_rate is None else noise_rate
        right = torch.sigmoid(-reading.log_odds[self.outputs.seen]).sort(descending=True).values
        kept = right[: max(1, round((1 - float(share)) * len(right)))]
        self.purity.copy_(kept.mean())
        self.dropping = self.drops and bool(self.purity >= PURITY)
        if self.dropping:
            self.before.copy_(reading.log_odds)
            self.likely_before.copy_(reading.likely)
            self.outputs.restart()
            self.begun = epoch
        return self.dropping

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
        if not self.dropping:
            probs = transition.deconvolved(probs, matrix)
        elif refine and bool(seen.any()):
            now = transition.from_joint(probs[seen], labels[seen], matrix)
            estimates[1] = transition.noise_rate(now, labels[seen])
            matrix = (matrix + now) / 2
            rate = transition.noise_rate(matrix, labels[seen])
        log_odds = transition.wrong_log_odds(probs, labels, matrix).float()
        return Reading(
            log_odds=torch.where(seen, log_odds, self.before),
            likely=torch.where(seen, transition.likely_labels(probs, labels, matrix), self.likely_before),
            transition=matrix,
            noise_rate=rate,
            estimates=estimates,
            hidden=hidden,
        )

    @torch.no_grad()
    def read_also(
        self, rows: Int[Tensor, " batch"], labels: Int[Tensor, " batch"], matrix: Float[Tensor, "classes classes"]
    ) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
        """Log-odds that other labels of some rows are wrong, NaN where never seen, and the classes likely then."""
        on_host = rows.to(self.before.device)
        seen, probs = (part[on_host].to(rows.device) for part in (self.outputs.seen, self.outputs.probabilities()))
        if not self.dropping:
            probs = transition.deconvolved(probs, matrix)
        log_odds = transition.wrong_log_odds(probs, labels, matrix).float()
        unknown = torch.full_like(log_odds, float("nan"))
        return log_odds.where(seen, unknown), transition.likely_labels(probs, labels, matrix)

    def get_extra_state(self) -> dict[str, Any]:
        """What is no tensor."""
        return {"settled": self.settled, "dropping": self.dropping, "begun": self.begun}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.settled, self.dropping = bool(state["settled"]), bool(state["dropping"])
        self.begun = int(state["begun"])
