"""What a coreset method looks at: pixels, features of a network, gradients of its last layer, or a user's own.

Each is a :class:`Features`: called with the samples, their labels and a seed, it gives a row of numbers a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lossbuf import checks
from lossbuf.data import standardised
from lossbuf.networks import default_network
from lossbuf.training import StepCallback, TrainSettings, build, train

_WIDE = (torch.float64, torch.int32, torch.int64)


@runtime_checkable
class Features(Protocol):
    """Anything that gives features of shape ``(n_samples, n_features)``, as an array or a tensor."""

    def __call__(self, X: NDArray[Any], labels: NDArray[np.int64], seed: int, /) -> ArrayLike | Tensor:
        """Features of every row.

        Args:
            X: Samples, shape ``(n_samples, ...)``.
            labels: Classes in ``[0, num_classes)``, each with a row at least, shape ``(n_samples,)``.
            seed: Of whatever is random.
        """
        ...


@dataclass(frozen=True)
class Pixels:
    """The values of ``X`` as they are, each sample flattened.

    Args:
        device: Where to put them, and so where rows are chosen.
    """

    device: str | None = None

    def __call__(self, X: NDArray[Any], labels: NDArray[np.int64], seed: int) -> Tensor:
        """Shape ``(n_samples, numbers in a sample)``; labels and seed are not looked at."""
        return as_features("X", X.reshape(len(X), -1)).to(self.device)


@dataclass(frozen=True)
class FreshNetwork:
    """A network yet to be trained, on the very rows of which features are wanted.

    Args:
        module: Called as ``module(sample_shape, num_classes)``, makes the network; by default a ConvNet for images
            ``(n_samples, channels, height, width)`` and an MLP for everything else.
        settings: How to train; a call's seed replaces theirs.
    """

    module: Callable[[tuple[int, ...], int], nn.Module] | None = None
    settings: TrainSettings = field(default_factory=TrainSettings)

    def trained(
        self, X: NDArray[Any], labels: NDArray[np.int64], seed: int, callback: StepCallback | None = None
    ) -> nn.Module:
        """The network, trained on ``X`` standardised, in evaluation mode."""
        (x,), make = standardised(X), self.module or default_network
        settings = replace(self.settings, seed=seed)
        network = build(lambda: make(tuple(x.shape[1:]), int(labels.max()) + 1), settings)
        train(network, x, torch.from_numpy(labels), settings, callback=callback)
        return network


@dataclass(frozen=True)
class NetworkFeatures:
    """What the last linear layer of a network is given.

    Args:
        network: A trained network, or one to be trained.
        standardise: Show the network ``X`` with mean 0 and deviation 1 by channel, as
            :class:`~lossbuf.selectors.LossBufferSelector` does (by feature where ``X`` are no images); False shows a
            trained network ``X`` as it is.

    Source:
        The published Herding and K-Center baselines of condensation choose by features of a ConvNet trained on the
        whole set (Zhao et al. 2021).
    """

    network: nn.Module | FreshNetwork = FreshNetwork()
    standardise: bool = True

    def __call__(self, X: NDArray[Any], labels: NDArray[np.int64], seed: int) -> Tensor:
        """Shape ``(n_samples, inputs of the last layer)``, float32."""
        return outputs_of(self.network, X, labels, seed, self.standardise).features


@dataclass(frozen=True)
class LastLayerGradients:
    """Gradient of the loss in the logits: softmax minus one-hot label.

    Args:
        network: A trained network, or one to be trained; by default a short training, since the gradients of rows
            learnt by heart are all alike.
        standardise: As in :class:`NetworkFeatures`.

    Source:
        Katharopoulos, Fleuret 2018; in CRAIG Mirzasoleiman et al. 2020.
    """

    network: nn.Module | FreshNetwork = FreshNetwork(settings=TrainSettings(epochs=5))
    standardise: bool = True

    def __call__(self, X: NDArray[Any], labels: NDArray[np.int64], seed: int) -> Tensor:
        """Shape ``(n_samples, num_classes)``, float32."""
        outputs = outputs_of(self.network, X, labels, seed, self.standardise)
        return logit_gradients(outputs.logits, torch.from_numpy(labels).to(outputs.logits.device))


@dataclass(frozen=True)
class FeatureGradients:
    """Gradient of the loss in what the last linear layer is given: its weight times (softmax minus one-hot label).

    Args:
        network: As in :class:`LastLayerGradients`.
        standardise: As in :class:`NetworkFeatures`.

    Source:
        Mirzasoleiman, Cao, Leskovec 2020, "Coresets for Robust Training of Neural Networks against Noisy Labels".
    """

    network: nn.Module | FreshNetwork = FreshNetwork(settings=TrainSettings(epochs=5))
    standardise: bool = True

    def __call__(self, X: NDArray[Any], labels: NDArray[np.int64], seed: int) -> Tensor:
        """Shape ``(n_samples, inputs of the last layer)``, float32."""
        outputs = outputs_of(self.network, X, labels, seed, self.standardise)
        return logit_gradients(outputs.logits, torch.from_numpy(labels).to(outputs.logits.device)) @ outputs.weight


def logit_gradients(
    logits: Float[Tensor, "n_samples num_classes"], labels: Int[Tensor, " n_samples"]
) -> Float[Tensor, "n_samples num_classes"]:
    """Softmax minus one-hot label: the gradient of each row's cross-entropy in its logits.

    Example:
        >>> logit_gradients(torch.zeros(1, 2), torch.tensor([1]))
        tensor([[ 0.5000, -0.5000]])
    """
    probs = logits.softmax(1)
    return probs.scatter_add(1, labels.unsqueeze(1), probs.new_full((len(probs), 1), -1.0))


class NetworkOutputs(NamedTuple):
    """What a network says of every sample, float32 on the network's device.

    Attributes:
        features: What its last linear layer was given, shape ``(n_samples, n_features)``.
        logits: What that layer gave, shape ``(n_samples, num_classes)``.
        weight: Of that layer, shape ``(num_classes, n_features)``.
        has_bias: That layer adds one.
    """

    features: Tensor
    logits: Tensor
    weight: Tensor
    has_bias: bool


@torch.no_grad()
def network_outputs(network: nn.Module, x: Float[Tensor, "n_samples ..."], batch_size: int = 1024) -> NetworkOutputs:
    """Features and logits in evaluation mode, in one pass; the network's modes are left as they were.

    Args:
        network: Its last linear layer must give the logits.
        x: Samples, at least one.
        batch_size: Rows a step.

    Raises:
        ValueError: If the network does not end in a linear layer, for rows of numbers.

    Example:
        >>> network_outputs(nn.Sequential(nn.Identity(), nn.Linear(3, 2)), torch.ones(5, 3)).features.shape
        torch.Size([5, 3])
    """
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def note(layer: Any, given: Any, gave: Any) -> None:
        calls.append((layer, given[0], gave))

    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, nn.Linear)]
    device = next((parameter.device for parameter in network.parameters()), x.device)
    modes = {module: module.training for module in network.modules()}
    features, logits = [], []
    network.eval()
    try:
        for part in x.split(batch_size):
            calls.clear()
            part = part.contiguous(memory_format=torch.channels_last) if part.ndim == 4 else part
            gave = network(part.to(device))
            if not calls or not _is_same(calls[-1][2], gave):
                rule = "must end in an nn.Linear that gives the logits"
                raise ValueError(checks.problem("network", rule, type(network).__name__))
            features.append(calls[-1][1].float())
            logits.append(gave.float())
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    last = calls[-1][0]
    return NetworkOutputs(torch.cat(features), torch.cat(logits), last.weight.detach().float(), last.bias is not None)


def _is_same(linear: Tensor, gave: object) -> bool:
    """The network's output is its last linear layer's, a row of numbers a sample; NaN is NaN."""
    if not isinstance(gave, Tensor) or gave.ndim != 2 or gave.shape != linear.shape:
        return False
    return torch.allclose(linear, gave, rtol=0, atol=0, equal_nan=True)


def outputs_of(
    network: nn.Module | FreshNetwork,
    X: NDArray[Any],
    labels: NDArray[np.int64],
    seed: int,
    standardise: bool = True,
) -> NetworkOutputs:
    """What a network, trained first where it is fresh, says of ``X``.

    Args:
        network: A trained network, or one to be trained.
        X: Samples, shape ``(n_samples, ...)``.
        labels: Classes in ``[0, num_classes)``, each with a row at least, shape ``(n_samples,)``.
        seed: Of the training.
        standardise: As in :class:`NetworkFeatures`.

    Raises:
        ValueError: If the network does not end in a linear layer, has fewer outputs than there are classes, or gives
            NaN or infinite ones.
    """
    fresh = isinstance(network, FreshNetwork)
    trained = network.trained(X, labels, seed) if fresh else network
    shown = standardised(X)[0] if fresh or standardise else torch.from_numpy(np.require(X, np.float32, ["C", "W"]))
    outputs = network_outputs(trained, shown)
    num_classes = int(labels.max()) + 1
    if outputs.logits.shape[1] < num_classes:
        rule = f"must have an output for each of the {num_classes} classes"
        raise ValueError(checks.problem("network", rule, outputs.logits.shape[1]))
    if not bool(outputs.logits.isfinite().all()):
        advice = "Did its training diverge? A lower learning rate may help."
        raise ValueError(checks.problem("network", "must give finite logits", "NaN or infinite ones", advice))
    return outputs


def features_of(source: Features | ArrayLike | Tensor, X: NDArray[Any], labels: Int[Tensor, " n"], seed: int) -> Tensor:
    """Features from a source: what a :class:`Features` gives, or an array that holds them already.

    Args:
        source: A :class:`Features`, or features of shape ``(n_samples, n_features)``.
        X: Samples, shape ``(n_samples, ...)``.
        labels: Classes in ``[0, num_classes)``, shape ``(n_samples,)``.
        seed: Of whatever is random.

    Returns:
        Float32 or float64, finite, on the device they come from, shape ``(n_samples, n_features)``.

    Raises:
        ValueError: If they are of another shape or number of rows, hold NaN or infinite values, or ``source`` is
            neither.
    """
    if isinstance(source, str | nn.Module | FreshNetwork):
        advice = "Wrap a network: NetworkFeatures(network)."
        raise ValueError(checks.problem("features", "must be an array or a Features", type(source).__name__, advice))
    values = source(X, labels.numpy(), seed) if callable(source) else source
    features = as_features("features", values)
    if len(features) != len(X):
        raise ValueError(checks.problem("features", f"must have {len(X)} rows, as many as X", len(features)))
    return features


def as_features(name: str, values: object) -> Float[Tensor, "n_samples n_features"]:
    """Check features, and make them float32, or float64 where float32 could not hold them.

    Raises:
        ValueError: If they are no matrix of finite numbers.
    """
    try:
        given = values.detach() if isinstance(values, Tensor) else torch.from_numpy(_numbers(np.asarray(values)))
    except (TypeError, ValueError) as error:
        raise ValueError(checks.problem(name, "must be numbers", type(values).__name__)) from error
    if given.ndim != 2 or not given.numel():
        rule = "must have shape (n_samples, n_features), both at least 1"
        raise ValueError(checks.problem(name, rule, f"shape {tuple(given.shape)}"))
    features = given.to(torch.float64 if given.dtype in _WIDE else torch.float32)
    bad = ~features.isfinite()
    if bool(bad.any()):
        row, column = (int(position) for position in bad.nonzero()[0])
        raise ValueError(checks.problem(name, "must be finite", f"{float(features[row, column])} at row {row}"))
    return features


def _numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Of a type that torch knows."""
    narrow = values.dtype.itemsize <= 2 or values.dtype == np.float32
    return np.require(values, np.float32 if narrow else np.float64, ["C", "W"])


def last_input(network: nn.Module, x: Tensor) -> Float[Tensor, "batch num_features"]:
    """What the network's last linear layer is given; can be differentiated in ``x``.

    Raises:
        ValueError: If no linear layer is called.
    """
    given: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        for module in network.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not given:
        rule = "must have a linear layer, whose input the features are"
        raise ValueError(checks.problem("network", rule, type(network).__name__))
    return given[-1]
