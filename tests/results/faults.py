"""Faults of the file system at a chosen step, by way of Python's audit events."""

import errno
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_watcher = None


def _hook(event, arguments):
    if _watcher is not None and (event in _CHANGES or (event == "open" and _is_writing(arguments))):
        _watcher(arguments[0])


def _is_writing(arguments):
    return isinstance(arguments[2], int) and bool(arguments[2] & _WRITING)


sys.addaudithook(_hook)  # it cannot be removed, and does nothing while there is no watcher


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken():
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def stopped():
    raise KeyboardInterrupt


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {"full": full, "broken": broken, "stopped": stopped, "killed": killed}


@contextmanager
def failing(root, at, fault, lasting=False):
    """Let the ``at``-th change below ``root`` fail, counted from 0, and with ``lasting`` all that follow.

    Gives a list with the number of changes that were asked for so far.
    """
    global _watcher
    seen, root = [0], os.fspath(Path(root).resolve())

    def watch(path):
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(root):
            seen[0] += 1
            if seen[0] == at + 1 or (lasting and seen[0] > at + 1):
                fault()

    _watcher = watch
    try:
        yield seen
    finally:
        _watcher = None


def in_child(routine):
    """Run a routine in a forked child; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            routine()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(folder):
    """The content of all files below a folder, by their paths; a link counts by where it leads."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found
