"""Small pieces of work on digits that write a checkpoint all the time and take about a second."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from tqdm.auto import tqdm

from benchmarks.reliability.children import digest
from condensation.distillation import DatasetDistillation, LabelDistillation
from condensation.learned import run as learning
from condensation.matching import DistributionMatching, GradientMatching
from lossbuf import LossBufferCallback
from lossbuf.files import write_whole
from lossbuf.networks import ConvNet
from lossbuf.noise import corrupt, symmetric
from lossbuf.training import loop as training

CHECKPOINT_STEPS = 3
_SEED = 5


class Job(NamedTuple):
    """Work that can be killed and goes on.

    Attributes:
        name: Of it.
        run: Called with the checkpoint; gives what it ends with, to be compared bit by bit.
        kind: Of the checkpoint.
        place: How far a loaded checkpoint is.
    """

    name: str
    run: Callable[[Path], Any]
    kind: str
    place: Callable[[dict[str, Any]], int]


def digits(rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Images, shape ``(rows, 1, 8, 8)``, and labels of which three in ten are wrong."""
    x, y = load_digits(return_X_y=True)
    return x[:rows].reshape(-1, 1, 8, 8), corrupt(y[:rows], symmetric(10, 0.3), _SEED).labels


def callback_of(
    variant: str, labels: np.ndarray, num_classes: int | None = None, **settings: Any
) -> LossBufferCallback:
    """What the trainings use: ``"filter"``, ``"reweight"`` or ``"planted"``."""
    usual: dict[str, Any] = {"window": 20, "warmup": 3, "mode": "filter" if variant == "planted" else variant}
    usual |= {"planted": 0.05} if variant == "planted" else {}
    return LossBufferCallback(torch.from_numpy(labels), num_classes, **{**usual, **settings})


def _layers() -> nn.Module:
    body = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(72, 10))


def train(variant: str, checkpoint: Path, labels: np.ndarray | None = None, **changes: Any) -> Any:
    """A training with batch norm, dropout and a callback; network, callback and history at its end."""
    x, given = digits()
    labels = given if labels is None else labels
    usual: dict[str, Any] = {"epochs": 8, "batch_size": 32, "seed": _SEED, "device": "cpu", "lr": 0.1}
    settings = training.TrainSettings(**{**usual, **changes})
    network = training.build(_layers, settings)
    callback = callback_of(variant, labels)
    history = training.train(
        network,
        torch.from_numpy(x / 16).float(),
        torch.from_numpy(labels),
        settings,
        callback=callback,
        checkpoint=checkpoint,
        checkpoint_steps=CHECKPOINT_STEPS,
    )
    return [dict(network.state_dict()), dict(callback.state_dict()), vars(history)]


def _narrow(shape: tuple[int, ...], classes: int) -> nn.Module:
    return ConvNet(shape[0], classes, (shape[1], shape[2]), width=8, depth=2)


def _flat(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))


def condense(method: str, checkpoint: Path, rows: int = 200) -> Any:
    """A condensation that writes after every iteration; images, labels and losses at its end."""
    learning._SECONDS = 0.0
    usual: dict[str, Any] = {"random_state": _SEED, "device": "cpu", "batch_size": 32}
    make: dict[str, Callable[[], Any]] = {
        "DC": lambda: GradientMatching(1, network=_narrow, iterations=8, outer_steps=1, inner_epochs=1, **usual),
        "DM": lambda: DistributionMatching(2, network=_narrow, iterations=60, lr=0.3, **usual),
        "DD": lambda: DatasetDistillation(1, network=_flat, iterations=60, **usual),
        "LD": lambda: LabelDistillation(2, network=_flat, iterations=60, **usual),
    }
    x, y = digits(rows)
    found = make[method]().fit(x, y, checkpoint=checkpoint)
    return [found.images_, np.asarray(found.labels_), found.losses_]


TRAININGS = tuple(
    Job(f"training, {name}", run, "lossbuf.training", lambda state: state["step"])
    for name, run in (
        ("filter", lambda path: train("filter", path)),
        ("reweight", lambda path: train("reweight", path)),
        ("filter and planted", lambda path: train("planted", path)),
    )
)
CONDENSATIONS = tuple(
    Job(f"condensation, {name}", run, "condensation.learning", lambda state: len(state["losses"]))
    for name, run in (
        ("DC", lambda path: condense("DC", path)),
        ("DM", lambda path: condense("DM", path)),
        ("DD", lambda path: condense("DD", path)),
        ("LD", lambda path: condense("LD", path)),
    )
)
JOBS = {job.name: job for job in (*TRAININGS, *CONDENSATIONS)}


def do(name: str, checkpoint: Path, result: Path) -> None:
    """Run a job to its end, and write the digest of what it ends with."""
    tqdm.set_lock(threading.RLock())  # its own is one of the system, which a kill would leave there
    ended = digest(JOBS[name].run(checkpoint))
    write_whole(result, lambda file: file.write(ended.encode()))


def do_recorded(name: str, checkpoint: Path) -> tuple[str, dict[int, str]]:
    """The same for a process of its own: the digest of the end, and that of every checkpoint by its place."""
    job, legal = JOBS[name], {}
    save = training.save_tensors

    def note(path: Path, content: dict[str, Any]) -> None:
        legal[job.place(content)] = digest(content)
        save(path, content)

    training.save_tensors = learning.save_tensors = note
    ended = digest(job.run(checkpoint))
    return ended, legal
