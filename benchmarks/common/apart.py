"""Measurements in processes of their own, and the memory that they took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def apart(measure: Callable[..., dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """A measurement in a process of its own, whose peak memory is then its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, **settings).result()


def peak_bytes() -> int:
    """Most resident memory that this process has had, mapped files included."""
    # getrusage tells a process what the one that started it had by then, where that is more.
    return of_status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def of_status(name: str) -> int | None:
    """Bytes that Linux tells of this process under a name; ``None`` elsewhere."""
    try:
        return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return None
