"""A NumPy archive: samples and labels as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossbuf.arrays.image_layout import channel_layout, with_channels_first
from lossbuf.errors import InputError
from lossbuf.files import opened_arrays
from lossbuf.inputs.labelled import LabelledData, ReadSettings, labelled
from lossbuf.inputs.names import LABEL_NAMES, MORE_LABEL_NAMES, X_NAMES, asked_for, find, key, listed, quoted

_OTHER_ROWS = ("test", "val", "valid", "validation")
_ID_NAMES = ("ids", "id", "names", "filenames")
_CLASS_NAMES = ("class_names", "classes_names", "label_names", "classnames", "target_names")


def read_archive(path: Path, settings: ReadSettings) -> LabelledData:
    """Read an ``.npz``: samples, labels, and where they are there ``ids`` and ``class_names``.

    Images are ``(n, channels, height, width)``, ``(n, height, width, channels)`` or ``(n, height, width)``, as bytes
    or as floats, which stay what they are for the network; see :mod:`lossbuf.arrays.image_layout`.

    Raises:
        InputError: If an array is missing, of another length, or holds anything but numbers or texts.
    """
    where = f"the archive {path}"
    try:
        with opened_arrays(path) as archive:
            arrays = _Arrays(where, archive, settings)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise almost anything
        advice = " Save texts by astype(str)." if "objects" in str(error) else ""
        raise InputError(f"{where} must hold arrays of numbers and texts, got {error}.{advice}") from error
    x, notes = arrays.x, arrays.notes
    labels, note = _one_label_a_row(where, arrays.label_name, arrays.labels)
    notes += [note] if note else []
    if x.dtype.kind not in "iubf" or x.ndim < 2 or not x.size:
        raise InputError(f"{where}: samples must be numbers of at least two axes, got shape {x.shape}, {x.dtype}.")
    for name, other in ((arrays.label_name, labels), (arrays.id_name, arrays.ids)):
        if other is not None and len(other) != len(x):
            raise InputError(f"{where}: {name} must be {len(x)}, one a sample, got {len(other)}.")
    texts = _texts(where, labels, arrays.class_names)
    rows = [str(row) for row in range(len(x))] if arrays.ids is None else [_text(name) for name in arrays.ids.tolist()]
    samples, skipped = _samples(where, x, settings)
    bad = dict(skipped)
    bad.update({row: "no label" for row, text in enumerate(texts) if text is None})
    kept = [row for row in range(len(x)) if row not in bad]
    return labelled(
        samples if len(kept) == len(samples) else samples[kept],
        [text for row in kept if (text := texts[row]) is not None],
        [rows[row] for row in kept],
        skipped=[(rows[row], reason) for row, reason in sorted(bad.items())],
        notes=notes,
        class_names=None if arrays.class_names is None else [_text(name) for name in arrays.class_names.tolist()],
        alike=settings.alike,
        where=where,
    )


class _Arrays:
    """The arrays of an archive that are used, and notes on how they were found."""

    def __init__(self, where: str, archive: Any, settings: ReadSettings) -> None:
        names: list[str] = archive.files
        if settings.label is not None:
            asked_for(where, settings.label, names, "array", "--label")
        if settings.row_id is not None:
            asked_for(where, settings.row_id, names, "array", "--id")
        x_name = find(X_NAMES, [name for name in names if name != settings.label])
        label_name = settings.label or find((*LABEL_NAMES, *MORE_LABEL_NAMES), [n for n in names if n != x_name])
        if x_name is None or label_name is None:
            what, usual = ("samples", X_NAMES) if x_name is None else ("labels", (*LABEL_NAMES, *MORE_LABEL_NAMES))
            raise InputError(
                f"{where} must have an array of {what}, one of {', '.join(usual)}, got {listed(names)}."
                + _guess(archive, names, what)
            )
        ids = settings.row_id or next((name for name in _ID_NAMES if name in names and name != label_name), None)
        self.id_name = ids or "ids"
        self.label_name = label_name
        class_names = next((name for name in _CLASS_NAMES if name in names and name != label_name), None)
        self.x = _array(where, "samples", archive[x_name])
        self.labels = _array(where, label_name, archive[label_name])
        self.ids = None if ids is None else _array(where, ids, archive[ids], axes=1)
        if settings.row_id is None and self.ids is not None and len(self.ids) != len(self.x) and ids != "ids":
            self.ids = None
        self.class_names = None if class_names is None else _array(where, class_names, archive[class_names], axes=1)
        self.notes: list[str] = []
        others = [name for name in names if any(part in key(name) for part in _OTHER_ROWS)]
        if others and key(x_name) not in map(key, others):
            self.notes.append(f"The rows of {x_name!r} are read, and not those of {quoted(others)}.")


def _array(where: str, name: str, array: Any, axes: int | None = None) -> NDArray[Any]:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{where}: {name} must be an array, got {type(array).__name__}.")
    if axes is not None and array.ndim != axes:
        raise InputError(f"{where}: {name} must have one axis, got shape {array.shape}.")
    return array


def _guess(archive: Mapping[str, Any], names: list[str], what: str) -> str:
    """The two arrays that are most like what is missing, by their shapes."""
    shapes = {name: np.shape(archive[name]) for name in names[:50]}
    if what == "labels":
        likely = [name for name, shape in shapes.items() if len(shape) == 1 and shape[0] > 1]
        option = "Name it: `--label NAME`."
    else:
        likely = sorted((name for name, shape in shapes.items() if len(shape) > 1), key=lambda n: -np.prod(shapes[n]))
        option = "Save it under the name x."
    return f" {option} The best guess is {' or '.join(map(repr, likely[:2]))}." if likely else f" {option}"


def _one_label_a_row(where: str, name: str, labels: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Labels of one axis, and a note where they were made of one-hot rows."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "iubf" and labels.shape[1] > 1:
        if bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
            return labels.argmax(axis=1), f"{name!r} holds one-hot labels, which are read as the place of the 1."
        rule = "must be a class a row"
        got = f"probabilities or several labels a row, shape {labels.shape}"
        raise InputError(f"{where}: {name} {rule}, got {got}: save {name}.argmax(1) if each row is of one class.")
    if labels.ndim != 1 or labels.dtype.kind not in "iubUSf":
        raise InputError(f"{where}: {name} must be a class a row, got shape {labels.shape}, {labels.dtype}.")
    return labels, ""


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _texts(where: str, labels: NDArray[Any], class_names: NDArray[Any] | None) -> list[str | None]:
    values: list[Any] = labels.tolist()
    if labels.dtype.kind == "f":
        fractions = [value for value in values if value == value and not float(value).is_integer()]
        if fractions:
            raise InputError(f"{where} must have whole numbers or texts as labels, got {fractions[0]}.")
        values = [None if value != value else int(value) for value in values]
    if labels.dtype.kind == "S":
        values = [_text(value) for value in values]
    if class_names is not None and labels.dtype.kind in "iuf":
        known = [_text(name) for name in class_names.tolist()]
        wrong = [value for value in values if value is not None and not 0 <= value < len(known)]
        if wrong or len(set(known)) < len(known):
            got = f"label {wrong[0]}" if wrong else "a class name twice"
            raise InputError(f"{where} must have labels in [0, {len(known)}), numbers of its class_names, got {got}.")
        return [None if value is None else known[value] for value in values]
    return [None if value is None or value == "" else str(value) for value in values]


def _samples(where: str, x: NDArray[Any], settings: ReadSettings) -> tuple[NDArray[Any], list[tuple[int, str]]]:
    """Images with the channels first or rows of features, and the rows that hold what is not a number."""
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4:
        layout = settings.channels or channel_layout(x.shape)
        if layout is None:
            raise InputError(
                f"{where}: images of shape {x.shape} may have their channels first or last: say which, by "
                "`--channels first` or `--channels last`."
            )
        x = with_channels_first(x, layout)
    else:
        x = x.reshape(len(x), -1)
    if x.dtype == np.uint8 and x.ndim == 4:
        return np.ascontiguousarray(x), []
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, dtype=np.float32)
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not finite.any():
        raise InputError(f"{where} must have finite samples, got NaN or infinity in every row.")
    return x, [(int(row), "NaN or infinite values") for row in np.flatnonzero(~finite)]
