"""From one column of a table, with cells of any type, to features; or why it has none."""

from __future__ import annotations

import datetime
import decimal
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossbuf.inputs.numerals import NEARLY_ALL, read_numerals

MOST_CATEGORIES = 50
"""A column of texts with more different ones is not a feature."""

_GLANCE = 2000
"""So many texts are looked at before all are."""

_ISO = r"\s*\d{4}-\d{2}-\d{2}([ T]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?)?\s*"
_DAY_OR_MONTH = r"\s*\d{1,2}[./-]\d{1,2}[./-]\d{4}(\s+\d{1,2}:\d{2}(:\d{2})?)?\s*"
_DAY = 86_400.0


class ColumnFeatures(NamedTuple):
    """What a column is to a network.

    Attributes:
        numbers: Features that are numbers, NaN where one is missing, float64, shape ``(n_rows, n_features)``.
        categories: Or a category a row, as a text.
        note: What a user should know of how the column was read, to be put behind its name; may be empty.
        reason: Why the column has no features; may be empty.
    """

    numbers: NDArray[np.float64] | None = None
    categories: list[str] | None = None
    note: str = ""
    reason: str = ""


def read_column(column: pd.Series, *, decimal_comma: bool = False) -> ColumnFeatures:
    """Features of a column.

    Numbers and truth values are features as they are, also where they are written otherwise. Dates are days since the
    earliest one, times of the day and durations are seconds, lists of equal length are a feature a place. Texts of few
    kinds are categories.

    Args:
        column: Cells of any type.
        decimal_comma: What to take where numbers may be written with a decimal comma or with commas between thousands.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype if len(column.cat.categories) else object)
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        return _of_numbers(column)
    if pd.api.types.is_datetime64_any_dtype(column):
        return _of_dates(column)
    if pd.api.types.is_timedelta64_dtype(column):
        return ColumnFeatures(
            numbers=_one(column.dt.total_seconds()), note="holds durations, which are read as seconds"
        )
    cells = column.tolist()
    known = [cell for cell in cells if not is_missing(cell)]
    if not known:
        return ColumnFeatures(reason="no values")
    for kind, read in _READERS:
        if all(isinstance(cell, kind) for cell in known):
            return read(cells, decimal_comma)
    names = sorted({type(cell).__name__ for cell in known})
    what = f"cells of type {names[0]}" if len(names) == 1 else f"cells of several types ({', '.join(names[:5])})"
    return ColumnFeatures(reason=what)


def is_missing(value: Any) -> bool:
    """True for what stands for no value."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    if isinstance(value, float | np.floating):
        return bool(value != value)
    return isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value))


def _of_numbers(column: pd.Series) -> ColumnFeatures:
    if pd.api.types.is_complex_dtype(column):
        return ColumnFeatures(reason="complex numbers")
    values = column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    return _within_float32(values[:, None])


def _within_float32(values: NDArray[np.float64], note: str = "") -> ColumnFeatures:
    """Numbers beyond what a network can hold are missing."""
    if np.isnan(values).all():
        return ColumnFeatures(reason="no values")
    with np.errstate(invalid="ignore"):
        beyond = np.abs(values) > np.finfo(np.float32).max
    values[beyond] = np.nan
    if np.isnan(values).all():
        return ColumnFeatures(reason="no finite values")
    count = int(beyond.any(axis=1).sum())
    if count:
        note = "; ".join(filter(None, (note, f"has {count:,} infinite or too large numbers, which count as missing")))
    return ColumnFeatures(numbers=values, note=note)


def _of_dates(column: pd.Series) -> ColumnFeatures:
    times = pd.to_datetime(column, utc=True)
    if times.isna().all():
        return ColumnFeatures(reason="no values")
    days = (times - times.min()).dt.total_seconds() / _DAY
    return ColumnFeatures(numbers=_one(days), note="holds dates, which are read as days since the earliest")


def _one(values: pd.Series) -> NDArray[np.float64]:
    return values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)[:, None]


def _of_objects(cells: list[Any], _: bool) -> ColumnFeatures:
    values = np.array([np.nan if is_missing(cell) else _float(cell) for cell in cells], dtype=np.float64)
    return _within_float32(values[:, None])


def _float(cell: Any) -> float:
    try:
        return float(cell)
    except OverflowError:  # an integer of more than 308 digits
        return np.inf


def _of_days(cells: list[Any], _: bool) -> ColumnFeatures:
    try:
        return _of_dates(pd.Series(pd.to_datetime([None if is_missing(cell) else cell for cell in cells], utc=True)))
    except (ValueError, OverflowError, TypeError):
        return ColumnFeatures(reason="dates of different kinds, or out of range")


def _of_times(cells: list[Any], _: bool) -> ColumnFeatures:
    seconds = [
        np.nan if is_missing(cell) else cell.hour * 3600 + cell.minute * 60 + cell.second + cell.microsecond / 1e6
        for cell in cells
    ]
    return ColumnFeatures(
        numbers=np.array(seconds, np.float64)[:, None], note="holds times, which are read as seconds of the day"
    )


def _of_durations(cells: list[Any], _: bool) -> ColumnFeatures:
    seconds = [np.nan if is_missing(cell) else _seconds(cell) for cell in cells]
    return ColumnFeatures(
        numbers=np.array(seconds, np.float64)[:, None], note="holds durations, which are read as seconds"
    )


def _seconds(span: Any) -> float:
    return float(span / np.timedelta64(1, "s")) if isinstance(span, np.timedelta64) else span.total_seconds()


def _of_lists(cells: list[Any], _: bool) -> ColumnFeatures:
    """A feature a place, where all lists are of numbers and alike in shape."""
    arrays: list[NDArray[np.float64] | None] = []
    for cell in cells:
        if is_missing(cell):
            arrays.append(None)
            continue
        try:
            array = np.array(cell.tolist() if isinstance(cell, np.ndarray) else cell)
        except ValueError:
            return ColumnFeatures(reason="lists of lists of different lengths")
        if array.dtype == object and all(is_missing(part) or isinstance(part, numbers.Real) for part in array.flat):
            array = np.array([np.nan if is_missing(part) else float(part) for part in array.flat]).reshape(array.shape)
        if array.dtype.kind not in "iubf" and array.size:
            return ColumnFeatures(
                reason=f"lists of {'texts' if array.dtype.kind in 'US' else 'other things than numbers'}"
            )
        arrays.append(array.astype(np.float64))
    shapes = {array.shape for array in arrays if array is not None}
    if len(shapes) > 1:
        sizes = sorted({shape[0] if len(shape) == 1 else shape for shape in shapes}, key=str)
        return ColumnFeatures(reason=f"lists of different lengths, such as {sizes[0]} and {sizes[-1]}")
    (shape,) = shapes
    if 0 in shape:
        return ColumnFeatures(reason="empty lists")
    empty = np.full(int(np.prod(shape)), np.nan)
    values = np.stack([empty if array is None else array.reshape(-1) for array in arrays])
    return _within_float32(values, f"holds lists, which are read as {values.shape[1]:,} features")


def _of_structs(cells: list[Any], _: bool) -> ColumnFeatures:
    first = next(cell for cell in cells if not is_missing(cell))
    return ColumnFeatures(reason=f"structs of {', '.join(map(str, list(first)[:5])) or 'nothing'}")


def _of_bytes(cells: list[Any], _: bool) -> ColumnFeatures:
    return ColumnFeatures(reason="bytes that are not images")


def _of_texts(cells: list[Any], decimal_comma: bool) -> ColumnFeatures:
    texts = ["" if is_missing(cell) else str(cell) for cell in cells]
    glance = read_numerals(texts[:_GLANCE], decimal_comma=decimal_comma)
    if glance.share >= 0.5:
        found = read_numerals(texts, decimal_comma=decimal_comma)
        if found.share >= NEARLY_ALL:
            return _within_float32(found.values[:, None], _how_numbers_were_read(found))
    told = [text for text in texts if text.strip()]
    if told and pd.Series(told, dtype=object).str.fullmatch(_ISO).mean() >= NEARLY_ALL:
        dates = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", errors="coerce", utc=True)
        if dates.notna().mean() >= 0.5:
            return _of_dates(dates)
    if told and pd.Series(told, dtype=object).str.fullmatch(_DAY_OR_MONTH).mean() >= NEARLY_ALL:
        return _of_written_dates(texts)
    kinds = len(set(texts))
    if kinds > min(MOST_CATEGORIES, max(2, len(texts) // 2)):
        note = ", half or more of which are numbers" if glance.share >= 0.5 else ""
        return ColumnFeatures(reason=f"{kinds:,} different texts{note}")
    if glance.share < 0.5 or not glance.others:
        return ColumnFeatures(categories=texts)
    note = (
        f"holds {kinds} different texts, some of which are numbers and some are not (such as {glance.others[0]!r}); "
        "they are read as categories: leave out or replace what is not a number"
    )
    return ColumnFeatures(categories=texts, note=note)


def _of_written_dates(texts: list[str]) -> ColumnFeatures:
    """Dates with the year at the end: which part is the day, one of over 12 says, and points between the parts do."""
    parts = [re.split(r"[./-]", text.strip())[:2] for text in texts if re.fullmatch(_DAY_OR_MONTH, text)]
    first, second = (max(int(part[place]) for part in parts) for place in (0, 1))
    day_first = first > 12 or (second <= 12 and all("." in text for text in texts if text.strip()))
    if (first > 12 and second > 12) or (first <= 12 and second <= 12 and not day_first):
        return ColumnFeatures(reason="dates whose day and month cannot be told apart: write them as 2021-03-31")
    plain = pd.Series(texts, dtype=object).str.strip().str.replace(r"[./]", "-", regex=True)
    clock = plain.str.contains(":")
    form = "%d-%m-%Y" if day_first else "%m-%d-%Y"
    dates = pd.to_datetime(plain.where(~clock), format=form, errors="coerce", utc=True)
    for more in (f"{form} %H:%M", f"{form} %H:%M:%S"):
        dates = dates.fillna(pd.to_datetime(plain.where(clock), format=more, errors="coerce", utc=True))
    return _of_dates(dates)


def _how_numbers_were_read(found: Any) -> str:
    told = []
    if found.example is not None:
        text, value = found.example
        told.append(f"holds numbers written as texts ({text!r} is read as {value:g})")
        if found.ambiguous:
            told.append("its commas may also be the other kind: write the numbers with a decimal point to be sure")
    if found.placeholders:
        told.append(f"has {' and '.join(map(repr, found.placeholders[:3]))} for missing numbers")
    if found.others:
        told.append(f"has texts that are not numbers, such as {found.others[0]!r}, which count as missing")
    return "; ".join(told)


_READERS: Sequence[tuple[Any, Any]] = (
    (datetime.timedelta | np.timedelta64, _of_durations),  # before numbers: NumPy's durations are integers, too
    (bool | np.bool_ | numbers.Real | decimal.Decimal, _of_objects),
    (str, _of_texts),
    (list | tuple | np.ndarray, _of_lists),
    (Mapping, _of_structs),
    (bytes | bytearray | memoryview, _of_bytes),
    (datetime.date | np.datetime64, _of_days),
    (datetime.time, _of_times),
)
"""What reads cells that are all of one kind."""
