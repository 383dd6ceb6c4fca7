"""Labels of any container, as scikit-learn takes them: one per row, all of one kind, none missing."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from lossbuf import checks
from lossbuf.arrays.conversion import as_array


def label_array(y: Any) -> Any:
    """An array of labels, read by position; ``None``, which scikit-learn has a message for, stays ``None``.

    Objects that are all integers become such, bytes become texts, and one-hot rows become the places of the ones.

    Args:
        y: Labels, an array, tensor, series, frame of one column, or list.

    Raises:
        ValueError: If they have no order, one is missing, they are of several kinds, or there are several or
            probabilities per row.
    """
    if y is None:
        return None
    try:
        array = as_array(y, copy=False)
    except TypeError as error:
        raise ValueError(checks.problem("y", "must be an array, a series or a list of labels", error)) from error
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "backslashreplace")
    if array.dtype == object and array.ndim == 1:
        _check_objects(array)
    return _one_per_row(array)


def check_classes(labels: Any) -> None:
    """Raise ``ValueError`` unless labels are of classes, as scikit-learn tells them; however many these are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        check_classification_targets(labels)


def _check_objects(array: NDArray[Any]) -> None:
    missing = np.flatnonzero(pd.isna(array))
    if len(missing):
        advice = "Leave out the rows without a label."
        found = f"{array[missing[0]]!r} at row {missing[0]}"
        raise ValueError(checks.problem("y", "must hold a label in every row", found, advice))
    texts = [isinstance(value, str) for value in array]
    if any(texts) and not all(texts):
        first, other = texts.index(True), texts.index(False)
        found = f"{array[first]!r} at row {first} and {array[other]!r} at row {other}"
        advice = "Make texts of all of them: [str(label) for label in y]."
        raise ValueError(checks.problem("y", "must hold labels of one kind", found, advice))
    if not all(texts):
        advice = "Give texts or integers."
        raise ValueError(checks.problem("y", "must hold texts or integers", f"{array[0]!r} at row 0", advice))


def _one_per_row(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2 or array.shape[1] < 2:
        return array
    if array.dtype.kind in "biuf" and bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all()):
        return array.argmax(axis=1)
    found = f"shape {array.shape}, of several labels or probabilities a row"
    raise ValueError(checks.problem("y", "must be a label a row, or one-hot", found, "Give the class: y.argmax(1)."))
