"""``LabelDistillation``: soft labels for a few real images, such that a network trained on them does well (LD)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from condensation.coresets.features import last_input
from condensation.learned.condenser import Condenser, Learned
from condensation.learned.networks import check_differentiable_twice, fresh_network, plain_network
from condensation.learned.real_images import Batch, RealImages
from condensation.learned.run import Job, Learning, drawn_from
from lossbuf import checks
from lossbuf.networks import NetworkFactory

_FORMS = ("ridge", "second-order")
_SHARE = 0.01
"""Of a batch's own head in the head that goes on from one iteration to the next."""

_LR_SCALE = 0.01

_Move = Callable[[Tensor], Tensor]
"""Called with the gradient in the labels of a batch, moves them, and gives them as they are then."""


def second_order_gradients(
    network: nn.Module,
    x: Float[Tensor, "few ..."],
    labels: Float[Tensor, "few num_classes"],
    lr: float,
    real: Batch,
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Loss on real images after one step of gradient descent on soft labels, and its gradient in these.

    Args:
        network: Before the step; it is not changed.
        x: Images of the step.
        labels: Their soft labels.
        lr: Of the step.
        real: What the network after the step is judged by: its mean loss, weighted.

    Returns:
        The loss; its gradient in ``labels``; and the gradient of the step's own loss in the network's parameters.
    """
    names, before = zip(*network.named_parameters(), strict=True)
    labels = labels.detach().requires_grad_()
    slopes = torch.autograd.grad(F.cross_entropy(network(x), labels), before, create_graph=True)
    after = [(value - lr * slope).detach().requires_grad_() for value, slope in zip(before, slopes, strict=True)]
    loss = _judged(functional_call(network, dict(zip(names, after, strict=True)), (real.x,)), real)
    # The labels reach the loss through the step alone.
    back = [-lr * gradient for gradient in torch.autograd.grad(loss, after)]
    (gradient,) = torch.autograd.grad(slopes, labels, back)
    return loss.detach(), gradient, tuple(slope.detach() for slope in slopes)


def ridge_head(
    features: Float[Tensor, "few num_features"], labels: Float[Tensor, "few num_classes"], penalty: float
) -> Float[Tensor, "num_features num_classes"]:
    """The ``head`` that makes ``|features @ head - labels|**2 + penalty * |head|**2`` least.

    Solved in as many unknowns as there are rows or features, whichever are fewer.

    Example:
        >>> ridge_head(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), penalty=1.0)
        tensor([[0.2500, 0.2500],
                [0.0000, 0.0000]])
    """
    few, many = features.shape
    eye = penalty * torch.eye(min(few, many), dtype=features.dtype, device=features.device)
    if few < many:
        return features.T @ torch.linalg.solve(features @ features.T + eye, labels)
    return torch.linalg.solve(features.T @ features + eye, features.T @ labels)


def as_probabilities(labels: Float[Tensor, "few num_classes"]) -> Float[Tensor, "few num_classes"]:
    """Clamped to [0, 1] and divided by their sum; the same for all classes where nothing is left.

    Example:
        >>> as_probabilities(torch.tensor([[0.5, -1.0, 1.5], [-1.0, 0.0, 0.0]]))
        tensor([[0.3333, 0.0000, 0.6667],
                [0.3333, 0.3333, 0.3333]])
    """
    clamped = labels.clamp(0, 1)
    total = clamped.sum(1, keepdim=True)
    return torch.where(total > 0, clamped / total.clamp(min=torch.finfo(labels.dtype).tiny), 1 / labels.shape[1])


def worn_out(losses: Sequence[float], patience: int) -> bool:
    """True where the mean of the last ``patience`` losses was least more than ``patience`` iterations ago.

    Example:
        >>> worn_out([3.0, 2.0, 1.0, 2.0, 2.0], patience=1), worn_out([3.0, 2.0, 1.0, 2.0], patience=1)
        (True, False)
    """
    sums = np.cumsum([0.0, *losses])
    means = sums[patience:] - sums[:-patience]
    return len(means) > 0 and len(means) - 1 - int(means.argmin()) > patience


class LabelDistillation(Condenser):
    """Learns soft labels for ``ipc`` real images a class, such that a network trained on them does well on all images.

    A network trains on batches of the set, and before each of its steps the labels take one: down the loss on real
    images of what the network becomes by them. In the second-order form that is the network after a step of gradient
    descent, and the loss is differentiated through it. In the ridge form it is the network with its last layer replaced
    by the ridge regression of the labels, mixed into that of the batches before and scaled by a learned number. When
    the loss on real images does not fall any more, a fresh network takes over.

    Args:
        ipc: Images a class; they are drawn from the real ones, and some twice where a class has fewer.
        form: ``"ridge"`` or ``"second-order"``.
        network: Makes the networks, of nothing but parameters, and for ridge with a linear layer; by default
            :func:`~condensation.learned.networks.plain_network`.
        iterations: Steps of the labels; by default 400 epochs of 50,000 images, as published. For digits of 8x8 pixels
            2000 with ``lr=0.003`` take a minute.
        lr: Of the labels, Adam.
        lr_network: Of the networks, Adam.
        lr_step: Of the step that is differentiated through, in the second-order form.
        penalty: Of the ridge regression, above 0.
        inner_batch: Images of the set a step.
        batch_size: Real images a step.
        patience: Iterations over which the loss is averaged, and for which it may stay above its least before a fresh
            network takes over; by default 50 for up to 100 images and 200 for more, as published.
        device: Where to compute; by default the GPU where there is one.
        random_state: Seed, generator or ``None``; the same seed gives the same images and labels.
        progress: Show a progress bar, on a terminal only.

    Attributes:
        images_: Real images as they were given, in float32; see :class:`~condensation.learned.condenser.Condenser`,
            like ``classes_`` and ``sample_indices_``.
        labels_: Probability of every class, float32, shape ``(num_classes * ipc, num_classes)``.
        losses_: Of the network on real images by iteration, in nats, shape ``(iterations,)``.

    Source:
        Bohdal, Yang, Hospedales 2020, "Flexible Dataset Distillation: Learn Labels Instead of Images", and the code
        published with it.

    Differs from the published code:
        Seeded: all that iteration i draws comes from the seed and i, so that real images are drawn anew in every
        iteration and not by epoch. Fresh networks come by the loss, there by the error. The labels are those of the
        last iteration, there the best by validation.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> found = LabelDistillation(iterations=2, device="cpu", random_state=0).fit(X.reshape(-1, 1, 8, 8), y)
        >>> found.images_.shape, found.labels_.shape, found.labels_.sum(1).round(3).tolist()[:2]
        ((10, 1, 8, 8), (10, 10), [1.0, 1.0])
    """

    def __init__(
        self,
        ipc: int = 1,
        *,
        form: str = "ridge",
        network: NetworkFactory = plain_network,
        iterations: int = 19600,
        lr: float = 0.001,
        lr_network: float = 0.001,
        lr_step: float = 0.01,
        penalty: float = 1.0,
        inner_batch: int = 50,
        batch_size: int = 1024,
        patience: int | None = None,
        device: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.ipc = ipc
        self.form = form
        self.network = network
        self.iterations = iterations
        self.lr = lr
        self.lr_network = lr_network
        self.lr_step = lr_step
        self.penalty = penalty
        self.inner_batch = inner_batch
        self.batch_size = batch_size
        self.patience = patience
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def _condense(self, real: RealImages, job: Job) -> Learned:
        iterations = checks.positive_int("iterations", self.iterations)
        lr = checks.positive_float("lr", self.lr)
        generator = drawn_from(job.seed, 0)
        rows = real.some_rows(self.ipc, generator).flatten()
        start = torch.full((len(rows), real.num_classes), 1 / real.num_classes, device=job.device)
        labels = start.requires_grad_()
        trainee = _Trainee(self, real, job.device)
        trainee.start(0, generator)
        patience = self.patience
        if patience is None:
            patience = 50 if len(rows) <= 100 else 200
        checks.positive_int("patience", patience)
        inner_batch = checks.positive_int("inner_batch", self.inner_batch)
        batch_size = checks.positive_int("batch_size", self.batch_size)
        learning = Learning(
            job,
            {"labels": labels},
            torch.optim.Adam([labels], lr=lr),
            data=[real.x, real.labels, real.weights],
            settings=self.get_params(deep=False) | {"method": "label distillation", "patience": patience},
            also=trainee,
        )

        def iterate(iteration: int, generator: torch.Generator) -> Tensor:
            if worn_out(learning.losses[trainee.started :], patience):
                trainee.start(iteration, generator)
            chosen = torch.randperm(len(rows), generator=generator)[:inner_batch].to(job.device)

            def move(gradient: Tensor) -> Tensor:
                learning.step({"labels": torch.zeros_like(labels).index_copy_(0, chosen, gradient)})
                with torch.no_grad():
                    labels.copy_(as_probabilities(labels))
                return labels.detach()[chosen]

            x, given = real.x[rows[chosen]], labels.detach()[chosen]
            return trainee.form.iterate(trainee.optimizer, x, given, real.of_all(batch_size, generator), move)

        learning.learn(iterate, iterations, self.progress)
        self.losses_ = np.array(learning.losses)
        return Learned(real.x[rows].unflatten(0, (real.num_classes, self.ipc)), labels, rows)


class _Trainee:
    """The network that trains on the set, and when it started."""

    def __init__(self, given: LabelDistillation, real: RealImages, device: torch.device) -> None:
        self.given, self.real, self.device = given, real, device
        self.second_order = checks.one_of("form", given.form, _FORMS) == "second-order"
        self.lr = checks.positive_float("lr_network", given.lr_network)
        self.lr_step = checks.positive_float("lr_step", given.lr_step)
        self.penalty = checks.positive_float("penalty", given.penalty)

    def start(self, iteration: int, generator: torch.Generator) -> None:
        """A fresh network takes over."""
        shape = tuple(self.real.x.shape[1:])
        network = fresh_network(self.given.network, shape, self.real.num_classes, self.device, generator).train()
        check_differentiable_twice(network)
        self.started = iteration
        if self.second_order:
            self.form = _SecondOrder(network, self.lr_step)
        else:
            self.form = _Ridge(network, self.penalty, self.real.x[:1], self.real.num_classes)
        self.optimizer = torch.optim.Adam(self.form.groups(self.lr))

    def state_dict(self) -> dict[str, Any]:
        return {
            "started": self.started,
            "form": dict(self.form.state_dict()),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.started = state_dict["started"]
        self.form.load_state_dict(state_dict["form"])
        self.optimizer.load_state_dict(state_dict["optimizer"])


class _SecondOrder(nn.Module):
    """A network, and the step that is differentiated through."""

    def __init__(self, network: nn.Module, lr_step: float) -> None:
        super().__init__()
        self.network, self.lr_step = network, lr_step

    def groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": lr}]

    def iterate(self, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor, real: Batch, move: _Move) -> Tensor:
        loss, gradient, slopes = second_order_gradients(self.network, x, labels, self.lr_step, real)
        move(gradient)
        _step(optimizer, list(self.parameters()), slopes)
        return loss


class _Ridge(nn.Module):
    """A network with a head that is solved for; its own last layer is idle."""

    head: Tensor

    def __init__(self, network: nn.Module, penalty: float, one: Tensor, num_classes: int) -> None:
        super().__init__()
        self.network, self.penalty = network, penalty
        with torch.no_grad():
            features = self._features(one)
        self.scale = nn.Parameter(features.new_ones(()))
        self.register_buffer("head", features.new_zeros(features.shape[1], num_classes))

    def groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(self.network.parameters()), "lr": lr}, {"params": [self.scale], "lr": _LR_SCALE}]

    def iterate(self, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor, real: Batch, move: _Move) -> Tensor:
        labels = labels.requires_grad_()
        features = self._features(x)
        head = (1 - _SHARE) * self.head + _SHARE * ridge_head(features, labels, self.penalty)
        scaled = self.scale * head
        with torch.no_grad():  # the labels reach the loss through the head alone
            judged = self._features(real.x)
        loss = _judged(judged @ scaled, real)
        (gradient,) = torch.autograd.grad(loss, labels, retain_graph=True)
        own = F.cross_entropy(features @ scaled, move(gradient))
        parameters = list(self.parameters())
        _step(optimizer, parameters, torch.autograd.grad(own, parameters, allow_unused=True))
        self.head.copy_(head.detach())
        return loss.detach()

    def _features(self, x: Tensor) -> Tensor:
        """What the network's last layer is given, and a 1 for the bias."""
        return F.pad(last_input(self.network, x), (0, 1), value=1.0)


def _judged(logits: Tensor, real: Batch) -> Tensor:
    return F.cross_entropy(logits, real.labels, reduction="none") @ (real.weights / real.weights.sum())


def _step(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
