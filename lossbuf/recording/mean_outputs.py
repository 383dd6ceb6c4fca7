"""The mean output of the network for every sample, across epochs."""

from __future__ import annotations

import math
import os

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lossbuf import checks
from lossbuf.recording.host_record import HostRecord

FLOOR = math.log(1e-6)
"""Log-probabilities below it count as this much, so that one confident epoch does not outweigh all others."""


class MeanOutputs(HostRecord):
    """Weighted mean log-probabilities of every sample.

    Memory: ``num_classes + 1`` numbers of 4 bytes a sample.

    Args:
        n_samples: Number of rows.
        num_classes: Number of classes.
        storage: Where the sums lie, see :class:`~lossbuf.recording.host_record.HostRecord`.

    Raises:
        ValueError: If either is not a positive integer.
    """

    sums: Tensor
    total: Tensor

    def __init__(self, n_samples: int, num_classes: int, storage: str | os.PathLike[str] | None = None) -> None:
        super().__init__(storage)
        self.n_samples = checks.positive_int("n_samples", n_samples)
        self.num_classes = checks.positive_int("num_classes", num_classes)
        # One row more than samples: what is not fresh goes there, so that no shape depends on the data.
        self.register_record("sums", (n_samples + 1, num_classes), torch.float32)
        self.register_record("total", (n_samples + 1,), torch.float32)

    @torch.no_grad()
    def record(
        self,
        rows: Int[Tensor, " batch"],
        fresh: Bool[Tensor, " batch"],
        log_probs: Float[Tensor, "batch num_classes"],
        weight: float | Float[Tensor, " batch"] = 1.0,
    ) -> None:
        """Add the outputs of one pass, without waiting for the GPU.

        Args:
            rows: Rows in ``[0, n_samples)``, shape ``(batch,)``; a row is fresh at most once.
            fresh: Where False the row is left out, whatever its values.
            log_probs: Shape ``(batch, num_classes)``.
            weight: What the pass counts, for all rows or for each.
        """
        counts = weight if isinstance(weight, Tensor) else torch.full_like(log_probs[:, 0], weight)
        values = log_probs.clamp(min=FLOOR).mul_(counts.unsqueeze(1))
        self.later(self._add, rows.masked_fill(~fresh, self.n_samples), values, counts)

    def _add(self, slots: Tensor, values: Tensor, counts: Tensor) -> None:
        self.sums.index_copy_(0, slots, self.sums.index_select(0, slots).add_(values))
        self.total.index_copy_(0, slots, self.total.index_select(0, slots).add_(counts))
        self.sums[-1].zero_()
        self.total[-1].zero_()

    @torch.no_grad()
    def restart(self) -> None:
        """Forget all passes."""
        self.settle()
        self.sums.zero_()
        self.total.zero_()

    @property
    def seen(self) -> Bool[Tensor, " n_samples"]:
        """True for rows with at least one pass."""
        self.settle()
        return self.total[:-1] > 0

    def probabilities(self) -> Float[Tensor, "n_samples num_classes"]:
        """The geometric mean over the passes, each row summing to 1; uniform where there was none."""
        self.settle()
        return (self.sums[:-1] / self.total[:-1].clamp(min=1e-12).unsqueeze(1)).softmax(1)
