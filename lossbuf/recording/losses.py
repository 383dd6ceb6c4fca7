"""Logits and labels -> label loss, predicted loss, predicted class and margin, in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from lossbuf import checks

NARROW = 64
"""Below this many classes a reduction over the classes is faster with the samples side by side in memory."""

LARGEST = 1e30
"""Losses and margins from here on are left out like infinite ones: sums and scores of them would overflow."""


class SampleLosses(NamedTuple):
    """What one forward pass says of every sample; each of shape ``(batch,)``.

    Attributes:
        label_loss: Cross-entropy against the given label, in nats, float32.
        predicted_loss: Cross-entropy against the predicted class, in nats, float32.
        predicted: The class of the largest logit, the lowest index of equals, int64.
        margin: Label logit minus the largest other logit, float32; 0 where there is one class only.
    """

    label_loss: Float[Tensor, " batch"]
    predicted_loss: Float[Tensor, " batch"]
    predicted: Int[Tensor, " batch"]
    margin: Float[Tensor, " batch"]

    @property
    def usable(self) -> Bool[Tensor, " batch"]:
        """False where a loss or margin is NaN, infinite or at least :data:`LARGEST`."""
        return (self.label_loss - self.margin).abs_() < LARGEST


@torch.no_grad()
def sample_losses(logits: Float[Tensor, "batch num_classes"], labels: Int[Tensor, " batch"]) -> SampleLosses:
    """Losses, prediction and margin of one batch, without waiting for the GPU.

    With ``p`` the predicted class, ``label_loss - predicted_loss = max(logits) - logits[label]``, which is
    ``max(-margin, 0)``: at least 0, and 0 where the prediction is the label.

    Args:
        logits: Shape ``(batch, num_classes)``, any floating dtype; computed in float32.
        labels: Given labels in ``[0, num_classes)``, shape ``(batch,)``.

    Returns:
        The four vectors of :class:`SampleLosses`. Logits that are NaN or infinite give losses that are.

    Raises:
        ValueError: If the shapes or dtypes do not fit.

    Source:
        Margin: Pleiss et al. 2020, "Identifying Mislabeled Data using the Area Under the Margin Ranking".

    Example:
        >>> losses = sample_losses(torch.tensor([[2.0, 0.0]]), torch.tensor([1]))
        >>> losses.predicted, losses.margin
        (tensor([0]), tensor([-2.]))
    """
    if logits.ndim != 2:
        raise ValueError(
            checks.problem("logits", "must have shape (batch, num_classes)", f"shape {tuple(logits.shape)}")
        )
    checks.batch_logits("logits", logits, logits.shape[1])
    checks.batch_vector("labels", labels, logits)
    return sample_losses_(logits.detach().to(torch.float32, copy=True), labels.long())[0]


def sample_losses_(
    logits: Float[Tensor, "batch num_classes"], labels: Int[Tensor, " batch"], log_probs: bool = False
) -> tuple[SampleLosses, Float[Tensor, "batch num_classes"] | None]:
    """:func:`sample_losses` unchecked, on float32 logits of the caller's that it overwrites.

    Gives the log-probabilities of all classes too, where asked for, in the memory of the logits.
    """
    column = labels.unsqueeze(1)
    label_logit = logits.gather(1, column).squeeze(1)
    other, other_class = _largest(logits.scatter_(1, column, float("-inf")))
    is_label = (label_logit > other) | ((label_logit == other) & (labels < other_class))
    top = torch.maximum(label_logit, other)
    shifted = logits.sub_(top.unsqueeze(1))
    others = (shifted.exp() if log_probs else shifted.exp_()).sum(1)
    predicted_loss = (others + (label_logit - top).exp_()).log_()
    single = logits.shape[1] == 1
    losses = SampleLosses(
        label_loss=predicted_loss + (top - label_logit),
        predicted_loss=predicted_loss,
        predicted=torch.where(is_label, labels, other_class),
        margin=torch.zeros_like(label_logit) if single else label_logit - other,
    )
    if not log_probs:
        return losses, None
    shifted.sub_(predicted_loss.unsqueeze(1)).scatter_(1, column, -losses.label_loss.unsqueeze(1))
    return losses, shifted


def weighted_mean_loss(
    logits: Float[Tensor, "batch num_classes"],
    labels: Integer[Tensor, " batch"],
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats, weighted; 0 where there are no rows or all weights are 0.

    A row of weight 0 stays out even where its loss is infinite.
    """
    if not len(logits):
        return logits.sum()
    if weights is None:
        return F.cross_entropy(logits, labels.long())
    losses = F.cross_entropy(logits, labels.long(), reduction="none")
    return torch.where(weights > 0, losses * weights, 0.0).sum() / weights.sum().clamp(min=1e-6)


def _largest(logits: Float[Tensor, "batch num_classes"]) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
    """Largest logit and its class, the lowest of equals, each of shape ``(batch,)``."""
    num_classes = logits.shape[1]
    if num_classes >= NARROW:
        value, index = logits.max(1)
        return value, index
    # For few classes several times as fast as max with indices.
    value = logits.amax(1)
    classes = torch.arange(num_classes, dtype=torch.int32, device=logits.device)
    index = torch.where(logits == value.unsqueeze(1), classes, num_classes - 1).amin(1)
    return value, index.long()
