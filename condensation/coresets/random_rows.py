"""``Random``: the baseline that every coreset has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condensation.coresets.base import Chosen, Coreset, by_group


class Random(Coreset):
    """Rows drawn without replacement, each as likely as any other of its class.

    ``X`` may hold anything, texts and missing values too, in any container: only the labels count.

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, or over all rows.
        random_state: Seed, generator or ``None``; the same seed gives the same rows.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.

    Example:
        >>> Random(ipc=1, random_state=0).fit_resample([[0], [1], [2], [3]], ["a", "a", "b", "b"])[1]
        ['a', 'b']
    """

    _looks_at_samples = False

    def __init__(
        self,
        *,
        ipc: int | None = None,
        size: int | float | None = None,
        balanced: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.ipc = ipc
        self.size = size
        self.balanced = balanced
        self.random_state = random_state

    def _choose(self, X: NDArray[Any], labels: Tensor, groups: Tensor, counts: list[int], seed: int) -> Chosen:
        generator = torch.Generator().manual_seed(seed)
        return by_group(groups, counts, lambda rows, k: Chosen(torch.randperm(len(rows), generator=generator)[:k]))
