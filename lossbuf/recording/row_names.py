"""Row numbers, and names for them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from lossbuf import checks


class RowNames:
    """Turns what a step calls its samples into row numbers.

    Args:
        ids: Hashable names of the rows, unique, ``n_samples`` of them; ``None`` where samples go by their numbers.
        n_samples: Number of rows.

    Raises:
        ValueError: If their number differs or a name comes twice.
    """

    def __init__(self, ids: Sequence[Hashable] | None, n_samples: int) -> None:
        self.ids = None if ids is None else _names("ids", ids)
        if self.ids is not None and len(self.ids) != n_samples:
            raise ValueError(checks.problem("ids", f"must be {n_samples}, one a label", len(self.ids)))
        self._row_of: dict[Hashable, int] = {}
        for row, name in enumerate(self.ids or ()):
            if not isinstance(name, Hashable):
                raise ValueError(checks.problem("ids", "must be hashable, such as text or numbers", repr(name)))
            if self._row_of.setdefault(name, row) != row:
                first = self._row_of[name]
                raise ValueError(checks.problem("ids", "must be unique", f"{name!r} at rows {first} and {row}"))

    def rows(self, indices: Integer[Tensor, " batch"] | Sequence[Hashable], device: torch.device) -> Tensor:
        """Row numbers on ``device``, shape ``(batch,)``; numbers are passed on as they are.

        Raises:
            ValueError: If a name is unknown, or there are names in the steps but no ``ids``.
        """
        if self.ids is None:
            return (indices if isinstance(indices, Tensor) else _numbers(indices)).to(device, non_blocking=True)
        rows = []
        for name in _names("indices", indices):
            row = self._row_of.get(name) if isinstance(name, Hashable) else None
            if row is None:
                raise ValueError(checks.problem("indices", "must be among `ids`", repr(name)))
            rows.append(row)
        return torch.tensor(rows, dtype=torch.int64).to(device, non_blocking=True)


def _names(argument: str, given: Any) -> list[Any]:
    if isinstance(given, Tensor | np.ndarray):
        return given.tolist() if given.ndim else [given.item()]
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ValueError(checks.problem(argument, "must be a sequence of names, one a row", repr(given)))
    return list(given)


def _numbers(indices: Sequence[Hashable]) -> Tensor:
    try:
        return torch.as_tensor(indices) if len(indices) else torch.empty(0, dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(checks.problem("indices", "must be row numbers where there are no `ids`", indices)) from error
