"""What a saved set says of itself in plain values, and how values are checked for it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from sklearn.base import BaseEstimator
from torch import Tensor

from lossbuf import checks
from lossbuf.arrays.content_hash import content_hash
from lossbuf.arrays.conversion import as_array

_DEEPEST = 20


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """How samples were made from pixels: ``(pixel - mean) / std``.

    Attributes:
        mean: A number a channel, or a feature.
        std: As many, above 0.
        white: The value of a white pixel, above that of a black one.
        black: The value of a black pixel.

    Raises:
        ValueError: If they are not such numbers.
    """

    mean: Sequence[float]
    std: Sequence[float]
    white: float | int = 1.0
    black: float | int = 0.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not values or not all(_is_finite(value) for value in values):
                raise ValueError(checks.problem(name, "must be finite numbers, at least one", repr(values)))
            object.__setattr__(self, name, tuple(float(value) for value in values))
        if len(self.std) != len(self.mean) or min(self.std) <= 0:
            raise ValueError(checks.problem("std", f"must be {len(self.mean)} numbers above 0", self.std))
        if not _is_finite(self.black):
            raise ValueError(checks.problem("black", "must be a finite number", repr(self.black)))
        if not (_is_finite(self.white) and self.white > self.black):
            raise ValueError(checks.problem("white", "must be a finite number above `black`", repr(self.white)))
        object.__setattr__(self, "black", float(self.black))
        object.__setattr__(self, "white", float(self.white))


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """How wrong labels were taken out of the source before.

    Attributes:
        name: Of the method.
        settings: Its settings, plain values; :func:`described` makes some.
        dropped: Number of rows dropped.
        noise_rate: Estimated share of wrong labels before.
        pure_rate: Estimated share of right labels among the rows kept.

    Raises:
        ValueError: If a value is not what is told here.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    dropped: int | None = None
    noise_rate: float | None = None
    pure_rate: float | None = None

    def __post_init__(self) -> None:
        printable("name", self.name)
        object.__setattr__(self, "settings", plain_dict("settings", self.settings))
        if self.dropped is not None:
            object.__setattr__(self, "dropped", checks.non_negative_int("dropped", self.dropped))
        for name in ("noise_rate", "pure_rate"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, checks.rate(name, getattr(self, name)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Provenance:
    """Where a set came from.

    Attributes:
        rows: Rows of the source, int64: of a coreset each sample's, in their order; of a learned set all those it was
            learned from.
        n_samples: Rows that the source has.
        fingerprint: Of the source, as :func:`fingerprint` gives it.
        cleaning: What was done to the source first; ``None`` for nothing.

    Raises:
        ValueError: If a value is not what is told here.
    """

    rows: Int64[Tensor, " n_rows"] | None = field(default=None, repr=False)
    n_samples: int | None = None
    fingerprint: str | None = None
    cleaning: Cleaning | None = None

    def __post_init__(self) -> None:
        if self.n_samples is not None:
            object.__setattr__(self, "n_samples", checks.positive_int("n_samples", self.n_samples))
        if self.rows is not None:
            rows = checked_tensor("rows", self.rows, (torch.int64,), (1,), end=self.n_samples or math.inf)
            object.__setattr__(self, "rows", rows)
        given = self.fingerprint
        if given is not None and not (isinstance(given, str) and re.fullmatch("[0-9a-f]{64}", given)):
            raise ValueError(checks.problem("fingerprint", "must be 64 hexadecimal digits", repr(given)))
        check_is("cleaning", self.cleaning, Cleaning)


def fingerprint(*arrays: Any) -> str:
    """SHA-256 of the types, shapes and values of arrays, tensors or lists: tells whether a source is the same.

    Example:
        >>> fingerprint([1, 2], ["cat", "dog"]) == fingerprint(np.array([1, 2]), np.array(["cat", "dog"]))
        True
    """
    parts: list[Any] = []
    for given in arrays:
        array = as_array(given, copy=False)
        array = array.astype(str) if array.dtype == object else array
        parts += [repr((array.dtype.str, array.shape)), array]
    return content_hash(*parts)


def described(value: Any) -> Any:
    """A setting in plain values, for a reader and not to be made again: an object as its type and its settings.

    Example:
        >>> from condensation.augmentation.random_changes import Crop
        >>> described({"size": np.int64(3), "augment": (Crop(4), None)})
        {'size': 3, 'augment': [{'type': 'Crop', 'pad': 4}, None]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, float):
        return str(value)
    if isinstance(value, dict):
        return {str(name): described(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    kind = {"type": value.__name__ if hasattr(value, "__name__") else type(value).__name__}
    if isinstance(value, np.ndarray | Tensor):
        return kind | {"shape": list(value.shape), "fingerprint": fingerprint(value)}
    if isinstance(value, BaseEstimator):
        return kind | described(value.get_params(deep=False))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return kind | {part.name: described(getattr(value, part.name)) for part in fields(value)}
    return kind


def names_of(classes: Any) -> tuple[str, ...]:
    """Names of classes that can be printed: where one cannot, or is empty, as Python would write it."""
    names = [str(label) for label in classes]
    return tuple(name if name and name.isprintable() else ascii(name) for name in names)


def check_is(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise ValueError(checks.problem(name, f"must be a {kind.__name__}", repr(value)))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def printable(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(checks.problem(name, "must be a text that can be printed", repr(value)))
    return value


def checked_tensor(
    name: str,
    value: object,
    dtypes: Sequence[torch.dtype],
    ndims: Sequence[int],
    low: float | int = 0,
    end: float | int = math.inf,
) -> Tensor:
    """On the CPU, contiguous, of one of the types, not empty, finite and in ``[low, end)``."""
    known = " or ".join(str(dtype) for dtype in dtypes)
    if not isinstance(value, Tensor) or value.dtype not in dtypes:
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(checks.problem(name, f"must be a tensor of {known}", found))
    if value.ndim not in ndims or not value.numel():
        rule = f"must have {ndims[0]}{' or more' if len(ndims) > 1 else ''} axes and not be empty"
        raise ValueError(checks.problem(name, rule, f"shape {tuple(value.shape)}"))
    least, most = (bound.item() for bound in torch.aminmax(value.detach()))
    if not (math.isfinite(least) and math.isfinite(most) and low <= least and most < end):
        rule = "must be finite" if low == -math.inf else f"must be finite and lie in [{low}, {end})"
        raise ValueError(checks.problem(name, rule, f"values from {least} to {most}"))
    own = value.detach().cpu().contiguous()
    return own.clone() if own.data_ptr() == value.data_ptr() else own


def plain_dict(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(checks.problem(name, "must be a dict of plain values", repr(value)))
    return _plain(name, value, 0)


def _plain(name: str, value: Any, depth: int) -> Any:
    """A copy in which tuples are lists, as they come back from a file."""
    if value is None or isinstance(value, str | bool) or type(value) is int:
        return value
    if _is_finite(value):
        return float(value)
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [_plain(name, part, depth + 1) for part in value]
    if depth < _DEEPEST and isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(name, part, depth + 1) for key, part in value.items()}
    rule = f"must hold finite numbers, texts, None, lists and dicts of texts, at most {_DEEPEST} deep"
    raise ValueError(checks.problem(name, rule, type(value).__name__, "`described` makes plain values of others."))
