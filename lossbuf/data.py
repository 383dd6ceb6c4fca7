"""Data sets that tell which row a sample is."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from lossbuf import checks
from lossbuf.arrays.conversion import as_array


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
            default they are taken from its ``targets``, ``labels``, ``y`` or tensors, where these are an integer a row,
            those of a ``Subset`` or ``ConcatDataset`` from the sets below it. Otherwise, or where the data set has a
            ``target_transform``, every sample is read.
        num_classes: Number of classes; by default the largest label plus 1.

    Attributes:
        labels: The labels of all rows, int64, shape ``(n_samples,)``.
        num_classes: Number of classes.

    Raises:
        ValueError: If the data set has no length or is empty, its samples are no tuples, or a label is not an integer
            in ``[0, num_classes)``.

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
        if not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
            advice = "For a stream of unknown length there is lossbuf.streams.LossBufferStream."
            rule = "must have a length and samples by number"
            raise ValueError(checks.problem("dataset", rule, type(dataset).__name__, advice))
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


_HELD = ("targets", "labels", "y", "train_labels", "test_labels")
"""Attributes under which data sets hold the labels of all rows."""


def _labels_of(dataset: SizedDataset) -> Any:
    """The labels that a data set holds, or else those of its samples, which are read one after the other."""
    held = _held(dataset)
    if held is not None:
        return held
    found = [_plain_label(_checked(dataset[row])[1]) for row in range(len(dataset))]
    others = [row for row, label in enumerate(found) if not isinstance(label, int)]
    if others:
        advice = "Give the numbers of the classes as `labels`, or have the data set return them."
        at = f"{type(found[others[0]]).__name__} {found[others[0]]!r} in sample {others[0]}"
        raise ValueError(
            checks.problem("dataset", "must have samples whose second part is the number of a class", at, advice)
        )
    return found


def _held(dataset: Any) -> NDArray[Any] | None:
    """The labels that a data set holds beside its samples; ``None`` where it holds none, or other things by that name.

    Names of classes, a dictionary, or the labels of more rows than there are samples are other things.
    """
    if isinstance(dataset, Subset):
        below = _held(dataset.dataset)
        return None if below is None else below[as_array(list(dataset.indices)).astype(np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [_held(part) for part in dataset.datasets]
        return (
            np.concatenate([part for part in parts if part is not None]) if all(p is not None for p in parts) else None
        )
    if isinstance(dataset, TensorDataset):
        if len(dataset.tensors) < 2:
            raise ValueError(checks.problem("dataset", "must hold samples and labels", "one tensor"))
        return as_array(dataset.tensors[1])
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in _HELD:
        try:
            labels = as_array(getattr(dataset, name, None))
        except TypeError:
            continue
        if labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) == len(dataset):
            return labels.astype(np.int64)
    return None


def _plain_label(label: Any) -> Any:
    """The label of one sample as an integer where it is one: a number, or an array or tensor of one value."""
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, Tensor | np.ndarray) and np.size(as_array(label)) == 1:
        label = as_array(label).item()
    if isinstance(label, float) and label.is_integer():
        return int(label)
    return int(label) if isinstance(label, numbers.Integral) else label


def _checked(sample: Any) -> Any:
    if not isinstance(sample, tuple | list) or len(sample) < 2:
        advice = "Wrap it, or number the rows yourself and give them to the callback."
        raise ValueError(checks.problem("dataset", "must have samples (x, label, ...)", type(sample).__name__, advice))
    return sample


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
