"""Files of separated values: ``.csv`` and ``.tsv``."""

from __future__ import annotations

import codecs
import csv
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lossbuf.errors import InputError
from lossbuf.inputs.raw import RawTable

_SEPARATOR = re.compile(r"(?i)sep=(.)\r?\n")  # as Excel writes and reads it
_MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "?")


def read_separated(path: Path, as_text: Callable[[str], bool], most_columns: int) -> RawTable:
    """Read separated values with a header, in UTF-8, or in UTF-16 where the file begins with its mark.

    Args:
        path: Of the file; one that ends in ``.tsv`` is separated by tabs, others by what separates their first lines,
            or as a first line such as ``sep=;`` says.
        as_text: True for the name of a column whose cells stay as they are written.
        most_columns: More are refused.

    Raises:
        InputError: If it is anything else.
    """
    where = f"the table {path}"
    try:
        encoding = _encoding(path)
        with path.open(encoding=encoding, newline="") as file:
            start = file.read(65536)
            told = _SEPARATOR.match(start)
            rows = start[told.end() :] if told else start
            separator = told[1] if told else "\t" if path.suffix.lower() == ".tsv" else _separator(rows)
            file.seek(0)
            lines = csv.reader(file, delimiter=separator)
            if told:
                next(lines)
            names = next(lines, [])
        if len(names) > most_columns:
            rule = f"must have at most {most_columns:,} columns"
            raise InputError(f"{where} {rule}, got {len(names):,}: save so wide rows as the array x of an .npz.")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"{where} must name every column once, got {twice[0]!r} more than once.")
        form: Any = {"sep": separator, "encoding": encoding, "index_col": False, "skiprows": 1 if told else 0}
        header = pd.read_csv(path, nrows=0, **form).columns
        texts = [name for name in header if as_text(name)]
        missing: Any = {name: [""] if name in texts else list(_MISSING) for name in header}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            frame = pd.read_csv(
                path,
                **form,
                dtype=dict.fromkeys(texts, str),
                keep_default_na=False,
                na_values=missing,
                low_memory=False,
            )
    except pd.errors.ParserWarning as error:
        advice = "Is there a separator at the end of every row? Then the header needs one, too."
        raise InputError(f"{where} must have no rows longer than its header, got some. {advice}") from error
    except InputError:
        raise
    except UnicodeDecodeError as error:
        advice = "Save it anew, in a spreadsheet as `CSV UTF-8`."
        raise InputError(f"{where} must be in UTF-8, got {error.reason} at byte {error.start}. {advice}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, ValueError, OverflowError) as error:
        raise InputError(f"{where} must be rows of separated values with a header, got {error}.") from error
    return RawTable(frame, decimal_comma=separator != ",")


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _separator(start: str) -> str:
    lines = start.splitlines()
    try:
        return csv.Sniffer().sniff("\n".join(lines[:20]), delimiters=",;\t|").delimiter
    except csv.Error:
        return ","
