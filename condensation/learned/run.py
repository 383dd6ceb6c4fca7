"""A run that learns tensors, iteration by iteration: its state, and how it goes on after an interruption."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from condensation.artifact.provenance import described
from condensation.learned.networks import fresh_network
from lossbuf import checks
from lossbuf.arrays.content_hash import content_hash
from lossbuf.files import load_tensors, restoring, save_tensors
from lossbuf.networks import NetworkFactory
from lossbuf.recording.saved_state import check_same_form
from lossbuf.training import seeded

_KIND = "condensation.learning"
_SECONDS = 10.0
"""Between two writes of a checkpoint, at least."""

_NO_MATTER = {"iterations", "progress", "random_state", "device"}


class Progress(NamedTuple):
    """What a callback is told after an iteration.

    Attributes:
        iteration: How many there were.
        loss: What this one gave: the quantity that the method makes small.
        values: The tensors as they are now, by name: ``"images"``, standardised, shape ``(num_classes, ipc, channels,
            height, width)``, and what else the method learns. To be looked at or copied, not to be changed.
    """

    iteration: int
    loss: float
    values: Mapping[str, Tensor]


Callback = Callable[[Progress], object]
"""Called after every iteration, once its state is written where that is due; True ends the learning there."""


class Job(NamedTuple):
    """What a run is told besides its settings and data."""

    seed: int
    device: torch.device
    checkpoint: Path | None = None
    callback: Callback | None = None


@runtime_checkable
class Stateful(Protocol):
    """Something with a state of tensors and plain values."""

    def state_dict(self) -> dict[str, Any]:
        """The state as it is now."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Go on from a state."""
        ...


class Learning:
    """Tensors, moved by an optimizer.

    All that iteration i draws comes from the seed and i, so that the tensors, the optimizer, the number of iterations
    and what else is told are the whole state.

    Args:
        job: Seed, checkpoint and callback.
        values: What is learned, by name; leaves that require gradients.
        optimizer: Of these tensors.
        data: What the run learns from; a checkpoint belongs to it, to its settings and to the network.
        settings: Of the method; of objects the type and, where they are dataclasses, the fields. Those that change no
            bit are not looked at, nor ``iterations``, since more may follow.
        also: What else goes on from one iteration to the next.

    Attributes:
        losses: What each iteration gave, a number each.
    """

    def __init__(
        self,
        job: Job,
        values: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        data: list[Tensor],
        settings: Mapping[str, Any],
        also: Stateful | None = None,
    ) -> None:
        self.job, self.values, self.optimizer, self.also = job, values, optimizer, also
        self.losses: list[float] = []
        self._of = {} if job.checkpoint is None else _identity(job.seed, values, data, settings)
        self._written = time.monotonic()

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One step of the optimizer, with gradients by name."""
        for name, gradient in gradients.items():
            self.values[name].grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def learn(
        self, iterate: Callable[[int, torch.Generator], Tensor | float], iterations: int, progress: bool = False
    ) -> None:
        """Iterate, from where the checkpoint stands.

        Args:
            iterate: Called with the iterations done so far and the generator of this one; gives its loss.
            iterations: How many there are to be.
            progress: Show a progress bar, on a terminal only.

        Raises:
            ValueError: If the checkpoint is of another run, or has more iterations.
            OSError: If it cannot be written; that is found before the first iteration.
            FloatingPointError: If a loss or what is learned is not finite; the checkpoint stays that of the iterations
                before.
        """
        self._restore()
        path, ended = self.job.checkpoint, False
        if len(self.losses) > iterations:
            rule = f"must be at least {len(self.losses)}, as many as there are in {path}"
            raise ValueError(checks.problem("iterations", rule, iterations))
        if path is not None and not path.exists():  # found out now, and not after hours
            self._save(path)
            path.unlink()
        with tqdm(total=iterations, initial=len(self.losses), desc="condensing", leave=False,
                  disable=None if progress else True) as bar:  # fmt: skip
            while len(self.losses) < iterations and not ended:
                done = len(self.losses)
                with seeded(_seed(self.job.seed, done + 1, 1), self.job.device):  # for what layers draw
                    loss = float(iterate(done, drawn_from(self.job.seed, done + 1)))
                self._check_finite(loss, done + 1)
                self.losses.append(loss)
                bar.update()
                due = len(self.losses) == iterations or time.monotonic() - self._written >= _SECONDS
                if path is not None and due:
                    self._save(path)
                if self.job.callback is not None:
                    told = {name: value.detach() for name, value in self.values.items()}
                    answer = self.job.callback(Progress(len(self.losses), loss, told))
                    ended = isinstance(answer, bool | np.bool_ | Tensor) and bool(answer)
                if path is not None and ended and not due:
                    self._save(path)

    def _check_finite(self, loss: float, iteration: int) -> None:
        found = {"loss": math.isfinite(loss)}
        found |= {name: bool(value.isfinite().all()) for name, value in self.values.items()}
        if not all(found.values()):
            what = next(name for name, finite in found.items() if not finite)
            told = f"but was {loss}" if what == "loss" else "but was not"
            rule = f"must stay finite, {told} in iteration {iteration}"
            raise FloatingPointError(f"The {what} {rule}. A lower learning rate may help.")

    def _save(self, path: Path) -> None:
        state = {
            "kind": _KIND,
            "of": self._of,
            "values": {name: value.detach() for name, value in self.values.items()},
            "optimizer": self.optimizer.state_dict(),
            "also": None if self.also is None else self.also.state_dict(),
            "losses": self.losses,
        }
        save_tensors(path, state)
        self._written = time.monotonic()

    def _restore(self) -> None:
        path = self.job.checkpoint
        if path is None or not path.exists():
            return
        with restoring(path):
            self._go_on(load_tensors(path, _KIND), path)

    def _go_on(self, state: dict[str, Any], path: Path) -> None:
        of = state["of"]
        other = {name: of.get(name) for name, value in self._of.items() if of.get(name) != value}
        if other:
            rule = "must be of a run with the same data and settings"
            raise ValueError(checks.problem("checkpoint", rule, other, f"Remove {path} to start anew."))
        saved = state["values"]
        if not isinstance(saved, dict):
            raise ValueError(checks.problem("checkpoint", "must hold what was learned", type(saved).__name__))
        with torch.no_grad():
            for name, value in self.values.items():
                check_same_form(name, value, saved.get(name))
                value.copy_(saved[name])
        self.optimizer.load_state_dict(state["optimizer"])
        for value in self.values.values():
            for name, part in self.optimizer.state[value].items():
                if isinstance(part, Tensor) and part.ndim:
                    check_same_form(name, value, part)
        if self.also is not None:
            self.also.load_state_dict(state["also"])
        losses = state["losses"]
        if not isinstance(losses, list) or not all(isinstance(loss, float) and math.isfinite(loss) for loss in losses):
            raise ValueError(checks.problem("checkpoint", "must hold a finite loss an iteration", losses))
        self.losses = losses


def drawn_from(seed: int, iteration: int) -> torch.Generator:
    """The generator of an iteration; 0 is for what comes before the first."""
    return torch.Generator().manual_seed(_seed(seed, iteration))


def _seed(*of: int) -> int:
    return int(np.random.SeedSequence(of[0], spawn_key=of[1:]).generate_state(1, np.uint64)[0])


def _identity(seed: int, values: dict[str, Tensor], data: list[Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    x, labels, *_ = data
    factory, of_network = settings.get("network"), []
    if callable(factory):
        made = cast(NetworkFactory, factory)
        network = fresh_network(made, tuple(x.shape[1:]), int(labels.max()) + 1, x.device, drawn_from(0, 0))
        of_network = [repr(network), [(name, tuple(value.shape)) for name, value in network.named_parameters()]]
    return {
        **{name: described(value) for name, value in settings.items() if name not in _NO_MATTER},
        "of_network": content_hash(repr(of_network)),
        "values": {name: tuple(value.shape) for name, value in values.items()},
        "seed": seed,
        "data": content_hash(*itertools.chain(*((repr(tuple(part.shape)), part) for part in data))),
    }
