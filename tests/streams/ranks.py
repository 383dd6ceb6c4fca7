"""One of two processes that train together: ``python ranks.py RANK INIT_FILE FOLDER``.

Each takes its share of every batch. Rank 0 then does the same alone, on the joined batches.
"""

import datetime
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from lossbuf.streams import LossBufferStream
from tests.streams.simulated import data, named

CLASSES, EPOCHS, SIZES = 3, 3, ((6, 6), (6, 6), (6, 6), (6, 2), (3, 0))
SIZE = sum(map(sum, SIZES))
SCENARIOS = {"text": True, "integers": False}
SAVE_AT = 2 * len(SIZES)  # two ranks end their block when they save, so at the end of an epoch


def main(rank: int, ranks: int, folder: Path) -> None:
    """Train, save and go on; then resume from there and do the rest again."""
    for name, text in SCENARIOS.items():
        stream = _stream(folder / name)
        _train(stream, rank, ranks, text, 0, SAVE_AT)
        stream.save(folder / f"{name}.pt")
        _train(stream, rank, ranks, text, SAVE_AT, SAVE_AT + 3)
        stream.flush()  # files that are newer than the state, and then it is killed, so to say
        stream = _stream(folder / name)
        stream.load(folder / f"{name}.pt")
        _train(stream, rank, ranks, text, SAVE_AT, EPOCHS * len(SIZES))
        stream.close()
        rejected = stream.rejected()
        torch.save(
            {"rings": dict(stream.rings.state_dict()), "rejected": rejected, "arrived": stream.arrived},
            folder / f"{name}-{rank}.result",
        )
        if ranks > 1:
            _refuses(folder / name, f"{folder}/{name}.pt")
    if ranks > 1:
        _one_folder_of_two(folder / "taken", rank)
        _empty_share(folder / "empty", rank)


def _refuses(folder: Path, state: str) -> None:
    """A fresh stream on the folder does not mix its rows in."""
    fresh = _stream(folder)
    try:
        fresh.update(torch.zeros(1, CLASSES), torch.zeros(1, dtype=torch.int64), ["a"])
    except ValueError:
        return
    raise SystemExit("rows of another stream were taken")


def _one_folder_of_two(folder: Path, rank: int) -> None:
    """Rows of rank 0 lie there: both ranks are told, and none waits for the other."""
    folder.mkdir(exist_ok=True)
    if rank == 0:
        (folder / "rows-00000-000000.parquet").write_bytes(b"")
    dist.barrier()
    stream = _stream(folder)
    try:
        stream.update(torch.zeros(1, CLASSES), torch.zeros(1, dtype=torch.int64), ["a"])
    except ValueError as error:
        if "`folder`" not in str(error):
            raise
        return
    raise SystemExit("rows of another stream were taken")


def _empty_share(folder: Path, rank: int) -> None:
    """A rank without a row in the only step of an epoch comes to the end of it all the same."""
    stream = _stream(folder)
    size = 2 if rank == 0 else 0
    for epoch in range(2):
        ids = [f"{epoch}-{row}" for row in range(size)]
        stream.update(torch.zeros(size, CLASSES), torch.zeros(size, dtype=torch.int64), ids)
        stream.flush()
        stream.end_epoch()
    stream.close()
    if stream.epoch != 2 or int(stream.arrived) != 4:
        raise SystemExit(f"{stream.epoch} epochs, {int(stream.arrived)} rows")


def _stream(folder: Path) -> LossBufferStream:
    stream = LossBufferStream(CLASSES, folder, window=7, rows_a_file=10)
    stream.stage.capacity = 24
    return stream


def _train(stream: LossBufferStream, rank: int, ranks: int, text: bool, first: int, last: int) -> None:
    from_ = data(SIZE, CLASSES)
    number = 0
    for epoch in range(EPOCHS):
        draw = torch.Generator().manual_seed(epoch)
        order = torch.randperm(SIZE, generator=draw)
        logits = torch.randn(SIZE, CLASSES, generator=draw)
        logits[3] = float("nan")
        start = 0
        for sizes in SIZES:
            own = start + sum(sizes[:rank]), start + (sizes[rank] if ranks > 1 else sum(sizes)) + sum(sizes[:rank])
            start += sum(sizes)
            if first <= number < last:
                rows = order[slice(*own)]
                stream.update(logits[slice(*own)], from_.labels[rows], named(from_, rows) if text else rows)
            number += 1
            if number % len(SIZES) == 0 and first < number <= last:
                stream.end_epoch()


if __name__ == "__main__":
    torch.set_num_threads(1)
    me, init, base = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    limit = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=init.as_uri(), rank=me, world_size=2, timeout=limit)
    (base / "two").mkdir(exist_ok=True)
    main(me, 2, base / "two")
    dist.destroy_process_group()
    if me == 0:
        (base / "one").mkdir()
        main(0, 1, base / "one")
