"""Value checks, all with one message form: "`name` rule, got value."."""

from __future__ import annotations

import importlib.util
import math
import numbers
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from lossbuf.arrays.conversion import as_array, first_other
from lossbuf.arrays.image_layout import FEW_CHANNELS, channel_layout

_LINE = 600
_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})


def problem(name: str, rule: str, value: object, advice: str = "") -> str:
    """The one message form of the package."""
    return f"`{name}` {rule}, got {line(value)}." + (f" {advice}" if advice else "")


def line(value: object) -> str:
    """What is told of anything: one line that can be printed, of at most 600 characters.

    Example:
        >>> line("two\\nlines"), len(line("x" * 1000))
        ('two lines', 600)
    """
    text = " ".join(str(value)[: 2 * _LINE].splitlines()).strip()
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _LINE else text[: _LINE - 3] + "..."


def installed(what: str, extra: str, *modules: str) -> None:
    """Raise ``ImportError`` with the advice where a module of an extra is not there."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'{what} needs {" and ".join(missing)}: pip install "lossbuf[{extra}]"')


def positive_int(name: str, value: object) -> int:
    """Return ``value`` as ``int``; raise ``ValueError`` unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(problem(name, "must be an integer of at least 1", repr(value)))
    return int(value)


def non_negative_int(name: str, value: object) -> int:
    """Return ``value`` as ``int``; raise ``ValueError`` unless it is an integer of at least 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(problem(name, "must be an integer of at least 0", repr(value)))
    return int(value)


def positive_float(name: str, value: object) -> float:
    """Return ``value`` as ``float``; raise ``ValueError`` unless it is finite and above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
        raise ValueError(problem(name, "must be a finite number above 0", repr(value)))
    return float(value)


def non_negative_float(name: str, value: object) -> float:
    """Return ``value`` as ``float``; raise ``ValueError`` unless it is finite and at least 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) < math.inf:
        raise ValueError(problem(name, "must be a finite number of at least 0", repr(value)))
    return float(value)


def flag(name: str, value: object) -> bool:
    """Return ``value``; raise ``ValueError`` unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(problem(name, "must be True or False", repr(value)))
    return value


def gradients(what: str) -> None:
    """Raise ``RuntimeError`` where gradients are switched off, as nothing can be trained there."""
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        mode = "torch.inference_mode()" if torch.is_inference_mode_enabled() else "torch.no_grad()"
        raise RuntimeError(f"{what} trains a network, which needs gradients: call it outside of {mode}.")


def row_numbers(name: str, rows: object, n_samples: int) -> Tensor:
    """Check which rows are meant, once, where waiting for the device does no harm.

    Args:
        name: Name of the argument, for the message.
        rows: Row numbers in ``[0, n_samples)``, shape ``(n_rows,)``, or a mask, shape ``(n_samples,)``.
        n_samples: Rows there are.

    Returns:
        Row numbers as ``int64``, shape ``(n_rows,)``, at least one.

    Raises:
        ValueError: If they are anything else, or none.
    """
    tensor = torch.as_tensor(rows)
    if tensor.ndim != 1 or tensor.dtype not in {*_INTEGERS, torch.bool}:
        rule = "must be row numbers, shape (n_rows,), or a mask"
        raise ValueError(problem(name, rule, f"{tensor.dtype} of shape {tuple(tensor.shape)}"))
    if tensor.dtype == torch.bool:
        if len(tensor) != n_samples:
            raise ValueError(problem(name, f"must have {n_samples} values where it is a mask", len(tensor)))
        tensor = tensor.nonzero().flatten()
    if not len(tensor):
        raise ValueError(problem(name, "must hold at least one row", "none"))
    in_range(name, tensor, n_samples)
    return tensor.long()


def rate(name: str, value: object) -> float:
    """Return ``value`` as ``float``; raise ``ValueError`` unless it lies in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
        raise ValueError(problem(name, "must lie in [0, 1]", repr(value)))
    return float(value)


def one_of(name: str, value: object, choices: Collection[str]) -> str:
    """Return ``value``; raise ``ValueError`` unless it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(problem(name, f"must be one of {known}", repr(value)))
    return value


def class_labels(name: str, labels: object, num_classes: int | None = None) -> Tensor:
    """Check a whole label vector, once, where waiting for the device does no harm.

    Args:
        name: Name of the argument, for the message.
        labels: Integer labels, shape ``(n_samples,)``; a tensor, array, series or sequence, which is read by position,
            of integers of any width and byte order, or of objects that are integers.
        num_classes: Number of classes; ``None`` leaves the upper end open.

    Returns:
        The labels as ``int64`` on the CPU, shape ``(n_samples,)``.

    Raises:
        ValueError: If they are not one-dimensional, not integers, empty, or out of range.
    """
    tensor = labels if isinstance(labels, Tensor) and labels.dtype in _INTEGERS else _integers(name, labels)
    if tensor.ndim != 1:
        shape = tuple(tensor.shape)
        _refuse_one_hot(name, shape)
        raise ValueError(problem(name, "must have shape (n_samples,)", f"shape {shape}"))
    if tensor.numel() == 0:
        raise ValueError(problem(name, "must hold at least one label", "none"))
    tensor = tensor.detach().to("cpu", torch.int64)
    wrong = tensor < 0
    if num_classes is not None:
        wrong |= tensor >= num_classes
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        rule = "must lie in [0, num_classes)" if num_classes is None else f"must lie in [0, {num_classes})"
        raise ValueError(problem(name, rule, f"{int(tensor[row])} at row {row}"))
    return tensor


def _refuse_one_hot(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) == 2 and shape[1] > 1:
        found = f"shape {shape}, as of one-hot labels or probabilities"
        advice = f"Give the class of every row: {name}.argmax(1)."
        raise ValueError(problem(name, "must have shape (n_samples,)", found, advice))


def _integers(name: str, labels: object) -> Tensor:
    """Labels of any container as a tensor of integers."""
    advice = "Encode other labels first, for example with sklearn.preprocessing.LabelEncoder."
    try:
        array = as_array(labels)
    except TypeError as error:
        raise ValueError(problem(name, "must be integers", error, advice)) from error
    if array.ndim != 1:
        if array.dtype.kind in "biuf":
            _refuse_one_hot(name, array.shape)
        raise ValueError(problem(name, "must have shape (n_samples,)", f"shape {array.shape}"))
    if not array.size:
        raise ValueError(problem(name, "must hold at least one label", "none"))
    if array.dtype.kind not in "iu":
        found = labels.dtype if isinstance(labels, Tensor) else array.dtype
        if array.dtype.kind not in "bf":
            raise ValueError(
                problem(name, "must be integers", f"{type(labels).__name__} with {first_other(array)}", advice)
            )
        broken = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array))) if array.dtype.kind == "f" else []
        if len(broken):
            found = f"dtype {found} with {array[broken[0]]:g} at row {broken[0]}"
            raise ValueError(problem(name, "must be integers", found, advice))
        advice = "Give them as integers, for example by astype(int)."
        raise ValueError(problem(name, "must be integers", f"dtype {found}", advice))
    if array.dtype == np.uint64 and int(array.max()) >= 2**63:
        raise ValueError(problem(name, "must lie below 2**63", f"{array.max()} at row {array.argmax()}"))
    return torch.from_numpy(array.astype(np.int64, copy=False))


def batch_vector(name: str, vector: Tensor, like: Tensor) -> None:
    """Raise ``ValueError`` unless ``vector`` is an integer tensor with a value a row of ``like``, on its device."""
    if not isinstance(vector, Tensor):
        raise ValueError(problem(name, "must be a tensor", type(vector).__name__))
    if vector.ndim != 1 or vector.shape[0] != like.shape[0]:
        rule = f"must have shape ({like.shape[0]},) as `logits` do"
        raise ValueError(problem(name, rule, f"shape {tuple(vector.shape)}"))
    if vector.dtype not in _INTEGERS:
        raise ValueError(problem(name, "must be integers", f"dtype {vector.dtype}"))
    if vector.device != like.device:
        raise ValueError(problem(name, f"must lie on {like.device} as `logits` do", vector.device))


def batch_logits(name: str, logits: Tensor, num_classes: int) -> None:
    """Raise ``ValueError`` unless ``logits`` is a tensor of floats, of shape ``(batch, num_classes)``."""
    if not isinstance(logits, Tensor):
        raise ValueError(problem(name, "must be a tensor", type(logits).__name__))
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        more = logits.ndim == 2 and logits.shape[1] > num_classes
        advice = (
            f"Has the network more outputs than `labels` has classes, give `num_classes={logits.shape[1]}`."
            if more
            else ""
        )
        rule = f"must have shape (batch, {num_classes})"
        raise ValueError(problem(name, rule, f"shape {tuple(logits.shape)}", advice))
    if logits.dtype not in _FLOATS:
        raise ValueError(problem(name, "must be floating point, of 16 to 64 bits", f"dtype {logits.dtype}"))
    if logits.device.type == "meta":
        raise ValueError(problem(name, "must lie where there are values", "the meta device"))


def in_range(name: str, values: Tensor, end: int) -> None:
    """Raise ``ValueError`` unless all values lie in [0, end); waits for the device, so for a CPU only."""
    if len(values):
        low, high = torch.aminmax(values)
        if low < 0 or high >= end:
            raise ValueError(problem(name, f"must lie in [0, {end})", int(low if low < 0 else high)))


def looked_up(name: str, values: Tensor, index: Tensor) -> Tensor:
    """``values[index]``; raise ``ValueError`` unless the index lies in [0, len(values)). For a CPU only."""
    try:  # a look-up checks the range faster than a comparison
        return values.index_select(0, index)
    except (IndexError, RuntimeError):
        in_range(name, index, len(values))
        raise


def channels_first(name: str, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` where a shape of four axes is that of images with at most four channels, and these last."""
    if len(shape) == 4 and shape[-1] <= FEW_CHANNELS and channel_layout(shape) == "last":
        advice = f"Move the channels: np.moveaxis({name}, -1, 1)."
        raise ValueError(problem(name, "must be (n_samples, channels, height, width)", f"shape {shape}", advice))
