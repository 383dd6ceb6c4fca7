"""Steps are collected in a block and digested together: a step then costs three small copies."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossbuf import checks
from lossbuf.errors import LossBufferWarning
from lossbuf.recording.losses import NARROW, sample_losses_
from lossbuf.recording.process_group import Block, Gathering, common_room, world_size

BLOCK_ROWS = 16384
BLOCK_LOGITS = 2**20


class Staged(NamedTuple):
    """What a block held.

    Attributes:
        logits: Float32, shape ``(filled, num_classes)``; may be overwritten.
        labels: As given, int64, shape ``(filled,)``.
        rows: Int64, shape ``(filled,)``.
        steps: Number of each row's step in the block, int64, on the CPU, shape ``(filled,)``.
    """

    logits: Float[Tensor, "filled num_classes"]
    labels: Int[Tensor, " filled"]
    rows: Int[Tensor, " filled"]
    steps: Int[Tensor, " filled"]


class Stage:
    """A block of logits, labels and rows on the training device.

    Args:
        num_classes: Number of classes; the block holds at most ``BLOCK_LOGITS`` logits and ``BLOCK_ROWS`` rows, but
            always the largest step there was.
        log_probs: Whether log-probabilities are wanted of what it held.
    """

    def __init__(self, num_classes: int, log_probs: bool = False) -> None:
        self.num_classes = num_classes
        self.log_probs = log_probs
        self.capacity = max(1, min(BLOCK_ROWS, BLOCK_LOGITS // num_classes))
        self.filled = 0
        self.steps = 0
        self.largest = 0
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._step_sizes: list[list[int]] = []
        self._sent: Gathering | None = None

    def room(self, ranks: int) -> int:
        """Rows a rank may stage. The same on all ranks, and in one process ``ranks`` times as many."""
        return max(self.capacity // ranks, self.largest)

    def is_full(self, size: int, ranks: int) -> bool:
        """True where a step of the largest size so far, this one of ``size`` rows included, would not fit in.

        The size of this step alone would not do: the last steps of an epoch may differ among ranks, which would then
        not come to the collective together.
        """
        self.largest = max(self.largest, size)
        return self.filled + self.largest > self.room(ranks)

    def add(self, logits: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Copy a batch that fits in; what becomes of the batch's own memory then does not matter."""
        integers = torch.int64
        self._parts.append(
            (logits.to(torch.float32, copy=True), labels.to(integers, copy=True), rows.to(integers, copy=True))
        )
        self._step_sizes.append([self.steps, len(rows)])
        self.filled += len(rows)

    @property
    def cursors(self) -> tuple[int, int, int, int]:
        """What must be the same on all ranks: capacity, rows, steps and the largest step."""
        return self.capacity, self.filled, self.steps, self.largest

    @torch.no_grad()
    def close(self, device: torch.device, room: int = 0) -> list[Block]:
        """Empty the block.

        Args:
            device: Where to compute.
            room: Rows to fill it up to, the same on all ranks. By default as many as a block of full steps holds: that
                there is no room for a step tells that none of these was the last of an epoch, and smaller.

        Returns:
            What can be digested now: the block, or in a process group the one before, while this one is sent round.
        """
        if world_size() == 1:
            return [*self.arrived(), *self._own(device)]
        room = room or max(self.filled, min(self.room(world_size()), self.steps * self.largest))
        before, self._sent = self._sent, Gathering(*self._losses(device), room)
        return [] if before is None else [before.joined()]

    def empty(self, device: torch.device, begun: bool) -> list[Block]:
        """All that can be digested; in a process group all ranks must come, with as many steps.

        Args:
            device: Where to compute.
            begun: True where rows of this epoch were digested; with none, and none here, nothing is exchanged.

        Raises:
            ValueError: If the ranks made different numbers of steps.
        """
        if world_size() == 1 or not (self.steps or self._sent or begun):
            return self.alone(device)
        room = common_room(self.steps, self.filled, device)
        return [*(self.close(device, room) if self.steps else []), *self.arrived()]

    def alone(self, device: torch.device) -> list[Block]:
        """What a rank may digest by itself: in a process group only what was sent round."""
        return self.close(device) if world_size() == 1 else self.arrived()

    def arrived(self) -> list[Block]:
        """The block that was sent round, if there is one."""
        sent, self._sent = self._sent, None
        return [] if sent is None else [sent.joined()]

    def loaded(self, device: torch.device) -> list[Block]:
        """What was in the block of a loaded state: in a process group it is the same on all ranks, and not sent."""
        return [] if world_size() == 1 else self._own(device)

    def check_sent(self) -> None:
        """Raise where the rows of the other ranks in the block would be lost.

        Raises:
            ValueError: If there were steps in a process group since the block was emptied.
        """
        if world_size() > 1 and self.steps:
            advice = "Call `flush` on all ranks before one of them saves."
            raise ValueError(
                checks.problem("state", "must be saved after a flush", f"{self.steps} steps since", advice)
            )

    def _own(self, device: torch.device) -> list[Block]:
        return [self._losses(device)[0]] if self.steps else []

    def _losses(self, device: torch.device) -> tuple[Block, Tensor]:
        to_gpu = device.type == "cuda"  # the other way the host would read before the copy is done
        logits, labels, rows, steps = (part.to(device, non_blocking=to_gpu) for part in self.take())
        if self.num_classes < NARROW:
            logits = logits.t().contiguous().t()
        losses, log_probs = sample_losses_(logits, labels.clamp(0, self.num_classes - 1), self.log_probs)
        return Block(losses, labels, rows, log_probs), steps

    def take(self) -> Staged:
        """Empty the block."""
        staged = self._joined()
        self.filled, self.steps = 0, 0
        self._parts, self._step_sizes = [], []
        return staged

    def _joined(self) -> Staged:
        if not self._parts:
            nothing = torch.empty(0, dtype=torch.int64)
            return Staged(torch.empty(0, self.num_classes), nothing, nothing, nothing)
        device = self._parts[-1][0].device  # a part that was loaded may lie on another
        logits, labels, rows = (
            torch.cat([part.to(device) for part in parts]) for parts in zip(*self._parts, strict=True)
        )
        steps, sizes = torch.tensor(self._step_sizes).unbind(1)
        return Staged(logits, labels, rows, steps.repeat_interleave(sizes, output_size=self.filled))

    def state(self) -> dict[str, Any]:
        """All that :meth:`load` needs."""
        sizes = {"step_sizes": [list(pair) for pair in self._step_sizes]}
        cursors = {"filled": self.filled, "steps": self.steps, "largest": self.largest}
        logits, labels, rows, _ = self._joined()
        return {**cursors, **sizes, "ranks": world_size(), "logits": logits, "labels": labels, "rows": rows}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` gave.

        Warns:
            LossBufferWarning: If rows that lay on other ranks are missing.
        """
        ranks = state.get("ranks", 1)
        if ranks > 1 and state["steps"]:
            warnings.warn(
                f"The state was saved by one of {ranks} ranks with {state['steps']} steps not digested, so the rows of "
                "the others in these are missing in this epoch. Call `flush` on all ranks before it is saved.",
                LossBufferWarning,
                stacklevel=2,
            )
        self._sent = None
        self.filled, self.steps, self.largest = state["filled"], state["steps"], state["largest"]
        self._step_sizes = [list(pair) for pair in state["step_sizes"]]
        self._parts = [(state["logits"], state["labels"], state["rows"])] if self.filled else []
