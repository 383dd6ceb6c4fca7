"""``GradientNorm``: the rows whose loss still pulls hardest after a few epochs (EL2N, GraNd)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from condensation.coresets.base import Chosen, Coreset, by_group, largest_first, warn_of_unseen
from condensation.coresets.features import FreshNetwork, NetworkOutputs, logit_gradients, outputs_of
from lossbuf import checks
from lossbuf.training import StepCallback, TrainSettings


def error_norms(
    logits: Float[Tensor, "n_samples num_classes"], labels: Int[Tensor, " n_samples"]
) -> Float[Tensor, " n_samples"]:
    """Length of softmax minus one-hot label, in [0, sqrt(2)], shape ``(n_samples,)``: EL2N of one network.

    Example:
        >>> error_norms(torch.zeros(1, 2), torch.tensor([1]))
        tensor([0.7071])
    """
    return torch.linalg.vector_norm(logit_gradients(logits, labels), dim=1)


def last_layer_norms(outputs: NetworkOutputs, labels: Int[Tensor, " n_samples"]) -> Float[Tensor, " n_samples"]:
    """Length of the gradient of each row's loss in the last layer's weight and bias: GraNd of one network, there.

    That gradient is an outer product, so its length is that of softmax minus one-hot times that of the features.

    Args:
        outputs: From :func:`~condensation.coresets.features.network_outputs`.
        labels: Shape ``(n_samples,)``.
    """
    squares = outputs.features.square().sum(1) + float(outputs.has_bias)
    return error_norms(outputs.logits, labels) * squares.sqrt()


class ErrorNorms:
    """Takes down EL2N of every row while a network trains, for :func:`~lossbuf.training.train`.

    It may pass its steps on to a :class:`~lossbuf.callback.LossBufferCallback`, so that one training serves cleaning
    and :class:`GradientNorm`.

    Args:
        n_samples: Number of rows.
        then: Another callback, which gives the loss; by default the loss is the mean cross-entropy.

    Raises:
        ValueError: If ``n_samples`` is no positive integer.

    Example:
        >>> norms = ErrorNorms(2)
        >>> loss = norms.loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([0]))
        >>> norms.means()
        tensor([0.7071,    nan], dtype=torch.float64)
    """

    def __init__(self, n_samples: int, then: StepCallback | None = None) -> None:
        self.then = then
        self.sums = torch.zeros(checks.positive_int("n_samples", n_samples), dtype=torch.float64)
        self.counts = torch.zeros_like(self.sums)

    def loss(self, logits: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """Take down a batch, each row at most once in it, and give the loss; does not wait for the GPU."""
        rows, norms = indices.long(), error_norms(logits.detach().float(), labels.long())
        if self.sums.device != norms.device:
            self.sums, self.counts = self.sums.to(norms.device), self.counts.to(norms.device)
        self.sums.index_add_(0, rows, norms.double())
        self.counts.index_add_(0, rows, torch.ones_like(norms, dtype=torch.float64))
        return F.cross_entropy(logits, labels.long()) if self.then is None else self.then.loss(logits, labels, indices)

    def end_epoch(self) -> None:
        """Pass it on."""
        if self.then is not None:
            self.then.end_epoch()

    def means(self) -> Float[Tensor, " n_samples"]:
        """Mean over the epochs so far, float64, on the CPU, shape ``(n_samples,)``; NaN for rows never seen."""
        return (self.sums / self.counts).cpu()


class GradientNorm(Coreset):
    """Rows by the length of their gradient, averaged over fresh networks after a few epochs: longest first.

    Equals go to the lowest row. Mislabelled rows have the longest gradients: clean first.

    Args:
        ipc: Rows a class; or give ``size``.
        size: Rows in all, an integer, or their share, a float in (0, 1].
        balanced: Choose by class, or over all rows.
        norm: ``"el2n"``, the length of softmax minus one-hot label; ``"grand"``, that of the last layer's gradient.
        norms: Norms known already, shape ``(n_samples,)``, as :class:`ErrorNorms` takes them down in a training that
            is made for other ends; NaN, a row never seen, comes last. No network is then trained.
        network: What to train; by default a :class:`~condensation.coresets.features.FreshNetwork`, for 5 epochs.
        networks: How many, each from weights of its own.
        random_state: Of the trainings.

    Attributes:
        sample_indices_: See :class:`~condensation.coresets.base.Coreset`.
        scores_: The mean norms, shape ``(n_samples,)``.

    Source:
        Paul, Ganguli, Dziugaite 2021, "Deep Learning on a Data Diet" (10 networks, epoch 20 of 200).

    Differs from the paper:
        GraNd there is the gradient in all weights, mostly of networks not trained at all; here in those of the last
        layer.

    Example:
        >>> GradientNorm(ipc=2, norms=[0.1, 0.9, 0.5]).fit([[0.0], [1.0], [2.0]], [0, 0, 0]).sample_indices_
        array([1, 2])
    """

    def __init__(
        self,
        *,
        ipc: int | None = None,
        size: int | float | None = None,
        balanced: bool = True,
        norm: str = "el2n",
        norms: ArrayLike | Tensor | None = None,
        network: FreshNetwork | None = None,
        networks: int = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.ipc = ipc
        self.size = size
        self.balanced = balanced
        self.norm = norm
        self.norms = norms
        self.network = network
        self.networks = networks
        self.random_state = random_state

    def _choose(self, X: NDArray[Any], labels: Tensor, groups: Tensor, counts: list[int], seed: int) -> Chosen:
        kinds: dict[str, Callable[[NetworkOutputs, Tensor], Tensor]] = {
            "el2n": lambda outputs, labels: error_norms(outputs.logits, labels),
            "grand": last_layer_norms,
        }
        measure = kinds[checks.one_of("norm", self.norm, kinds)]
        if self.norms is not None:
            scores = _known(self.norms, len(X))
        else:
            network = self.network or FreshNetwork(settings=TrainSettings(epochs=5))
            seeds = check_random_state(seed).randint(2**31, size=checks.positive_int("networks", self.networks))
            scores = torch.zeros(len(X), dtype=torch.float64)
            for one in seeds.tolist():
                outputs = outputs_of(network, X, labels.numpy(), one)
                scores += measure(outputs, labels.to(outputs.logits.device)).double().cpu() / len(seeds)
        chosen = by_group(groups, counts, largest_first(scores.nan_to_num(nan=-torch.inf)))
        warn_of_unseen("norms", scores[chosen.indices].isnan())
        self.scores_ = scores.numpy()
        return chosen


def _known(norms: ArrayLike | Tensor, n_samples: int) -> Tensor:
    values = torch.as_tensor(norms if isinstance(norms, Tensor) else np.array(norms, dtype=np.float64))
    if values.shape != (n_samples,):
        raise ValueError(checks.problem("norms", f"must have shape ({n_samples},)", f"shape {tuple(values.shape)}"))
    return values.detach().double().cpu()
