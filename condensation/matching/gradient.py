"""``GradientMatching``: synthetic images whose gradients are those of real ones, step after step (DC, DSA)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensation.augmentation.siamese import SiameseAugmentation, changed_alike
from condensation.learned.condenser import Condenser, Learned
from condensation.learned.networks import FreshNetworks
from condensation.learned.real_images import RealImages
from condensation.learned.run import Job, Learning, drawn_from
from condensation.matching.class_gradients import class_gradients, freeze_statistics
from condensation.matching.distance import gradient_distance
from condensation.subspace import reconstruction_error
from lossbuf import checks
from lossbuf.networks import NetworkFactory, architectures

_STATISTICS_ROWS = 16
_CPU_ROWS = 32
_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


def loops(ipc: int) -> tuple[int, int]:
    """Outer steps a network, and epochs of its training after each: published for 1, 10, 20, 30, 40 and 50.

    For other numbers there are ``ipc`` outer steps, and 500 epochs spread over them, 50 after each at most.

    Example:
        >>> loops(10), loops(5), loops(100)
        ((10, 50), (5, 50), (100, 5))
    """
    return _LOOPS.get(ipc, (ipc, max(1, min(50, round(500 / ipc)))))


class GradientMatching(Condenser):
    """Learns ``ipc`` images a class such that a network's gradients on them are those on the real images.

    In every iteration a fresh network starts. In each of its outer steps the gradient of every class's loss on a batch
    of real images is compared with that on the synthetic ones, the images take a step down the sum of the distances,
    and the network trains some epochs on the synthetic images.

    Args:
        ipc: Images a class.
        augment: A :class:`~condensation.augmentation.siamese.SiameseAugmentation` makes it DSA: real and synthetic
            images of a class are changed by one draw, and the network trains on changed images. ``None`` is DC.
        network: Makes the networks; by default :func:`~lossbuf.networks.architectures.convnet3`. For images of 8 pixels
            a side take two blocks: instance norm over 2x2 places leaves gradients that no image can match.
        iterations: Fresh networks.
        outer_steps: Steps of the images a network; by default :func:`loops`.
        inner_epochs: Epochs the network trains after each; by default :func:`loops`.
        init: ``"noise"`` or ``"real"``, images of the class; by default real for DSA and noise for DC, as published.
        lr: Of the images, SGD with ``momentum``. The published rate is for images of 28 and 32 pixels a side; smaller
            ones have longer gradients: .03 for 8.
        momentum: Of the images.
        lr_network: Of the networks, SGD.
        reconstruction: What a class's :func:`~condensation.subspace.reconstruction_error` is multiplied by before it is
            added to the distance of its gradients: the images are then to span what the real ones vary by, too.
        batch_size: Real images a class and step, and synthetic ones a step of the network's training.
        classes_at_once: Classes in one pass; by default all on a GPU and one on a CPU. What they are compared by stays
            in memory together. Above 1 the network must not draw anything.
        rows_at_once: Real images a class that pass together; the gradients of the parts are summed. By default all on a
            GPU, and on a CPU as many as its cache likes.
        dtype: ``"float32"``, or ``"bfloat16"``, in which networks then compute the gradients on the real images and
            their training on the synthetic ones; those that are differentiated once more stay in float32.
        compiled: Compile what need not be differentiated twice with ``torch.compile``: a minute once, then faster.
            Networks must all be of one form, without batch norm; on a CPU a C++ compiler must be there.
        device: Where to compute; by default the GPU where there is one.
        random_state: Seed, generator or ``None``; the same seed gives the same images.
        progress: Show a progress bar, on a terminal only.

    Attributes:
        images_: See :class:`~condensation.learned.condenser.Condenser`, like ``labels_`` and ``classes_``.
        losses_: Mean loss of an outer step by iteration, a class, shape ``(iterations,)``.

    Source:
        Zhao, Mopuri, Bilen 2021, "Dataset Condensation with Gradient Matching"; Zhao, Bilen 2021, "Dataset Condensation
        with Differentiable Siamese Augmentation".

    Differs from the published code:
        Seeded: all that iteration i draws comes from the seed and i. Any ``ipc``. A class of fewer rows than a batch
        gives all it has, the others their full batch.
    """

    def __init__(
        self,
        ipc: int = 1,
        *,
        augment: SiameseAugmentation | None = None,
        network: NetworkFactory | None = None,
        iterations: int = 1000,
        outer_steps: int | None = None,
        inner_epochs: int | None = None,
        init: str | None = None,
        lr: float = 0.1,
        momentum: float = 0.5,
        lr_network: float = 0.01,
        reconstruction: float = 0.0,
        batch_size: int = 256,
        classes_at_once: int | None = None,
        rows_at_once: int | None = None,
        dtype: str = "float32",
        compiled: bool = False,
        device: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.ipc = ipc
        self.augment = augment
        self.network = network
        self.iterations = iterations
        self.outer_steps = outer_steps
        self.inner_epochs = inner_epochs
        self.init = init
        self.lr = lr
        self.momentum = momentum
        self.lr_network = lr_network
        self.reconstruction = reconstruction
        self.batch_size = batch_size
        self.classes_at_once = classes_at_once
        self.rows_at_once = rows_at_once
        self.dtype = dtype
        self.compiled = compiled
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def _condense(self, real: RealImages, job: Job) -> Learned:
        matching = _Matching(self, real, job)
        matching.learning.learn(matching.iterate, matching.plan.iterations, self.progress)
        self.losses_ = np.array(matching.learning.losses)
        return Learned(matching.images)


@dataclass(frozen=True)
class _Plan:
    """Settings, checked."""

    iterations: int
    outer_steps: int
    inner_epochs: int
    batch_size: int
    lr: float
    momentum: float
    lr_network: float
    reconstruction: float
    from_real: bool
    classes_at_once: int | None
    rows_at_once: int | None
    dtype: str
    compiled: bool

    @classmethod
    def of(cls, given: GradientMatching) -> _Plan:
        outer, inner = loops(given.ipc)
        init = given.init or ("noise" if given.augment is None else "real")
        return cls(
            checks.positive_int("iterations", given.iterations),
            outer if given.outer_steps is None else checks.positive_int("outer_steps", given.outer_steps),
            inner if given.inner_epochs is None else checks.non_negative_int("inner_epochs", given.inner_epochs),
            checks.positive_int("batch_size", given.batch_size),
            checks.positive_float("lr", given.lr),
            checks.rate("momentum", given.momentum),
            checks.positive_float("lr_network", given.lr_network),
            checks.non_negative_float("reconstruction", given.reconstruction),
            checks.one_of("init", init, ("noise", "real")) == "real",
            _at_once("classes_at_once", given.classes_at_once),
            _at_once("rows_at_once", given.rows_at_once),
            checks.one_of("dtype", given.dtype, ("float32", "bfloat16")),
            checks.flag("compiled", given.compiled),
        )


def _at_once(name: str, value: int | None) -> int | None:
    return None if value is None else checks.positive_int(name, value)


class _Matching:
    """One run."""

    def __init__(self, given: GradientMatching, real: RealImages, job: Job) -> None:
        self.plan, self.augment, self.real, self.device = _Plan.of(given), given.augment, real, job.device
        self.factory = given.network or architectures.convnet3
        on_gpu = job.device.type == "cuda"
        self.classes_at_once = self.plan.classes_at_once or (real.num_classes if on_gpu else 1)
        self.rows_at_once = self.plan.rows_at_once or (self.plan.batch_size if on_gpu else _CPU_ROWS)
        shape = tuple(real.x.shape[1:])
        self.networks = FreshNetworks(self.factory, shape, real.num_classes, job.device, compiled=self.plan.compiled)
        self.images = real.start(given.ipc, self.plan.from_real, drawn_from(job.seed, 0)).requires_grad_()
        self.learning = Learning(
            job,
            {"images": self.images},
            torch.optim.SGD([self.images], lr=self.plan.lr, momentum=self.plan.momentum),
            data=[real.x, real.labels, real.weights],
            settings=asdict(self.plan)
            | {"method": "gradients", "augment": given.augment, "network": self.factory}
            | {"classes_at_once": self.classes_at_once, "rows_at_once": self.rows_at_once},
        )

    def iterate(self, iteration: int, generator: torch.Generator) -> Tensor:
        """One fresh network; the mean distance of its outer steps."""
        network = self.networks.fresh(generator)
        _check(network)
        optimizer = torch.optim.SGD(network.parameters(), lr=self.plan.lr_network)
        total = torch.zeros((), device=self.device)
        for step in range(self.plan.outer_steps):
            total += self._step(network, generator)
            if step + 1 < self.plan.outer_steps:
                self._train(network, optimizer, generator)
        return total / self.plan.outer_steps / self.real.num_classes

    def _step(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Compare the gradients, and move the images; the loss, summed over the classes."""
        freeze_statistics(network, self.real.some(_STATISTICS_ROWS, generator).flatten(0, 1))
        x, weights = self.real.batch(self.plan.batch_size, generator)
        x, changed = changed_alike(self.augment, x, self.images, generator)
        together, total = self.classes_at_once > 1, torch.zeros((), device=self.device)
        gradient = torch.zeros_like(changed)
        for classes in torch.arange(len(x)).split(self.classes_at_once):
            part = slice(int(classes[0]), int(classes[-1]) + 1)
            chosen = changed[part].detach().requires_grad_()
            with self._low_precision():
                real = class_gradients(
                    self.networks.fast(network),
                    x[part],
                    weights[part],
                    together=together,
                    rows_at_once=self.rows_at_once,
                    first=part.start,
                )
            found = class_gradients(
                network, chosen, torch.ones_like(chosen[..., 0, 0, 0]), together=together, create_graph=True,
                first=part.start,
            )  # fmt: skip
            # A layer's outputs of all classes are so many rows; what has one dimension in the network counts nothing.
            pairs = [(a.flatten(0, 1), b.flatten(0, 1)) for a, b in zip(real, found, strict=True) if a.ndim > 2]
            distance = gradient_distance([a for a, _ in pairs], [b for _, b in pairs])
            if self.plan.reconstruction:
                distance = distance + self.plan.reconstruction * reconstruction_error(x[part], weights[part], chosen)
            (gradient[part],) = torch.autograd.grad(distance, chosen)
            total += distance.detach()
        if changed is self.images:
            self.learning.step({"images": gradient})
        else:
            self.learning.step({"images": torch.autograd.grad(changed, self.images, gradient)[0]})
        return total

    def _train(self, network: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        """Some epochs on the synthetic images."""
        network.train()
        fast = self.networks.fast(network)
        images = self.images.detach().flatten(0, 1)
        labels = torch.arange(self.real.num_classes, device=self.device).repeat_interleave(
            len(images) // self.real.num_classes
        )
        # Where rows do not see each other, the gradient of a step is the sum of those of its parts.
        alone = not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())
        rows_at_once = self.rows_at_once if alone else self.plan.batch_size
        for _ in range(self.plan.inner_epochs):
            for rows in torch.randperm(len(images), generator=generator).to(self.device).split(self.plan.batch_size):
                x = images[rows] if self.augment is None else self.augment(images[rows], generator)
                optimizer.zero_grad(set_to_none=True)
                for part, those in zip(x.split(rows_at_once), rows.split(rows_at_once), strict=True):
                    with self._low_precision():
                        loss = F.cross_entropy(fast(part), labels[those], reduction="sum") / len(rows)
                    loss.backward()
                optimizer.step()

    def _low_precision(self) -> torch.autocast:
        low = self.plan.dtype == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)


def _check(network: nn.Module) -> None:
    """Raise ``ValueError`` for networks whose gradients cannot be matched."""
    if not any(parameter.ndim >= 2 for parameter in network.parameters()):
        raise ValueError(checks.problem("network", "must have weights to match the gradients of", "none"))
    drops = [module for module in network.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    if any(module.p > 0 for module in drops):
        raise ValueError(checks.problem("network", "must not drop out, which no two gradients share", repr(drops[0])))
