"""From a path to labelled data."""

from __future__ import annotations

import os
from pathlib import Path

from lossbuf.errors import InputError
from lossbuf.inputs.arrays import read_archive
from lossbuf.inputs.folder import read_folder
from lossbuf.inputs.labelled import LabelledData, ReadSettings
from lossbuf.inputs.table import TABLES, read_table

_SHEET = "Save the sheet as CSV in UTF-8."
_UNPACK = "Unpack it first."
_HINTS = {
    ".npy": "Save samples and labels together: numpy.savez('data.npz', x=x, y=y).",
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".gz", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"), _UNPACK),
    ".json": "Save it as a table: pandas.read_json(path).to_parquet('data.parquet').",
    **dict.fromkeys(
        (".jsonl", ".ndjson"), "Save it as a table: pandas.read_json(path, lines=True).to_parquet('data.parquet')."
    ),
    **dict.fromkeys(
        (".data", ".txt", ".dat"), "If it holds separated values with a header, let its name end in .csv or .tsv."
    ),
    **dict.fromkeys(
        (".pkl", ".pickle", ".pt", ".pth", ".joblib"), "Save its arrays by numpy.savez('data.npz', x=x, y=y)."
    ),
    **dict.fromkeys((".h5", ".hdf5", ".mat"), "Save its arrays by numpy.savez('data.npz', x=x, y=y)."),
}


def read_labelled(path: str | os.PathLike[str], settings: ReadSettings | None = None) -> LabelledData:
    """Read an image folder, a table (``.csv``, ``.tsv``, ``.parquet``, ``.arrow``) or an archive (``.npz``).

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
    kinds, ending = ", ".join((*TABLES, ".npz")), path.suffix.lower()
    hint = f" {_HINTS[ending]}" if ending in _HINTS else ""
    raise InputError(
        f"{path} must be a folder of images or a file ending in {kinds}, got {ending or 'no ending'}.{hint}"
    )
