"""Shards of samples and labels that need not lie in memory together: read, checked, and their labels made one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets

from lossbuf import checks
from lossbuf.arrays.conversion import untensored
from lossbuf.files import mapped_array, opened_arrays

Shard: TypeAlias = tuple[Any, Any] | Callable[[], tuple[Any, Any]] | str | os.PathLike[str]
"""Samples and labels, a function that returns them, or the path of an ``.npz``."""


class Head(NamedTuple):
    """What is known of a shard before it is chosen from.

    Attributes:
        shape: Of a sample.
        labels: Shape ``(n_samples,)``.
    """

    shape: tuple[int, ...]
    labels: NDArray[Any]


class Joined(NamedTuple):
    """Labels of all shards.

    Attributes:
        classes: The labels found.
        labels: Number of each row's class, int64, shape ``(n_samples,)``.
        starts: First row of each shard, and the number of rows, shape ``(n_shards + 1,)``.
    """

    classes: NDArray[Any]
    labels: NDArray[np.int64]
    starts: NDArray[np.int64]


def listed(shards: Sequence[Shard]) -> list[Shard]:
    """The shards; raises ``ValueError`` where there are none or they are no sequence."""
    rule = "must be a list of at least one shard"
    if isinstance(shards, str | os.PathLike) or not isinstance(shards, Sequence):
        raise ValueError(checks.problem("shards", rule, type(shards).__name__))
    if not len(shards):
        raise ValueError(checks.problem("shards", rule, "none"))
    return list(shards)


def head(shard: Shard, name: str) -> Head:
    """Shape of the samples and labels of a shard.

    Raises:
        ValueError: If it cannot be read, or samples and labels do not fit together.
    """
    (X, y), name = _read(shard, name), _named(shard, name)
    try:
        shape, labels = np.shape(X), np.asarray(y)
    except ValueError as error:
        raise ValueError(checks.problem(name, "must be samples (n, ...) and labels (n,)", error)) from error
    if len(shape) < 2 or labels.ndim != 1 or shape[0] != len(labels):
        rule = "must be samples (n, ...) and labels (n,)"
        raise ValueError(checks.problem(name, rule, f"shapes {shape} and {labels.shape}"))
    checks.channels_first(name, shape)
    if labels.dtype.kind == "f" and len(bad := np.flatnonzero(~np.isfinite(labels))):
        raise ValueError(checks.problem(name, "must have finite labels", f"{labels[bad[0]]} at row {bad[0]}"))
    return Head(shape[1:], labels)


def samples(shard: Shard, name: str, labels: NDArray[Any]) -> NDArray[Any]:
    """The samples of a shard, checked.

    Raises:
        ValueError: If there are not as many of them as before, or they are no finite numbers.
    """
    (X, y), name = _read(shard, name), _named(shard, name)
    count = np.shape(X)[0]
    if count != len(labels):
        raise ValueError(checks.problem(name, f"must give the same {len(labels)} rows whenever it is read", count))
    # The numbers of the classes come in the order of the labels.
    now, before = (np.unique(np.asarray(one), return_inverse=True)[1] for one in (y, labels))
    if not np.array_equal(now, before):
        raise ValueError(checks.problem(name, "must give the same rows whenever it is read", "other labels"))
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # in what may be damaged
            return check_array(X, allow_nd=True, dtype="numeric", input_name=name)
    except (TypeError, ValueError) as error:
        text = str(error)
        raise ValueError(text if name in text else checks.problem(name, "must be numbers", text)) from error


def joined(heads: list[Head]) -> Joined:
    """The labels of all shards as one.

    Raises:
        ValueError: If samples differ in shape, there are no rows, or labels are no classes.
    """
    for place, one in enumerate(heads):
        if one.shape != heads[0].shape:
            rule = f"must have samples of shape {heads[0].shape}, as shards[0] has"
            raise ValueError(checks.problem(f"shards[{place}]", rule, one.shape))
    filled = [one.labels for one in heads if len(one.labels)]
    if not filled:
        raise ValueError(checks.problem("shards", "must hold at least one row", "none"))
    texts = {labels.dtype.kind in "OUST" for labels in filled}
    if len(texts) > 1:
        raise ValueError(checks.problem("shards", "must have labels of one kind", "numbers in some, texts in others"))
    every = np.concatenate(_of_one_type(filled))
    encoder = LabelEncoder()
    try:
        check_classification_targets(every)
        labels = np.asarray(encoder.fit_transform(every), dtype=np.int64)
    except TypeError as error:  # None, or texts and numbers in one array
        raise ValueError(checks.problem("shards", "must have labels of one kind", error)) from error
    starts = np.cumsum([0, *(len(one.labels) for one in heads)])
    return Joined(np.asarray(encoder.classes_), labels, starts)


def _of_one_type(parts: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """The same labels, of types that can be joined without a loss: int64 and uint64 together would be floats."""
    kinds = {part.dtype.kind for part in parts}
    if not kinds <= set("biuf") or len(kinds - {"b"}) < 2:
        return parts
    most = 2**53 if "f" in kinds else 2**63 - 1  # whole numbers that all of them can hold
    for part in parts:
        if part.dtype.kind in "iu" and len(part) and not -most <= int(part.min()) <= int(part.max()) <= most:
            rule = f"must have labels of one type, or none beyond {most}"
            raise ValueError(checks.problem("shards", rule, f"{part.max()} beside {'/'.join(sorted(kinds))}"))
    return parts if "f" in kinds else [part.astype(np.int64) for part in parts]


def _read(shard: Shard, name: str) -> tuple[Any, Any]:
    if isinstance(shard, str | os.PathLike):
        return _archive(shard, name)
    pair = shard() if callable(shard) else shard
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        rule = "must be a pair (X, y), a function that returns one, or the path of an .npz"
        raise ValueError(checks.problem(name, rule, type(pair).__name__))
    return _half(pair[0], name), _half(pair[1], name)


def _named(shard: Shard, name: str) -> str:
    """The name with that of the files, where there are some."""
    parts = shard if isinstance(shard, tuple | list) else [shard]
    paths = [os.fspath(part) for part in parts if isinstance(part, str | os.PathLike)]
    return f"{name}, {' and '.join(paths)}" if paths else name


def _archive(path: str | os.PathLike[str], name: str) -> tuple[Any, Any]:
    try:
        with opened_arrays(path) as archive:
            return archive["X" if "X" in archive.files else "x"], archive["y"]
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file may raise almost anything
        rule = "must be an .npz with arrays X and y"
        raise ValueError(checks.problem(name, rule, f"{os.fspath(path)}: {error}")) from error


def _half(values: Any, name: str) -> Any:
    if isinstance(values, str | os.PathLike):
        try:
            return mapped_array(values)
        except FileNotFoundError:
            raise
        except Exception as error:
            rule = "must have arrays, or paths of .npy files"
            raise ValueError(checks.problem(name, rule, f"{os.fspath(values)}: {error}")) from error
    return untensored(values)
