"""Which files of a folder were written by lossbuf: their names, and the digests of their content."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lossbuf.errors import InputError
from lossbuf.files import size_of, write_whole

MARKER = ".lossbuf.json"
"""Name of the file, in the folder of the results, that lists what lossbuf wrote there."""

_KIND = "lossbuf.written"


@dataclass(frozen=True)
class Written:
    """A file that lossbuf wrote.

    Attributes:
        kind: Of the results that it is one of, such as ``"scan"``.
        digest: SHA-256 of its content, as hexadecimal digits.
    """

    kind: str
    digest: str


@dataclass(frozen=True)
class Swap:
    """Results that are complete and on their way to their places; whoever comes next carries it through.

    Attributes:
        kind: Of the results.
        draft: Name of the subfolder in which they were made.
        files: The digest of every file, by name.
        remove: Names of the earlier results that have no counterpart among the new ones.
    """

    kind: str
    draft: str
    files: dict[str, str]
    remove: list[str]


@dataclass(frozen=True)
class Marker:
    """What is known of a folder.

    Attributes:
        files: What lossbuf wrote, by name.
        swap: Results that are on their way, if there are any.
    """

    files: dict[str, Written] = field(default_factory=dict)
    swap: Swap | None = None

    def owns(self, path: Path, kind: str) -> bool:
        """True where lossbuf wrote this file, with the content that it has now, as a result of this kind."""
        known = self._digests(path, kind)
        return bool(known) and is_regular(path) and digest_of(path) in known

    def names(self, path: Path, kind: str) -> bool:
        """True where lossbuf wrote a file of this name as a result of this kind; it may have changed since."""
        return bool(self._digests(path, kind))

    def _digests(self, path: Path, kind: str) -> set[str]:
        written = self.files.get(path.name)
        known = {written.digest} if written is not None and written.kind == kind else set()
        if self.swap is not None and self.swap.kind == kind and path.name in self.swap.files:
            known.add(self.swap.files[path.name])
        return known


def read_marker(folder: Path) -> Marker:
    """What the marker of a folder says; nothing where there is none.

    Raises:
        InputError: If there is a file of this name that lossbuf did not write.
        OSError: If it cannot be read.
    """
    path = folder / MARKER
    try:
        size_of(path)
        content: Any = json.loads(path.read_bytes())
        if content["kind"] != _KIND:
            raise ValueError("it is of another kind")
        files = {str(name): Written(**written) for name, written in content["files"].items()}
        swap = None if content["swap"] is None else Swap(**content["swap"])
        if swap is not None and not all(map(_is_name, (swap.draft, *swap.files, *swap.remove))):
            raise ValueError("it names files of other folders")
    except (FileNotFoundError, NotADirectoryError):
        return Marker()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} must list the files that lossbuf wrote, and is damaged or another file ({error}). "
            f"Move {folder} away, or choose another folder."
        ) from error
    return Marker(files, swap)


def write_marker(folder: Path, marker: Marker) -> None:
    """Write the marker of a folder, whole or not at all.

    Raises:
        OSError: If it cannot be written; the old one stays.
    """
    content = {"kind": _KIND, **asdict(marker)}
    write_whole(folder / MARKER, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the content of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_regular(path: Path) -> bool:
    """True for a regular file; False for what is not there, and for links, folders, pipes and devices."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_there(path: Path) -> bool:
    """True where there is anything of this name, a broken link too."""
    return os.path.lexists(path)


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and Path(text).name == text
