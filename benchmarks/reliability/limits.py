"""A process that loads one file after the other under watch: memory, time, what it runs, what it says."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reliability.children import start
from benchmarks.reliability.trials import one_line
from lossbuf.errors import LossBufferWarning

SECONDS = 10.0
"""A load that takes longer hangs."""

MEBIBYTES = 1024.0
"""A load that takes more memory than that, above what the process had, takes too much."""

_MOST_ADDRESSES = 4 * 2**30
"""Bytes of addresses above those at the start, so that nothing that is tried brings the machine down."""

_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.", "pickle.find_class", "socket.",
         "ctypes.dlopen", "os.chmod", "os.chown", "os.kill", "shutil.", "urllib.", "webbrowser.", "pty.")  # fmt: skip
"""Names of events, or their beginnings, that reading a file has no business with."""


class Outcome(NamedTuple):
    """What became of a load.

    Attributes:
        state: ``"loaded"``, ``"refused"`` or ``"failed"``.
        text: Of what was loaded the digest, else the message or what is wrong.
        seconds: It took.
        mebibytes: The most memory above what the process had before.
    """

    state: str
    text: str
    seconds: float
    mebibytes: float


class Watched:
    """A worker that loads what it is told; one that hangs or dies is replaced.

    Args:
        loads: The function of a module that gives the functions to load by, by name; called once in the worker.
        warm: (name, folder) of whole files, loaded first so that every import is done.
    """

    def __init__(self, loads: Callable[[], dict[str, Callable[[Path], str]]], warm: list[tuple[str, str]]) -> None:
        self._loads, self._warm = loads, warm
        self._start()

    def _start(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._child = start(_serve, theirs, self._loads, self._warm)
        theirs.close()
        if not self._connection.poll(120):
            self.close()
            raise TimeoutError("The worker did not start.")
        self._connection.recv()

    def load(self, name: str, folder: Path, file: Path, canary: Path) -> Outcome:
        """Load one file.

        Args:
            name: Of the function.
            folder: It is called with.
            file: A refusal must name it, or the folder.
            canary: A file that must not be there afterwards.
        """
        begun = time.perf_counter()
        self._connection.send((name, str(folder), str(file)))
        try:
            if self._connection.poll(SECONDS + 5):
                found = Outcome(*self._connection.recv())
            else:
                found = Outcome("failed", "hangs", time.perf_counter() - begun, 0.0)
        except EOFError:
            self._child.join()
            found = Outcome("failed", f"died, status {self._child.exitcode}", time.perf_counter() - begun, 0.0)
        if found.text == "hangs" or not self._child.is_alive():
            self.close()
            self._start()
        if canary.exists():
            canary.unlink()
            return found._replace(state="failed", text="ran code")
        if found.state != "failed" and found.mebibytes > MEBIBYTES:
            return found._replace(state="failed", text=f"took {found.mebibytes:.0f} MiB")
        if found.state != "failed" and found.seconds > SECONDS:
            return found._replace(state="failed", text=f"took {found.seconds:.0f} s")
        return found

    def close(self) -> None:
        """End the worker."""
        self._child.kill()
        self._child.join()
        self._connection.close()


def _serve(connection: Connection, loads: Callable[[], dict[str, Any]], warm: list[tuple[str, str]]) -> None:
    routines = loads()
    for name, folder in warm:
        routines[name](Path(folder))
    watch = _Watch()
    _limit_addresses()
    connection.send("ready")
    while True:
        try:
            name, folder, file = connection.recv()
        except EOFError:
            return
        connection.send(tuple(_load(routines[name], Path(folder), Path(file), watch)))


def _load(routine: Callable[[Path], str], folder: Path, file: Path, watch: _Watch) -> Outcome:
    before, begun = _forget_peak(), time.perf_counter()
    with watch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            state, text = "loaded", routine(folder)
        except Exception as error:
            state, text = _judged(error, folder, file)
    seconds, more = time.perf_counter() - begun, _peak() - before
    strange = [record for record in told if not issubclass(record.category, LossBufferWarning)]
    if watch.events:
        state, text = "failed", f"did {watch.events[0]}"
    elif strange and state != "failed":
        state, text = "failed", f"warned: {strange[0].category.__name__}: {strange[0].message}"
    elif watch.said and state != "failed":
        state, text = "failed", f"wrote to the terminal: {watch.said[:200]}"
    return Outcome(state, text, seconds, more)


def _judged(error: BaseException, folder: Path, file: Path) -> tuple[str, str]:
    text, named = str(error), f"{type(error).__name__}: {error}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return "failed", f"asked for too much memory: {named}"
        cause = cause.__cause__ or cause.__context__
    if "too large for the memory" in text:
        return "failed", f"asked for too much memory: {named}"
    if not isinstance(error, ValueError | FileNotFoundError):
        return "failed", named[:500]
    if not one_line(error) or not text.isprintable():
        return "failed", f"not one clear line of {len(text)}: {named[:300]}"
    if file.name not in text and str(folder) not in text:
        return "failed", f"does not name the file: {named}"
    return "refused", text


class _Watch:
    """Notes what runs, and what is written to standard output and error, while it is entered."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.said = ""
        self._on = False
        self._file = os.memfd_create("said") if hasattr(os, "memfd_create") else None
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._on and event.startswith(_RUNS):
            self.events.append(f"{event} {str(arguments)[:200]}")

    def __enter__(self) -> None:
        self.events, self.said = [], ""
        if self._file is not None:
            self._kept = os.dup(1), os.dup(2)
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            for descriptor in (1, 2):
                os.dup2(self._file, descriptor)
        self._on = True

    def __exit__(self, *error: object) -> None:
        self._on = False
        if self._file is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            for descriptor, kept in zip((1, 2), self._kept, strict=True):
                os.dup2(kept, descriptor)
                os.close(kept)
            self.said = os.pread(self._file, 1000, 0).decode("utf-8", "backslashreplace")


# --- memory; where the system does not tell, it counts as none ---


def _status(name: str) -> float:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return float(text.split(f"{name}:")[1].split()[0]) / 1024


def _forget_peak() -> float:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _limit_addresses() -> None:
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (int(_status("VmSize") * 2**20) + _MOST_ADDRESSES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
