"""Files written whole or not at all, and read without running code."""

from __future__ import annotations

import os
import pickle
import uuid
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lossbuf import checks

_BAD_ZIP = (zipfile.BadZipFile, zlib.error)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


def write_whole(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: Where to write; missing folders are made.
        write: Called with a binary file; what it writes becomes the content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def save_tensors(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Save tensors and plain values with ``torch.save``, whole or not at all.

    Raises:
        ValueError: If there is anything else in it, which :func:`load_tensors` would refuse.
    """
    _check_plain("content", content)
    write_whole(path, lambda file: torch.save(content, file))


def _check_plain(name: str, value: object) -> None:
    # By exact type: a NumPy number is a float to isinstance, but not to a reader that runs no code.
    if isinstance(value, Tensor) or type(value) in _PLAIN:
        return
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        parts = value.items()
    elif isinstance(value, list | tuple | set) and type(value) in (list, tuple, set):
        parts = enumerate(value)
    else:
        mend = "Turn it into a tensor or a Python number."
        raise ValueError(checks.problem(name, "must be a tensor or a plain value to be saved", type(value), mend))
    for key, part in parts:
        _check_plain(name, key)
        _check_plain(f"{name}[{key!r}]", part)


def _check_sums(path: str | os.PathLike[str]) -> None:
    # torch.load does not compare the checksums, and reads what is marked as a folder (0x10) as zeros.
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None or any(part.external_attr & 0x10 for part in archive.infolist()):
            raise zipfile.BadZipFile("a checksum differs")


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
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, *_BAD_ZIP) as error:
        reason = "it is damaged, or holds more than tensors and plain values"
        raise ValueError(f"`path` must be a file saved by lossbuf, got {path}: {reason}.") from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        found = content.get("kind", "no kind") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"`path` must be a {kind} file, got {path} with {found}.")
    return content
