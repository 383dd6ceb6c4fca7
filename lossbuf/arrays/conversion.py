"""From anything that holds values in an order to one array: by position, in the machine's byte order, and writable."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_array(values: Any, *, copy: bool = True) -> NDArray[Any]:
    """An array of the values, which the caller may change; it shares no memory with what was given.

    Tensors come from any device, ``bfloat16`` as float32. Series and columns of pandas, Polars, PyArrow and the like
    are read by position, whatever their index is. Arrays may have any byte order, stride and protection. Objects that
    are all integers, or all real numbers, become such; all other objects stay what they are, and so does what a mask
    hides, as ``None``.

    Args:
        values: A tensor, an array, a series or a sequence.
        copy: Whether memory must be the array's own. Without a copy it may be read-only or belong to ``values``.

    Raises:
        TypeError: If it is anything else, or its parts have different lengths; the message says what was found.

    Example:
        >>> as_array(np.array([1, 2], dtype=object)[::-1]).dtype
        dtype('int64')
    """
    values = untensored(values)
    if values is None or isinstance(values, str | bytes | Mapping | Set) or callable(values):
        raise TypeError(type(values).__name__)
    by_position: Any = getattr(values, "to_numpy", None)
    if by_position is not None:
        try:
            values = by_position()
        except (TypeError, ValueError):  # PyArrow asks for leave to copy
            values = by_position(zero_copy_only=False)
    elif isinstance(values, np.ma.MaskedArray):
        values = _unmasked(values)
    elif isinstance(values, Sequence) and not isinstance(values, np.ndarray | memoryview):
        values = [_plain(value) for value in values]
        if not any(isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes) for value in values):
            return narrowed(_objects(values))  # NumPy would turn numbers beside texts into texts
    elif not hasattr(values, "__array__") and not isinstance(values, memoryview):
        raise TypeError(type(values).__name__)
    try:
        array = np.array(values) if copy else np.asarray(values)
    except ValueError as error:
        raise TypeError(f"{type(values).__name__} of parts of different lengths") from error
    native = array.dtype.newbyteorder("=")
    return narrowed(np.ascontiguousarray(array, native).reshape(array.shape))


def untensored(values: Any) -> Any:
    """A tensor as an array that shares its memory where it can, and everything else as it is.

    A tensor of ``bfloat16``, a type that NumPy does not have, becomes float32.
    """
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def as_tensor(values: Any) -> Tensor:
    """A tensor as it is, and a tensor on the CPU of everything else that :func:`as_array` reads.

    Raises:
        TypeError: If the values are no numbers, or :func:`as_array` cannot read them; the message says what was found.
    """
    if isinstance(values, Tensor):
        return values
    array = as_array(values)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{type(values).__name__} of {array.dtype}")
    return torch.from_numpy(array)


def narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """Objects that are all integers as int64, or uint64 where they must be, and all real numbers as float64.

    Truth values are no integers here, and stay objects where there are other values beside them.
    """
    if array.dtype != object or not array.size:
        return array
    flat = array.ravel().tolist()
    if any(isinstance(value, bool | np.bool_) for value in flat):
        truth = all(isinstance(value, bool | np.bool_) for value in flat)
        return array.astype(bool) if truth else array
    if all(isinstance(value, numbers.Integral) for value in flat):
        low, high = min(map(int, flat)), max(map(int, flat))
        if low >= -(2**63) and high < 2**64 and not (low < 0 and high >= 2**63):
            return array.astype(np.int64 if high < 2**63 else np.uint64)
        return array
    real = all(isinstance(value, numbers.Real) for value in flat)
    return array.astype(np.float64) if real else array


def first_other(array: NDArray[Any]) -> str:
    """In words, the first value of an array of one axis that is not an integer, and where it stands; else nothing."""
    for row, value in enumerate(array.tolist()):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            return f"{value!r} at row {row}"
    return ""


def _unmasked(values: np.ma.MaskedArray[Any, Any]) -> NDArray[Any]:
    if not np.ma.is_masked(values):
        return values.data
    shown = values.data.astype(object)
    shown[np.ma.getmaskarray(values)] = None
    return shown


def _objects(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _plain(value: Any) -> Any:
    """A tensor as a number or an array; NumPy would warn of one that needs gradients, and refuse one on a GPU."""
    if not isinstance(value, Tensor):
        return value
    return value.item() if value.ndim == 0 else as_array(value)
