"""Outputs apart from inputs: nothing is written in or over what is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lossbuf.errors import InputError


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
