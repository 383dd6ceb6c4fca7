"""One hash for settings, labels and samples: tells whether two runs see the same content."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def content_hash(*parts: str | Tensor | NDArray[Any]) -> str:
    """SHA-256 of texts and of the bytes of tensors and arrays, one after the other, as hexadecimal digits.

    Values alone are hashed: where shapes or dtypes matter, pass them as a text. A tensor on a GPU is waited for.

    Example:
        >>> content_hash("labels", torch.tensor([0, 1])) == content_hash("labels", np.array([0, 1]))
        True
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else _bytes_of(part))
    return digest.hexdigest()


def _bytes_of(values: Tensor | NDArray[Any]) -> memoryview:
    """The bytes of all values in order, without a copy where they lie in order already, as ``tobytes`` would make."""
    if isinstance(values, Tensor):  # viewed as bytes by torch, since NumPy has no bfloat16
        values = values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
