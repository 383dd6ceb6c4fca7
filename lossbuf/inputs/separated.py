"""Files of separated values: ``.csv`` and ``.tsv``."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lossbuf.inputs.labelled import InputError
from lossbuf.inputs.raw import RawTable

_MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "?")


def read_separated(path: Path, as_text: Callable[[str], bool], most_columns: int) -> RawTable:
    """Read separated values with a header, in UTF-8.

    Args:
        path: Of the file; one that ends in ``.tsv`` is separated by tabs, others by what separates their first lines.
        as_text: True for the name of a column whose cells stay as they are written.
        most_columns: More are refused.

    Raises:
        InputError: If it is anything else.
    """
    where = f"the table {path}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = "\t" if path.suffix.lower() == ".tsv" else _separator(file.read(65536))
            file.seek(0)
            names = next(csv.reader(file, delimiter=separator), [])
        if len(names) > most_columns:
            rule = f"must have at most {most_columns:,} columns"
            raise InputError(f"{where} {rule}, got {len(names):,}: save so wide rows as the array x of an .npz.")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"{where} must name every column once, got {twice[0]!r} more than once.")
        header = pd.read_csv(path, sep=separator, nrows=0, encoding="utf-8-sig", index_col=False).columns
        texts = [name for name in header if as_text(name)]
        missing: Any = {name: [""] if name in texts else list(_MISSING) for name in header}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            frame = pd.read_csv(
                path,
                sep=separator,
                dtype=dict.fromkeys(texts, str),
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
    return RawTable(frame, decimal_comma=separator != ",")


def _separator(start: str) -> str:
    lines = start.splitlines()
    try:
        return csv.Sniffer().sniff("\n".join(lines[:20]), delimiters=",;\t|").delimiter
    except csv.Error:
        return ","
