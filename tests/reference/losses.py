"""Losses of one sample at a time, in Python floats."""

import math
from typing import NamedTuple


class Losses(NamedTuple):
    """What one row of logits says of its sample."""

    label_loss: float
    predicted_loss: float
    predicted: int
    margin: float


def sample_losses(logits: list[float], label: int) -> Losses:
    """Cross-entropy against the label and against the prediction, the prediction and the margin."""
    if any(math.isnan(logit) for logit in logits):
        return Losses(math.nan, math.nan, -1, math.nan)
    top = max(logits)
    others = [logit for one, logit in enumerate(logits) if one != label]
    margin = logits[label] - max(others) if others else 0.0
    if math.isinf(top):
        return Losses(math.nan, math.nan, -1, margin)
    predicted = logits.index(top)  # the lowest class of equals
    total = top + math.log(sum(math.exp(logit - top) for logit in logits))
    return Losses(total - logits[label], total - top, predicted, margin)
