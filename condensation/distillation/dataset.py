"""``DatasetDistillation``: synthetic images and learning rates that train a fresh network in a few steps (DD)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from condensation.artifact import CondensedSet
from condensation.evaluate import Evaluation, network_seeds
from condensation.evaluate.data import checked
from condensation.learned.condenser import Condenser, Learned
from condensation.learned.networks import check_differentiable_twice, fresh_network, plain_network
from condensation.learned.real_images import Batch, RealImages
from condensation.learned.run import Job, Learning, drawn_from
from lossbuf import checks
from lossbuf.networks import NetworkFactory
from lossbuf.training import predict, seeded


@dataclass(frozen=True)
class Xavier:
    """Networks whose weights start from Xavier's normal distribution, and biases from 0, as published with DD.

    With PyTorch's own, much smaller weights a few steps lead nowhere unless ``init_lr`` is near 1.

    Args:
        network: Makes the networks.
    """

    network: NetworkFactory = plain_network

    def __call__(self, shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A network of its own weights, for images of a shape."""
        network = self.network(shape, num_classes)
        for module in network.modules():
            if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return network


PUBLISHED = Xavier()
"""LeNet, or a perceptron for images that are too small for it."""


class Unrolled(NamedTuple):
    """What some steps of training led to.

    Attributes:
        loss: On the real images, after the last step.
        x_gradient: Of the loss in ``x``, same shape.
        rates_gradient: Of the loss in the learning rates, shape ``(n_steps,)``.
    """

    loss: Tensor
    x_gradient: Tensor
    rates_gradient: Tensor


def unrolled_gradients(
    network: nn.Module,
    x: Float[Tensor, "n_samples ..."],
    labels: Int[Tensor, " n_samples"],
    steps: Int[Tensor, "n_steps batch"],
    learning_rates: Float[Tensor, " n_steps"],
    real: Batch,
    *,
    steps_in_memory: int | None = None,
    rows_at_once: int | None = None,
) -> Unrolled:
    """Train by plain gradient descent, and differentiate the loss of the result through all steps, exactly.

    The steps are gone through once forward and once back. Going back, the gradient in a step's parameters becomes that
    in those before it by a product with the Hessian of its loss, so that only one step's graph is needed at a time.

    Args:
        network: Where the training starts; it is not changed.
        x: Samples to train on.
        labels: Their classes.
        steps: Rows of ``x`` of every step.
        learning_rates: Of every step.
        real: What the trained network is judged by: its mean loss, weighted.
        steps_in_memory: Steps, the last ones, whose graphs are kept; for those before, the parameters alone, and what
            else is needed is computed once more. By default all are kept.
        rows_at_once: Real images that pass together; by default all.

    Source:
        Wang et al. 2018, "Dataset Distillation", and the code published with it, which keeps all graphs.
    """
    names = [name for name, _ in network.named_parameters()]
    kept_from = 0 if steps_in_memory is None else len(steps) - steps_in_memory
    rates = learning_rates.detach().unbind()
    trail: list[_Step] = []
    values = [value.detach() for value in network.parameters()]

    def loss(parameters: list[Tensor], samples: Tensor, classes: Tensor) -> Tensor:
        logits = functional_call(network, dict(zip(names, parameters, strict=True)), (samples,))
        return F.cross_entropy(logits, classes, reduction="none")

    def taken(parameters: list[Tensor], rows: Tensor, graph: bool) -> _Step:
        samples = x[rows].detach().requires_grad_(graph)
        parameters = [value.requires_grad_() for value in parameters]
        mean = loss(parameters, samples, labels[rows]).mean()
        return _Step(parameters, samples, torch.autograd.grad(mean, parameters, create_graph=graph))

    for number, (rows, rate) in enumerate(zip(steps, rates, strict=True)):
        step = taken(values, rows, graph=number >= kept_from)
        values = [(value - rate * slope).detach() for value, slope in zip(step.parameters, step.gradient, strict=True)]
        trail.append(step if number >= kept_from else step._replace(gradient=()))

    values = [value.requires_grad_() for value in values]
    shares, total = real.weights / real.weights.sum(), torch.zeros_like(rates[0])
    back = [torch.zeros_like(value) for value in values]
    for part in torch.arange(len(real.x), device=real.x.device).split(rows_at_once or len(real.x)):
        judged = loss(values, real.x[part], real.labels[part]) @ shares[part]
        back = [before + more for before, more in zip(back, torch.autograd.grad(judged, values), strict=True)]
        total = total + judged.detach()

    x_gradient, slopes = torch.zeros_like(x), []
    for rows, rate in zip(steps.flip(0), reversed(rates), strict=True):
        step = trail.pop()
        if not step.gradient:
            step = taken(step.parameters, rows, graph=True)
        products = [(one * other.detach()).sum() for one, other in zip(back, step.gradient, strict=True)]
        slopes.append(-torch.stack(products).sum())
        *hessian, in_x = torch.autograd.grad(step.gradient, [*step.parameters, step.x], back, materialize_grads=True)
        x_gradient.index_add_(0, rows, -rate * in_x)
        back = [before - rate * product for before, product in zip(back, hessian, strict=True)]
    return Unrolled(total, x_gradient, torch.stack(slopes[::-1]))


class _Step(NamedTuple):
    parameters: list[Tensor]
    x: Tensor
    gradient: tuple[Tensor, ...]


class DatasetDistillation(Condenser):
    """Learns ``ipc`` images a class, and learning rates, that train a fresh network in a few steps of gradient descent.

    In every iteration a fresh network takes the steps, its loss on a batch of real images is differentiated through all
    of them, and the images and the learning rates take a step down it. The set is made to be trained on just so:
    :func:`train_as_distilled` does, and :func:`evaluate_distilled` tells how well; what has to be known for that is
    saved with the set.

    Args:
        ipc: Images a class.
        steps: Steps an epoch, each with as many images of every class, so that ``ipc`` is a multiple of it; by default
            ``ipc``, one image of every class a step, as published.
        epochs: How often the steps are taken, each time with learning rates of their own.
        network: Makes the networks, of nothing but parameters; by default :data:`PUBLISHED`. Whoever trains on the set
            needs networks of this kind.
        iterations: Fresh networks, one step of images and learning rates each; by default 400 epochs of MNIST. For
            digits of 8x8 pixels 1500 with ``lr=0.03`` take a minute or two.
        init: ``"noise"`` or ``"real"``, images of the class.
        init_lr: Learning rate of every step at first; published .001 for CIFAR-10.
        lr: Of the images and, before their softplus, of the learning rates: Adam with betas .5 and .999.
        halve_every: Iterations after which ``lr`` is halved, again and again; by default a tenth of ``iterations``, as
            published. To go on later with more iterations, give it.
        batch_size: Real images an iteration.
        steps_in_memory: Steps whose graphs are kept; others are computed twice. By default all. Changes nothing but
            rounding.
        rows_at_once: Real images that pass together; by default all. Changes nothing but rounding.
        device: Where to compute; by default the GPU where there is one.
        random_state: Seed, generator or ``None``; the same seed gives the same images.
        progress: Show a progress bar, on a terminal only.

    Attributes:
        images_: See :class:`~condensation.learned.condenser.Condenser`, like ``labels_`` and ``classes_``.
        learning_rates_: Of every step, for the mean loss of its images, shape ``(n_steps,)``, all epochs one after the
            other.
        steps_: Rows of ``images_`` of every step, shape ``(n_steps, batch)``.
        losses_: Of the trained network on real images by iteration, in nats, shape ``(iterations,)``.

    Source:
        Wang et al. 2018, "Dataset Distillation", and the code published with it.

    Differs from the published code:
        Seeded: all that iteration i draws comes from the seed and i, so that real images are drawn anew in every
        iteration and not by epoch.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> found = DatasetDistillation(iterations=2, device="cpu", random_state=0).fit(X.reshape(-1, 1, 8, 8), y)
        >>> found.images_.shape, found.steps_.shape, found.learning_rates_.shape
        ((10, 1, 8, 8), (3, 10), (3,))
    """

    def __init__(
        self,
        ipc: int = 1,
        *,
        steps: int | None = None,
        epochs: int = 3,
        network: NetworkFactory = PUBLISHED,
        iterations: int = 23600,
        init: str = "noise",
        init_lr: float = 0.02,
        lr: float = 0.01,
        halve_every: int | None = None,
        batch_size: int = 1024,
        steps_in_memory: int | None = None,
        rows_at_once: int | None = None,
        device: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.ipc = ipc
        self.steps = steps
        self.epochs = epochs
        self.network = network
        self.iterations = iterations
        self.init = init
        self.init_lr = init_lr
        self.lr = lr
        self.halve_every = halve_every
        self.batch_size = batch_size
        self.steps_in_memory = steps_in_memory
        self.rows_at_once = rows_at_once
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def _condense(self, real: RealImages, job: Job) -> Learned:
        factory, shape = self.network, tuple(real.x.shape[1:])
        iterations, lr = checks.positive_int("iterations", self.iterations), checks.positive_float("lr", self.lr)
        halve_every = self.halve_every
        if halve_every is None:
            halve_every = max(1, iterations // 10)
        checks.positive_int("halve_every", halve_every)
        batch_size = checks.positive_int("batch_size", self.batch_size)
        if self.steps_in_memory is not None:
            checks.non_negative_int("steps_in_memory", self.steps_in_memory)
        if self.rows_at_once is not None:
            checks.positive_int("rows_at_once", self.rows_at_once)
        steps = self._steps(real.num_classes).to(job.device)
        from_real = checks.one_of("init", self.init, ("noise", "real")) == "real"
        images = real.start(self.ipc, from_real, drawn_from(job.seed, 0)).requires_grad_()
        labels = torch.arange(real.num_classes, device=job.device).repeat_interleave(self.ipc)
        init_lr = checks.positive_float("init_lr", self.init_lr)
        before_softplus = init_lr + math.log(-math.expm1(-init_lr))
        raw = torch.full((len(steps),), before_softplus, device=job.device, requires_grad=True)
        learning = Learning(
            job,
            {"images": images, "raw_learning_rates": raw},
            torch.optim.Adam([images, raw], lr=lr, betas=(0.5, 0.999)),
            data=[real.x, real.labels, real.weights],
            settings=self.get_params(deep=False) | {"method": "dataset distillation", "halve_every": halve_every},
        )

        def iterate(iteration: int, generator: torch.Generator) -> Tensor:
            network = fresh_network(factory, shape, real.num_classes, job.device, generator)
            check_differentiable_twice(network)
            rates = F.softplus(raw)
            found = unrolled_gradients(
                network,
                images.detach().flatten(0, 1),
                labels,
                steps,
                rates,
                real.of_all(batch_size, generator),
                steps_in_memory=self.steps_in_memory,
                rows_at_once=self.rows_at_once,
            )
            (raw_gradient,) = torch.autograd.grad(rates, raw, found.rates_gradient)
            for group in learning.optimizer.param_groups:
                group["lr"] = lr * 0.5 ** (iteration // halve_every)
            learning.step({"images": found.x_gradient.view_as(images), "raw_learning_rates": raw_gradient})
            # A gradient may overflow where the loss does not; what it would leave behind must not pass for a result.
            finite = found.x_gradient.isfinite().all() & raw_gradient.isfinite().all()
            return torch.where(finite, found.loss, torch.nan)

        learning.learn(iterate, iterations, self.progress)
        self.losses_ = np.array(learning.losses)
        self.learning_rates_ = F.softplus(raw).detach().cpu().numpy()
        self.steps_ = steps.cpu().numpy()
        return Learned(images)

    def _steps(self, num_classes: int) -> Int[Tensor, "n_steps batch"]:
        """Rows of every step: images are in the order of their classes."""
        steps = self.ipc if self.steps is None else checks.positive_int("steps", self.steps)
        if self.ipc % steps:
            raise ValueError(checks.problem("steps", f"must divide ipc={self.ipc}", steps))
        rows = torch.arange(num_classes * self.ipc).view(num_classes, steps, self.ipc // steps)
        return rows.transpose(0, 1).flatten(1).repeat(checks.positive_int("epochs", self.epochs), 1)

    def _to_train_with(self) -> dict[str, Any]:
        return {
            "learning_rates": torch.from_numpy(self.learning_rates_),
            "steps": torch.from_numpy(self.steps_),
            "schedule": {"momentum": 0.0, "weight_decay": 0.0},
        }


def train_as_distilled(
    network: nn.Module,
    x: Float[Tensor, "n_samples ..."],
    labels: Tensor,
    steps: Int[Tensor, "n_steps batch"],
    learning_rates: Float[Tensor, " n_steps"],
) -> None:
    """Train a network in place as a set was learned for: plain gradient descent, step by step.

    Args:
        network: A fresh one, of the kind that the set was learned with; left in evaluation mode.
        x: Samples, standardised; they are moved to the network's device.
        labels: Classes, shape ``(n_samples,)``, or the probability of every class.
        steps: Rows of ``x`` of every step.
        learning_rates: Of every step, for the mean loss of its rows.

    Raises:
        ValueError: If the lengths do not fit.

    Example:
        >>> network = nn.Linear(2, 2)
        >>> x, labels, steps = torch.eye(2), torch.tensor([0, 1]), torch.tensor([[0, 1], [0, 1]])
        >>> train_as_distilled(network, x, labels, steps, torch.tensor([9.0, 9.0]))
        >>> network(x).argmax(1)
        tensor([0, 1])
    """
    for name, given, many in (("labels", labels, len(x)), ("learning_rates", learning_rates, len(steps))):
        if len(given) != many:
            raise ValueError(checks.problem(name, f"must be {many}", len(given)))
    parameters = list(network.parameters())
    x, labels, learning_rates = (part.to(parameters[0].device) for part in (x, labels, learning_rates))
    network.train()
    for rows, rate in zip(steps.to(x.device), learning_rates, strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(network(x[rows]), labels[rows]), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(rate * gradient)
    network.eval()


def evaluate_distilled(
    condensed: CondensedSet,
    test_x: Tensor | NDArray[Any],
    test_labels: Tensor | NDArray[Any],
    *,
    network: NetworkFactory = PUBLISHED,
    networks: int = 5,
    seed: int = 0,
    device: str | None = None,
) -> Evaluation:
    """Train fresh networks on a set by its own steps and learning rates, and test each.

    Args:
        condensed: A set with ``steps`` and ``learning_rates``.
        test_x: Samples to test on, standardised as those of the set are, shape ``(n_test, ...)``.
        test_labels: Their classes, shape ``(n_test,)``.
        network: Makes the networks; by default :data:`PUBLISHED`.
        networks: How many.
        seed: Of it and the network's number come its first weights: those that
            :func:`~condensation.evaluate.evaluate` starts with.
        device: Where to train; by default the GPU where there is one.

    Raises:
        ValueError: If the set has no steps or learning rates, the test set does not fit or is not finite, or a trained
            network gives logits that are not finite.
    """
    start = time.perf_counter()
    if condensed.steps is None or condensed.learning_rates is None:
        rule = "must have steps and learning rates"
        raise ValueError(checks.problem("condensed", rule, condensed.method, "`evaluate` trains on any other set."))
    checks.non_negative_int("seed", seed)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    test_x, test_labels = torch.as_tensor(test_x), torch.as_tensor(test_labels)
    data = checked(condensed.samples(), condensed.labels, test_x, test_labels, condensed.num_classes, None, where)
    accuracies = []
    for number in range(checks.positive_int("networks", networks)):
        with seeded(network_seeds(seed, number).weights, where):
            fresh = network(tuple(data.x.shape[1:]), data.num_classes).to(where)
        train_as_distilled(fresh, data.x, data.targets, condensed.steps, condensed.learning_rates)
        logits = predict(fresh, data.test_x)
        if not bool(logits.isfinite().all()):
            advice = "The set was learned for networks of another kind."
            raise ValueError(checks.problem("network", "must give finite logits", "NaN or infinite ones", advice))
        accuracies.append(float((logits.argmax(1) == data.test_labels).double().mean()))
    return Evaluation(tuple(accuracies), time.perf_counter() - start)
