"""Places where a file cannot be written: a full disk, a folder without leave, and others; for a process of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lossbuf.files import whole as files

_NEW_MOUNTS = 0x00020000
_NOBODY = 65534
_MEGABYTES = 4


class NotHereError(Exception):
    """This machine, or this user, cannot make such a place."""


@contextmanager
def size_limit(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes; the system's error is that of a full quota."""
    if sys.platform == "win32":
        raise NotHereError("no limits of a process")
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def own_disk(folder: Path) -> None:
    """Mount a disk of 4 MB on a folder, which this process alone sees and which ends with it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NotHereError("only root on Linux may mount")
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
        raise NotHereError("no mounts of its own")
    for command in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "tmpfs", str(folder)],
    ):
        _mount(command)


def _mount(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        raise NotHereError("may not mount")


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """All but a few kilobytes of an :func:`own_disk` are taken."""
    filler = folder / "filler"
    free = shutil.disk_usage(folder).free
    filler.write_bytes(bytes(max(0, free - 8192)))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """An :func:`own_disk` is mounted for reading only."""
    _mount(["mount", "-o", "remount,ro", str(folder)])
    try:
        yield
    finally:
        _mount(["mount", "-o", "remount,rw", str(folder)])


@contextmanager
def without_leave(folder: Path) -> Iterator[None]:
    """This user, nobody where it is root, may read the folder and not write to it."""
    if sys.platform == "win32":
        raise NotHereError("no permission bits")
    root = os.geteuid() == 0
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    if root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


@contextmanager
def removed(folder: Path) -> Iterator[None]:
    """The folder goes away while a file in it is being written."""
    fsync = files.os.fsync

    def gone(descriptor: int) -> None:
        shutil.rmtree(folder)
        fsync(descriptor)

    files.os.fsync = gone
    try:
        yield
    finally:
        files.os.fsync = fsync
