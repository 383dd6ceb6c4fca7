"""Processes that do a piece of work and may be killed, started without importing torch anew each time."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

_PRELOADED = ["benchmarks.reliability.jobs", "condensation.cli", "lossbuf.scan", "lossbuf.report", "sklearn.datasets",
              "torch._dynamo"]  # fmt: skip  # which an optimizer imports
LIMIT = 600.0
"""Seconds after which a child is taken for one that hangs."""


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def start(work: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Start a function of a module in a process of its own; what it prints is seen."""
    child = _context().Process(target=work, args=arguments, daemon=True)
    child.start()
    return child


def finish(child: BaseProcess) -> int:
    """Wait for the end; the exit status, minus the signal's number where one ended it.

    Raises:
        TimeoutError: If it hangs; it is killed.
    """
    child.join(LIMIT)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise TimeoutError(f"{child.name} took more than {LIMIT:g} seconds")
    return child.exitcode


def call(work: Callable[..., Any], *arguments: Any) -> Any:
    """The plain values that a function returns in a process of its own, which ends with all that it changed.

    Raises:
        RuntimeError: If the function raised or the process was ended.
    """
    receiver, sender = _context().Pipe(duplex=False)
    child = start(_answer, sender, work, arguments)
    sender.close()
    try:
        answer = pickle.loads(receiver.recv_bytes()) if receiver.poll(LIMIT) else None
    except EOFError:
        answer = None
    status = finish(child)
    if answer is None or status != 0:
        raise RuntimeError(f"{work.__name__} ended with status {status}")
    return answer[0]


def _answer(sender: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    sender.send_bytes(pickle.dumps((work(*arguments),)))


def kill_after(child: BaseProcess, seconds: float, until: Callable[[], bool] | None = None, more: float = 0.0) -> bool:
    """Kill with SIGKILL at a moment.

    Args:
        child: Just started.
        seconds: From now.
        until: Then wait until it is so.
        more: And for so many seconds.

    Returns:
        False where the child ended before.
    """
    end = time.perf_counter() + seconds
    while child.is_alive() and time.perf_counter() < end:
        time.sleep(min(0.001, max(0.0, end - time.perf_counter())))
    while until is not None and child.is_alive() and not until():
        time.sleep(0.0002)
    time.sleep(more)
    child.kill()
    return finish(child) < 0


def digest(value: Any) -> str:
    """Tells states apart by their bits: tensors, arrays, plain values, and dicts, lists and tuples of them."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        found.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict | list | tuple):
        found.update(f"{len(value)}(".encode())
        for part in value.items() if isinstance(value, dict) else value:
            _feed(found, part)
    else:
        found.update(f"{type(value).__name__} {value!r};".encode())
