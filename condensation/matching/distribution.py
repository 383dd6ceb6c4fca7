"""``DistributionMatching``: synthetic images whose mean features are those of real ones, in random networks (DM)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from condensation.augmentation.siamese import SiameseAugmentation, changed_alike
from condensation.coresets.features import last_input
from condensation.learned.condenser import Condenser, Learned
from condensation.learned.networks import fresh_network
from condensation.learned.real_images import RealImages
from condensation.learned.run import Job, Learning, drawn_from
from lossbuf import checks
from lossbuf.networks import NetworkFactory, architectures

PUBLISHED = SiameseAugmentation()
"""All six families. Leave out ``"flip"`` for digits."""


def mean_distance(
    real: Float[Tensor, "num_classes batch num_features"],
    weights: Float[Tensor, "num_classes batch"],
    synthetic: Float[Tensor, "num_classes ipc num_features"],
) -> Float[Tensor, ""]:
    """Squared distance between the mean features of each class, summed over the classes.

    Args:
        real: Features of the real images.
        weights: Of the real images, 0 for places that hold none.
        synthetic: Features of the synthetic images.

    Example:
        >>> real, synthetic = torch.tensor([[[0.0], [2.0]]]), torch.tensor([[[4.0]]])
        >>> mean_distance(real, torch.ones(1, 2), synthetic)
        tensor(9.)
    """
    means = (real * weights.unsqueeze(2)).sum(1) / weights.sum(1, keepdim=True)
    return (means - synthetic.mean(1)).square().sum()


class DistributionMatching(Condenser):
    """Learns ``ipc`` images a class such that random networks see the same mean features in them as in real ones.

    Args:
        ipc: Images a class.
        augment: Changes real and synthetic images of a class by one draw; by default all families, as published.
        network: Makes the networks, which are never trained; their features are what the last linear layer is given. By
            default :func:`~lossbuf.networks.architectures.convnet3`.
        iterations: Fresh networks, one step of the images each.
        init: ``"real"``, images of the class, or ``"noise"``.
        lr: Of the images, SGD with ``momentum``.
        momentum: Of the images.
        batch_size: Real images a class and step.
        device: Where to compute; by default the GPU where there is one.
        random_state: Seed, generator or ``None``; the same seed gives the same images.
        progress: Show a progress bar, on a terminal only.

    Attributes:
        images_: See :class:`~condensation.learned.condenser.Condenser`, like ``labels_`` and ``classes_``.
        losses_: Distance by iteration, a class, shape ``(iterations,)``.

    Source:
        Zhao, Bilen 2023, "Dataset Condensation with Distribution Matching".

    Differs from the published code:
        Seeded: all that iteration i draws comes from the seed and i. All classes pass through the network together.
    """

    def __init__(
        self,
        ipc: int = 1,
        *,
        augment: SiameseAugmentation | None = PUBLISHED,
        network: NetworkFactory | None = None,
        iterations: int = 20000,
        init: str = "real",
        lr: float = 1.0,
        momentum: float = 0.5,
        batch_size: int = 256,
        device: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.ipc = ipc
        self.augment = augment
        self.network = network
        self.iterations = iterations
        self.init = init
        self.lr = lr
        self.momentum = momentum
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def _condense(self, real: RealImages, job: Job) -> Learned:
        factory = self.network or architectures.convnet3
        batch_size = checks.positive_int("batch_size", self.batch_size)
        iterations = checks.positive_int("iterations", self.iterations)
        from_real = checks.one_of("init", self.init, ("noise", "real")) == "real"
        images = real.start(self.ipc, from_real, drawn_from(job.seed, 0)).requires_grad_()
        optimizer = torch.optim.SGD(
            [images], lr=checks.positive_float("lr", self.lr), momentum=checks.rate("momentum", self.momentum)
        )
        learning = Learning(
            job,
            {"images": images},
            optimizer,
            data=[real.x, real.labels, real.weights],
            settings=self.get_params(deep=False) | {"method": "distributions", "network": factory},
        )

        def iterate(iteration: int, generator: torch.Generator) -> Tensor:
            network = fresh_network(factory, tuple(real.x.shape[1:]), real.num_classes, job.device, generator).train()
            x, weights = real.batch(batch_size, generator)
            x, changed = changed_alike(self.augment, x, images, generator)
            with torch.no_grad():
                target = last_input(network, x.flatten(0, 1)).unflatten(0, x.shape[:2])
            found = last_input(network, changed.flatten(0, 1)).unflatten(0, changed.shape[:2])
            distance = mean_distance(target, weights, found)
            learning.step({"images": torch.autograd.grad(distance, images)[0]})
            return distance.detach() / real.num_classes

        learning.learn(iterate, iterations, self.progress)
        self.losses_ = np.array(learning.losses)
        return Learned(images)
