"""A table: columns of features, or of paths to images, and a column of labels."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossbuf.inputs.arrays import LABEL_NAMES
from lossbuf.inputs.labelled import InputError, LabelledData, ReadSettings, labelled
from lossbuf.inputs.pictures import read_pictures

TABLES = (".csv", ".tsv", ".parquet")
"""Endings of files that are taken for tables."""

IMAGE_NAMES = ("image", "image_path", "path", "file", "filename", "file_name", "filepath")
"""Names of the column of images, the first that is there and holds texts, or images as Parquet files of Hugging Face
hold them."""

ID_NAMES = ("", "id", "ids", "index", "row", "row_id", "uid", "uuid")
"""Names of a column that names the rows where its values are all different."""

MOST_CATEGORIES = 50
"""A column of texts with more different ones is no feature."""

MOST_COLUMNS = 50_000
"""A table with more is refused: it would be read for minutes."""

_FEW = 20
_MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "?")


def read_table(path: Path, settings: ReadSettings) -> LabelledData:
    """Read a table of features or of images; rows without a label are skipped.

    Numbers and truth values are features as they are, a missing one the median and a column of its own; texts of at
    most :data:`MOST_CATEGORIES` kinds become a column each. Image paths are taken from the table's folder.

    Raises:
        InputError: If there is no column of labels or of features, and as :func:`~lossbuf.inputs.labelled.labelled`.
    """
    where = f"the table {path}"
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path, settings)
    columns = [str(name) for name in table.columns]
    table.columns = columns
    if len(set(columns)) < len(columns):
        raise InputError(f"{where} must name every column once, got {', '.join(columns)}.")
    label = _column(where, settings.label, LABEL_NAMES, columns, "label")
    if settings.row_id is not None:
        _column(where, settings.row_id, (), columns, "row_id")
    image = _image_column(where, table, settings, label)
    texts = [_text(value) for value in table[label]]
    ids = [str(row) for row in range(len(table))]
    row_id = settings.row_id or (_row_names(table, label) if image is None else None)
    if row_id is not None:
        ids = ["" if pd.isna(value) else str(value) for value in table[row_id]]
    bad = {row: "no label" for row, text in enumerate(texts) if not text}
    if image is None:
        kept = [row for row in range(len(table)) if row not in bad]
        others = table.iloc[kept].drop(columns=[label, *([row_id] if row_id else [])])
        telling = _telling(others, [texts[row] for row in kept])
        x, notes = _features(where, others.drop(columns=telling))
        notes += [f"Column {name!r} is the label once more, and no feature." for name in telling]
        notes += [
            f"Column {name!r} is taken for a feature: leave it out of the table if it tells the label."
            for name in others.columns.drop(telling)
            if _usual(name) in LABEL_NAMES[1:]  # y may be a coordinate
        ]
        if row_id != settings.row_id:
            notes.append(f"Column {row_id!r} names the rows, and is no feature (`--id` chooses another).")
    else:
        if settings.row_id is None:
            ids = _paths_or_numbers(table[image].tolist())
        rows = [row for row in range(len(table)) if row not in bad]
        sources: dict[int, Path | bytes] = {}
        for row in rows:
            source = _source(table[image].iloc[row], path.parent)
            if source is None:
                bad[row] = "no image"
            else:
                sources[row] = source
        pictures = read_pictures(list(sources.values()), size=settings.image_size)
        places = list(sources)
        bad.update({places[place]: reason for place, reason in pictures.skipped})
        x, notes, kept = pictures.x, [pictures.note] if pictures.note else [], [places[p] for p in pictures.read]
    return labelled(
        x,
        [texts[row] for row in kept],
        [ids[row] for row in kept],
        skipped=[(ids[row], reason) for row, reason in sorted(bad.items())],
        notes=notes,
        where=where,
    )


def _csv(path: Path, settings: ReadSettings) -> pd.DataFrame:
    where = f"the table {path}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = "\t" if path.suffix.lower() == ".tsv" else _separator(file.read(65536))
            file.seek(0)
            names = next(csv.reader(file, delimiter=separator), [])
        if len(names) > MOST_COLUMNS:
            rule = f"must have at most {MOST_COLUMNS:,} columns"
            raise InputError(f"{where} {rule}, got {len(names):,}: save so wide rows as the array x of an .npz.")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"{where} must name every column once, got {twice[0]!r} more than once.")
        header = pd.read_csv(path, sep=separator, nrows=0, encoding="utf-8-sig", index_col=False).columns
        as_text = [name for name in header if name in (settings.label, settings.row_id) or _usual(name) in LABEL_NAMES]
        missing: Any = {name: [""] if name in as_text else list(_MISSING) for name in header}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            return pd.read_csv(
                path,
                sep=separator,
                dtype=dict.fromkeys(as_text, str),
                keep_default_na=False,
                na_values=missing,
                encoding="utf-8-sig",
                low_memory=False,
                index_col=False,
            )
    except pd.errors.ParserWarning as error:
        raise InputError(f"{where} must have no rows longer than its header, got some: {error}") from error
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{where} must be in UTF-8, got {error.reason} at byte {error.start}.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, ValueError, OverflowError) as error:
        raise InputError(f"{where} must be rows of separated values with a header, got {error}.") from error


def _telling(columns: pd.DataFrame, labels: list[str]) -> list[str]:
    """Columns that are the label once more: each value goes with one label, and each label with one value.

    Among :data:`_FEW` rows or fewer, or two a class, that may be chance.
    """
    given = pd.factorize(pd.Series(labels))[0]
    if len(given) <= max(_FEW, 2 * (given.max(initial=0) + 1)):
        return []
    return [name for name in columns.columns if np.array_equal(pd.factorize(columns[name])[0], given)]


def _usual(name: object) -> str:
    """A name as it is compared with usual ones."""
    return str(name).lower().strip()


def _separator(start: str) -> str:
    lines = start.splitlines()
    try:
        return csv.Sniffer().sniff("\n".join(lines[:20]), delimiters=",;\t|").delimiter
    except csv.Error:
        return ","


def _parquet(path: Path) -> pd.DataFrame:
    try:
        from lossbuf.inputs.parquet import unfolded
    except ImportError as error:
        raise InputError(f'{path} needs PyArrow to be read: pip install "lossbuf[parquet]".') from error
    try:
        return unfolded(path, MOST_COLUMNS)
    except Exception as error:  # a damaged file may raise almost anything
        raise InputError(f"the table {path} must be a Parquet file, got {error}.") from error


def _column(where: str, asked: str | None, usual: Collection[str], columns: Collection[str], option: str) -> str:
    found = [name for name in ([asked] if asked else usual) if name in columns]
    if not found:
        lower = {_usual(name): name for name in columns}
        found = [lower[name] for name in usual if name in lower] if asked is None else []
    if not found:
        expected = f"a column {asked!r}" if asked else "a column of labels, named " + ", ".join(usual)
        raise InputError(f"{where} must have {expected}, got {', '.join(columns)}. Name it: `--{option} NAME`.")
    return found[0]


def _image_column(where: str, table: pd.DataFrame, settings: ReadSettings, label: str) -> str | None:
    if settings.image is not None:
        if settings.image == "none" and "none" not in table.columns:
            return None
        return _column(where, settings.image, (), table.columns, "image")
    for name in table.columns:
        taken = name in (label, settings.row_id)
        if _usual(name) in IMAGE_NAMES and not taken and not pd.api.types.is_numeric_dtype(table[name]):
            return name
    return None


def _row_names(table: pd.DataFrame, label: str) -> str | None:
    """A column that by its name and its values, all different, names the rows."""
    for name in table.columns:
        values = table[name].tolist()
        different = name != label and len(set(map(str, values))) == len(values) and not any(map(_is_missing, values))
        if different and (_usual(name) in ID_NAMES or name.startswith("Unnamed: ")):
            return name
    return None


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _text(value: Any) -> str:
    """A label as text: 1.0, as whole numbers stand where some are missing, is 1."""
    if _is_missing(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _source(value: Any, folder: Path) -> Path | bytes | None:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    return folder / value if isinstance(value, str) and value and "\0" not in value else None


def _paths_or_numbers(images: list[Any]) -> list[str]:
    """Paths are the names of the rows where each comes once; numbers else."""
    values = [value.get("path") if isinstance(value, dict) else value for value in images]
    texts = [value for value in values if isinstance(value, str)]
    unique = len(texts) == len(values) and len(set(texts)) == len(texts)
    return texts if unique else [str(row) for row in range(len(values))]


def _features(where: str, table: pd.DataFrame) -> tuple[NDArray[np.float32], list[str]]:
    """Numbers a row, float32, shape ``(n_samples, n_features)``, and what was passed over."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    numbers: list[NDArray[np.float64]] = []
    categories: list[list[str]] = []
    others: list[str] = []
    for name in table.columns:
        column = table[name]
        if column.dtype == object and all(isinstance(v, bool | np.bool_) or _is_missing(v) for v in column.tolist()):
            column = column.astype("boolean")  # truth values, some of them missing
        if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            values = column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
            values[~(np.abs(values) <= np.finfo(np.float32).max)] = np.nan
            others.append(name) if np.isnan(values).all() else numbers.append(values)
        elif all(isinstance(value, str) or pd.isna(value) is True for value in column.tolist()):
            texts = [value if isinstance(value, str) else "" for value in column.tolist()]
            few = len(set(texts)) <= min(MOST_CATEGORIES, max(2, len(table) // 2))
            categories.append(texts) if few else others.append(name)
        else:
            others.append(name)
    if not len(table):
        return np.empty((0, 1), np.float32), []
    parts = []
    if numbers:
        parts.append(SimpleImputer(strategy="median", add_indicator=True).fit_transform(np.column_stack(numbers)))
    if categories:
        parts.append(OneHotEncoder(sparse_output=False).fit_transform(np.array(categories, dtype=object).T))
    if not parts:
        raise InputError(f"{where} must have columns of features, numbers or few kinds of texts, got none.")
    x = np.ascontiguousarray(np.hstack(parts), dtype=np.float32)
    shown = ", ".join(others[:10]) + (", ..." if len(others) > 10 else "")
    return x, [f"{len(others)} columns are no features and were passed over: {shown}."] if others else []
