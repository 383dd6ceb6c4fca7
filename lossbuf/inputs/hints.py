"""What else to say of a source that cannot be used as it is, or not wholly: the usual causes, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from lossbuf.inputs.names import quoted

_PART = re.compile(r"(\d+)-of-(\d+)")
_ADDRESS = re.compile(r"(?i)(https?|ftp|s3|gs|gcs|hdfs)://")
_BASE64 = re.compile(r"data:image/|[A-Za-z0-9+/\s]{64,}={0,2}\s*$")
_ENDINGS = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG", ".tif", ".bmp", ".webp")
_FILES_OF_LABELS = (".csv", ".tsv", ".parquet", ".pq", ".feather", ".arrow", ".json", ".jsonl")


def looks_like_data(columns: Sequence[str]) -> bool:
    """True where names of columns are mostly numbers, but do not count them: a table without a header.

    Example:
        >>> looks_like_data(["5.1", "3.5", "1.4", "setosa"]), looks_like_data(["0", "1", "2", "label"])
        (True, False)
    """
    numbers = []
    for name in columns:
        try:
            numbers.append(float(name))
        except ValueError:
            continue
    counted = bool(np.all(np.diff(numbers) == 1)) and all(number.is_integer() for number in numbers)
    return len(numbers) >= 2 and 2 * len(numbers) >= len(columns) and not counted


def of_no_labels(table: pd.DataFrame) -> str:
    """What to say where no column has a usual name for labels; empty where there is nothing else to say."""
    columns = [str(name) for name in table.columns]
    if looks_like_data(columns):
        return " The first line looks like data: put a line with the names of the columns before it."
    one_hot = [name for name in columns if _is_truth(cast(pd.Series, table[name]))]
    if len(one_hot) > 1 and bool((table[one_hot].astype(float).sum(axis=1) == 1).all()):
        return (
            f" The columns {quoted(one_hot)} are one label per row in one-hot form: make one column of them, "
            "table[columns].idxmax(axis=1)."
        )
    return ""


def of_paths(cell: Any, folder: Path) -> str:
    """What to say where no image was found under the paths of a table, of which ``cell`` is the first."""
    text = cell if isinstance(cell, str) else ""
    if _ADDRESS.match(text):
        return " These are addresses: download the images, and give the paths of the files."
    if _BASE64.match(text):
        return " These are images in base64: decode them to files, or to bytes in a Parquet file."
    if re.match(r"/|\\\\|[A-Za-z]:[/\\]", text):
        return f" These paths are of another computer or folder: write them relative to {folder.resolve()}."
    return f" Paths are looked up in the folder of the table, {folder.resolve()}."


def with_ending(path: Path) -> Path:
    """A path without an ending, as of Kaggle's ids, with that of the image that lies there; others as they are."""
    if path.suffix or path.exists():
        return path
    return next((named for ending in _ENDINGS if (named := path.with_name(path.name + ending)).is_file()), path)


def of_parts(path: Path) -> list[str]:
    """A note where a file is one of several, ``data-00000-of-00004.arrow``, of which the others are not read."""
    found = _PART.search(path.stem)
    if found is None or int(found[2]) < 2:
        return []
    return [f"{path.name} is one of {int(found[2])} parts, and the others are not read: put them together first."]


def of_labels_beside(files: Sequence[Path], root: Path) -> str:
    """What to say of a folder whose labels seem to lie in a file in it."""
    tables = sorted(file for file in files if file.parent == root and file.suffix.lower() in _FILES_OF_LABELS)
    return f" Do the labels stand in {tables[0]}? Then give that file." if tables else ""


def _is_truth(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and bool(column.isin([0, 1]).all())
