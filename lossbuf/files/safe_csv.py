"""CSV files whose cells a spreadsheet does not run."""

from __future__ import annotations

import csv
import os
import re
from typing import Any

import pandas as pd

from lossbuf import checks
from lossbuf.files.whole import size_of, write_whole

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MOST_COLUMNS = 1000
_FIRST = frozenset("=+-@'\t\r\n＝＋－＠")  # noqa: RUF001


def escaped(text: str) -> str:
    """Text that a spreadsheet takes for text: a formula, or what begins as one, gets an apostrophe in front.

    Two texts never become one, so that :func:`unescaped` gives the text back. Plain numbers stay as they are.

    Source:
        OWASP, "CSV Injection".

    Example:
        >>> escaped("=1+1"), escaped("-1.5"), escaped("cat")
        ("'=1+1", '-1.5', 'cat')
    """
    return "'" + text if text[:1] in _FIRST and text and not _NUMBER.fullmatch(text) else text


def unescaped(text: str) -> str:
    """What :func:`escaped` was given.

    Example:
        >>> unescaped("'=1+1")
        '=1+1'
    """
    return text[1:] if text[:1] == "'" and text[1:2] in _FIRST else text


def _cell(value: Any) -> Any:
    # Bytes that are no UTF-8 may stand in a file's name; they are shown, not lost in an error.
    return escaped(value.encode("utf-8", "backslashreplace").decode()) if isinstance(value, str) else value


def write_csv(path: str | os.PathLike[str], table: pd.DataFrame) -> None:
    """Write a table without its index, whole or not at all, with every text escaped.

    Args:
        path: Where to write.
        table: Any columns; those of text, and the names of columns, are escaped.
    """
    safe = table.rename(columns=_cell)
    for place, dtype in enumerate(safe.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype):
            safe.isetitem(place, safe.iloc[:, place].map(_cell, na_action="ignore").astype(object))
    text = safe.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # which some readers take for a line's end where it is not quoted
        text = safe.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_whole(path, lambda file: file.write(text.encode()))


def read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read what :func:`write_csv` wrote, every cell as text.

    Raises:
        ValueError: If it is no table of comma-separated values in UTF-8, or has more than 1,000 columns.
        OSError: If it cannot be opened.
    """
    try:
        size_of(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            columns = len(next(csv.reader(file), []))
        if columns > _MOST_COLUMNS:
            raise ValueError(
                checks.problem("path", f"must have at most {_MOST_COLUMNS} columns", f"{columns} in {path}")
            )
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"`path` must be a CSV file in UTF-8, got {path}: {error}.") from error
    return table.rename(columns=unescaped).map(unescaped)
