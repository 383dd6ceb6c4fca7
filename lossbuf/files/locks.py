"""One process at a time in a folder of results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lossbuf.errors import InputError
from lossbuf.files.whole import make_folder

LOCK = ".lossbuf.lock"
"""Name of the file that is locked; it is empty, and stays in the folder."""


@contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder, which is made if it is not there.

    The operating system holds the lock, so that it ends with its process, however that ends. Only on file systems
    without such locks the file itself is the lock, and one left by a machine that stopped must be removed by hand.

    Args:
        folder: Where results are to be written.

    Raises:
        InputError: If another process is at work there.
        OSError: If the folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, alone_in(folder):
        ...     os.listdir(folder)
        ['.lossbuf.lock']
    """
    from filelock import FileLock, Timeout  # imported when it is needed

    folder = Path(folder)
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        rule = "is being written to by another process"
        raise InputError(f"{folder} {rule}: wait until that is done, or choose another folder.") from None
    try:
        yield
    finally:
        lock.release()
