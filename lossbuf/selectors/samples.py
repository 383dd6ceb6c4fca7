"""scikit-learn's check of samples and labels, with messages that name the column of what is no number."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array, check_X_y
from sklearn.utils.validation import validate_data

from lossbuf import checks

_MENDS = {
    "dates": "Give numbers, such as the days since the earliest date.",
    "texts": "Encode texts as numbers first, for example with sklearn.preprocessing.OneHotEncoder.",
    "intervals": "Give numbers, such as their middles.",
}
"""Kinds of values that are no numbers, and what to do about them."""


def validated(estimator: Any, X: Any, y: Any = "no_validation", **options: Any) -> Any:
    """What :func:`sklearn.utils.validation.validate_data` gives, of samples that are numbers.

    Args:
        estimator: Whose samples they are.
        X: Samples.
        y: Labels; by default there are none.
        options: Of ``validate_data``, but for ``dtype``.

    Raises:
        ValueError: If values are dates, texts or missing, or the samples are in no order.
    """
    check_container(X)
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        advice = "Fill them in first: X.filled(value)."
        raise ValueError(checks.problem("X", "must hold a number everywhere", "masked values", advice))
    _refuse(_without_numbers(_dtypes(X)))
    try:
        found: Any = validate_data(estimator, cast(Any, X), y, dtype="numeric", **options)
    except (TypeError, ValueError):
        _refuse(_without_numbers(_examples(X)))
        raise
    samples = found if isinstance(y, str) else found[0]
    if samples.dtype == object:
        _refuse(_without_numbers(_examples(X)))
        raise ValueError(checks.problem("X", "must hold numbers", f"objects, such as {samples.flat[0]!r}"))
    return found


def of_anything(estimator: Any, X: Any, y: Any, reset: bool) -> Any:
    """What ``validate_data`` gives, of samples that nobody looks at: of all types, missing values among them.

    Args:
        estimator: Whose samples they are.
        X: Samples.
        y: Labels, or ``"no_validation"``.
        reset: Whether the estimator takes note of the names and the number of features, or compares them.

    Raises:
        ValueError: If samples and labels are not as many, or the samples have no order.
    """
    check_container(X)
    options: dict[str, Any] = {"allow_nd": True, "dtype": None, "ensure_all_finite": False, "accept_sparse": "csr"}
    try:
        return validate_data(estimator, X, y, reset=reset, **options)
    except (TypeError, ValueError):  # a frame whose columns have no type in common
        if not hasattr(X, "columns") or not hasattr(X, "to_numpy"):
            raise
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        plain = X.to_numpy(dtype=object)
        return check_array(plain, **options) if isinstance(y, str) else check_X_y(plain, y, **options)


def check_container(X: Any) -> None:
    """Raise ``ValueError`` where samples do not come in rows that can be counted."""
    if isinstance(X, Mapping) and not hasattr(X, "shape"):  # a sparse matrix may be a mapping
        advice = "Make a table of it: pandas.DataFrame(X)."
    elif isinstance(X, Iterator) and not hasattr(X, "shape"):
        advice = "Make a list of it: list(X)."
    else:
        return
    raise ValueError(checks.problem("X", "must be an array, a data frame or a list", type(X).__name__, advice))


def _refuse(problem: tuple[str, str] | None) -> None:
    if problem is not None:
        raise ValueError(checks.problem("X", "must hold numbers", *problem))


def _without_numbers(columns: Iterable[tuple[str, str, str]]) -> tuple[str, str] | None:
    """What was found instead of numbers, and what to do, of columns with a kind and an example."""
    found = [column for column in columns if column[1]]
    if not found:
        return None
    first = found[0][1]
    same = [(name, example) for name, kind, example in found if kind == first]
    named = ", ".join(name for name, _ in same[:10]) + (f" and {len(same) - 10} more" if len(same) > 10 else "")
    example = f", such as {same[0][1]}" if same[0][1] else ""
    return f"{first} in the columns {named}{example}", _MENDS[first]


def _dtypes(X: Any) -> Iterator[tuple[str, str, str]]:
    """Names of columns, the kind of what they hold where that is no number, and no example."""
    dtypes: Any = getattr(X, "dtypes", None)
    if hasattr(dtypes, "items"):  # a data frame
        for name, dtype in dtypes.items():
            dates = getattr(dtype, "kind", "") in ("m", "M") or str(dtype).startswith("period")
            yield str(name), "dates" if dates else "intervals" if str(dtype).startswith("interval") else "", ""
    elif getattr(getattr(X, "dtype", None), "kind", "") in ("m", "M"):
        yield "all", "dates", ""


def _examples(X: Any) -> Iterator[tuple[str, str, str]]:
    """Names of columns, the kind of the first value that is no number, and that value."""
    if issparse(X):  # of numbers alone
        return
    if hasattr(X, "items") and hasattr(X, "columns"):
        for name, column in X.items():
            yield str(name), *_first_other(column)
    elif np.ndim(X) == 2 if hasattr(X, "shape") else _is_table(X):
        for place, column in enumerate(zip(*X, strict=True)):
            yield str(place), *_first_other(column)


def _is_table(X: Any) -> bool:
    """True for rows of one length."""
    return isinstance(X, Sequence) and len({len(row) if isinstance(row, Sequence) else -1 for row in X} - {0}) == 1


def _first_other(values: Iterable[Any]) -> tuple[str, str]:
    for value in values:
        if isinstance(value, datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64):
            return "dates", str(value)
        if isinstance(value, str | bytes) and not _reads_as_number(value):
            return "texts", repr(value)
    return "", ""


def _reads_as_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
