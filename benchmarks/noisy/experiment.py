"""Find wrong labels in one training, keep the rest, train again: purity and test accuracy.

    python -m benchmarks.noisy --noise 0.4
    python -m benchmarks.noisy --dataset mnist --noise 0.4
    python -m benchmarks.noisy --dataset cifar10 --network resnet18 --epochs 60 --batch-size 512 --noise 0.4   (a GPU)

Protocol. Labels are made wrong (the seed decides which). One network is trained on all rows and only watched; every
method ranks the rows by what that one run showed. A method's kept rows are those left when as many of the most suspect
are dropped as there are wrong labels (``--keep known``), or as its own cut says (``--keep otsu``, ``mixture``); a fresh
network of the same initial weights is trained on them for the same number of epochs, and tested after the last.
Beside them: all rows as they are (``noisy``), the truly clean rows (``oracle``), and one training each that drops
(``filter``) or down-weights (``reweight``) suspects as it goes. Every cell is a JSON file; cells that are done are
skipped, and a training that was killed goes on from its last epoch. Test labels are never made wrong.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from benchmarks.common import data as datasets
from benchmarks.common import duration, metrics, results
from benchmarks.common.command import data_or_exit
from benchmarks.common.labels import noisy_labels
from benchmarks.noisy import report
from lossbuf import LossBufferCallback, LossBufferWarning, networks
from lossbuf.detection import thresholds
from lossbuf.detection.verdict import Verdict
from lossbuf.files import write_whole
from lossbuf.noise import NoisyLabels
from lossbuf.training import TrainSettings, accuracy, build, train

METHODS = (
    "posterior",
    "score",
    "score2",
    "score3",
    "last_score",
    "last_score2",
    "last_score3",
    "label_loss",
    "aum",
    "wrong_count",
    "random",
)
WATCHED_BY_EPOCH = ("posterior", "score", "score2", "score3", "label_loss", "aum")


class NoiseKind(StrEnum):
    """Kinds of label noise."""

    symmetric = "symmetric"
    pair_flip = "pair-flip"
    class_dependent = "class-dependent"
    instance_dependent = "instance-dependent"
    file = "file"


class Keep(StrEnum):
    """Which rows a method keeps."""

    known = "known"
    otsu = "otsu"
    mixture = "mixture"


class Network(StrEnum):
    """Networks to train."""

    convnet = "convnet"
    mlp = "mlp"
    resnet18 = "resnet18"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides a benchmark's values, the seed aside."""

    dataset: str
    noise_kind: str
    noise: float
    keep: str
    network: str
    width: int
    epochs: int
    batch_size: int
    lr: float
    subset: int | None
    label_file: str | None
    protocol: int = 2
    """Raised when what a cell computes changes, so that cells of another version are not taken for done."""


@dataclass(frozen=True)
class Preset:
    """What a data set is run with where the command does not say, on two CPU cores."""

    epochs: int
    seeds: int
    width: int
    subset: int | None = None


PRESETS = {
    "digits": Preset(epochs=30, seeds=3, width=16),
    "mnist": Preset(epochs=8, seeds=1, width=16),
    "fashion-mnist": Preset(epochs=10, seeds=1, width=16, subset=20_000),
    "cifar10": Preset(epochs=12, seeds=1, width=16, subset=15_000),
    "svhn": Preset(epochs=10, seeds=1, width=16, subset=20_000),
}


class SeedRun:
    """All cells of one seed."""

    def __init__(
        self,
        data: datasets.Data,
        settings: Settings,
        seed: int,
        folder: Path,
        *,
        device: str | None = None,
        label_file: Path | None = None,
    ) -> None:
        self.data, self.settings, self.seed = data, settings, seed
        self.folder = folder / f"seed{seed}"
        self.noisy: NoisyLabels = noisy_labels(data, settings.noise_kind, settings.noise, label_file, seed)
        self.labels = torch.from_numpy(self.noisy.labels)
        self.noise_rate = float(self.noisy.noise_mask.mean())
        self.train_settings = TrainSettings(
            epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr, seed=seed, device=device
        )

    def cells(self, methods: list[str]) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
        """Names and computations, in order: the first makes the scores the others use."""
        return [
            ("watch", self.watch),
            ("filter", lambda: self.online("filter")),
            ("reweight", lambda: self.online("reweight")),
            ("oracle", lambda: self.retrain("oracle", np.flatnonzero(~self.noisy.noise_mask))),
            *((f"kept-{method}", lambda method=method: self.kept(method)) for method in methods),
        ]

    def run(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """One cell, skipped where it is done."""
        return results.cell(self.folder / f"{name}.json", {**asdict(self.settings), "seed": self.seed}, compute)

    def is_done(self, name: str) -> bool:
        """Whether a cell was computed before, with the same settings."""
        settings = {**asdict(self.settings), "seed": self.seed}
        return results.values_of(self.folder / f"{name}.json", settings) is not None

    def watch(self) -> dict[str, Any]:
        """Train on all rows as they are, and rank them by every method."""
        callback = LossBufferCallback(self.labels, self.data.num_classes, epochs=self.settings.epochs)
        by_epoch: Callable[[], dict[str, float]] = lambda: {  # noqa: E731
            name: self._pure_rate(callback, name) for name in WATCHED_BY_EPOCH
        }
        values = self._train("watch", None, callback, by_epoch)
        suspicions = self._suspicions(callback)
        self._save_scores(suspicions)
        tie_break = suspicions["label_loss"]
        values["ranking"] = {
            name: metrics.ranking(suspicion, tie_break, self.noisy.noise_mask) for name, suspicion in suspicions.items()
        }
        cuts: dict[str, thresholds.CutRule] = {"otsu": thresholds.Otsu(), "mixture": thresholds.Mixture()}
        values["estimated_noise_rate"] = {
            name: {cut: rule(suspicion, tie_break).noise_rate for cut, rule in cuts.items()}
            for name, suspicion in suspicions.items()
        }
        values["estimated_noise_rate"]["posterior"]["own"] = self._verdict(callback).noise_rate
        return {**values, **self._named(callback), "transition": self.noisy.transition}

    def _named(self, callback: LossBufferCallback) -> dict[str, Any]:
        """How well the true classes of wrong labels and the transition matrix are found."""
        found, wrong = self._verdict(callback), self.noisy.noise_mask
        right = (found.likely == self.data.labels.numpy())[wrong]
        error = np.abs(np.asarray(found.transition) - self.noisy.transition).mean()
        return {
            "suggestion_right": float(right.mean()) if len(right) else None,
            "estimated_transition": found.transition,
            "transition_error": float(error),
        }

    def kept(self, method: str) -> dict[str, Any]:
        """Train anew on the rows a method keeps."""
        suspicions = self._load_scores()
        rule: thresholds.CutRule = {
            "known": thresholds.KnownRate(self.noise_rate),
            "otsu": thresholds.Otsu(),
            "mixture": thresholds.Mixture(),
        }[self.settings.keep]
        cut = rule(suspicions[method], suspicions["label_loss"])
        kept = metrics.kept(cut.suspect_mask, self.noisy.noise_mask)
        return {**self.retrain(f"kept-{method}", np.flatnonzero(~cut.suspect_mask)), **kept}

    def online(self, mode: str) -> dict[str, Any]:
        """One training that drops or down-weights suspects as it goes."""
        rules: dict[str, thresholds.CutRule] = {"otsu": thresholds.Otsu(), "mixture": thresholds.Mixture()}
        known = self.settings.keep == "known"
        callback = LossBufferCallback(
            self.labels,
            self.data.num_classes,
            mode=mode,
            epochs=self.settings.epochs,
            noise_rate=self.noise_rate if known else None,
            cut=None if known else rules[self.settings.keep],
        )
        by_epoch: Callable[[], dict[str, float]] = lambda: {  # noqa: E731
            "posterior": self._pure_rate(callback, "posterior")
        }
        values = self._train(mode, None, callback, by_epoch)
        suspicions = self._suspicions(callback)
        values["ranking"] = {
            name: metrics.ranking(suspicions[name], suspicions["label_loss"], self.noisy.noise_mask)
            for name in ("posterior", "aum")
        }
        kept = metrics.kept(self._verdict(callback).suspect_mask, self.noisy.noise_mask)
        return {**values, **self._named(callback), **kept}

    def retrain(self, name: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Train a fresh network on some rows, with their labels as given."""
        if not len(rows):
            return {"test_accuracy": [], "rows": 0}
        return {**self._train(name, torch.from_numpy(rows), None, None), "rows": len(rows)}

    def _train(
        self,
        name: str,
        rows: Tensor | None,
        callback: LossBufferCallback | None,
        by_epoch: Callable[[], dict[str, float]] | None,
    ) -> dict[str, Any]:
        checkpoint = self.folder / f"{name}.ckpt"
        network = build(self.make_network, self.train_settings)

        def after_epoch(network: nn.Module) -> dict[str, Any]:
            value: dict[str, Any] = {"test_accuracy": accuracy(network, self.data.test_x, self.data.test_labels)}
            return {**value, "pure_rate": by_epoch()} if by_epoch else value

        history = train(
            network,
            self.data.x,
            self.labels,
            self.train_settings,
            rows=rows,
            callback=callback,
            after_epoch=after_epoch,
            checkpoint=checkpoint,
            progress=f"seed {self.seed} {name}",
        )
        checkpoint.unlink()
        values: dict[str, Any] = {
            "train_loss": history.loss,
            "test_accuracy": [epoch["test_accuracy"] for epoch in history.after_epoch],
        }
        if by_epoch:
            values["pure_rate_by_epoch"] = [epoch["pure_rate"] for epoch in history.after_epoch]
        return values

    def make_network(self) -> nn.Module:
        """The network of all trainings."""
        shape, classes = tuple(self.data.x.shape[1:]), self.data.num_classes
        if self.settings.network == "mlp" or len(shape) != 3:
            return networks.MLP(int(np.prod(shape)), classes)
        if self.settings.network == "resnet18":
            return networks.resnet18(shape[0], classes)
        return networks.ConvNet(shape[0], classes, (shape[1], shape[2]), width=self.settings.width, norm="batch")

    def _suspicions(self, callback: LossBufferCallback) -> dict[str, NDArray[np.float32]]:
        statistics = callback.statistics()
        by_statistic = [name for name in METHODS if name not in ("posterior", "random")]
        return {
            "posterior": self._verdict(callback).suspicion,
            **{name: statistics.suspicion(name).cpu().numpy() for name in by_statistic},
            "random": np.random.default_rng([self.seed, 1]).random(len(self.labels), dtype=np.float32),
        }

    def _verdict(self, callback: LossBufferCallback) -> Verdict:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LossBufferWarning)  # classes with most labels wrong may be asked for
            return callback.verdict()

    def _pure_rate(self, callback: LossBufferCallback, name: str) -> float:
        statistics = callback.statistics()
        posterior = name == "posterior"
        suspicion = self._verdict(callback).suspicion if posterior else statistics.suspicion(name).cpu().numpy()
        cut = thresholds.KnownRate(self.noise_rate)(suspicion, statistics.label_loss.cpu().numpy())
        return metrics.kept(cut.suspect_mask, self.noisy.noise_mask)["pure_rate"]

    def _save_scores(self, suspicions: dict[str, NDArray[np.float32]]) -> None:
        content: dict[str, Any] = {**suspicions, "noise_mask": self.noisy.noise_mask}
        write_whole(self.folder / "scores.npz", lambda file: np.savez_compressed(file, **content))

    def _load_scores(self) -> dict[str, NDArray[Any]]:
        with np.load(self.folder / "scores.npz", allow_pickle=False) as file:
            return dict(file)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    noise: Annotated[float, typer.Option(min=0, max=1, help="Share of labels made wrong.")] = 0.4,
    dataset: Annotated[str, typer.Option(help=f"{', '.join(datasets.NAMES)}, or an .npz file.")] = "digits",
    noise_kind: Annotated[NoiseKind, typer.Option(help="How labels are made wrong.")] = NoiseKind.symmetric,
    label_file: Annotated[
        Path | None, typer.Option(help="Given labels, with --noise-kind file; CIFAR-10N: FILE:worse_label.")
    ] = None,
    keep: Annotated[Keep, typer.Option(help="Rows dropped: as many as are wrong, or by a cut.")] = Keep.known,
    scores: Annotated[str, typer.Option(help="Methods to train on the kept rows of, comma-separated.")] = "all",
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds.")] = None,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows a step.")] = 128,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 0.05,
    network: Annotated[Network, typer.Option(help="Network to train.")] = Network.convnet,
    width: Annotated[int | None, typer.Option(min=1, help="Channels of the ConvNet.")] = None,
    subset: Annotated[int | None, typer.Option(min=0, help="Training rows to use; 0 for all.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to train, by default a GPU if there is one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data; by default LOSSBUF_DATA.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/noisy"),
) -> None:
    preset = PRESETS.get(dataset, Preset(epochs=20, seeds=1, width=32))
    methods: list[str] = list(METHODS) if scores == "all" else [name.strip() for name in scores.split(",")]
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise typer.BadParameter(f"must be among {', '.join(METHODS)}, got {unknown[0]!r}", param_hint="--scores")
    settings = Settings(
        dataset=dataset,
        noise_kind=str(noise_kind),
        noise=noise,
        keep=str(keep),
        network=str(network),
        width=width or preset.width,
        epochs=epochs or preset.epochs,
        batch_size=batch_size,
        lr=lr,
        subset=(preset.subset if subset is None else subset) or None,
        label_file=None if label_file is None else label_file.name,
    )
    with data_or_exit():
        loaded = datasets.load(dataset, data_dir, settings.subset)
        name = f"{loaded.name}-{noise_kind}-{noise:g}-{results.short_hash(asdict(settings))}"
        runs = [
            SeedRun(loaded, settings, seed, out / name, device=device, label_file=label_file)
            for seed in range(first_seed, first_seed + (seeds or preset.seeds))
        ]
    _announce(runs, methods)
    started = time.perf_counter()
    cells = [(run, *cell) for run in runs for cell in run.cells(methods)]
    last = f"kept-{methods[-1]}"
    for run, cell_name, compute in tqdm(cells, desc="cells", disable=None):
        run.run(cell_name, compute)
        if cell_name == last and not sys.stderr.isatty():  # where the bar shows nothing
            taken = duration.in_words(time.perf_counter() - started)
            typer.echo(f"Seed {run.seed}, {run.seed - first_seed + 1} of {len(runs)}, is done after {taken}.", err=True)
    report.show(out / name)


def _announce(runs: list[SeedRun], methods: list[str]) -> None:
    """Say how many trainings there are to do, and about how long they take."""
    todo = [(run, name) for run in runs for name, _ in run.cells(methods) if not run.is_done(name)]
    if not todo:
        typer.echo("All trainings were done before.", err=True)
        return
    run = todo[0][0]
    whole = duration.of_training(run.data, run.make_network, run.train_settings)
    shares = [1.0 if name in ("watch", "filter", "reweight") else 1 - run.noise_rate for run, name in todo]
    epochs, device = run.settings.epochs, run.train_settings.torch_device()
    what = "1 training" if len(todo) == 1 else f"{len(todo)} trainings"
    length = duration.in_words(whole * sum(shares))
    typer.echo(f"{what} of {epochs} epochs on {device}: about {length}, as a few steps suggest.", err=True)
