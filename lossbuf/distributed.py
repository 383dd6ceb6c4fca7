"""The one collective of the package: the losses of a block, from all ranks to all ranks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from lossbuf.losses import SampleLosses

PADDING = -(2**40)
"""Row number and label of a row that only fills up."""


class Block(NamedTuple):
    """Losses, given labels and rows of a block, each of shape ``(batch,)``; log-probabilities where they are kept."""

    losses: SampleLosses
    labels: Int[Tensor, " batch"]
    rows: Int[Tensor, " batch"]
    log_probs: Float[Tensor, "batch num_classes"] | None = None


def world_size() -> int:
    """Number of processes in the default group, 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """True on rank 0 and where there is no process group."""
    return world_size() == 1 or dist.get_rank() == 0


def gathered(block: Block, steps: Int[Tensor, " batch"], room: int) -> Block:
    """All ranks' rows, by step and then by rank: the order of one process on the joined batches.

    Blocks are padded to ``room`` rows, so no sizes are exchanged and no rank waits for its GPU.
    """
    # float64 holds float32 values, and numbers up to 2**53, exactly.
    vectors = torch.stack([part.double() for part in (*block.losses, block.labels, block.rows, steps)])
    columns = vectors if block.log_probs is None else torch.cat([vectors, block.log_probs.t().double()])
    mine = torch.full((len(columns), room), float(PADDING), dtype=torch.float64, device=block.rows.device)
    mine[:, : len(steps)] = columns
    mine[6, len(steps) :] = float("inf")
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(parts, mine)
    joined = torch.cat(parts, 1)
    joined = joined.index_select(1, joined[6].argsort(stable=True))
    label_loss, predicted_loss, predicted, margin, labels, rows = joined[:6].unbind(0)
    losses = SampleLosses(label_loss.float(), predicted_loss.float(), predicted.long().clamp(min=0), margin.float())
    log_probs = None if block.log_probs is None else joined[7:].t().float()
    return Block(losses, labels.long(), rows.long(), log_probs)
