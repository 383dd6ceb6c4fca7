"""The field's one protocol: train fresh networks on a small set, and see how well they do on the test set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from condensation.augmentation.random_changes import Augmentation
from condensation.evaluate.data import EvaluationData, checked, numbered, numeric
from condensation.evaluate.ensemble import Ensemble, stackable
from condensation.evaluate.shared_graph import SharedGraph
from lossbuf import checks
from lossbuf.networks import NetworkFactory, architectures
from lossbuf.training import predict, seeded

_CPU_ROWS = 32
"""Rows a CPU handles at once: the activations of more do not stay in its cache, and cost up to twice as much a row."""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How to train and how often: SGD, at a tenth of the rate in the second half of the epochs.

    Attributes:
        epochs: Passes over the set; by default 300, or 1000 with augmentation.
        lr: Learning rate of the first half of the epochs, which has the odd one.
        momentum: Of SGD.
        weight_decay: Of SGD.
        batch_size: Rows a step; the last step of an epoch takes what is left.
        temperature: Of soft labels: what the labels are probabilities at. Logits are divided by it, and the loss is
            multiplied by its square.
        networks: How many fresh networks are trained, each on the same set.
        seed: Of it and the network's number come its first weights, its order of the rows and its augmentations.
        device: Where to train; by default the GPU where there is one.
        dtype: ``"float32"``, or ``"bfloat16"``, in which the networks then compute, with weights in float32: faster on
            a CPU with instructions for it, and on a GPU.
        compiled: Train through ``torch.compile``, one network at a time: a minute once, then faster on a CPU; the same
            but for rounding. Networks must all be of one form, without batch norm; on a CPU a C++ compiler must be
            there.

    Raises:
        ValueError: If a value has no meaning.
    """

    epochs: int | None = None
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    temperature: float = 1.0
    networks: int = 5
    seed: int = 0
    device: str | None = None
    dtype: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.epochs is not None:
            checks.positive_int("epochs", self.epochs)
        checks.positive_float("lr", self.lr)
        checks.rate("momentum", self.momentum)
        checks.rate("weight_decay", self.weight_decay)
        checks.positive_int("batch_size", self.batch_size)
        checks.positive_float("temperature", self.temperature)
        checks.positive_int("networks", self.networks)
        checks.non_negative_int("seed", self.seed)
        checks.one_of("dtype", self.dtype, ("float32", "bfloat16"))
        checks.flag("compiled", self.compiled)

    def precision(self) -> torch.autocast:
        """The context in which the networks compute."""
        return torch.autocast(self.torch_device().type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def torch_device(self) -> torch.device:
        """The device to train on."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Evaluation:
    """How well the networks did.

    Attributes:
        accuracies: Share of the test samples that each network predicts right after its last epoch.
        seconds: Of the training and testing of all of them.
    """

    accuracies: tuple[float, ...]
    seconds: float

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Standard deviation of the accuracies themselves, as published: divided by their number, not one less."""
        return float(np.std(self.accuracies))


def evaluate(
    x: Tensor | NDArray[Any],
    labels: Tensor | NDArray[Any],
    test_x: Tensor | NDArray[Any],
    test_labels: Tensor | NDArray[Any],
    *,
    network: NetworkFactory | None = None,
    num_classes: int | None = None,
    settings: EvalSettings | None = None,
    weights: Tensor | NDArray[Any] | None = None,
    augment: Augmentation | None = None,
    together: int | None = None,
    progress: str | None = None,
) -> Evaluation:
    """Train fresh networks on a set and test each after its last epoch.

    Args:
        x: Samples to train on, standardised as ``test_x`` is, shape ``(n_samples, ...)``; a tensor or an array, like
            all below. Float64 trains in float64, all else in float32.
        labels: Classes, numbers or names, shape ``(n_samples,)``; or the probability of every class, rows that sum
            to 1.
        test_x: Samples to test on, shape ``(n_test, ...)``.
        test_labels: Their classes, shape ``(n_test,)``.
        network: Makes the networks, see :mod:`lossbuf.networks.architectures`; by default
            :func:`~lossbuf.networks.architectures.convnet3` for images ``(n_samples, channels, height, width)`` and
            :func:`~lossbuf.networks.architectures.mlp` for everything else. In training a row must not change another's
            output, unless by batch norm.
        num_classes: Number of classes; by default the width of soft labels, else the largest label of both plus 1.
            The set may lack some.
        settings: How to train; by default as published, with five networks.
        weights: Of the rows, shape ``(n_samples,)``, at least 0. What counts is how they compare: each step's loss is
            the mean over its rows of loss times weight, with weights divided by their mean over all rows that have
            any. A row of weight 0 is left out.
        augment: Changes every batch before a network sees it, with draws of the network's own.
        together: Networks trained at once, as one stack: quicker on a GPU and slower on a CPU, with the same result but
            for rounding. By default all on a GPU and one on a CPU. Networks with buffers, as batch norm has, or with
            dropout train one by one.
        progress: Text of a progress bar, shown on a terminal only; ``None`` for none.

    Returns:
        The accuracies, which depend neither on ``together``, but for rounding, nor on how many networks there are.

    Raises:
        ValueError: If the set or the test set is empty, shapes do not fit, a value is not finite, a label is out of
            range or no probability, all weights are 0 or one is negative, ``together`` is no positive integer or above
            1 for networks that must be trained one by one, the temperature is not 1 for labels that are classes, the
            settings' ``dtype`` is ``"bfloat16"`` for samples in float64, or networks that are to be compiled have
            buffers or dropout, or are of several forms.
        RuntimeError: If gradients are switched off, or torch cannot compile what is to be compiled.

    Source:
        Zhao et al. 2021, "Dataset Condensation with Gradient Matching", and the code published with it; the temperature
        is that of Hinton et al. 2015, "Distilling the Knowledge in a Neural Network".

    Differs from the published code:
        Seeded. There an epoch more is trained, two more of them at the full rate, and the momentum is lost at the drop.

    Example:
        >>> labels = torch.tensor([0, 1, 0, 1])
        >>> x = torch.nn.functional.one_hot(labels).float()
        >>> evaluate(x, labels, x, labels, settings=EvalSettings(networks=2)).accuracies
        (1.0, 1.0)
    """
    start = time.perf_counter()
    checks.gradients("evaluate")
    labels, test_labels = numbered(labels, test_labels)
    x, test_x = numeric("x", x), numeric("test_x", test_x)
    labels, test_labels = numeric("labels", labels), numeric("test_labels", test_labels)
    weights = None if weights is None else numeric("weights", weights)
    if augment is not None and not callable(augment):
        raise ValueError(checks.problem("augment", "must be callable, as augment(x, generator)", repr(augment)))
    settings = settings or EvalSettings()
    if together is not None:
        checks.positive_int("together", together)
    device = settings.torch_device()
    data = checked(x, labels, test_x, test_labels, num_classes, weights, device)
    if settings.temperature != 1 and data.targets.ndim == 1:
        rule = "must be 1 where labels are classes and no probabilities"
        raise ValueError(checks.problem("temperature", rule, settings.temperature))
    if settings.dtype != "float32" and data.x.dtype == torch.float64:
        raise ValueError(checks.problem("dtype", "must be 'float32' where `x` is float64", repr(settings.dtype)))
    shape = tuple(x.shape[1:])
    factory = network or (architectures.convnet3 if len(shape) == 3 else architectures.mlp)
    epochs = settings.epochs or (300 if augment is None else 1000)
    seeds = [network_seeds(settings.seed, number) for number in range(settings.networks)]
    accuracies: list[float] = []
    earlier: WeakSet[nn.Module] = WeakSet()
    shared = SharedGraph() if settings.compiled else None
    with tqdm(total=settings.networks * epochs, desc=progress, leave=False, disable=None if progress else True) as bar:
        while todo := seeds[len(accuracies) :]:
            networks = [_built(factory, shape, data, todo[0])]
            todo = todo[: _stack_size(networks[0], together, settings, len(todo))]
            networks += [_built(factory, shape, data, each) for each in todo[1:]]
            for each in networks:
                if each in earlier:
                    rule = "must make a new network at every call"
                    raise ValueError(checks.problem("network", rule, "one it made before"))
                earlier.add(each)
            with seeded(todo[0].dropout, device):  # a network that draws is alone
                for _ in _training(networks, data, settings, epochs, todo, augment, shared):
                    bar.update(len(networks))
            accuracies += [_accuracy(each, data, settings) for each in networks]
    return Evaluation(tuple(accuracies), time.perf_counter() - start)


class NetworkSeeds(NamedTuple):
    """Where a network's randomness starts: first weights, order of the rows, augmentation, and what layers draw."""

    weights: int
    order: int
    augment: int
    dropout: int


def network_seeds(seed: int, number: int) -> NetworkSeeds:
    """The seeds of one network; those of other numbers and other seeds have nothing to do with them."""
    weights, order, augment, dropout = (
        int(value) for value in np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(4, np.uint64)
    )
    return NetworkSeeds(weights, order, augment, dropout)


def _built(factory: NetworkFactory, shape: tuple[int, ...], data: EvaluationData, seeds: NetworkSeeds) -> nn.Module:
    with seeded(seeds.weights, data.x.device):
        network = factory(shape, data.num_classes)
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if any(norm.running_mean is None for norm in norms):
        rule = "must not have batch norm without running statistics, which sees other test rows"
        raise ValueError(checks.problem("network", rule, type(network).__name__))
    return network.to(data.x.device, data.x.dtype)


def _stack_size(network: nn.Module, together: int | None, settings: EvalSettings, left: int) -> int:
    """How many networks to train at once."""
    if settings.compiled and together is not None and together > 1:
        raise ValueError(checks.problem("together", "must be 1 for networks that are compiled", together))
    if not stackable(network):
        if settings.compiled:
            rule = "must have neither buffers, as batch norm has, nor dropout to be compiled"
            raise ValueError(checks.problem("network", rule, type(network).__name__))
        if together is not None and together > 1:
            rule = "must be 1 for a network with buffers, as batch norm has, or dropout"
            raise ValueError(checks.problem("together", rule, together))
        return 1
    if settings.compiled:
        return 1
    return min(left, together or (left if settings.torch_device().type == "cuda" else 1))


def _training(
    networks: list[nn.Module],
    data: EvaluationData,
    settings: EvalSettings,
    epochs: int,
    seeds: list[NetworkSeeds],
    augment: Augmentation | None,
    shared: SharedGraph | None,
) -> Iterator[None]:
    """Train the networks in place; comes back after every epoch."""
    trained = networks if shared is None else [shared.adopt(networks[0])]
    ensemble = Ensemble([network.train() for network in trained], None if shared is None else shared.graph)
    optimizer = torch.optim.SGD(
        ensemble.parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    orders = [torch.Generator().manual_seed(each.order) for each in seeds]
    draws = [torch.Generator().manual_seed(each.augment) for each in seeds]
    # Where rows do not see each other, the gradient of a step is the sum of those of its parts.
    in_parts = data.x.device.type == "cpu" and stackable(networks[0])
    rows_at_once = _CPU_ROWS if in_parts else settings.batch_size
    for epoch in range(epochs):
        if epoch == (epochs + 1) // 2:
            optimizer.param_groups[0]["lr"] = settings.lr / 10
        order = torch.stack([torch.randperm(len(data.x), generator=one) for one in orders]).to(data.x.device)
        for batch in order.split(settings.batch_size, dim=1):
            x = data.x[batch]
            if augment is not None:
                x = torch.stack([augment(part, one) for part, one in zip(x, draws, strict=True)])
            optimizer.zero_grad()
            for part, rows in zip(x.split(rows_at_once, 1), batch.split(rows_at_once, 1), strict=True):
                with settings.precision():
                    logits = ensemble(part).to(data.x.dtype)
                loss = _loss(logits.flatten(0, 1), data, rows, settings.temperature)
                (loss / batch.shape[1]).backward()
            optimizer.step()
        yield
    ensemble.unstack()
    if shared is not None:
        networks[0].load_state_dict(trained[0].state_dict())


def _loss(
    logits: Tensor, data: EvaluationData, rows: Int[Tensor, "networks batch"], temperature: float
) -> Float[Tensor, ""]:
    """Sum of the rows' weighted losses over all networks: what one does has no part in the gradient of another."""
    if logits.shape[1:] != (data.num_classes,):
        rule = f"must give {data.num_classes} logits a sample"
        raise ValueError(checks.problem("network", rule, f"shape {tuple(logits.shape)}"))
    losses = F.cross_entropy(logits / temperature, data.targets[rows].flatten(0, 1), reduction="none")
    return losses @ data.weights[rows].flatten() * temperature**2


def _accuracy(network: nn.Module, data: EvaluationData, settings: EvalSettings) -> float:
    rows_at_once = _CPU_ROWS if data.x.device.type == "cpu" else 1024
    with settings.precision():
        logits = predict(network, data.test_x, rows_at_once)
    if not bool(logits.isfinite().all()):
        advice = "Did its training diverge? A lower learning rate may help."
        raise ValueError(checks.problem("network", "must give finite logits", "NaN or infinite ones", advice))
    return float((logits.argmax(1) == data.test_labels).double().mean())
