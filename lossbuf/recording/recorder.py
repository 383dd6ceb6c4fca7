"""What the callbacks of the package share: rings, the block of steps, and counts of what was left out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lossbuf import checks
from lossbuf.errors import LossBufferWarning
from lossbuf.recording.buffers import LossBuffers
from lossbuf.recording.sample_statistics import MAX_CLASSES
from lossbuf.recording.saved_state import check_part
from lossbuf.recording.step_block import Stage


class Watching(nn.Module):
    """Base of the callbacks. A subclass has ``_stage``, which takes a step, and ``check_state``.

    Args:
        num_classes: Number of classes.
        window: Losses kept a class and ring.
        reasons: Names of what is counted.
        log_probs: Whether log-probabilities are wanted of the rows of a block.

    Raises:
        ValueError: If a setting has no meaning.
    """

    class_probe: Tensor
    counter: Tensor
    records_training = True  # where it is a module of the network, that network's weights may be restored without it

    def __init__(self, num_classes: int, window: int, reasons: Sequence[str], log_probs: bool = False) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(check_part)
        self.num_classes = checks.positive_int("num_classes", num_classes)
        if self.num_classes > MAX_CLASSES:
            raise ValueError(checks.problem("num_classes", f"must be at most {MAX_CLASSES}", self.num_classes))
        self.rings = LossBuffers(self.num_classes, window)
        self.stage = Stage(self.num_classes, log_probs)
        self.register_buffer("class_probe", torch.zeros(self.num_classes, dtype=torch.float32), persistent=False)
        self.register_buffer("counter", torch.zeros(len(reasons), dtype=torch.int64))
        self._reasons, self._told = tuple(reasons), [0] * len(reasons)
        self._compared = False  # the settings of all ranks

    def _check_batch(self, logits: Tensor, labels: Tensor) -> None:
        checks.batch_logits("logits", logits, self.num_classes)
        checks.batch_vector("labels", labels, logits)

    def _come_to(self, logits: Tensor) -> None:
        """Move to the device of the first logits that lie elsewhere."""
        if self.counter.device != logits.device:
            self.to(logits.device)

    def _take(self, *step: Any) -> None:
        stage: Any = self._stage
        if torch.compiler.is_compiling():  # not as a decorator, which would import the compiler with the package
            stage = torch.compiler.disable(stage)
        stage(*step)

    def rejected(self) -> dict[str, int]:
        """Rows with faults since the start, by reason; all but ``other_label`` were left out. Waits for the device."""
        return dict(zip(self._reasons, self.counter.cpu().numpy().tolist(), strict=True))

    def _tell(self, epoch: int) -> None:
        """Warn the caller of the method that called this of what was left out since the last time."""
        now = list(self.rejected().values())
        new = [count - told for count, told in zip(now, self._told, strict=True)]
        self._told = now
        for text in _left_out(epoch, new):
            warnings.warn(text, LossBufferWarning, stacklevel=3)


def _left_out(epoch: int, counts: list[int]) -> list[str]:
    """A text for every reason for which rows of an epoch were left out; the counts are in the order of the texts."""
    texts = (
        "gave logits or losses that are NaN, infinite or beyond 1e30 and were left out",
        "had a label out of range and were left out",
        "had a row number out of range and were left out",
        "came with another label than `labels` holds for their row: do `indices` number the rows of `labels`?",
    )
    return [f"Epoch {epoch}: {count} samples {text}." for count, text in zip(counts, texts, strict=False) if count]
