"""Wrong labels found, against the peers: data sets, kinds and rates of noise, seeds; cell by cell, and resumable.

    python -m benchmarks.grid --dataset digits --seeds 10
    python -m benchmarks.grid --jobs 2
    python -m benchmarks.grid --full --device cuda          (a GPU: all rows, ResNet-9, crops and mirror images)
    python -m benchmarks.grid --renew --out FOLDER          (after a change of ours: the peers' values stay)
    python -m benchmarks.grid --dataset fashion-mnist --rows 0 --epochs 30 --no-peers --out runs/all-rows
    python -m benchmarks.grid --suite hard --hard-dir FOLDER (embeddings, texts, many classes, human labels, ...)
    python -m benchmarks.grid --suite hard --peers-only      (then once more without it: ours is added)

Protocol. A cell is a data set, a kind and a rate of noise, and a seed; it is one JSON file, and a cell that is done is
skipped. Every method trains the same network (ConvNet, width 16) with the same settings from the same seed:

- ours: one training with ``LossBufferCallback(mode="filter")``, all else by default; no rate is given;
- watching: one plain training, ranked by AUM, label loss, the three scores, the wrong-event count and forgetting, with
  Otsu's cut, and DivideMix's mixture on the loss of the last epoch (``gmm``) and on the mean loss (``mean-gmm``);
- cleanlab: five-fold out-of-sample probabilities, ``find_label_issues`` and its ranking by default: five trainings;
- aum-package: the PyPI package with threshold samples, two trainings.

Beside them a plain training on all rows and one on the truly clean rows, for the test accuracy that one training with
``ours`` is held against. Seconds are those of the same run; with ``--jobs`` each job has one thread. On a CPU the
presets take a subset of the rows (see ``PRESETS``); ``--full`` takes all, with ResNet-9 and augmentation, and is meant
for a GPU. ``--no-peers`` leaves out all that is not needed to hold ours against the oracle, so that a CPU can take all
rows. Settings were chosen on seeds 100 and up; reported are 0 and up.

The hard suite has its own data sets, networks and peers, see ``benchmarks/hard/suite.py``. Its files are read from
``--hard-dir``; a data set whose file is missing is skipped. Of the options it takes ``--dataset``, ``--noise``,
``--seeds`` (3 by default), ``--first-seed``, ``--peers``, ``--peers-only``, ``--jobs``, ``--renew``, ``--device``,
``--data-dir`` and ``--out``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from benchmarks.common import data as datasets
from benchmarks.common import metrics, results
from benchmarks.common.command import data_or_exit, listed
from benchmarks.common.labels import noisy_labels
from benchmarks.grid import report as grid_report
from benchmarks.hard import files
from benchmarks.hard import report as hard_report
from benchmarks.hard import run as hard
from benchmarks.hard.data import Folders
from benchmarks.hard.standings import DEVELOPMENT
from benchmarks.hard.suite import SUITE, cells
from benchmarks.peers import Found, Task, aum, confident_learning, watching
from lossbuf import LossBufferCallback, LossBufferWarning, networks
from lossbuf.training import TrainSettings, accuracy, build, train
from lossbuf.training.augmentation import CropFlip


@dataclass(frozen=True)
class Preset:
    """How a data set is run: on a CPU, and in full."""

    epochs: int
    seeds: int
    subset: int | None
    full_epochs: int
    augment: CropFlip


PRESETS = {
    "digits": Preset(30, 10, None, 30, CropFlip(1, flip=False)),
    "mnist": Preset(8, 3, 10_000, 10, CropFlip(2, flip=False)),
    "fashion-mnist": Preset(10, 3, 10_000, 12, CropFlip(2)),
    "cifar10": Preset(12, 3, 10_000, 24, CropFlip(4)),
}
NOISE = (
    *(("symmetric", rate) for rate in (0.2, 0.4, 0.6, 0.8)),
    *((kind, rate) for kind in ("pair-flip", "class-dependent", "instance-dependent") for rate in (0.2, 0.4)),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the values of a cell."""

    dataset: str
    noise_kind: str
    noise: float
    seed: int
    epochs: int
    batch_size: int
    lr: float
    width: int
    subset: int | None
    network: str = "convnet"
    augment: bool = False

    @property
    def name(self) -> str:
        """Of the cell's file, without its ending."""
        return f"{self.dataset}-{self.noise_kind}-{self.noise:g}-seed{self.seed}"


def settings_of(
    dataset: str,
    noise_kind: str,
    noise: float,
    seed: int,
    full: bool = False,
    batch_size: int | None = None,
    lr: float | None = None,
    epochs: int | None = None,
    rows: int | None = None,
) -> Settings:
    """The settings of a cell: its data set's preset, but for what is given; ``rows`` 0 is all of them."""
    preset = PRESETS[dataset]
    usual = None if full else preset.subset
    return Settings(
        dataset=dataset,
        noise_kind=noise_kind,
        noise=noise,
        seed=seed,
        epochs=epochs or (preset.full_epochs if full else preset.epochs),
        batch_size=batch_size or (512 if full else 128),
        lr=lr or (0.2 if full else 0.05),
        width=64 if full else 16,
        subset=usual if rows is None else rows or None,
        network="resnet9" if full else "convnet",
        augment=full,
    )


class Cell:
    """One cell: all methods on the same wrong labels."""

    def __init__(self, data: datasets.Data, settings: Settings, device: str | None) -> None:
        self.data, self.settings = data, settings
        self.noisy = noisy_labels(data, settings.noise_kind, settings.noise, None, settings.seed)
        self.labels = torch.from_numpy(self.noisy.labels)
        self.train_settings = TrainSettings(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.lr,
            seed=settings.seed,
            device=device,
        )
        self.task = Task(data.x, self.labels, data.num_classes, settings.seed, self.fit)

    def fit(self, x: Tensor, labels: Tensor, num_classes: int, callback: Any) -> nn.Module:
        """Train a fresh network."""
        shape = tuple(self.data.x.shape[1:])

        def make() -> nn.Module:
            if len(shape) != 3:
                return networks.MLP(int(np.prod(shape)), num_classes)
            if self.settings.network == "resnet9":
                return networks.resnet9(shape[0], num_classes, width=self.settings.width)
            size = (shape[1], shape[2])
            return networks.ConvNet(shape[0], num_classes, size, width=self.settings.width, norm="batch")

        network = build(make, self.train_settings)
        augment = PRESETS[self.settings.dataset].augment if self.settings.augment else None
        train(network, x, labels, self.train_settings, callback=callback, augment=augment)
        return network

    def compute(self, peers: bool = True) -> dict[str, Any]:
        """Values of all methods, or of ours alone, and of the oracle."""
        own = self.own()
        if peers:
            own["methods"] |= self.by_peers()
        clean = torch.from_numpy(np.flatnonzero(~self.noisy.noise_mask))
        oracle = self.fit(self.data.x[clean], self.labels[clean], self.data.num_classes, None)
        own["test_accuracy"]["oracle"] = self.accuracy(oracle)
        return own

    def by_peers(self) -> dict[str, Any]:
        """Values of all methods but ours."""
        methods: dict[str, Any] = {}
        statistics, seconds = _timed(self._watch)
        for name, found in watching.find(statistics).items():
            methods[name] = {**self._measured(found), "seconds": seconds}
        for name, find in (("cleanlab", confident_learning.find), ("aum-package", aum.find)):
            found, seconds = _timed(lambda find=find: find(self.task))
            methods[name] = {**self._measured(found), "seconds": seconds}
        return methods

    def own(self) -> dict[str, Any]:
        """Values of ours, and of the plain training whose time it is held against."""
        plain, plain_seconds = _timed(lambda: self.fit(self.data.x, self.labels, self.data.num_classes, None))
        (ours, details), seconds = _timed(self._ours)
        return {
            "true_noise_rate": float(self.noisy.noise_mask.mean()),
            "methods": {"ours": {**self._measured(ours), "seconds": seconds}},
            "test_accuracy": {"all rows": self.accuracy(plain), "ours": details.pop("test_accuracy")},
            "plain_seconds": plain_seconds,
            **details,
        }

    def renewed(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values of a cell that is done, with those of :meth:`own` computed anew."""
        own = self.own()
        parts = {name: {**values[name], **own[name]} for name in ("methods", "test_accuracy")}
        return {**values, **own, **parts}

    def _ours(self) -> tuple[Found, dict[str, Any]]:
        callback = LossBufferCallback(self.labels, self.data.num_classes, mode="filter", epochs=self.settings.epochs)
        network = self.fit(self.data.x, self.labels, self.data.num_classes, callback)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LossBufferWarning)  # a class with most labels wrong is part of the grid
            verdict = callback.verdict()
        found = Found(verdict.suspicion, verdict.cut.suspect_mask, verdict.cut.noise_rate, 1.0)
        flagged = verdict.cut.suspect_mask & self.noisy.noise_mask
        true: NDArray[np.int64] = self.data.labels.numpy()
        transition = np.asarray(verdict.transition)
        return found, {
            "transition_error": float(np.abs(transition - self.noisy.transition).mean()),
            "suggestion_right": float((verdict.likely == true)[flagged].mean()) if flagged.any() else None,
            "test_accuracy": self.accuracy(network),
        }

    def _watch(self) -> Any:
        callback = LossBufferCallback(self.labels, self.data.num_classes, rank_by="aum")
        self.fit(self.data.x, self.labels, self.data.num_classes, callback)
        return callback.statistics()

    def accuracy(self, network: nn.Module) -> float:
        """On the test rows."""
        return accuracy(network, self.data.test_x, self.data.test_labels)

    def _measured(self, found: Found) -> dict[str, Any]:
        mask = self.noisy.noise_mask
        return {
            **metrics.ranking(found.suspicion, found.suspicion, mask),
            **metrics.cut(found.suspicion, found.suspect_mask, mask),
            "noise_rate": found.noise_rate,
            "trainings": found.trainings,
        }


def _timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    value = compute()
    return value, time.perf_counter() - start


def run_cell(
    settings: Settings,
    folder: Path,
    device: str | None,
    data_dir: Path | None,
    threads: int | None,
    renew: bool = False,
    peers: bool = True,
) -> None:
    """Compute a cell, where it is not done yet; or, to renew it, ours alone where it is."""
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = datasets.load(settings.dataset, data_dir, settings.subset)
    path = folder / settings.dataset / f"{settings.name}{'' if peers else '-no-peers'}.json"
    if renew:
        results.renew(path, asdict(settings), lambda values: Cell(loaded, settings, device).renewed(values))
    else:
        results.cell(path, asdict(settings), lambda: Cell(loaded, settings, device).compute(peers))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    suite: Annotated[str, typer.Option(help="Which cells: usual or hard.")] = "usual",
    dataset: Annotated[str, typer.Option(help="Comma-separated; all data sets of the suite by default.")] = "all",
    noise: Annotated[str, typer.Option(help="Kinds and rates, as kind:rate,...; all of the suite by default.")] = "all",
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds.")] = None,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    full: Annotated[bool, typer.Option(help="All rows, ResNet-9 and augmentation: for a GPU.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows a step; 128, or 512 with --full.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; 0.05, or 0.2 with --full.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data, by default the preset's.")] = None,
    rows: Annotated[int | None, typer.Option(min=0, help="Training rows, by default the preset's; 0 for all.")] = None,
    peers: Annotated[bool, typer.Option(help="Run the peers, too.")] = True,
    peers_only: Annotated[bool, typer.Option("--peers-only", help="Leave out ours (hard suite).")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time; with one thread each if several.")] = 1,
    renew: Annotated[bool, typer.Option(help="Compute ours anew in cells that are done, and no others.")] = False,
    device: Annotated[str | None, typer.Option(help="Where to train, by default a GPU if there is one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data; by default LOSSBUF_DATA.")] = None,
    hard_dir: Annotated[
        Path | None, typer.Option(help=f"Files of the hard suite; by default {files.ENVIRONMENT}.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/grid or runs/hard by default.")] = None,
) -> None:
    listed("suite", suite, ("usual", "hard"))
    if suite == "hard":
        _hard(dataset, noise, range(first_seed, first_seed + (seeds or 3)), out or Path("runs/hard"), device,
              Folders(hard_dir or files.default_folder(), data_dir), renew, peers, not peers_only, jobs)  # fmt: skip
        return
    if peers_only:
        raise typer.BadParameter("is for `--suite hard`", param_hint="--peers-only")
    out = out or Path("runs/grid")
    names = list(PRESETS) if dataset == "all" else listed("dataset", dataset, PRESETS)
    kinds = list(NOISE) if noise == "all" else [_kind(part, NOISE) for part in noise.split(",")]
    todo = [
        settings_of(name, kind, rate, seed, full, batch_size, lr, epochs, rows)
        for seed in range(first_seed, first_seed + (seeds or max(PRESETS[name].seeds for name in names)))
        for name in names
        if seeds is not None or seed < first_seed + PRESETS[name].seeds
        for kind, rate in kinds
    ]
    with data_or_exit():
        for name in names:
            datasets.load(name, data_dir, next(settings.subset for settings in todo if settings.dataset == name))
    threads = 1 if jobs > 1 else None
    Parallel(n_jobs=jobs, verbose=1 if Console().is_terminal else 0)(
        delayed(run_cell)(settings, out, device, data_dir, threads, renew, peers) for settings in todo
    )
    grid_report.show(out)


def _hard(
    dataset: str,
    noise: str,
    seeds: range,
    out: Path,
    device: str | None,
    folders: Folders,
    renew: bool,
    peers: bool,
    ours: bool,
    jobs: int,
) -> None:
    names = list(SUITE) if dataset == "all" else listed("dataset", dataset, SUITE)
    known = tuple(dict.fromkeys(pair for name in names for pair in SUITE[name].noise))
    kinds = None if noise == "all" else tuple(_kind(part, known) for part in noise.split(","))
    todo = cells(names, kinds, seeds)
    hard.run(todo, out, folders, device, renew=renew, peers=peers, ours=ours, jobs=jobs)
    hard_report.show(out, development=seeds.start >= DEVELOPMENT)


def _kind(text: str, among: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    kind, _, rate = text.partition(":")
    if (kind, float(rate or "nan")) not in among:
        known = ", ".join(f"{name}:{value:g}" for name, value in among)
        raise typer.BadParameter(f"must be among {known}, got {text!r}", param_hint="--noise")
    return kind, float(rate)
