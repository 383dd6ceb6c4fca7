"""Data sets that tell which row a sample is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from lossbuf import checks


@runtime_checkable
class SizedDataset(Protocol):
    """A map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class IndexedDataset(Dataset[tuple[Any, ...]]):
    """Wraps a map-style data set: ``(x, y)`` becomes ``(x, y, row)``.

    The labels are read and checked once, here, so that a training step need not check them.

    Args:
        dataset: A data set of tuples whose second item is the label.
        labels: The labels of all rows, where the data set does not hold them, or to be used instead of its own. By
            default they are taken from its ``targets``, ``labels`` or tensors, those of a ``Subset`` from the set
            below it, and else, or where it has a ``target_transform``, by reading every sample.
        num_classes: Number of classes; by default the largest label plus 1.

    Attributes:
        labels: The labels of all rows, int64, shape ``(n_samples,)``.
        num_classes: Number of classes.

    Raises:
        ValueError: If the data set is empty, its samples are no tuples, or a label is no integer in
            ``[0, num_classes)``.

    Example:
        >>> data = TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> IndexedDataset(data)[2]
        (tensor([0., 0.]), tensor(1), 2)
    """

    def __init__(
        self,
        dataset: SizedDataset,
        labels: Int[Tensor, " n_samples"] | Sequence[int] | NDArray[np.integer] | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.dataset = dataset
        self._relabelled = labels is not None
        self.labels = checks.class_labels("labels", _labels_of(dataset) if labels is None else labels, num_classes)
        if len(self.labels) != len(dataset):
            raise ValueError(checks.problem("labels", f"must be {len(dataset)}, one a row", len(self.labels)))
        self.num_classes = int(self.labels.max()) + 1 if num_classes is None else num_classes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        row = range(len(self))[index]  # negative indices count from the end; beyond it is an IndexError
        sample = _checked(self.dataset[row])
        if self._relabelled:
            sample = (sample[0], int(self.labels[row]), *sample[2:])
        return (*sample, row)


def _labels_of(dataset: SizedDataset) -> Any:
    if isinstance(dataset, Subset):
        rows = torch.as_tensor(dataset.indices, dtype=torch.int64)
        return torch.as_tensor(_labels_of(dataset.dataset))[rows]  # pyright: ignore[reportArgumentType]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1]
    if getattr(dataset, "target_transform", None) is None:
        for name in ("targets", "labels"):
            if hasattr(dataset, name):
                return getattr(dataset, name)
    return [int(_checked(dataset[row])[1]) for row in range(len(dataset))]


def _checked(sample: Any) -> Any:
    if not isinstance(sample, tuple | list) or len(sample) < 2:
        mend = "Wrap it, or number the rows yourself and give them to the callback."
        raise ValueError(checks.problem("dataset", "must have samples (x, label, ...)", type(sample).__name__, mend))
    return sample


def untensored(values: Any) -> Any:
    """A tensor as an array, bfloat16, which NumPy has not, as float32; all else as it is."""
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def standardised(x: NDArray[Any], *others: NDArray[Any]) -> list[Tensor]:
    """Samples as float32 with mean 0 and deviation 1 in ``x``: a channel for images, a feature for everything else.

    Args:
        x: Samples, shape ``(n_samples, channels, height, width)`` or ``(n_samples, ...)``.
        others: More samples, treated with the mean and deviation of ``x``.

    Returns:
        The samples in the order given.
    """
    # Numbers of eight bytes, dates for one, may differ by less than float32 can tell.
    wide = np.float64 if x.dtype.itemsize == 8 else np.float32
    parts = [torch.from_numpy(np.require(part, wide, ["C", "W"])) for part in (x, *others)]
    axes = (0, 2, 3) if parts[0].ndim == 4 else 0
    deviation, mean = torch.std_mean(parts[0], dim=axes, keepdim=True, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return [((part - mean) / deviation).float() for part in parts]
