"""A subfolder in which results are made, with the state that an unfinished run goes on from."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossbuf.files import size_of, write_whole
from lossbuf.results.marker import MARKER, is_regular, is_there

_KIND = "lossbuf.draft"
_NAME = re.compile(r"unfinished-([1-9][0-9]{0,8})")
_PART = re.compile(r"\.(.+)\.[0-9a-f]{32}\.part")


@dataclass(frozen=True)
class Kind:
    """A kind of results.

    Attributes:
        name: Of the kind, for messages: ``"scan"``.
        files: Names of all files that the results may consist of.
        state: Name of the file that an unfinished run goes on from; ``None`` where runs are too short to have one.
    """

    name: str
    files: tuple[str, ...]
    state: str | None = None


@dataclass(frozen=True)
class Draft:
    """A subfolder in which results are made.

    Attributes:
        path: The subfolder.
        kind: Of the results.
        about: What the run was asked for, plain values.
    """

    path: Path
    kind: Kind
    about: dict[str, Any]

    @property
    def state(self) -> Path:
        """The file that an unfinished run goes on from, whether it is there yet or not.

        Raises:
            ValueError: If the kind has no such file.
        """
        if self.kind.state is None:
            raise ValueError(f"A {self.kind.name} has no state to go on from.")
        return self.path / self.kind.state

    @property
    def has_state(self) -> bool:
        """True where there is something to go on from."""
        return self.kind.state is not None and is_regular(self.state)

    def file(self, name: str) -> Path:
        """Where to write the result of this name, one of those of the kind."""
        return self.path / name

    def remove(self) -> None:
        """Remove what lossbuf wrote in it, and the subfolder itself where nothing else is left.

        Raises:
            OSError: If a file cannot be removed.
        """
        known = {*self.kind.files, self.kind.state, MARKER}
        for path in sorted(self.path.iterdir(), key=lambda path: path.name == MARKER):  # the marker goes last
            part = _PART.fullmatch(path.name)
            if is_regular(path) and (part[1] if part else path.name) in known:
                path.unlink()
        with suppress(OSError):  # there is more in it
            self.path.rmdir()


def new_draft(folder: Path, kind: Kind, about: dict[str, Any]) -> Draft:
    """Make an empty draft in a folder.

    Args:
        folder: Where results are to be written.
        kind: Of the results.
        about: What the run is asked for, plain values.

    Raises:
        OSError: If it cannot be made; nothing is left then.
    """
    number = 1
    while is_there(folder / f"unfinished-{number}"):
        number += 1
    path = folder / f"unfinished-{number}"
    path.mkdir()
    content = {"kind": _KIND, "of": kind.name, "files": kind.files, "state": kind.state, "about": about}
    try:
        write_whole(path / MARKER, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))
    except BaseException:
        with suppress(OSError):
            path.rmdir()
        raise
    return Draft(path, kind, about)


def drafts_in(folder: Path) -> list[Draft]:
    """All drafts in a folder, of every kind, the newest first."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match is not None and path.is_dir() and not path.is_symlink():
            found[int(match[1])] = path
    drafts = [_read(found[number]) for number in sorted(found, reverse=True)]
    return [draft for draft in drafts if draft is not None]


def is_in_draft(path: Path, folder: Path) -> bool:
    """True where a path is a draft of a folder, or lies in one."""
    real, place = path.resolve(), folder.resolve()
    below = real.relative_to(place).parts if real.is_relative_to(place) else ()
    return bool(below) and any(draft.path.name == below[0] for draft in drafts_in(folder))


def _read(path: Path) -> Draft | None:
    """The draft in a subfolder; ``None`` where its marker does not say that it is one."""
    marker = path / MARKER
    try:
        size_of(marker)
        content = json.loads(marker.read_bytes())
        if content["kind"] != _KIND or not isinstance(content["about"], dict):
            return None
        return Draft(path, Kind(content["of"], tuple(content["files"]), content["state"]), content["about"])
    except (ValueError, OSError, KeyError, TypeError, RecursionError):
        return None
