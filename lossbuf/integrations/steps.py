"""What the adapters share: labels and rows of a batch, epochs left open, and states of several processes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.recording.process_group import world_size

STATE_FILE = "lossbuf.pt"
"""Name of the state's file in checkpoints that are folders; :meth:`LossBufferCallback.load` reads it."""

_MEND = "Wrap the training data: lossbuf.IndexedDataset(dataset) gives (x, label, row)."

Rows = Tensor | Sequence[Hashable]
"""Row numbers, or names of rows."""


def labels_and_rows(batch: object) -> tuple[Tensor, Rows]:
    """The labels and rows of ``(x, labels, ..., rows)``, or of a mapping with ``"labels"`` and ``"rows"``.

    Raises:
        ValueError: If the batch is neither.
    """
    if isinstance(batch, Mapping):
        if "labels" not in batch or "rows" not in batch:
            raise ValueError(checks.problem("batch", 'must hold "labels" and "rows"', f"the keys {list(batch)}", _MEND))
        return batch["labels"], batch["rows"]
    if not isinstance(batch, Sequence) or isinstance(batch, str):
        raise ValueError(checks.problem("batch", "must be (x, labels, rows)", type(batch).__name__, _MEND))
    if len(batch) < 3:
        raise ValueError(checks.problem("batch", "must be (x, labels, rows)", f"{len(batch)} parts, no rows", _MEND))
    return batch[1], batch[-1]


def of_training(logits: Any) -> Tensor:
    """Return ``logits``; raise where they are no tensor that a loss can be taken of.

    Raises:
        ValueError: If they are no tensor, or carry no gradient, as those of an evaluation do not.
    """
    if not isinstance(logits, Tensor):
        raise ValueError(checks.problem("logits", "must be a tensor", type(logits).__name__))
    if not logits.requires_grad:
        advice = "Give it the steps of the training only; an evaluation has a loss of its own."
        raise ValueError(checks.problem("logits", "must be those of a training step", "some without gradient", advice))
    return logits


def attach(callback: LossBufferCallback, network: nn.Module, optimizer: Optimizer, epochs: int | None = None) -> None:
    """Attach network and optimizer before the training, but for a network whose first batch is to make its weights."""
    if not any(isinstance(value, UninitializedParameter) for value in network.parameters()):
        callback.attach(network, optimizer, epochs)


def keeps_loss(callback: LossBufferCallback) -> bool:
    """True where the training may go by a loss of its own: nothing is weighted, no label is planted."""
    return callback.mode == "watch" and callback.planted is None and callback.class_weight is None


def is_open(callback: LossBufferCallback) -> bool:
    """True where rows came since the last ``end_epoch``; the same in all processes."""
    return callback.stage.steps > 0 or callback.dynamics.rows_in_epoch > 0


def close(callback: LossBufferCallback) -> None:
    """End the epoch that is open, if one is.

    A checkpoint written between the last step of an epoch and the end of it leaves one open; frameworks that resume
    from it go on with the next epoch.
    """
    if is_open(callback):
        callback.end_epoch()


def settle(callback: LossBufferCallback) -> None:
    """Make the state the same in all processes, as one that is saved by the first for all must be; all must call it."""
    if world_size() > 1:
        callback.flush()


def save_into(callback: LossBufferCallback, folder: str | Path) -> None:
    """Write the state into a checkpoint's folder; all processes must call it."""
    settle(callback)
    callback.save(Path(folder) / STATE_FILE)


def load_from(callback: LossBufferCallback, folder: str | Path) -> None:
    """Restore the state from a checkpoint's folder.

    Raises:
        ValueError: If there is none, it is damaged, or of other settings or another data set.
    """
    path = Path(folder) / STATE_FILE
    if not path.is_file():
        advice = "It was written without the loss buffers: start anew."
        raise ValueError(checks.problem("checkpoint", f"must hold {STATE_FILE}", str(folder), advice))
    callback.load(path)
