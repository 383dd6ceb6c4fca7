"""Files written whole or not at all, and read without running code."""

from __future__ import annotations

import errno
import glob
import math
import os
import shutil
import stat
import time
import uuid
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossbuf import checks

_ABANDONED = 3600.0
"""Seconds without a change after which a part is taken for one whose writer was killed."""

_DEEPEST = 50
"""Levels of containers in saved content."""

_FREE = 2**29
_UNFOLDING = 100
"""A file may take ``_FREE`` bytes of memory whatever its own size, and so many times its size."""

_PYTHON = 256
"""Bytes that a row's label or name takes while it is looked at, about."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


def write_whole(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Any number of processes may do so at once: the last one wins. A writer that is killed leaves its part beside the
    file, under a hidden name that ends in ``.part``; a later writer of the same file removes it after an hour.

    Args:
        path: Where to write; missing folders are made.
        write: Called with a binary file; what it writes becomes the content.

    Raises:
        OSError: If the disk is full, or the place is not one to write to. The old content stays.
    """
    path = Path(path)
    make_folder(path.parent)
    _remove_abandoned(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch.save says less of a full disk
        if not isinstance(cause, OSError) or cause.errno is None or cause.filename not in (None, os.fspath(partial)):
            raise
        raise OSError(cause.errno, cause.strerror, os.fspath(path)) from error


def make_folder(path: Path) -> None:
    """Make a folder and those it lies in, where they are not there.

    Raises:
        OSError: If it cannot be made, or a file is in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which says less
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def _remove_abandoned(path: Path) -> None:
    for part in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove temporary folders, named as ``tempfile`` does, in which nothing was written for an hour."""
    for left in folder.glob(f"{glob.escape(prefix)}{'[a-z0-9_]' * 8}"):
        with suppress(OSError):
            if time.time() - max(part.stat().st_mtime for part in (left, *left.iterdir())) > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def save_tensors(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Save tensors and plain values with ``torch.save``, whole or not at all.

    Raises:
        ValueError: If there is anything else in it, which :func:`load_tensors` would refuse.
    """
    _check_plain("content", content)
    write_whole(path, lambda file: torch.save(content, file))


def _check_plain(name: str, value: object, parts_left: list[int] | None = None, depth: int = 0) -> None:
    """Raise ``ValueError`` unless a value is of tensors and plain values, and no more of them than ``parts_left``."""
    # By exact type: a NumPy number is a float to isinstance, but not to a reader that runs no code.
    if isinstance(value, Tensor):
        # One that claims more values than it holds, or holds none, would take what reads it to the end of the memory.
        dense = value.layout == torch.strided and not value.is_quantized and value.device.type != "meta"
        if not dense or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(checks.problem(name, "must be a tensor that holds all its values", "another"))
        return
    if type(value) in _PLAIN:
        return
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        parts = value.items()
    elif isinstance(value, list | tuple | set) and type(value) in (list, tuple, set):
        parts = enumerate(value)
    else:
        advice = "Turn it into a tensor or a Python number."
        raise ValueError(checks.problem(name, "must be a tensor or a plain value to be saved", type(value), advice))
    if depth >= _DEEPEST:
        raise ValueError(checks.problem("content", f"must be at most {_DEEPEST} deep", "more"))
    for key, part in parts:
        if parts_left is not None:
            parts_left[0] -= 1
            if parts_left[0] < 0:
                raise ValueError(checks.problem("content", "must hold every part once", "more parts than bytes"))
        _check_plain(name, key, parts_left, depth + 1)
        _check_plain(f"{name}[{key!r}]" if parts_left is None else name, part, parts_left, depth + 1)


def check_stored(path: str | os.PathLike[str]) -> int:
    """Raise unless a file is a zip as ``torch.save`` writes it, all of it as it was written; returns its bytes.

    A part that is packed could unfold to any size, and takes as long. ``torch.load`` does not compare the checksums,
    and reads what is marked as a folder (0x10) as zeros.
    """
    size = size_of(path)
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        packed = any(part.compress_type != zipfile.ZIP_STORED or part.external_attr & 0x10 for part in parts)
        doubled = len(set(archive.namelist())) < len(parts)
        if packed or doubled or sum(part.file_size for part in parts) > size or archive.testzip() is not None:
            raise zipfile.BadZipFile("it is packed, or a checksum differs")
    return size


def size_of(path: str | os.PathLike[str]) -> int:
    """Bytes of a file; a pipe or a device would be waited for, or read without end.

    Raises:
        ValueError: If it is there, and is no file.
        OSError: If it is not there, or cannot be looked at.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{os.fspath(path)} is no file")
    return found.st_size


@contextmanager
def restoring(path: str | os.PathLike[str]) -> Iterator[None]:
    """What content of another kind leads to becomes a ``ValueError`` of one line that names the file.

    Args:
        path: Of the file that is restored from.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Casting complex")  # which loses a part
            yield
    except FileNotFoundError:
        raise
    except Exception as error:  # what is not as it was saved may raise almost anything
        if isinstance(error, ValueError) and os.fspath(path) in str(error):
            raise
        reason = (
            checks.line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {checks.line(error)}"
        )
        raise ValueError(f"`path` must be a file that fits, got {os.fspath(path)}: {reason}") from error


def load_tensors(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Load what :func:`save_tensors` wrote; no code in the file is run.

    Args:
        path: The file.
        kind: What the file must say it is, under its key ``"kind"``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds anything but tensors and plain values, or is of another kind.
    """
    try:
        size = check_stored(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle of another version
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_plain("content", content, [size])
    except (FileNotFoundError, PermissionError, IsADirectoryError):  # which do not tell what is in it
        raise
    except Exception as error:  # a damaged file may raise almost anything
        folder = Path(path).is_dir()
        reason = "it is a folder" if folder else "it is damaged, or holds more than tensors and plain values"
        raise ValueError(f"`path` must be a file saved by lossbuf, got {path}: {reason}.") from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        found = content.get("kind", "no kind") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"`path` must be a {kind} file, got {path} with {checks.line(found)}.")
    return content


@contextmanager
def opened_arrays(path: str | os.PathLike[str]) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an ``.npz``; no code in it is run, and what it claims is held against its size before memory is taken.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none, or its arrays would take more than 512 MiB and 100 times its own size.
    """
    size = size_of(path)
    with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        members = [] if archive.zip is None else archive.zip.infolist()
        costs = [_array_cost(archive.zip, member) for member in members]
        if len(set(archive.files)) < len(members):
            raise ValueError("a name comes twice in it")
        check_unfolding(size, sum(costs))
        yield archive


def check_unfolding(size: int, cost: int) -> None:
    """Raise ``ValueError`` where a file would take far more memory than it has bytes.

    Args:
        size: Bytes of the file.
        cost: Bytes of memory it will take, about.
    """
    if cost > max(_FREE, _UNFOLDING * size):
        rule = f"{cost:,} bytes of memory, more than {_UNFOLDING} times its {size:,} bytes"
        raise ValueError(f"it would take {rule}; saved without compression it can be read")


def _array_cost(archive: Any, member: zipfile.ZipInfo) -> int:
    """Bytes of memory that an array will take; a value of one axis becomes a text or a number of Python's."""
    if not member.filename.endswith(".npy"):
        return member.file_size
    with archive.open(member) as part:
        shape, itemsize = _array_head(part, member.file_size, member.filename)
    return math.prod(shape) * (_PYTHON + itemsize if len(shape) < 2 else max(8, itemsize))


def mapped_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The values of an ``.npy``, read when they are used; no code in it is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none, or has not the size that it claims.
    """
    size = size_of(path)
    with open(path, "rb") as file:
        _array_head(file, size, os.path.basename(os.fspath(path)))
    return np.lib.format.open_memmap(path, mode="r")


def _array_head(file: Any, size: int, name: str) -> tuple[tuple[int, ...], int]:
    """Shape and bytes a value, of a file of ``size`` bytes that holds all it claims, and no objects."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of version {version}")
    head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = head(file)
    values, left = math.prod(shape), size - file.tell()
    if dtype.hasobject or min(shape, default=0) < 0 or values * dtype.itemsize != left or values > left:
        raise ValueError(f"{name} has not the size of its shape {shape}, or holds objects")
    return shape, dtype.itemsize
