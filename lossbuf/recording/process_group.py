"""What goes between ranks: the losses of a block, from all to all, and a few numbers that must agree."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lossbuf import checks
from lossbuf.recording.losses import SampleLosses

PADDING = -(2**40)
"""Row number and label of a row that only fills up."""

_LAST = torch.iinfo(torch.int32).max


def _all_gather(found: Tensor, mine: Tensor, async_op: bool = False) -> Any:
    """By the name that this torch knows: the older one is deprecated from 2.14 on."""
    gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    return gather(found, mine, async_op=async_op)


class Block(NamedTuple):
    """Losses, given labels and rows of a block, each of shape ``(batch,)``; log-probabilities where they are kept."""

    losses: SampleLosses
    labels: Int[Tensor, " batch"]
    rows: Int[Tensor, " batch"]
    log_probs: Float[Tensor, "batch num_classes"] | None = None


def world_size() -> int:
    """Number of processes in the default group, 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process in the default group, 0 where there is none."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """True on rank 0 and where there is no process group."""
    return rank() == 0


class Gathering:
    """All ranks' rows of a block, on their way: the training goes on meanwhile.

    A row takes 36 bytes, and 4 more for each class where log-probabilities are kept. All columns travel as the bytes
    that they are, in one collective.

    Args:
        block: The rows of this rank.
        steps: Number of each row's step in the block, shape ``(batch,)``.
        room: Rows to fill the block up to, at least ``batch``, the same on all ranks. So no sizes are exchanged, and
            no rank waits for its GPU.
    """

    def __init__(self, block: Block, steps: Int[Tensor, " batch"], room: int) -> None:
        label_loss, predicted_loss, predicted, margin = block.losses
        few = [(block.rows, PADDING), (block.labels, PADDING), (steps.int(), _LAST), (predicted.int(), 0)]
        few += [(label_loss, 0), (predicted_loss, 0), (margin, 0)]
        columns = [F.pad(column, (0, room - len(steps)), value=fill) for column, fill in few]
        if block.log_probs is not None:
            columns.append(F.pad(block.log_probs, (0, 0, 0, room - len(steps))))
        self._mine = torch.cat([column.contiguous().view(-1).view(torch.uint8) for column in columns])
        self._parts = [(column.shape, column.dtype, column.nbytes) for column in columns]
        self._all = self._mine.new_empty(world_size(), len(self._mine))
        self._work = _all_gather(self._all.view(-1), self._mine, async_op=True)

    def joined(self) -> Block:
        """The rows by step and then by rank: the order of one process on the joined batches.

        A CPU waits until the last rank has sent its rows; a GPU's host does not.
        """
        self._wait()
        ranks = len(self._all)
        sizes = [size for _, _, size in self._parts]
        columns = [
            part.contiguous().view(dtype).view(ranks * shape[0], *shape[1:])
            for part, (shape, dtype, _) in zip(self._all.split(sizes, 1), self._parts, strict=True)
        ]
        order = columns[2].argsort(stable=True)
        rows, labels, _, predicted, label_loss, predicted_loss, margin, *log_probs = (
            column.index_select(0, order) for column in columns
        )
        losses = SampleLosses(label_loss, predicted_loss, predicted.long(), margin)
        return Block(losses, labels, rows, *log_probs)

    def _wait(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.wait()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied or pickled has arrived: the work itself cannot be."""
        self._wait()
        return dict(vars(self))


def places(rows: Tensor, first: int, size: int) -> Tensor:
    """Places of the rows ``first`` to ``first + size`` among ``rows``, in this order, int64, shape ``(size,)``."""
    place = torch.arange(len(rows), device=rows.device)
    number = rows - first
    # Other rows go beyond, each to a slot of its own.
    slots = torch.where((number >= 0) & (number < size), number, size + place)
    return torch.empty(size + len(rows), dtype=torch.int64, device=rows.device).scatter_(0, slots, place)[:size]


def of_all_ranks(numbers: Sequence[int], device: torch.device) -> Int[Tensor, "ranks numbers"]:
    """The numbers of all ranks, on the CPU; waits for all of them and for the device.

    Args:
        numbers: Those of this rank, as many on each.
        device: One that the process group can send from.
    """
    mine = torch.tensor(numbers, dtype=torch.int64, device=device)
    found = mine.new_empty(world_size() * len(numbers))
    _all_gather(found, mine)
    return found.view(world_size(), len(numbers)).cpu()


def check_agreement(settings: Mapping[str, Any], device: torch.device) -> None:
    """Raise on all ranks where a setting is not the same on all of them.

    Args:
        settings: What must agree, under the same names on all ranks; compared as ``repr`` gives it.
        device: One that the process group can send from.

    Raises:
        ValueError: If a value differs.
    """
    texts = [re.sub(r" at 0x[0-9a-f]+", "", repr(value)) for value in settings.values()]  # objects without a repr
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    found = of_all_ranks([int.from_bytes(digest, "big", signed=True) for digest in digests], device)
    differ = (found != found[0]).any(0).tolist()
    for (name, value), differs in zip(settings.items(), differ, strict=True):
        if differs:
            advice = "Give all ranks the same labels and settings, and let all of them load the same state, or none."
            raise ValueError(checks.problem(name, "must be the same on all ranks", f"{value!r} on this one", advice))


def common_room(steps: int, filled: int, device: torch.device) -> int:
    """Rows that the fullest rank holds, at least 1; waits for all ranks.

    Args:
        steps: Steps in the block of this rank.
        filled: Rows in it.
        device: One that the process group can send from.

    Raises:
        ValueError: If the ranks made different numbers of steps.
    """
    found = of_all_ranks([steps, filled], device)
    if bool((found[:, 0] != steps).any()):
        advice = "Fill up the shares as DistributedSampler does: a row that comes twice counts once."
        counts = found[:, 0].tolist()
        raise ValueError(checks.problem("steps", "must be as many on every rank", f"{counts} by rank", advice))
    return max(1, int(found[:, 1].max()))
