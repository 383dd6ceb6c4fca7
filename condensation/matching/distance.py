"""How far two gradients are apart: one minus cosine, output by output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lossbuf import checks

EPSILON = 1e-6
"""Added to the product of the lengths."""


def gradient_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Sum over layers and their outputs of 1 - cosine between the gradients that reach each output's weights.

    The gradient of a convolution ``(out, in, height, width)`` or linear layer ``(out, in)`` is a row an output. Those
    of one dimension, biases and norms, count nothing.

    Args:
        real: Gradients of the parameters, one a parameter.
        synthetic: The same of the synthetic images, in the same order.

    Returns:
        A scalar in [0, 2 * outputs], which can be differentiated in both.

    Raises:
        ValueError: If numbers or shapes differ.

    Source:
        Zhao et al. 2021, "Dataset Condensation with Gradient Matching", equation 9 and its code.

    Example:
        >>> real, synthetic = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
        >>> gradient_distance([real], [synthetic]).round()
        tensor(1.)
    """
    if len(real) != len(synthetic):
        raise ValueError(checks.problem("synthetic", f"must hold {len(real)} gradients, as real does", len(synthetic)))
    distances = []
    for one, other in zip(real, synthetic, strict=True):
        if one.shape != other.shape:
            rule = f"must have gradients of the shapes of real, here {tuple(one.shape)}"
            raise ValueError(checks.problem("synthetic", rule, tuple(other.shape)))
        if one.ndim >= 2:
            rows, others = one.flatten(1), other.flatten(1)
            product = (rows * others).sum(1)
            distances.append((1 - product / (rows.norm(dim=1) * others.norm(dim=1) + EPSILON)).sum())
    if not distances:
        raise ValueError(checks.problem("real", "must hold a gradient of two dimensions or more", "none"))
    return torch.stack(distances).sum()
