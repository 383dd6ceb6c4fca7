"""A table: columns of features, or of paths to images, and a column of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossbuf.errors import InputError
from lossbuf.inputs import hints
from lossbuf.inputs.columns import ColumnFeatures, is_missing, read_column
from lossbuf.inputs.labelled import LabelledData, ReadSettings, labelled
from lossbuf.inputs.names import (
    ID_NAMES,
    IMAGE_ID_NAMES,
    IMAGE_NAMES,
    LABEL_NAMES,
    MORE_LABEL_NAMES,
    asked_for,
    closest,
    find,
    key,
    listed,
    quoted,
)
from lossbuf.inputs.pictures import has_picture, is_picture, read_pictures
from lossbuf.inputs.raw import RawTable
from lossbuf.inputs.separated import read_separated

TABLES = (".csv", ".tsv", ".parquet", ".pq", ".feather", ".arrow")
"""Endings of files that are taken for tables."""

MOST_COLUMNS = 50_000
"""A table with more is refused: it would be read for minutes."""

_FEW = 20
_NOTES = 20
_ALL_LABEL_NAMES = frozenset(key(name) for name in LABEL_NAMES)


def read_table(path: Path, settings: ReadSettings) -> LabelledData:
    """Read a table of features or of images; rows without a label are skipped.

    Every column is read by :func:`~lossbuf.inputs.columns.read_column`; a missing number is the median and a column of
    its own. Image paths are taken from the table's folder.

    Raises:
        InputError: If there is no column of labels or of features, and as :func:`~lossbuf.inputs.labelled.labelled`.
    """
    where = f"the table {path}"
    raw = _raw(path, settings)
    table = raw.frame
    columns = [str(name) for name in table.columns]
    table.columns = columns
    if len(set(columns)) < len(columns):
        raise InputError(f"{where} must name every column once, got {listed(columns)}.")
    label, notes = _label_column(where, table, settings)
    notes = [*notes, *hints.of_parts(path)]
    for option, name in (("id", settings.row_id), ("image", settings.image)):
        if name is not None and (option, name) != ("image", "none"):
            asked_for(where, name, columns, "column", f"--{option}")
            if name == label:
                raise InputError(f"{where}: `--{option}` must be another column than that of the labels, got {name!r}.")
    image = _image_column(table, settings, label, path.parent)
    texts = _labels(where, table[label].tolist(), label, raw.class_names.get(label))
    if image is None:
        return _of_features(where, raw, settings, label, texts, notes)
    return _of_images(where, table, image, settings, texts, notes, path.parent)


def _of_features(
    where: str, raw: RawTable, settings: ReadSettings, label: str, texts: list[str], notes: list[str]
) -> LabelledData:
    table = raw.frame
    row_id = settings.row_id or _row_names(table, label)
    ids = _ids(table, row_id)
    kept = [row for row, text in enumerate(texts) if text]
    others = table.iloc[kept].drop(columns=[label, *([row_id] if row_id else [])])
    if row_id is not None and not len(others.columns):
        advice = f"If it leads to images: `--image {row_id}`."
        raise InputError(f"{where} must have columns of features beside {row_id!r}, which names the rows. {advice}")
    telling = _telling(others, [texts[row] for row in kept])
    x, more = _features(where, others.drop(columns=telling), raw)
    notes = [*notes, *more]
    notes += [f"Column {name!r} is the label once more, and no feature." for name in telling]
    notes += [
        f"Column {name!r} is taken for a feature: leave it out of the table if it tells the label."
        for name in others.columns.drop(telling)
        if key(name) in _ALL_LABEL_NAMES - {"y"}  # y may be a coordinate
    ]
    if row_id != settings.row_id:
        notes.append(f"Column {row_id!r} names the rows, and is no feature (`--id` chooses another).")
    return labelled(
        x,
        [texts[row] for row in kept],
        [ids[row] for row in kept],
        skipped=[(ids[row], "no label") for row, text in enumerate(texts) if not text],
        notes=notes,
        alike=settings.alike,
        where=where,
    )


def _of_images(
    where: str,
    table: pd.DataFrame,
    image: str,
    settings: ReadSettings,
    texts: list[str],
    notes: list[str],
    folder: Path,
) -> LabelledData:
    cells = table[image].tolist()
    ids = _paths_or_numbers(cells) if settings.row_id is None else _ids(table, settings.row_id)
    bad = {row: "no label" for row, text in enumerate(texts) if not text}
    sources: dict[int, Path | bytes] = {}
    for row in range(len(table)):
        if row not in bad:
            source = _source(cells[row], folder)
            if source is None:
                bad[row] = "no image"
            else:
                sources[row] = source
    pictures = read_pictures(list(sources.values()), size=settings.image_size)
    places = list(sources)
    bad.update({places[place]: reason for place, reason in pictures.skipped})
    kept = [places[place] for place in pictures.read]
    if not kept and "no such file" in bad.values():
        row = next(row for row, reason in bad.items() if reason == "no such file")
        hint = hints.of_paths(cells[row], folder)
        raise InputError(f"{where} leads to no image; the first is {str(cells[row])[:80]!r} in row {row}.{hint}")
    data = labelled(
        pictures.x,
        [texts[row] for row in kept],
        [ids[row] for row in kept],
        skipped=[(ids[row], reason) for row, reason in sorted(bad.items())],
        notes=[*notes, *([pictures.note] if pictures.note else [])],
        alike=settings.alike,
        where=where,
    )
    return replace(data, files=tuple(source for source in sources.values() if isinstance(source, Path)))


def _raw(path: Path, settings: ReadSettings) -> RawTable:
    where = f"the table {path}"
    if path.suffix.lower() in (".csv", ".tsv"):
        usual = {key(name) for name in (*LABEL_NAMES, *MORE_LABEL_NAMES)}
        asked = {settings.label, settings.row_id, settings.image}
        return read_separated(path, lambda name: name in asked or key(name) in usual, MOST_COLUMNS)
    try:
        from lossbuf.inputs.parquet import unfolded
    except ImportError as error:
        raise InputError(f'{path} needs PyArrow to be read: pip install "lossbuf[parquet]".') from error
    try:
        return unfolded(path, MOST_COLUMNS)
    except Exception as error:  # a damaged file may raise almost anything
        kind = "a Parquet" if path.suffix.lower() in (".parquet", ".pq") else "an Arrow"
        raise InputError(f"{where} must be {kind} file, got {error}.") from error


def _label_column(where: str, table: pd.DataFrame, settings: ReadSettings) -> tuple[str, list[str]]:
    """The column of labels, and what a user should know of how it was found."""
    columns = list(table.columns)
    if settings.label is not None:
        odd = hints.looks_like_data(columns)
        note = "The first line, which names the columns, looks like data: without a header a row is lost."
        return asked_for(where, settings.label, columns, "column", "--label"), [note] if odd else []
    found = find(LABEL_NAMES, columns)
    if found is not None:
        return found, []
    found = find(MORE_LABEL_NAMES, columns)
    if found is not None:
        return found, [f"Labels are taken from column {found!r} (`--label` chooses another)."]
    guesses = _guesses(table)
    hint = f" The best guess is {' or '.join(map(repr, guesses))}." if guesses else ""
    hint = hints.of_no_labels(table) or hint
    expected = f"a column of labels, named {', '.join(LABEL_NAMES)}"
    raise InputError(f"{where} must have {expected}, got {listed(columns)}. Name it: `--label NAME`.{hint}")


def _guesses(table: pd.DataFrame) -> list[str]:
    """The two columns that are most like labels: by their names, then of few values, texts first and the last first."""
    by_name = closest((*LABEL_NAMES, *MORE_LABEL_NAMES), list(table.columns))
    few: list[tuple[int, int, str]] = []
    for place, name in enumerate(table.columns):
        try:
            kinds = int(_cells(table, name).nunique())
        except TypeError:  # lists and structs are no labels
            continue
        if 2 <= kinds <= max(2, min(1000, len(table) // 2)):
            numeric = pd.api.types.is_numeric_dtype(table[name])
            few.append((int(numeric), -place, name))
    return list(dict.fromkeys([*by_name, *(name for *_, name in sorted(few))]))[:2]


def _image_column(table: pd.DataFrame, settings: ReadSettings, label: str, folder: Path) -> str | None:
    if settings.image is not None:
        return None if settings.image == "none" and "none" not in table.columns else settings.image
    free = [name for name in table.columns if name not in (label, settings.row_id)]
    usual = {key(name) for name in IMAGE_NAMES}
    for name in free:
        column = _cells(table, name)
        if key(name) in usual and not pd.api.types.is_numeric_dtype(column) and _may_be_images(column):
            return name
    for name in free:
        if table[name].dtype == object and _holds_images(_cells(table, name)):
            return name
    named = {key(name) for name in IMAGE_ID_NAMES}
    for name in free:
        first = _first(_cells(table, name))
        if isinstance(first, str) and (key(name) in named or Path(first).suffix):
            source = _source(first, folder)
            if isinstance(source, Path) and is_picture(source):
                return name
    return None


def _cells(table: pd.DataFrame, name: str) -> pd.Series:
    return cast(pd.Series, table[name])  # of a table that names every column once


def _first(column: pd.Series) -> Any:
    """The first cell that is there, of a column that does not hold numbers."""
    if pd.api.types.is_numeric_dtype(column):
        return None
    known = (cell for cell in column.tolist() if not is_missing(cell))
    return next((cell for cell in known if not isinstance(cell, str) or cell), None)


def _may_be_images(column: pd.Series) -> bool:
    """True where all cells are texts, bytes or structs of bytes or a path; a struct of anything else is no image."""
    return all(is_missing(c) or isinstance(c, str | bytes) or _is_image_struct(c) for c in column.tolist())


def _holds_images(column: pd.Series) -> bool:
    """True for structs of bytes and a path, and for bytes that Pillow takes for an image."""
    known = [cell for cell in column.tolist() if not is_missing(cell)]
    if not known:
        return False
    if all(_is_image_struct(cell) for cell in known):
        return True
    return all(isinstance(cell, bytes) for cell in known) and has_picture(known[0])


def _is_image_struct(cell: Any) -> bool:
    return isinstance(cell, Mapping) and {"bytes", "path"} >= set(cell) and "bytes" in cell


def _row_names(table: pd.DataFrame, label: str) -> str | None:
    """A column that by its name and its values, all different, names the rows."""
    usual = {key(name) for name in ID_NAMES}
    for name in table.columns:
        if name == label or not (key(name) in usual or name.startswith("Unnamed: ")):
            continue
        values = table[name].tolist()
        plain = all(isinstance(value, str | int | np.integer) and not isinstance(value, bool) for value in values)
        if plain and len(set(map(str, values))) == len(values):
            return name
    return None


def _ids(table: pd.DataFrame, row_id: str | None) -> list[str]:
    if row_id is None:
        return [str(row) for row in range(len(table))]
    return ["" if is_missing(value) else str(value) for value in table[row_id].tolist()]


def _telling(columns: pd.DataFrame, labels: list[str]) -> list[str]:
    """Columns that are the label once more: each value goes with one label, and each label with one value.

    Among :data:`_FEW` rows or fewer, or two a class, that may be chance.
    """
    given = pd.factorize(pd.Series(labels))[0]
    if len(given) <= max(_FEW, 2 * (given.max(initial=0) + 1)):
        return []
    found = []
    for name in columns.columns:
        try:
            numbers = pd.factorize(columns[name])[0]
        except TypeError:  # lists and structs
            continue
        if np.array_equal(numbers, given):
            found.append(name)
    return found


def _labels(where: str, cells: Sequence[Any], column: str, class_names: list[str] | None) -> list[str]:
    """Labels as texts, an empty one where there is none."""
    for row, cell in enumerate(cells):
        if isinstance(cell, list | tuple | np.ndarray | Mapping):
            what = "a struct" if isinstance(cell, Mapping) else "a list"
            advice = "Make a column with the class of each, for example by the place of the largest value."
            raise InputError(f"{where} must have a class a row in column {column!r}, got {what} in row {row}. {advice}")
    texts = [_text(cell) for cell in cells]
    if class_names is None:
        return texts
    known = {str(number): name for number, name in enumerate(class_names)}
    for row, text in enumerate(texts):
        if text and text != "-1" and text not in known:
            rule = f"must have numbers of its {len(class_names)} class names in column {column!r}"
            raise InputError(f"{where} {rule}, got {text!r} in row {row}.")
    return [known.get(text, "") for text in texts]


def _text(value: Any) -> str:
    """A label as text: 1.0, as whole numbers stand where some are missing, is 1."""
    if is_missing(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").strip()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _source(value: Any, folder: Path) -> Path | bytes | None:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    path = folder / value
    if "\\" in value and not path.exists():  # as Windows writes it
        path = folder / value.replace("\\", "/")
    return hints.with_ending(path)


def _paths_or_numbers(images: list[Any]) -> list[str]:
    """Paths are the names of the rows where each comes once; numbers else."""
    values = [value.get("path") if isinstance(value, Mapping) else value for value in images]
    texts = [value for value in values if isinstance(value, str)]
    unique = len(texts) == len(values) and len(set(texts)) == len(texts)
    return texts if unique else [str(row) for row in range(len(values))]


def _features(where: str, table: pd.DataFrame, raw: RawTable) -> tuple[NDArray[np.float32], list[str]]:
    """Numbers a row, float32, shape ``(n_samples, n_features)``, and what a user should know of the columns."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    if not len(table):
        return np.empty((0, 1), np.float32), []
    found = {str(name): read_column(_cells(table, name), decimal_comma=raw.decimal_comma) for name in table.columns}
    numbers = [column.numbers for column in found.values() if column.numbers is not None]
    categories = [column.categories for column in found.values() if column.categories is not None]
    passed = {name: column.reason for name, column in found.items() if column.reason} | dict(raw.unread)
    parts = []
    if numbers:
        imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        parts.append(imputer.fit_transform(np.hstack(numbers)))
    if categories:
        parts.append(OneHotEncoder(sparse_output=False).fit_transform(np.array(categories, dtype=object).T))
    if not parts:
        rule = "must have columns of features, numbers or few kinds of texts"
        got = "; ".join(f"{name!r}: {reason}" for name, reason in list(passed.items())[:5])
        raise InputError(f"{where} {rule}, got none ({got})." if got else f"{where} {rule}, got none.")
    x = np.ascontiguousarray(np.hstack(parts), dtype=np.float32)
    return x, [*_by_note(found), *_passed_over(passed)]


def _by_note(found: Mapping[str, ColumnFeatures]) -> list[str]:
    """A note a column, but one for all the columns of which the same is to be said; after so many only the names."""
    names: dict[str, list[str]] = {}
    for name, column in found.items():
        if column.note:
            names.setdefault(column.note, []).append(name)
    told = [
        f"Column {quoted(same)} {note}." if len(same) == 1 else f"Each of the columns {quoted(same)} {note}."
        for note, same in names.items()
    ]
    more = [name for same in list(names.values())[_NOTES:] for name in same]
    return told if not more else [*told[:_NOTES], f"The same or the like holds for the columns {quoted(more, 1000)}."]


def _passed_over(reasons: Mapping[str, str]) -> list[str]:
    if not reasons:
        return []
    shown = ", ".join(f"{name!r} ({reason})" for name, reason in list(reasons.items())[:20])
    more = f" and {len(reasons) - 20:,} more" if len(reasons) > 20 else ""
    what = "1 column is" if len(reasons) == 1 else f"{len(reasons):,} columns are"
    return [f"{what} not used as features: {shown}{more}."]
