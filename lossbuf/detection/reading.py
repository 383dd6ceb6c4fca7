"""What the outputs of a training say of its labels, and two estimates of the noise rate made one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Reading(NamedTuple):
    """What the outputs so far say of the labels.

    Attributes:
        log_odds: Log-odds that the given label is wrong; NaN for rows never seen, shape ``(n_samples,)``.
        likely: The most likely class other than the given label, shape ``(n_samples,)``.
        transition: P(given | true), rows sum to 1, float64, shape ``(num_classes, num_classes)``.
        noise_rate: Share of wrong labels, a float64 scalar.
        estimates: The noise rate by the anchors, the same from all outputs since (equal to it where nothing is
            dropped), and the standard error of the first, float64, shape ``(3,)``.
        hidden: True for classes of which more than half of the labels seem wrong, shape ``(num_classes,)``.
    """

    log_odds: Tensor
    likely: Tensor
    transition: Tensor
    noise_rate: Tensor
    estimates: Tensor
    hidden: Tensor


def reconciled(held: Float[Tensor, ""], audited: Float[Tensor, ""], error: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The noise rate from two estimates, of which the first is seldom too low and the second seldom too high.

    Rows held back are judged by a network that was trained on wrong labels, whose own errors count as noise; rows
    audited by one that may still make wrong labels look right. What they differ by beyond two standard errors is
    halved.

    Args:
        held: The estimate from rows held back.
        audited: The estimate from rows out of sample in the audit.
        error: Standard error of the first.
    """
    return audited + (held - audited - 2 * error).clamp(min=0.0) / 2


def shifted(
    log_odds: Float[Tensor, " n_samples"], counted: Bool[Tensor, " n_samples"], rate: float
) -> Float[Tensor, " n_samples"]:
    """Log-odds raised by one amount, by which their mean probability is ``rate``; never lowered.

    Args:
        log_odds: Log-odds that the label is wrong.
        counted: Rows that the mean is taken of.
        rate: Mean probability.
    """
    values = log_odds[counted].double()
    low, high = 0.0, 40.0
    if float(torch.sigmoid(values).mean()) >= rate:
        return log_odds
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if float(torch.sigmoid(values + middle).mean()) >= rate else (middle, high)
    return log_odds + high
