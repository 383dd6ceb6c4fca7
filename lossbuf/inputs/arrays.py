"""A NumPy archive: samples and labels as arrays."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossbuf.files import opened_arrays
from lossbuf.inputs.labelled import InputError, LabelledData, ReadSettings, labelled

X_NAMES = ("x", "X", "images", "data", "features", "embeddings", "x_train", "X_train")
"""Names of the array of samples, the first that is there."""

LABEL_NAMES = ("y", "label", "labels", "target", "targets", "y_train", "class", "classes")
"""Names of the array, or column, of labels, the first that is there."""


def read_archive(path: Path, settings: ReadSettings) -> LabelledData:
    """Read an ``.npz``: samples, labels, and where they are there ``ids`` and ``class_names``.

    Images are ``(n, channels, height, width)``, ``(n, height, width, channels)`` or ``(n, height, width)``, as bytes
    or as floats, which stay what they are for the network and are shown stretched to black and white.

    Raises:
        InputError: If an array is missing, of another length, or holds anything but numbers or texts.
    """
    where = f"the archive {path}"
    try:
        with opened_arrays(path) as archive:
            names = archive.files
            x = archive[_chosen(where, None, X_NAMES, names, "samples")]
            label_name = _chosen(where, settings.label, LABEL_NAMES, names, "labels")
            labels = archive[label_name]
            row_id = None if settings.row_id is None else _chosen(where, settings.row_id, (), names, "row names")
            ids = archive[row_id or "ids"] if (row_id or "ids") in names else None
            class_names = archive["class_names"] if "class_names" in names else None
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise almost anything
        raise InputError(f"{where} must hold arrays of numbers and texts, got {error}.") from error
    for name, array in (("samples", x), (label_name, labels), ("ids", ids), ("class_names", class_names)):
        if array is not None and not isinstance(array, np.ndarray):
            raise InputError(f"{where}: {name} must be an array, got {type(array).__name__}.")
    for name, array in (("ids", ids), ("class_names", class_names)):
        if array is not None and array.ndim != 1:
            raise InputError(f"{where}: {name} must have one axis, got shape {array.shape}.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iubUSf":
        raise InputError(f"{where}: {label_name} must be a class a row, got shape {labels.shape}, {labels.dtype}.")
    if x.dtype.kind not in "iubf" or x.ndim < 2 or not x.size:
        raise InputError(f"{where}: samples must be numbers of at least two axes, got shape {x.shape}, {x.dtype}.")
    for name, other in ((label_name, labels), ("ids", ids)):
        if other is not None and len(other) != len(x):
            raise InputError(f"{where}: {name} must be {len(x)}, one a sample, got {len(other)}.")
    texts = _texts(where, labels, class_names)
    rows = [str(row) for row in range(len(x))] if ids is None else [str(name) for name in ids.tolist()]
    samples, skipped = _samples(where, x)
    bad = dict(skipped)
    bad.update({row: "no label" for row, text in enumerate(texts) if text is None})
    kept = [row for row in range(len(x)) if row not in bad]
    return labelled(
        samples[kept],
        [text for row in kept if (text := texts[row]) is not None],
        [rows[row] for row in kept],
        skipped=[(rows[row], reason) for row, reason in sorted(bad.items())],
        class_names=None if class_names is None else [str(name) for name in class_names.tolist()],
        where=where,
    )


def _chosen(where: str, asked: str | None, usual: Collection[str], names: Collection[str], what: str) -> str:
    found = [name for name in ([asked] if asked else usual) if name in names]
    if not found:
        expected = repr(asked) if asked else "one of " + ", ".join(usual)
        raise InputError(f"{where} must have an array of {what}, {expected}, got {', '.join(names) or 'no arrays'}.")
    return found[0]


def _texts(where: str, labels: NDArray[Any], class_names: NDArray[Any] | None) -> list[str | None]:
    values: list[Any] = labels.tolist()
    if labels.dtype.kind == "f":
        fractions = [value for value in values if value == value and not float(value).is_integer()]
        if fractions:
            raise InputError(f"{where} must have whole numbers or texts as labels, got {fractions[0]}.")
        values = [None if value != value else int(value) for value in values]
    if labels.dtype.kind == "S":
        values = [value.decode("utf-8", "backslashreplace") for value in values]
    if class_names is not None and labels.dtype.kind in "iuf":
        known = [str(name) for name in class_names.tolist()]
        wrong = [value for value in values if value is not None and not 0 <= value < len(known)]
        if wrong or len(set(known)) < len(known):
            got = f"label {wrong[0]}" if wrong else "a class name twice"
            raise InputError(f"{where} must have labels in [0, {len(known)}), numbers of its class_names, got {got}.")
        return [None if value is None else known[value] for value in values]
    return [None if value is None or value == "" else str(value) for value in values]


def _samples(where: str, x: NDArray[Any]) -> tuple[NDArray[Any], list[tuple[int, str]]]:
    """Images with the channels first or rows of features, and the rows that hold what is no number."""
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = np.moveaxis(x, -1, 1)
    elif x.ndim != 4:
        x = x.reshape(len(x), -1)
    if x.dtype == np.uint8 and x.ndim == 4:
        return np.ascontiguousarray(x), []
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, dtype=np.float32)
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not finite.any():
        raise InputError(f"{where} must have finite samples, got NaN or infinity in every row.")
    return x, [(int(row), "NaN or infinite values") for row in np.flatnonzero(~finite)]
