"""Given labels for a benchmark: noise that is made, or labels from a file."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.data import CONFUSIONS, Data
from lossbuf import checks, noise
from lossbuf.files import check_stored, mapped_array, opened_arrays, size_of
from lossbuf.noise import NoisyLabels


class LabelFileError(ValueError):
    """The label file cannot be used, or is missing; the message says why."""


def noisy_labels(data: Data, kind: str, rate: float, label_file: Path | None, seed: int) -> NoisyLabels:
    """Labels of the training rows after noise.

    Args:
        data: The data set.
        kind: ``"symmetric"``, ``"pair-flip"``, ``"class-dependent"`` (the data set's usual confusions, or pair-flip of
            the even classes where it has none), ``"instance-dependent"`` or ``"file"``.
        rate: Share of wrong labels, of the classes concerned; not used with a file.
        label_file: Path, and for a file of several label sets ``:`` and the name of one.
        seed: Decides which labels become wrong.

    Raises:
        LabelFileError: If the file is missing or does not fit the data.
    """
    labels = data.labels.numpy()
    if kind == "file":
        given = _read(label_file, len(labels))
        if given.min() < 0 or given.max() >= data.num_classes:
            raise LabelFileError(f"labels in {label_file} must lie in [0, {data.num_classes}), got {given.max()}.")
        return noise.compared(labels, given, data.num_classes)
    if kind == "instance-dependent":
        return noise.instance_dependent(data.x.numpy(), labels, rate, data.num_classes, seed)
    even = {label: (label + 1) % data.num_classes for label in range(0, data.num_classes, 2)}
    transition = {
        "symmetric": lambda: noise.symmetric(data.num_classes, rate),
        "pair-flip": lambda: noise.pair_flip(data.num_classes, rate),
        "class-dependent": lambda: noise.class_dependent(data.num_classes, rate, CONFUSIONS.get(data.name, even)),
    }[kind]()
    return noise.corrupt(labels, transition, seed)


def _read(label_file: Path | None, size: int) -> NDArray[np.int64]:
    if label_file is None:
        raise LabelFileError("`--noise-kind file` needs `--label-file PATH`, or `PATH:NAME` for CIFAR-10N's files.")
    name = None
    path = label_file
    if not path.exists() and ":" in path.name:
        stem, _, name = path.name.rpartition(":")
        path = path.with_name(stem)
    if not path.exists():
        raise LabelFileError(f"`--label-file` must be a file that exists, got {path}.")
    try:
        content = _content(path)
    except Exception as error:  # a damaged file may raise almost anything
        reason = checks.line(error).split(". ")[0]  # torch goes on with advice to run the code
        raise LabelFileError(f"{path.name} cannot be read as labels: {reason}.") from error
    if isinstance(content, dict):
        names = [key for key, value in content.items() if np.ndim(value) == 1]
        if name not in names:
            raise LabelFileError(f"{path.name} holds {', '.join(names)}: say which with {path.name}:NAME.")
        content = content[name]
    given = np.asarray(content)
    if given.shape != (size,) or not np.issubdtype(given.dtype, np.integer):
        raise LabelFileError(
            f"{path.name} must hold {size} integer labels, got {given.dtype} of shape {given.shape}. "
            "Labels are those of all training rows: use --subset 0."
        )
    return given.astype(np.int64)


def _content(path: Path) -> Any:
    """An array, or a dictionary of them; no code in the file is run."""
    size_of(path)
    if path.suffix in (".pt", ".pth"):
        if zipfile.is_zipfile(path):
            check_stored(path)
        # CIFAR-10N's file holds NumPy arrays, under the name that NumPy 1 gave what builds them.
        build = np._core.multiarray._reconstruct  # pyright: ignore[reportAttributeAccessIssue]
        arrays: list[Any] = [np.ndarray, np.dtype, type(np.dtype(np.int64)), type(np.dtype(np.int32))]
        arrays += [build, (build, "numpy.core.multiarray._reconstruct")]
        with torch.serialization.safe_globals(arrays), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle of another version
            found = torch.load(path, weights_only=True)
        if isinstance(found, dict):
            return {str(name): _array(value) for name, value in found.items()}
        return _array(found)
    if path.suffix == ".npz":
        with opened_arrays(path) as file:
            return dict(file)
    if path.suffix == ".npy":
        return np.array(mapped_array(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of no rows
        return np.loadtxt(path, dtype=np.int64, ndmin=1)


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, torch.Tensor) and value.nbytes <= value.untyped_storage().nbytes():
        return value.detach().numpy()
    if isinstance(value, np.ndarray):
        return value
    raise ValueError(checks.problem("labels", "must be tensors or arrays that hold all their values", type(value)))
