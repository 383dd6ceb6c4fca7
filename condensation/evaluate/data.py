"""What an evaluation is given: checked, on the device, ready to train on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.arrays.conversion import as_array, as_tensor
from lossbuf.recording.sample_statistics import MAX_CLASSES


class EvaluationData(NamedTuple):
    """A set to train on and one to test on; rows of weight 0 are gone.

    Attributes:
        x: Samples to train on, on the device.
        targets: Their classes, or the probability of every class, on the device.
        weights: Of mean 1, on the device.
        test_x: Samples to test on, on the device.
        test_labels: Their classes, on the CPU.
        num_classes: Number of classes.
    """

    x: Tensor
    targets: Tensor
    weights: Tensor
    test_x: Tensor
    test_labels: Tensor
    num_classes: int


def numeric(name: str, values: Any) -> Tensor:
    """Values of any container as a tensor.

    Raises:
        ValueError: If they are no numbers, or have no order.
    """
    try:
        return as_tensor(values)
    except TypeError as error:
        raise ValueError(checks.problem(name, "must be an array or a tensor of numbers", error)) from error


def numbered(labels: Any, test_labels: Any) -> tuple[Any, Any]:
    """Names of classes as numbers, those of both sets together in sorted order; other labels as they are.

    Raises:
        ValueError: If names are beside numbers or probabilities, which do not say what class each stands for.
    """
    parts = {"labels": labels, "test_labels": test_labels}
    found = {name: _array(name, part) for name, part in parts.items() if not isinstance(part, Tensor)}
    named = {name for name, array in found.items() if array.dtype.kind in "US" or _holds_texts(array)}
    if not named:
        return labels, test_labels
    if len(named) < 2:
        other = ({*parts} - named).pop()
        rule = f"must hold names of classes as `{named.pop()}` does"
        raise ValueError(checks.problem(other, rule, "numbers", "Give both as names, or both as numbers."))
    texts = [array.astype(str) for array in found.values()]
    classes = np.unique(np.concatenate(texts))
    first, second = (np.searchsorted(classes, part) for part in texts)
    return first, second


def _array(name: str, labels: Any) -> NDArray[Any]:
    """An array of labels of one kind, without any that is missing."""
    rule = "must be classes or their names, one per row"
    try:
        array = as_array(labels)
    except TypeError as error:
        raise ValueError(checks.problem(name, rule, error)) from error
    if array.dtype == object and not _holds_texts(array):
        row = next(row for row, value in enumerate(array.ravel().tolist()) if not isinstance(value, str))
        raise ValueError(checks.problem(name, rule, f"{array.ravel()[row]!r} at row {row} of {type(labels).__name__}"))
    return array


def _holds_texts(array: NDArray[Any]) -> bool:
    return array.dtype == object and array.ndim == 1 and all(isinstance(value, str) for value in array)


def checked(
    x: Tensor,
    labels: Tensor,
    test_x: Tensor,
    test_labels: Tensor,
    num_classes: int | None,
    weights: Tensor | None,
    device: torch.device,
) -> EvaluationData:
    """Check what :func:`~condensation.evaluate.evaluate` is given, and take it to the device.

    Raises:
        ValueError: As told there.
    """
    for name, samples in (("x", x), ("test_x", test_x)):
        if samples.ndim < 2 or not len(samples):
            rule = "must be (n_samples, ...) with at least one row"
            raise ValueError(checks.problem(name, rule, f"shape {tuple(samples.shape)}"))
        if not samples.is_floating_point():
            advice = "Standardise both sets alike: _, x, test_x = lossbuf.data.standardised(all_x, x, test_x)."
            raise ValueError(checks.problem(name, "must be floating point", f"dtype {samples.dtype}", advice))
        if not bool(samples.to(_dtype(x)).isfinite().all()):
            raise ValueError(checks.problem(name, "must be finite", "NaN or infinite values"))
    if test_x.shape[1:] != x.shape[1:]:
        rule = f"must have samples of shape {tuple(x.shape[1:])} as `x` does"
        raise ValueError(checks.problem("test_x", rule, tuple(test_x.shape[1:])))
    if num_classes is not None:
        checks.positive_int("num_classes", num_classes)
    soft = labels.is_floating_point() and labels.ndim == 2
    targets = labels if soft else checks.class_labels("labels", labels, num_classes)
    if soft and num_classes is None:
        num_classes = labels.shape[1]
    true = checks.class_labels("test_labels", test_labels, num_classes)
    for name, many, samples in (("labels", len(targets), x), ("test_labels", len(true), test_x)):
        if many != len(samples):
            raise ValueError(checks.problem(name, f"must be {len(samples)}, one a sample", many))
    if num_classes is None:
        num_classes = int(max(targets.max(), true.max())) + 1
    if num_classes > MAX_CLASSES:
        advice = "Number the classes from 0, for example with sklearn.preprocessing.LabelEncoder."
        raise ValueError(checks.problem("num_classes", f"must be at most {MAX_CLASSES}", num_classes, advice))
    dtype = _dtype(x)
    if soft:
        targets = _probabilities(labels, num_classes).to(dtype)
    scale = torch.ones(len(x), dtype=dtype) if weights is None else _scaled(weights, len(x)).to("cpu", dtype)
    kept = scale.nonzero().flatten()
    return EvaluationData(
        x=x.detach().to(device, dtype)[kept.to(device)],
        targets=targets.detach().to(device)[kept.to(device)],
        weights=scale[kept].to(device),
        test_x=test_x.detach().to(device, dtype),
        test_labels=true,
        num_classes=num_classes,
    )


def _dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _probabilities(labels: Tensor, num_classes: int) -> Tensor:
    if labels.shape[1] != num_classes:
        raise ValueError(checks.problem("labels", f"must be {num_classes} probabilities a row", labels.shape[1]))
    wrong = ~((labels >= 0).all(1) & ((labels.double().sum(1) - 1).abs() < 1e-3))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        rule = "must be at least 0 and sum to 1 in every row"
        raise ValueError(checks.problem("labels", rule, f"{labels[row].tolist()} in row {row}"))
    return labels


def _scaled(weights: Tensor, size: int) -> Tensor:
    """Weights with mean 1 over the rows that have any."""
    if weights.shape != (size,):
        raise ValueError(checks.problem("weights", f"must have shape ({size},)", f"shape {tuple(weights.shape)}"))
    weights = weights.detach().double()
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        row = int((~(weights.isfinite() & (weights >= 0))).nonzero()[0])
        raise ValueError(checks.problem("weights", "must be finite and at least 0", f"{weights[row]} in row {row}"))
    if not bool((weights > 0).any()):
        raise ValueError(checks.problem("weights", "must not all be 0", "no other"))
    if weights.max() > 2.0**60:  # a sum of such weights may be infinite
        weights = weights / weights.max()
    return weights / weights[weights > 0].mean()
