"""From a path to labelled data."""

from __future__ import annotations

import os
from pathlib import Path

from lossbuf.inputs.arrays import read_archive
from lossbuf.inputs.folder import read_folder
from lossbuf.inputs.labelled import InputError, LabelledData, ReadSettings
from lossbuf.inputs.table import TABLES, read_table


def read_labelled(path: str | os.PathLike[str], settings: ReadSettings | None = None) -> LabelledData:
    """Read an image folder, a table (``.csv``, ``.tsv``, ``.parquet``) or an archive (``.npz``).

    Args:
        path: The source.
        settings: How to read it.

    Raises:
        InputError: If the source is missing, of another kind, or makes no sense as a whole.
    """
    path, settings = Path(path), settings or ReadSettings()
    if path.is_dir():
        return read_folder(path, settings)
    if not path.is_file():
        raise InputError(f"{path} must be a folder or a file: there is no such file or folder.")
    if path.suffix.lower() in TABLES:
        return read_table(path, settings)
    if path.suffix.lower() == ".npz":
        return read_archive(path, settings)
    kinds = ", ".join((*TABLES, ".npz"))
    raise InputError(
        f"{path} must be a folder of images or a file ending in {kinds}, got {path.suffix or 'no ending'}."
    )
