"""One measurement of ``benchmarks.scale`` each; every one is to be called in a process of its own."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.common.apart import of_status, peak_bytes
from lossbuf import LossBufferCallback

NOISE = 0.2
POOL = 2**24
"""Logits made beforehand, of which the steps are cut."""


class Memory:
    """The most memory a block of code held, in bytes.

    Attributes:
        process: Of the whole process, mapped files included.
        own: Beyond what the process held at the start, files aside.
    """

    def __init__(self) -> None:
        self.process = self.own = 0


@contextmanager
def watched() -> Iterator[Memory]:
    """Watch the memory of this process; off Linux ``own`` counts mapped files, too."""
    memory, done, start = Memory(), threading.Event(), _anonymous()
    most = start

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, _anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()
        memory.own = max(most, _anonymous()) - start
        memory.process = peak_bytes()


def _anonymous() -> int:
    return of_status("RssAnon") or peak_bytes()


class Simulated:
    """Samples of a stream without end: logits of a network that knows its classes, and labels of which some are wrong.

    Logits are drawn from a normal distribution, 3 higher at the true class. Sample number n is row 7919 n of a pool of
    them, so that making a batch costs a copy and no more.

    Args:
        classes: Number of classes.
        seed: Decides the pool.
    """

    def __init__(self, classes: int, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        size = max(1009, POOL // classes)
        self.classes, self.size = classes, size
        self.logits = torch.randn(size, classes, generator=draw)
        true = torch.randint(classes, (size,), generator=draw)
        self.logits[torch.arange(size), true] += 3.0
        wrong = torch.rand(size, generator=draw) < NOISE
        self.given = torch.where(wrong, torch.randint(classes, (size,), generator=draw), true)

    def labels(self, samples: Tensor) -> Tensor:
        """Given labels of samples by number."""
        return self.given[samples * 7919 % self.size]

    def batch(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and given labels of samples by number."""
        rows = samples * 7919 % self.size
        return self.logits[rows], self.given[rows]


def batch_of(classes: int) -> int:
    """Rows a step: 4,096, but no more than 4 million logits."""
    return max(64, min(4096, 2**22 // classes))


def storage(samples: int, classes: int, place: str, folder: str) -> dict[str, Any]:
    """An epoch of ``samples`` rows in random order, and the choice of suspects, with the record at ``place``."""
    source, batch = Simulated(classes), batch_of(classes)
    with watched() as memory, tempfile.TemporaryDirectory(dir=folder) as scratch:
        where = {"device": None, "cpu": "cpu", "mapped": scratch}[place]
        start = time.perf_counter()
        labels = torch.cat([source.labels(part) for part in torch.arange(samples).split(2**22)])
        callback = LossBufferCallback(labels, classes, rank_by="aum", noise_rate=NOISE, storage=where)
        made = time.perf_counter() - start
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(0))
        start, before = time.perf_counter(), time.process_time()
        for rows in order.split(batch):
            callback.update(*source.batch(rows), rows)
        callback.end_epoch()
        epoch, busy = time.perf_counter() - start, time.process_time() - before
        start = time.perf_counter()
        suspects = int(callback.find_cut().suspect_mask.sum())
        chosen = time.perf_counter() - start
    return {
        "seconds_to_make": made,
        "seconds_an_epoch": epoch,
        "cpu_seconds_an_epoch": busy,
        "rows_a_second": samples / epoch,
        "seconds_to_choose": chosen,
        "suspects": suspects,
        "peak_own_bytes": memory.own,
        "peak_process_bytes": memory.process,
    }


def machine(folder: str, size: int = 2**30) -> dict[str, Any]:
    """Bytes a second that this machine copies in memory, and writes to a folder and syncs."""
    block = torch.randint(256, (2**26,), dtype=torch.uint8)
    start = time.perf_counter()
    for _ in range(size // len(block)):
        block.clone()
    copied = size / (time.perf_counter() - start)
    content = block.numpy().tobytes()
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(size // len(content)):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
        written = size / (time.perf_counter() - start)
    return {"copy_bytes_a_second": copied, "write_bytes_a_second": written}


def folder_bytes(folder: Path) -> int:
    """Size of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def emptied(folder: Path) -> Path:
    """The folder, without what was in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def streamed(samples: int, classes: int, folder: str, first: int = 0, epochs: int = 1) -> dict[str, Any]:
    """A stream of ``samples`` named by strings, written to ``folder``."""
    from lossbuf.streams import LossBufferStream

    source, batch = Simulated(classes), batch_of(classes)
    before = time.process_time()
    with watched() as memory:
        start = time.perf_counter()
        with LossBufferStream(classes, folder) as stream:
            for _ in range(epochs):
                for begin in range(first, first + samples, batch):
                    rows = torch.arange(begin, min(begin + batch, first + samples))
                    stream.update(*source.batch(rows), [f"shard/{row:012d}" for row in rows.tolist()])
                stream.end_epoch()
        took = time.perf_counter() - start
    size = folder_bytes(Path(folder))
    return {
        "seconds": took,
        "cpu_seconds": time.process_time() - before,
        "rows_a_second": samples * epochs / took,
        "bytes_a_row": size / samples / epochs,
        "bytes_a_second": size / took,
        "peak_own_bytes": memory.own,
        "peak_process_bytes": memory.process,
    }


def summed(folder: str, out: str, memory_limit: str = "1GB") -> dict[str, Any]:
    """The summary of what a stream wrote."""
    from lossbuf.streams import summarise

    before = time.process_time()
    with watched() as memory:
        start = time.perf_counter()
        found = summarise(folder, noise_rate=NOISE, out=out, memory_limit=memory_limit)
        took = time.perf_counter() - start
    return {
        "seconds": took,
        "cpu_seconds": time.process_time() - before,
        "rows_a_second": found.rows / took,
        "suspects": found.n_suspects,
        "bytes": Path(out).stat().st_size,
        "peak_own_bytes": memory.own,
        "peak_process_bytes": memory.process,
    }


def same(samples: int, classes: int, folder: str, out: str) -> dict[str, Any]:
    """The suspects of a stream of two epochs in ``folder``, beside those of a callback that holds all in memory."""
    import pyarrow.parquet as parquet

    from lossbuf.streams import summarise

    source, batch = Simulated(classes), batch_of(classes)
    rows = torch.arange(samples)
    values: dict[str, Any] = {}
    for rule, settings in {"known rate": {"noise_rate": NOISE}, "mixture": {}}.items():
        callback = LossBufferCallback(source.labels(rows), classes, rank_by="score2", **settings)
        for _ in range(2):
            for part in rows.split(batch):
                callback.update(*source.batch(part), part)
            callback.end_epoch()
        expected = set(np.flatnonzero(callback.find_cut().suspect_mask).tolist())
        summarise(folder, rank_by="score2", out=out, **settings)
        table = parquet.read_table(out, columns=["id"], filters=[("is_suspect", "=", True)])
        found = {int(name.removeprefix("shard/")) for name in table["id"].to_pylist()}
        values[f"suspects by {rule}"] = len(expected)
        values[f"not the same by {rule}"] = len(expected ^ found)
    return values


def ranks(samples: int, classes: int, count: int, rank_by: str, folder: str) -> dict[str, Any]:
    """An epoch over ``samples`` rows, shared by ``count`` processes of one group (gloo, this machine)."""
    context = get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        meeting = Path(scratch, "meeting").resolve().as_uri()
        workers = [
            context.Process(target=_rank, args=(samples, classes, count, rank, rank_by, meeting, answers))
            for rank in range(count)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found = sorted(answers.get(timeout=10) for worker in workers if worker.exitcode == 0)
    if len(found) < count:
        raise RuntimeError(f"{count - len(found)} of {count} ranks failed")
    epoch = max(seconds for _, seconds, _, _ in found)
    return {
        "seconds_an_epoch": epoch,
        "rows_a_second": samples / epoch,
        "seconds_in_collectives": max(seconds for _, _, seconds, _ in found),
        "collectives": found[0][3],
    }


def _rank(samples: int, classes: int, count: int, rank: int, rank_by: str, meeting: str, answers: Any) -> None:
    torch.set_num_threads(1)
    waited: list[float] = []
    if count > 1:
        limit = datetime.timedelta(minutes=5)
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=limit)
        for name in ("all_gather", "all_gather_single", "all_gather_into_tensor", "all_reduce"):
            if hasattr(dist, name):
                setattr(dist, name, _timed(getattr(dist, name), waited))
    source, batch = Simulated(classes), batch_of(classes) // count
    callback = LossBufferCallback(source.labels(torch.arange(samples)), classes, rank_by=rank_by, noise_rate=NOISE)
    mine = torch.randperm(samples, generator=torch.Generator().manual_seed(0))[rank::count]
    start = time.perf_counter()
    for rows in mine.split(batch):
        callback.update(*source.batch(rows), rows)
    callback.end_epoch()
    answers.put((rank, time.perf_counter() - start, sum(waited), len(waited)))
    if count > 1:
        dist.barrier()
        dist.destroy_process_group()


def _timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **settings: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*arguments, **settings)
        finally:
            seconds.append(time.perf_counter() - start)

    return timed
