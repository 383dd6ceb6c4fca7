"""Find wrong labels while several processes train one network; a killed run goes on where it was saved.

    torchrun --nproc-per-node 2 examples/distributed.py --out run
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nproc-per-node 8 --max-restarts 3 examples/distributed.py --out run

On a CPU the processes talk through gloo, on GPUs (one each) through NCCL. Started again, or restarted by torchrun after
one of them died (the variable keeps it from giving them the addresses of the dead), all go on from
``run/checkpoint.pt``; with several machines the folder must be one that all see. At the end ``run/suspects.csv`` has
the labels that are likely wrong, worst first. To make it yours, put your data and network into :func:`data` and
:func:`network`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from lossbuf import IndexedDataset, LossBufferCallback
from lossbuf.files import load_tensors, save_tensors, write_whole
from lossbuf.noise import corrupt, symmetric


def data(noise: float) -> IndexedDataset:
    """Any data set of (x, label); here digits, of which some labels are made wrong, to try it on."""
    x, y = load_digits(return_X_y=True)
    labels = corrupt(y, symmetric(10, noise), 0).labels
    return IndexedDataset(TensorDataset(torch.tensor(x / 16, dtype=torch.float32), torch.as_tensor(labels)))


def network(dropout: float) -> nn.Module:
    """Any network that gives logits."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, 10))


def main(options: argparse.Namespace) -> None:
    """Train as one of the processes that torchrun started."""
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)

    torch.manual_seed(options.seed)
    dataset = data(options.noise)
    model = network(options.dropout).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9)
    callback = LossBufferCallback(dataset.labels, mode=options.mode, warmup=options.warmup).to(device)
    # Shares of one size: where the rows do not go round, some come twice, and count once.
    sampler = DistributedSampler(dataset, seed=options.seed)

    checkpoint = options.out / "checkpoint.pt"
    ended, seen = 0, 0  # epochs, and rows of the next one that all ranks together have trained on
    if checkpoint.exists():
        saved = load_tensors(checkpoint, "digits")  # runs no code that a file may hold
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        callback.load_state_dict(saved["callback"])
        ended, seen = saved["ended"], saved["seen"]
    # Without the flag it sums gradients in another order from the second step after a start on.
    parallel = DistributedDataParallel(model, find_unused_parameters=options.exact)

    def save(ended: int, seen: int) -> None:
        callback.flush()  # all ranks: each has rows that the others have not heard of
        if rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ended": ended, "seen": seen}
            save_tensors(checkpoint, {"kind": "digits", "callback": callback.state_dict(), **state})

    for epoch in range(ended, options.epochs):
        sampler.set_epoch(epoch)
        # With another number of ranks than before some rows may come again, which does no harm: they count once.
        first = seen // (options.batch * ranks)
        batches = list(BatchSampler(sampler, options.batch, drop_last=False))[first:]
        for step, (x, labels, rows) in enumerate(DataLoader(dataset, batch_sampler=batches), first + 1):
            # What is random in a step hangs on its number and the rank, so no generator need be saved.
            torch.manual_seed(hash((options.seed, epoch, step, rank)))
            logits = parallel(x.to(device))
            loss = callback.loss(logits, labels.to(device), rows.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % options.checkpoint_steps == 0:
                save(epoch, step * options.batch * ranks)
        callback.end_epoch()
        seen = 0
        save(epoch + 1, 0)

    if rank == 0:  # all ranks hold the same
        suspects = callback.report().query("is_suspect")
        write_whole(options.out / "suspects.csv", lambda file: suspects.to_csv(file, index_label="row"))
        print(f"{len(suspects)} of {len(dataset)} labels are suspect; see {options.out / 'suspects.csv'}")
    dist.destroy_process_group()


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Find wrong labels while several processes train one network.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the suspects")
    parser.add_argument("--mode", choices=("watch", "filter", "reweight"), default="filter")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=5, help="epochs before suspects are dropped")
    parser.add_argument("--batch", type=int, default=32, help="rows a step and rank")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.2, help="share of the labels to make wrong")
    parser.add_argument(
        "--exact", action="store_true", help="same bits after a resume on more than two ranks, too; slower"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-steps", type=int, default=10, help="steps between two checkpoints of an epoch")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parsed())
