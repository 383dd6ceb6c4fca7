"""The one training loop: seeded, with or without a callback, and able to go on after a kill with the same bits."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn
from tqdm.auto import tqdm

from lossbuf import checks
from lossbuf.arrays.content_hash import content_hash
from lossbuf.callback import LossBufferCallback
from lossbuf.detection.thresholds import MaxFDR
from lossbuf.files import load_tensors, restoring, save_tensors

_KIND = "lossbuf.training"
_STATE = ("of", "step", "network", "optimizer", "callback", "order_state", "in_epoch", "generator", "rng", "cuda_rng",
          "loss_sum", "history", "began")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train: SGD with Nesterov momentum, the rate falling along a cosine after a short linear rise.

    Attributes:
        epochs: Passes over the data.
        batch_size: Rows a step; the last step of an epoch takes what is left.
        lr: Highest learning rate.
        momentum: Of SGD.
        weight_decay: Of SGD.
        seed: Seeds the order of the rows and everything random in the network.
        device: Where to train; by default the GPU where there is one.

    Raises:
        ValueError: If a value has no meaning.
    """

    epochs: int = 20
    batch_size: int = 128
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        checks.positive_int("epochs", self.epochs)
        checks.positive_int("batch_size", self.batch_size)
        checks.positive_float("lr", self.lr)
        checks.rate("momentum", self.momentum)
        checks.rate("weight_decay", self.weight_decay)
        if checks.non_negative_int("seed", self.seed) >= 2**63:
            raise ValueError(checks.problem("seed", "must be below 2**63", self.seed))

    def torch_device(self) -> torch.device:
        """The device to train on."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@runtime_checkable
class StepCallback(Protocol):
    """What :func:`train` asks of a callback; :class:`~lossbuf.callback.LossBufferCallback` is one."""

    def loss(self, logits: Tensor, labels: Tensor, indices: Tensor, /) -> Tensor:
        """Take note of a batch and give the loss to call ``backward`` on."""
        ...

    def end_epoch(self) -> None:
        """Mark the end of a pass over the data."""
        ...


@runtime_checkable
class ResumableCallback(StepCallback, Protocol):
    """A callback that a checkpoint can hold."""

    def state_dict(self) -> Mapping[str, Any]:
        """All it has collected, as tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any:
        """Restore that; raises ``ValueError`` where it is not of the same settings and data."""
        ...


@dataclass
class History:
    """Values an epoch: mean training loss in nats, and what ``after_epoch`` returned."""

    loss: list[float] = field(default_factory=list)
    after_epoch: list[Any] = field(default_factory=list)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's generators start from ``seed`` inside, and go on as before outside; new tensors are float32.

    Both belong to the process: two threads must not be inside at a time.
    """
    devices, usual = [device] if device.type == "cuda" else [], torch.get_default_dtype()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(usual)


def build(factory: Callable[[], nn.Module], settings: TrainSettings) -> nn.Module:
    """A network with weights drawn from the settings' seed, on the settings' device."""
    device = settings.torch_device()
    with seeded(settings.seed, device):
        network = factory()
    # On a CPU convolutions run up to twice as fast with the channels innermost; the results stay the same network's.
    return network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def train(
    network: nn.Module,
    x: Float[Tensor, "n_samples ..."],
    labels: Int[Tensor, " n_samples"],
    settings: TrainSettings,
    *,
    rows: Integer[Tensor, " n_kept"] | Bool[Tensor, " n_samples"] | None = None,
    callback: StepCallback | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    mix: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    after_epoch: Callable[[nn.Module], Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_steps: int | None = None,
    progress: str | None = None,
) -> History:
    """Train a network in place; not in two threads at a time, as torch's generators are the process's.

    Args:
        network: Gives logits for a batch of ``x``.
        x: Samples; they are moved to the device whole.
        labels: Given labels.
        settings: How to train.
        rows: The rows to train on, as numbers or as a mask, shape ``(n_samples,)``; by default all.
        callback: Sees every step, with the rows as its indices, and weights the loss; with a checkpoint it must be a
            :class:`ResumableCallback`, as :class:`~lossbuf.callback.LossBufferCallback` is.
        augment: Changes each batch of ``x`` before the network sees it, as
            :class:`~lossbuf.training.augmentation.CropFlip` does; what it draws must come from torch's global
            generators.
        mix: Called after it with the batch of ``x``, its labels and its rows, as mixup needs them; the same holds.
        after_epoch: Called with the network, in evaluation mode, after every epoch. With a checkpoint it must return
            tensors or plain values.
        checkpoint: A file that holds the run's whole state. Where it exists, the run goes on from it and ends with the
            bits of one that was never interrupted. The caller removes it.
        checkpoint_steps: Steps between two writes of the checkpoint; by default an epoch's.
        progress: Text of a progress bar, shown on a terminal only; ``None`` for none.

    Returns:
        The values of every epoch, those before an interruption too.

    Raises:
        ValueError: If ``x`` and ``labels`` differ in length, there are no rows or some that ``x`` has not, a label
            among them is no class, ``checkpoint_steps`` is no positive integer, the checkpoint is not of this run or
            cannot hold the callback, or ``after_epoch`` returned what it cannot hold.
        RuntimeError: If gradients are switched off.
    """
    checks.gradients("train")
    if checkpoint_steps is not None:
        checks.positive_int("checkpoint_steps", checkpoint_steps)
    run = _Run(network, x, labels, settings, rows, callback, augment, mix, checkpoint)
    every = checkpoint_steps or run.steps_an_epoch
    bar = tqdm(total=settings.epochs * run.steps_an_epoch, initial=run.step, desc=progress, leave=False,
               disable=None if progress else True)  # fmt: skip
    with seeded(settings.seed, run.device), bar:
        run.restore()
        bar.update(run.step - bar.n)
        while run.step < settings.epochs * run.steps_an_epoch:
            run.train_step()
            bar.update()
            if run.step % run.steps_an_epoch == 0:
                run.end_epoch(after_epoch)
            if checkpoint is not None and run.step % every == 0:
                run.save()
    network.eval()
    return run.history


class _Run:
    """The state of a training run."""

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        labels: Tensor,
        settings: TrainSettings,
        rows: Tensor | None,
        callback: StepCallback | None,
        augment: Callable[[Tensor], Tensor] | None,
        mix: Callable[[Tensor, Tensor, Tensor], Tensor] | None,
        checkpoint: str | os.PathLike[str] | None,
    ) -> None:
        if len(x) != len(labels):
            raise ValueError(checks.problem("x", f"must have {len(labels)} rows, as many as labels", len(x)))
        self.settings, self.callback, self.augment, self.mix, self.network = settings, callback, augment, mix, network
        self.kept = callback if isinstance(callback, ResumableCallback) else None
        if checkpoint is not None and callback is not None and self.kept is None:
            rule = "must have state_dict and load_state_dict where there is a checkpoint"
            raise ValueError(checks.problem("callback", rule, type(callback).__name__))
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.device = settings.torch_device()
        kept = checks.row_numbers("rows", torch.arange(len(x)) if rows is None else rows, len(x))
        checks.class_labels("labels" if rows is None else "labels[rows]", labels[kept.to(labels.device)])
        self.x, self.labels, self.rows = x.to(self.device), labels.to(self.device, torch.int64), kept.to(self.device)
        self._data = "" if checkpoint is None else content_hash(x)
        self.steps_an_epoch = math.ceil(len(self.rows) / settings.batch_size)
        self.step = 0
        self.began = 0  # the step with which the training last began anew
        self.history = History()
        self.order_generator = torch.Generator().manual_seed(settings.seed)
        self.order_state = self.order_generator.get_state()
        self.order = torch.empty(0, dtype=torch.int64)
        self.loss_sum = torch.zeros((), device=self.device)
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
        if isinstance(callback, LossBufferCallback):
            callback.attach(network, self.optimizer, settings.epochs)

    def train_step(self) -> None:
        """One step; the first of an epoch draws the epoch's order."""
        batch = self.step % self.steps_an_epoch
        if not len(self.order):
            self.order_state = self.order_generator.get_state()
            self.order = self.rows[torch.randperm(len(self.rows), generator=self.order_generator).to(self.device)]
        rows = self.order[batch * self.settings.batch_size : (batch + 1) * self.settings.batch_size]
        x, labels = self.x[rows], self.labels[rows]
        if self.augment is not None:
            x = self.augment(x)
        if self.mix is not None:
            x = self.mix(x, labels, rows)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        logits = self.network(x)
        loss = F.cross_entropy(logits, labels) if self.callback is None else self.callback.loss(logits, labels, rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.step += 1

    def _rate(self) -> float:
        step, total = self.step - self.began, self.settings.epochs * self.steps_an_epoch
        rise = max(1, total // 20)
        fall = (1 + math.cos(math.pi * step / (total - self.began))) / 2
        return self.settings.lr * min(1.0, (step + 1) / rise) * fall

    def _restarted(self) -> bool:
        return isinstance(self.callback, LossBufferCallback) and self.callback.warm_up.restarted

    def end_epoch(self, after_epoch: Callable[[nn.Module], Any] | None) -> None:
        """Close the books of an epoch."""
        if self.callback is not None:
            before = self._restarted()
            self.callback.end_epoch()
            self.began = self.step if self._restarted() and not before else self.began
        self.history.loss.append(float(self.loss_sum) / self.steps_an_epoch)
        self.loss_sum.zero_()
        self.order = self.order[:0]
        if after_epoch is not None:
            self.network.eval()
            self.history.after_epoch.append(after_epoch(self.network))

    def save(self) -> None:
        """Write everything a resumed run needs, whole or not at all."""
        if self.checkpoint is None:
            return
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        save_tensors(
            self.checkpoint,
            {
                "kind": _KIND,
                "of": self._identity(),
                "step": self.step,
                "network": dict(self.network.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "callback": None if self.kept is None else dict(self.kept.state_dict()),
                "order_state": self.order_state,
                "in_epoch": len(self.order) > 0,
                "generator": self.order_generator.get_state(),
                "rng": torch.get_rng_state(),
                "cuda_rng": cuda,
                "loss_sum": self.loss_sum,
                "history": asdict(self.history),
                "began": self.began,
            },
        )

    def restore(self) -> None:
        """Go on from the checkpoint, where there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        with restoring(self.checkpoint):
            self._restore(load_tensors(self.checkpoint, _KIND))

    def _restore(self, state: dict[str, Any]) -> None:
        missing = [name for name in _STATE if name not in state]
        if missing:
            raise ValueError(checks.problem("checkpoint", f"must hold {missing[0]!r}", f"none in {self.checkpoint}"))
        of = state["of"]
        other = {name: of.get(name) for name, value in self._identity().items() if of.get(name) != value}
        if other:
            rule = "must be of a run with the same network, data, rows, settings and callback"
            advice = f"Remove {self.checkpoint} to start anew."
            raise ValueError(checks.problem("checkpoint", rule, other, advice))
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.kept is not None:
            self.kept.load_state_dict(state["callback"])
            if isinstance(self.kept, nn.Module):
                self.kept.to(self.device)
        self.step = state["step"]
        if type(self.step) is not int or self.step < 0:
            raise ValueError(checks.problem("checkpoint", "must hold a step, a number of at least 0", self.step))
        self.order_state = state["order_state"]
        if state["in_epoch"]:
            self.order_generator.set_state(self.order_state)
            self.order = self.rows[torch.randperm(len(self.rows), generator=self.order_generator).to(self.device)]
        self.order_generator.set_state(state["generator"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.loss_sum.copy_(state["loss_sum"])
        self.history, self.began = History(**state["history"]), int(state["began"])

    def _identity(self) -> dict[str, Any]:
        callback = self.kept if isinstance(self.kept, LossBufferCallback) else None
        weights = [(name, tuple(value.shape)) for name, value in self.network.named_parameters()]
        return {
            **asdict(self.settings),
            "network": content_hash(repr(weights)),
            "x": (*self.x.shape, self._data),
            "labels": content_hash(self.labels),
            "rows": content_hash(self.rows),
            "augment": _named(self.augment),
            "mix": _named(self.mix),
            "callback": _described(self.kept),
            "planted": None if callback is None or callback.planted is None else callback.planted.identity,
            # A bound on the false-discovery rate waits for the end of the training, and may change after it.
            "cut": None if callback is None else _named(None if isinstance(callback.cut, MaxFDR) else callback.cut),
        }


def _described(callback: ResumableCallback | None) -> Any:
    if isinstance(callback, LossBufferCallback):
        return callback.mode, callback.warmup, callback.rank_by
    return None if callback is None else type(callback).__name__  # its load_state_dict knows more


def _named(value: object) -> str:
    """The same text for the same thing in another process: no addresses."""
    name = getattr(value, "__qualname__", None)
    return name if name is not None else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@torch.no_grad()
def predict(network: nn.Module, x: Float[Tensor, "n_samples ..."], batch_size: int = 1024) -> Tensor:
    """Logits in evaluation mode, on the CPU, shape ``(n_samples, num_classes)``."""
    network.eval()
    device = next((parameter.device for parameter in network.parameters()), x.device)
    return torch.cat([network(part.to(device)).float().cpu() for part in x.split(batch_size)])


def accuracy(network: nn.Module, x: Float[Tensor, "n_samples ..."], true_labels: Int[Tensor, " n_samples"]) -> float:
    """Share of samples predicted right, in evaluation mode."""
    return float((predict(network, x).argmax(1) == true_labels.cpu()).double().mean())
