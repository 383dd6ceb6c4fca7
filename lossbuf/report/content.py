"""What a page shows, checked before it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossbuf import checks

_LABELS = ("given_label", "suggested_label", "predicted_label")
_FLOATS = ("suspicion", "label_loss")
_COLUMNS = ("id", *_LABELS, "is_suspect", *_FLOATS)
_SUM_ERROR = 0.01  # of a row of the transition matrix: float32 and many classes, but no matrix that is transposed


@dataclass(frozen=True, kw_only=True, eq=False)
class PageContent:
    """What a page shows.

    Attributes:
        title: Headline, such as ``"Labels of photos"``.
        class_names: A name a class, no two the same.
        table: All rows in any order; the index is the row number. Columns: ``id`` (shown with ``str``),
            ``given_label``, ``suggested_label`` and ``predicted_label`` (integers; a suspect whose suggested label is
            the given one has no suggestion), ``is_suspect``, ``suspicion`` (higher is worse, NaN for rows never seen),
            ``label_loss`` (nats) and, where it is known, ``wrong_probability``. Others are passed over.
        noise_rate: Share of wrong labels, estimated or given.
        noise_rate_interval: Lowest and highest estimate.
        threshold: Cut on ``suspicion``; infinite where nothing is cut off.
        transition: P(given | true), shape ``(num_classes, num_classes)``, rows sum to 1.
        thumbnail: From a row number to a picture as PNG, JPEG or WebP; ``None`` where there is none.
        facts: What was run: names and values.
        skipped: What could not be read: id and reason.
        doubts: Warnings, shown on top.
        max_suspects: The gallery holds the worst so many, and says how many it leaves out.
        noise_rate_given: The rate was given, and not estimated.

    Raises:
        ValueError: If a column is missing, a label out of range, or something else has no meaning.
    """

    title: str
    class_names: Sequence[str]
    table: pd.DataFrame
    noise_rate: float
    noise_rate_interval: tuple[float, float] | None
    threshold: float
    transition: NDArray[np.float64] | None
    thumbnail: Callable[[int], bytes | None] | None
    facts: Sequence[tuple[str, str]]
    skipped: Sequence[tuple[str, str]]
    doubts: Sequence[str]
    max_suspects: int = 10_000
    noise_rate_given: bool = False

    def __post_init__(self) -> None:
        checks.rate("noise_rate", self.noise_rate)
        checks.positive_int("max_suspects", self.max_suspects)
        if np.isnan(self.threshold):
            raise ValueError(checks.problem("threshold", "must be a number", self.threshold))
        if self.noise_rate_interval is not None:
            low, high = (checks.rate("noise_rate_interval", end) for end in self.noise_rate_interval)
            if low > high:
                raise ValueError(checks.problem("noise_rate_interval", "must be (low, high)", (low, high)))
        _check_classes(self.class_names)
        _check_table(self.table, len(self.class_names))
        if self.transition is not None:
            _check_transition(self.transition, len(self.class_names))


def text_of(value: object) -> str:
    """``str(value)`` that UTF-8 can hold: names of files may hold bytes that are none."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def numbers(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column as float64, what is missing as NaN."""
    return table[name].to_numpy(np.float64, na_value=np.nan)


def _check_classes(names: Sequence[str]) -> None:
    if not len(names):
        raise ValueError(checks.problem("class_names", "must hold at least one name", "none"))
    seen = set()
    for name in names:
        if not isinstance(name, str):
            raise ValueError(checks.problem("class_names", "must be strings", repr(name)))
        if name in seen:
            advice = "The decisions could not tell them apart."
            raise ValueError(checks.problem("class_names", "must be unique", f"{name!r} twice", advice))
        seen.add(name)


def _check_table(table: pd.DataFrame, num_classes: int) -> None:
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        rule = f"must have columns {', '.join(_COLUMNS)}"
        raise ValueError(checks.problem("table", rule, f"none named {missing[0]!r}"))
    if not len(table):
        raise ValueError(checks.problem("table", "must hold at least one row", "none"))
    if not pd.api.types.is_integer_dtype(table.index.dtype) or not table.index.is_unique:
        rule = "must have the row numbers, each once, as its index"
        raise ValueError(checks.problem("table", rule, f"an index of {table.index.dtype}"))
    for name in _LABELS:
        _check_labels(name, table, num_classes)
    suspects = table["is_suspect"]
    if not pd.api.types.is_bool_dtype(suspects.dtype) or suspects.isna().to_numpy().any():
        raise ValueError(checks.problem("table['is_suspect']", "must be True or False", f"dtype {suspects.dtype}"))
    probability = ("wrong_probability",) if "wrong_probability" in table.columns else ()
    for name in (*_FLOATS, *probability):
        if not pd.api.types.is_numeric_dtype(table[name].dtype):
            raise ValueError(checks.problem(f"table[{name!r}]", "must be numbers", f"dtype {table[name].dtype}"))
    for name in probability:
        values = numbers(table, name)
        _check_none(name, "must lie in [0, 1]", table, values, (values < 0) | (values > 1))
    seen = set()
    for name in map(text_of, table["id"].to_numpy(object)[suspects.to_numpy(bool)]):
        if name in seen:
            advice = "The decisions could not tell them apart."
            raise ValueError(checks.problem("table['id']", "must be unique among suspects", f"{name!r} twice", advice))
        seen.add(name)


def _check_labels(name: str, table: pd.DataFrame, num_classes: int) -> None:
    dtype = table[name].dtype
    if not pd.api.types.is_integer_dtype(dtype) or table[name].isna().to_numpy().any():
        raise ValueError(checks.problem(f"table[{name!r}]", "must be integers", f"dtype {dtype}"))
    labels = table[name].to_numpy(np.int64)
    _check_none(name, f"must lie in [0, {num_classes})", table, labels, (labels < 0) | (labels >= num_classes))


def _check_none(name: str, rule: str, table: pd.DataFrame, values: NDArray[Any], wrong: NDArray[np.bool_]) -> None:
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        where = f"{values[place]} at row {table.index[place]}"
        raise ValueError(checks.problem(f"table[{name!r}]", rule, where))


def _check_transition(transition: NDArray[np.float64], num_classes: int) -> None:
    if transition.shape != (num_classes, num_classes):
        rule = f"must have shape ({num_classes}, {num_classes}), a row and a column a class"
        raise ValueError(checks.problem("transition", rule, f"shape {transition.shape}"))
    sums = transition.sum(1)
    if not (transition >= 0).all() or not (np.abs(sums - 1) <= _SUM_ERROR).all():
        rule = "must hold P(given | true), none negative, rows that sum to 1"
        raise ValueError(checks.problem("transition", rule, f"sums from {sums.min():.3g} to {sums.max():.3g}"))
