"""Ranks whose network memorizes: ``torchrun --nproc-per-node RANKS memorizing_ranks.py FOLDER``.

The logits are made up: they know the class of every row, and from epoch to epoch more of the labels trained on.
"""

import datetime
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from lossbuf import LossBufferCallback

EPOCHS, ROWS, CLASSES, BATCH = 9, 480, 3, 48


def collect(rank: int, ranks: int) -> dict[str, Any]:
    """Train on the share of ``rank`` in every batch."""
    draw = torch.Generator().manual_seed(0)
    true = torch.arange(ROWS) % CLASSES
    labels = torch.where(torch.rand(ROWS, generator=draw) < 0.3, (true + 1) % CLASSES, true)
    torch.manual_seed(0)
    network = nn.Linear(4, CLASSES)
    first = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    callback = LossBufferCallback(labels, CLASSES, mode="filter").attach(network, optimizer, EPOCHS)
    restored = False
    for epoch in range(EPOCHS):
        with torch.no_grad():
            network.weight.add_(1.0)
        for joined in torch.randperm(ROWS, generator=draw).split(BATCH):
            noise = torch.randn(BATCH, CLASSES, generator=draw)
            logits = noise + 2.5 * nn.functional.one_hot(true[joined], CLASSES)
            trained = callback.sample_weights[joined].unsqueeze(1)
            logits = logits + epoch * trained * nn.functional.one_hot(labels[joined], CLASSES)
            mine = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
            callback.loss(logits[mine].requires_grad_(), labels[joined[mine]], joined[mine])
        callback.end_epoch()
        restored = restored or bool(torch.equal(network.weight, first))
    verdict = callback.verdict()
    return {
        "warm_up": callback.warm_up.get_extra_state(),
        "restored": restored,
        "suspicion": torch.from_numpy(verdict.suspicion),
        "kept": callback.select().tolist(),
        "weights": callback.sample_weights,
    }


def main(folder: Path) -> None:
    """Run on all ranks, then alone, and write what each collected."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.save(collect(rank, ranks), folder / str(rank))
    dist.destroy_process_group()
    if rank == 0:
        torch.save(collect(0, 1), folder / "alone")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
