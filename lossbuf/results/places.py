"""Outputs apart from inputs: nothing is written in or over what is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lossbuf.errors import InputError


def check_unread(outputs: Iterable[Path], files: Iterable[Path]) -> None:
    """Raise ``InputError`` where an output is one of many files that were read, whatever their names are.

    Args:
        outputs: Files to write.
        files: Files that were read, such as the images that a table names.
    """
    there = {identity: output for output in outputs if (identity := _identity(output)) is not None}
    for file in files if there else ():
        output = there.get(_identity(file) or (0, 0))
        if output is not None:
            raise InputError(f"`--out` must be another place: {output} is {file}, which is read and would be replaced.")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file, the same under all of its names; ``None`` where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_folder(folder: Path) -> None:
    """Raise ``InputError`` where a path leads to something that is no folder, or through it."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            if not place.is_dir():
                what = "a link to nothing" if place.is_symlink() and not place.exists() else "no folder"
                raise InputError(f"`--out` must lead to a folder, got {folder}: {place} is {what}.")
            return


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise ``InputError`` where an output would lie in a folder that is read, or over a file that is read.

    Links are followed, so that another name of the same place makes no difference. Inputs that are not there are passed
    over: reading them says so.

    Args:
        outputs: Files to write.
        inputs: Files and folders that are read.
    """
    read = [(path, path.resolve()) for path in inputs if path.exists()]
    for output in outputs:
        place = output.resolve()
        for path, real in read:
            if path.is_dir() and place.is_relative_to(real):
                raise InputError(f"`--out` must lie outside the folder {path}, which is read, got {output}.")
            if place == real or (output.exists() and os.path.samefile(output, path)):
                raise InputError(f"`--out` must be another place than {path}, which is read and would be replaced.")
