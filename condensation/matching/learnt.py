"""Images that are learnt: their state, their steps, and how they go on after an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from condensation.matching.class_gradients import Factory
from condensation.matching.condenser import RealImages
from condensation.siamese import SiameseAugmentation
from lossbuf import checks
from lossbuf.files import load_tensors, save_tensors
from lossbuf.training import seeded

_KIND = "condensation.learnt_images"


class LearntImages:
    """Synthetic images of every class, moved by SGD.

    All that iteration i draws comes from the seed and i, so that images, momentum and the number of iterations are the
    whole state.

    Args:
        real: The real images.
        ipc: Images a class.
        seed: Of everything that is drawn.
        from_real: Start from real images, and not from noise.
        lr: Of SGD.
        momentum: Of SGD.
        factory: Makes the networks; its name is part of what a checkpoint belongs to.
        settings: What else is; ``iterations`` is not looked at, since more may follow.

    Attributes:
        values: The images, shape ``(num_classes, ipc, channels, height, width)``.
        distances: What each iteration gave, a number each.
    """

    def __init__(
        self,
        real: RealImages,
        ipc: int,
        seed: int,
        *,
        from_real: bool,
        lr: float,
        momentum: float,
        factory: Factory,
        settings: dict[str, Any],
    ) -> None:
        self.real, self.seed, self.factory, self.settings = real, seed, factory, settings
        generator = self._generator(0)
        shape = (real.num_classes, ipc, *real.x.shape[1:])
        start = real.some(ipc, generator) if from_real else torch.randn(shape, generator=generator).to(real.x.device)
        self.values = start.clone().requires_grad_()
        self.optimizer = torch.optim.SGD([self.values], lr=lr, momentum=momentum)
        self.distances: list[float] = []

    def step(self, distance: Tensor) -> Tensor:
        """Move the images down a distance; gives it, without its graph."""
        self.optimizer.zero_grad(set_to_none=True)
        (self.values.grad,) = torch.autograd.grad(distance, [self.values])
        self.optimizer.step()
        return distance.detach()

    def learn(
        self,
        iterate: Callable[[torch.Generator], Tensor],
        iterations: int,
        checkpoint: Path | None,
        progress: bool,
    ) -> None:
        """Iterate, from where the checkpoint stands, and write it after every iteration."""
        self._restore(checkpoint)
        with tqdm(total=iterations, initial=len(self.distances), desc="condensing", leave=False,
                  disable=None if progress else True) as bar:  # fmt: skip
            while len(self.distances) < iterations:
                self.distances.append(float(iterate(self._generator(len(self.distances) + 1))))
                bar.update()
                self._save(checkpoint)

    def _generator(self, iteration: int) -> torch.Generator:
        state = np.random.SeedSequence(self.seed, spawn_key=(iteration,)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]))

    @cached_property
    def _identity(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.real.x.cpu().numpy().tobytes())
        for rows in self.real.by_class:
            digest.update(rows.cpu().numpy().tobytes())
        plain = {name: value if isinstance(value, int | float | str) else repr(value)
                 for name, value in self.settings.items() if name != "iterations"}  # fmt: skip
        return {
            **plain,
            "network": getattr(self.factory, "__qualname__", type(self.factory).__name__),
            "images": tuple(self.values.shape),
            "seed": self.seed,
            "data": digest.hexdigest(),
        }

    def _save(self, checkpoint: Path | None) -> None:
        if checkpoint is not None:
            state = {
                "kind": _KIND,
                "of": self._identity,
                "images": self.values.detach(),
                "optimizer": self.optimizer.state_dict(),
                "distances": self.distances,
            }
            save_tensors(checkpoint, state)

    def _restore(self, checkpoint: Path | None) -> None:
        if checkpoint is None or not checkpoint.exists():
            return
        state = load_tensors(checkpoint, _KIND)
        of = state["of"]
        other = {name: of.get(name) for name, value in self._identity.items() if of.get(name) != value}
        if other:
            rule = "must be of a run with the same data and settings"
            raise ValueError(checks.problem("checkpoint", rule, other, f"Remove {checkpoint} to start anew."))
        with torch.no_grad():
            self.values.copy_(state["images"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.distances = list(state["distances"])


def fresh_network(factory: Factory, real: RealImages, generator: torch.Generator) -> nn.Module:
    """A network with weights drawn from the generator, on the device of the images."""
    with seeded(int(torch.randint(2**62, (1,), generator=generator)), real.x.device):
        network = factory(tuple(real.x.shape[1:]), real.num_classes)
    return network.to(real.x.device)


def changed_alike(
    augment: SiameseAugmentation | None, real: Tensor, synthetic: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Real and synthetic images, class by class changed by one draw."""
    if augment is None:
        return real, synthetic
    changes = [augment.draw(generator) for _ in range(len(real))]
    pairs = [(change(one), change(other)) for change, one, other in zip(changes, real, synthetic, strict=True)]
    return torch.stack([one for one, _ in pairs]), torch.stack([other for _, other in pairs])
