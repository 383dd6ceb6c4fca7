"""A table as it lies in a file, before anything is made of its cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd


class RawTable(NamedTuple):
    """Cells of any type, and what the file says of them.

    Attributes:
        frame: A column a name, all names different texts.
        class_names: Names of the classes whose numbers a column holds, for the columns of which the file has them.
        decimal_comma: Numbers may well be written with a decimal comma: the columns are not separated by commas.
        unread: Reasons why columns could not be read, by name.
    """

    frame: pd.DataFrame
    class_names: Mapping[str, list[str]] = {}
    decimal_comma: bool = False
    unread: Mapping[str, str] = {}
