"""What the callback costs: `update` beside the ``aum`` package, and a training step with and without it.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --device cuda          (a GPU; the steps run with CUDA's sync debug mode set to error)

Protocol. `update`: rows in random order, logits at hand, a step a batch; ours and ``aum`` take turns on the same
batches. Our time is that of a whole pass with its ``end_epoch``, divided by its steps, so the digests of full blocks
are in it; the median of the passes is shown, and beside it the median of a single call. Training step: the same network
and batches, a step with and one without the callback in turn (which comes first alternates), median of the paired
differences over the median step, and the same for means, which hold the digests. State: bytes of all tensors of the
callback, the same after one epoch and after many; and the most memory the process, or the GPU, ever held.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from tqdm.auto import tqdm

from benchmarks.common import results
from benchmarks.peers.aum import AumPeer
from lossbuf import networks
from lossbuf.callback import LossBufferCallback

BATCHES = (1, 8, 128, 1024, 4096)
CLASSES = (10, 100, 1000)
Batch = tuple[Tensor, Tensor, Tensor]


def batches_of(batch: int, classes: int, device: torch.device, generator: torch.Generator) -> list[Batch]:
    """A pass over some 60,000 rows, or 200 steps of them, in random order."""
    rows = min(60_000, 200 * batch)
    logits = torch.randn(rows, classes, generator=generator).to(device)
    labels = torch.randint(classes, (rows,), generator=generator).to(device)
    order = torch.randperm(rows, generator=generator).to(device)
    return [(logits[part], labels[part], part) for part in order.split(batch)]


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of a call, the GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@contextmanager
def no_sync(device: torch.device) -> Iterator[None]:
    """On a GPU a wait for it raises an error in here."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def update_cost(batch: int, classes: int, device: torch.device, passes: int) -> dict[str, Any]:
    """Seconds a step of ours and of ``aum``."""
    generator = torch.Generator().manual_seed(0)
    steps = batches_of(batch, classes, device, generator)
    labels = torch.empty(sum(len(rows) for _, _, rows in steps), dtype=torch.int64)
    for _, given, rows in steps:
        labels[rows.cpu()] = given.cpu()
    callback = LossBufferCallback(labels, classes).to(device)
    ours, calls, theirs = [], [], []

    def one_pass() -> None:
        for step in steps:
            with no_sync(device):
                callback.update(*step)
        callback.end_epoch()

    few = steps[: max(1, 20_000 // batch)]
    with tempfile.TemporaryDirectory() as folder:
        peer = AumPeer(folder)

        def aum_steps() -> None:
            for step in few:
                peer.update(*step)

        one_pass()
        comparable = batch > 1  # aum fails on a batch of one
        for _ in range(passes):
            ours.append(seconds(one_pass, device) / len(steps))
            calls += [seconds(lambda step=step: callback.update(*step), device) for step in steps[:50]]
            callback.end_epoch()
            if comparable:
                theirs.append(seconds(aum_steps, device) / len(few))
    return {
        "batch": batch,
        "classes": classes,
        "update_s": ours,
        "single_call_s": calls,
        "aum_s": theirs,
        "state_bytes": sum(tensor.nbytes for tensor in tensors_of(callback)),
        "n_samples": len(labels),
    }


def tensors_of(callback: LossBufferCallback) -> list[Tensor]:
    """All tensors a callback holds."""
    stage = [value for value in callback.stage.state().values() if isinstance(value, Tensor)]
    return [*callback.buffers(), *stage]


def step_cost(name: str, network: nn.Module, x: Tensor, classes: int, pairs: int) -> dict[str, Any]:
    """Seconds of training steps with and without the callback, in pairs."""
    device = x.device
    generator = torch.Generator().manual_seed(0)
    rows_in_set = 60_000 if len(x) > 64 else 1437
    labels = torch.randint(classes, (rows_in_set,), generator=generator)
    callback = LossBufferCallback(labels, classes).to(device)
    labels = labels.to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    x = x.contiguous(memory_format=torch.channels_last)

    def step(rows: Tensor, watched: bool) -> None:
        logits = network(x)
        given = labels[rows]
        loss = callback.loss(logits, given, rows) if watched else F.cross_entropy(logits, given)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    times: dict[bool, list[float]] = {True: [], False: []}
    seen = 0
    for pair in range(-5, pairs):
        rows = torch.randperm(rows_in_set, generator=generator)[: len(x)].to(device)
        for watched in (True, False) if pair % 2 else (False, True):
            with no_sync(device):
                spent = seconds_without_sync(lambda watched=watched, rows=rows: step(rows, watched), device)
            if pair >= 0:
                times[watched].append(spent)
        seen += len(x)
        if seen >= rows_in_set:
            callback.end_epoch()
            seen = 0
    return {"network": name, "batch": len(x), "with_s": times[True], "without_s": times[False]}


def seconds_without_sync(run: Callable[[], object], device: torch.device) -> float:
    """As :func:`seconds`, with events on a GPU, since the sync debug mode is on."""
    if device.type != "cuda":
        return seconds(run, device)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    torch.cuda.set_sync_debug_mode("default")
    end.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    return start.elapsed_time(end) / 1000


def added(cost: dict[str, Any]) -> tuple[float, float]:
    """Share of a step the callback adds: median of the paired differences, and by the means."""
    pairs = list(zip(cost["with_s"], cost["without_s"], strict=True))
    median = statistics.median(a - b for a, b in pairs) / statistics.median(cost["without_s"])
    return median, sum(a - b for a, b in pairs) / sum(cost["without_s"])


def peak_bytes(device: torch.device) -> int | None:
    """Most memory in use so far: allocated on a GPU, else of the whole process, where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    passes: Annotated[int, typer.Option(min=1, help="Passes a cell of `update`.")] = 7,
    pairs: Annotated[int, typer.Option(min=2, help="Paired training steps.")] = 150,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/overhead"),
) -> None:
    where = torch.device(device)
    cells = [(batch, classes) for classes in CLASSES for batch in BATCHES]
    updates = [update_cost(*cell, where, passes) for cell in tqdm(cells, desc="update", disable=None)]
    digits = networks.ConvNet(1, 10, (8, 8), width=16, norm="batch")
    mnist = networks.ConvNet(1, 10, (28, 28), width=16, norm="batch")
    trained: list[tuple[str, nn.Module, Tensor]] = [
        ("digits ConvNet", digits, torch.randn(128, 1, 8, 8)),
        ("MNIST ConvNet", mnist, torch.randn(128, 1, 28, 28)),
    ]
    if where.type == "cuda":
        trained.append(("ResNet-18", networks.resnet18(3, 10), torch.randn(512, 3, 32, 32)))
    steps = [
        step_cost(name, network.to(where).to(memory_format=torch.channels_last), x.to(where), 10, pairs)  # pyright: ignore[reportCallIssue]
        for name, network, x in tqdm(trained, desc="training steps", disable=None)
    ]
    content = {
        "environment": results.environment(),
        "update": updates,
        "training_step": steps,
        "peak_bytes": peak_bytes(where),
    }
    results.write_json(out / f"overhead-{where.type}.json", content)
    show(content)


def show(content: dict[str, Any]) -> None:
    """Print the two tables."""
    console = Console() if Console().is_terminal else Console(width=140)
    table = Table(title="update, microseconds a step (median of passes; end of epoch included)")
    for column in ("classes", "batch", "lossbuf", "single call", "aum", "aum / lossbuf", "state, bytes a row"):
        table.add_column(column, justify="right")
    for cell in content["update"]:
        ours, call = statistics.median(cell["update_s"]), statistics.median(cell["single_call_s"])
        theirs = statistics.median(cell["aum_s"]) if cell["aum_s"] else None
        table.add_row(
            str(cell["classes"]),
            str(cell["batch"]),
            f"{ours * 1e6:.0f}",
            f"{call * 1e6:.0f}",
            "fails" if theirs is None else f"{theirs * 1e6:.0f}",
            "" if theirs is None else f"{theirs / ours:.1f}",
            f"{cell['state_bytes'] / cell['n_samples']:.0f}",
        )
    console.print(table)
    table = Table(title="training step with and without the callback")
    for column in ("network", "batch", "step, ms", "added (median of pairs)", "added (means)"):
        table.add_column(column, justify="right")
    for cell in content["training_step"]:
        median, mean = added(cell)
        step_ms = statistics.median(cell["without_s"]) * 1000
        table.add_row(cell["network"], str(cell["batch"]), f"{step_ms:.2f}", f"{median:.2%}", f"{mean:.2%}")
    console.print(table)
    if content["peak_bytes"]:
        console.print(f"peak memory: {content['peak_bytes'] / 2**20:.0f} MiB")


if __name__ == "__main__":
    app()
