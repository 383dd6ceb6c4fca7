"""Ranks that do not fit together: ``torchrun --nproc-per-node RANKS unequal_ranks.py FOLDER``.

Each rank writes what every trial gave on it: the text of the error, or what was collected.
"""

import copy
import datetime
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lossbuf import LossBufferCallback
from lossbuf.detection.thresholds import KnownRate

ROWS, CLASSES, BATCH = 48, 4, 4
LABELS = torch.arange(ROWS) % CLASSES


class Nameless(KnownRate):
    """A rule that shows its address."""

    __repr__ = object.__repr__


def made(labels: torch.Tensor = LABELS, **settings: Any) -> LossBufferCallback:
    return LossBufferCallback(labels, CLASSES, **({"mode": "filter", "warmup": 1, "noise_rate": 0.25} | settings))


def logits(rows: torch.Tensor) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, CLASSES, generator=draw)[rows]


def step(callback: LossBufferCallback, rows: torch.Tensor) -> None:
    callback.update(logits(rows), callback.dynamics.labels[rows], rows)


def share(rank: int, ranks: int, start: int = 0, end: int = ROWS) -> list[torch.Tensor]:
    """Steps of a rank: every one takes a part of each batch."""
    return [batch[rank::ranks] for batch in torch.arange(start, end).split(BATCH * ranks)]


def told(callback: LossBufferCallback, steps: int = 1) -> str:
    """The error of some steps and the end of an epoch."""
    try:
        for _ in range(steps):
            step(callback, torch.arange(BATCH))
        callback.end_epoch()
    except ValueError as error:
        return str(error)
    return "no error"


def ended(rank: int) -> LossBufferCallback:
    callback = made()
    state = copy.deepcopy(dict(callback.state_dict()))
    state["dynamics._extra_state"] = {"epoch": rank, "rows_in_epoch": 0}
    callback.load_state_dict(state)
    return callback


def collected(callback: LossBufferCallback) -> dict[str, Any]:
    return {
        "state": {name: value for name, value in callback.state_dict().items() if isinstance(value, torch.Tensor)},
        "statistics": dict(vars(callback.statistics())),
        "rejected": callback.rejected(),
    }


def ahead(rank: int, ranks: int) -> dict[str, Any]:
    """Blocks are sent round and digested later; rank 0 looks in between, alone."""
    callback = made()
    callback.stage.capacity = 2 * BATCH * ranks
    digested = []
    for number, rows in enumerate(share(rank, ranks)):
        step(callback, rows)
        digested.append(callback.dynamics.rows_in_epoch)
        if rank == 0 and number == 2:
            copy.deepcopy(callback).statistics()
            assert callback.dynamics.rows_in_epoch == 0
            callback.state_dict()
            digested[-1] = callback.dynamics.rows_in_epoch
    callback.end_epoch()
    return {"digested": digested, **collected(callback)}


def resumed(rank: int, ranks: int, state: dict[str, Any]) -> dict[str, Any]:
    """Of one process that had done half of an epoch; its block is fuller than one of a rank ever is."""
    callback = made()
    callback.stage.capacity = BATCH * ranks
    callback.load_state_dict(state)
    for rows in share(rank, ranks, start=ROWS // 2):
        step(callback, rows)
    callback.end_epoch()
    return collected(callback)


def without_rows(rank: int) -> dict[str, Any]:
    """Steps of which no rank has rows, and one of which only the last has."""
    callback = made()
    nothing = torch.empty(0, dtype=torch.int64)
    step(callback, nothing)
    callback.end_epoch()
    step(callback, torch.arange(BATCH) if rank == dist.get_world_size() - 1 else nothing)
    callback.end_epoch()
    return collected(callback)


def unsaved(rank: int, path: Path) -> dict[str, Any]:
    """A state saved too early, by a file and by hand."""
    callback = made()
    step(callback, torch.arange(BATCH))
    try:
        callback.save(path)
        refused = "no error"
    except ValueError as error:
        refused = str(error)
    state = copy.deepcopy(dict(callback.state_dict()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made().load_state_dict(state)
    callback.flush()
    callback.save(path)
    dist.barrier()
    loaded = made()
    loaded.load(path)
    return {"refused": refused, "warned": [str(one.message) for one in caught], "epoch": loaded.epoch}


def main(folder: Path) -> None:
    """All trials, one after the other."""
    torch.set_num_threads(1)
    one = made()
    one.update(torch.full((1, CLASSES), float("nan")), LABELS[:1], torch.arange(1))
    for rows in share(0, 1, end=ROWS // 2):
        step(one, rows)
    half = copy.deepcopy(dict(one.state_dict()))
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    last = rank == ranks - 1
    found: dict[str, Any] = {
        "labels": told(made(LABELS.flip(0) if last else LABELS)),
        "mode": told(made(mode="reweight" if last else "filter")),
        "rate": told(made(noise_rate=0.3 if last else 0.25)),
        "cut": told(made(noise_rate=None, cut=Nameless(0.2))),
        "resumed": told(ended(rank)),
        "steps": told(made(), steps=3 if last else 2),
        "equal": told(made()),
        "ahead": ahead(rank, ranks),
        "half": resumed(rank, ranks, half),
        "nothing": without_rows(rank),
        "unsaved": unsaved(rank, folder / "state"),
    }
    dist.destroy_process_group()
    torch.save(found, folder / str(rank))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
