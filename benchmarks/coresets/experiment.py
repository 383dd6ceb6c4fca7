"""Coresets: test accuracy by method and size, what label noise does to them, how fast they are, and how they grow.

    python -m benchmarks.coresets                                   (digits: ends in minutes)
    python -m benchmarks.coresets --table accuracy --dataset mnist,fashion-mnist --ipc 1,10
    OMP_NUM_THREADS=1 python -m benchmarks.coresets --table accuracy --dataset mnist,fashion-mnist --ipc 10 \
        --dtype bfloat16 --compiled                                 (a CPU with instructions for bfloat16)
    python -m benchmarks.coresets --table noise --dataset digits,fashion-mnist
    python -m benchmarks.coresets --table speed,growth
    python -m benchmarks.coresets --table accuracy --dataset mnist,fashion-mnist,cifar10 --ipc 1,10,50 --networks 20 \
        --device cuda                                               (a GPU: the published protocol)

Protocol. *accuracy*: one network (ConvNet, width 32, batch norm) is trained on all rows; its features serve Herding,
K-Center and k-means, its first epochs' gradients CRAIG and CRUST, its run's statistics Forgetting (rows never learnt
first, as published, or last) and EL2N. A coreset is evaluated by :func:`condensation.evaluate.evaluate`: fresh
ConvNet-3 networks (width 128, instance norm), 300 epochs; MNIST, as published, with crops, scales and rotations, and
then 1000 epochs. Mean and deviation over the networks. The published columns are those of Zhao et al. 2021, with 20
networks.

*noise*: wrong labels are put in; every method chooses from all rows (noisy), from those that one training with loss
buffers and .03 planted labels keeps (cleaned), and from the truly clean ones (clean). What a method looks at comes from
one training on those rows; for the cleaned ones it is the training that cleaned. Networks of width 32 evaluate.

*speed* and *growth*: see ``benchmarks.coresets.speed``.

A cell is one JSON file; one that is done with the same settings is skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from joblib import Parallel, delayed
from torch import Tensor, nn

from benchmarks.common import data as datasets
from benchmarks.common import results
from benchmarks.common.command import data_or_exit, listed
from benchmarks.common.labels import noisy_labels
from benchmarks.coresets import report as coreset_report
from benchmarks.coresets import speed as coreset_speed
from condensation import coresets
from condensation.augmentation.random_changes import DC_MNIST
from condensation.coresets.features import logit_gradients, network_outputs
from condensation.coresets.forgetting import statistics_of
from condensation.evaluate import EvalSettings, evaluate
from lossbuf import LossBufferCallback, LossBufferWarning, networks
from lossbuf.networks import architectures
from lossbuf.recording.sample_statistics import SampleStatistics
from lossbuf.training import TrainSettings, build, train

TABLES = ("accuracy", "noise", "speed", "growth")
EPOCHS = {"digits": 30, "mnist": 8, "fashion-mnist": 10, "cifar10": 20, "svhn": 10}
EARLY = 3
"""Epochs after which CRAIG, CRUST and EL2N look."""

PLANTED = 0.03
"""Share of labels planted where rows are cleaned."""

NOISE = (("symmetric", 0.2), ("symmetric", 0.4), ("class-dependent", 0.2), ("class-dependent", 0.4))
ROWS = ("noisy", "cleaned", "clean")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the values of a cell."""

    table: str
    dataset: str
    method: str
    ipc: int
    seed: int
    networks: int
    eval_epochs: int
    augment: bool = False
    subset: int | None = None
    dtype: str = "float32"
    noise_kind: str = "none"
    noise: float = 0.0
    rows: str = "clean"

    @property
    def name(self) -> str:
        """Of the cell's file, without its ending."""
        noise = f"{self.noise_kind}-{self.noise:g}-{self.rows}-" if self.table == "noise" else ""
        augmented = "-augmented" if self.augment else ""
        dtype = "" if self.dtype == "float32" else f"-{self.dtype}"
        return f"{self.dataset}-{noise}{self.method}-ipc{self.ipc}{augmented}{dtype}-seed{self.seed}"


@dataclass(frozen=True)
class Run:
    """What one training tells of its rows: everything the methods look at."""

    rows: Tensor
    features: Tensor
    logit_gradients: Tensor
    feature_gradients: Tensor
    statistics: SampleStatistics
    error_norms: Tensor


METHODS: dict[str, Callable[[Run, int, int], coresets.Random | Any]] = {
    "random": lambda run, ipc, seed: coresets.Random(ipc=ipc, random_state=seed),
    "herding": lambda run, ipc, seed: coresets.Herding(ipc=ipc, features=run.features),
    "k-center": lambda run, ipc, seed: coresets.KCenter(ipc=ipc, features=run.features),
    "k-means": lambda run, ipc, seed: coresets.KMeans(ipc=ipc, features=run.features, random_state=seed),
    "forgetting": lambda run, ipc, seed: coresets.Forgetting(ipc=ipc, statistics=run.statistics),
    "forgetting-last": lambda run, ipc, seed: coresets.Forgetting(
        ipc=ipc, statistics=run.statistics, never_learned="last"
    ),
    "el2n": lambda run, ipc, seed: coresets.GradientNorm(ipc=ipc, norms=run.error_norms.numpy()),
    "craig": lambda run, ipc, seed: coresets.Craig(ipc=ipc, features=run.logit_gradients),
    "crust": lambda run, ipc, seed: coresets.Crust(ipc=ipc, features=run.feature_gradients),
}


def watched(
    data: datasets.Data, labels: Tensor, rows: Tensor, seed: int, device: str | None, cleaning: bool
) -> tuple[Run, Tensor]:
    """Train once on some rows; what is there to see, and which of them cleaning keeps (all if it is not asked for)."""
    x, given = data.x[rows], labels[rows]
    settings = TrainSettings(epochs=EPOCHS.get(data.name, 20), seed=seed, device=device)
    callback = LossBufferCallback(
        given,
        data.num_classes,
        mode="filter" if cleaning else "watch",
        rank_by="posterior" if cleaning else "aum",
        epochs=settings.epochs,
        planted=PLANTED if cleaning else 0.0,
        planted_seed=seed,
    )
    norms = coresets.ErrorNorms(len(rows), then=callback)
    early: list[tuple[Tensor, Tensor]] = []
    early_norms: list[Tensor] = []

    def look(network: nn.Module) -> None:
        if len(early_norms) + 1 == EARLY:
            outputs = network_outputs(network, x)
            gradients = logit_gradients(outputs.logits, given.to(outputs.logits.device)).cpu()
            early.append((gradients, gradients @ outputs.weight.cpu()))
        early_norms.append(norms.means())

    network = build(lambda: networks.default_network(tuple(x.shape[1:]), data.num_classes), settings)
    train(network, x, given, settings, callback=norms, after_epoch=look)
    kept = torch.arange(len(rows))
    if cleaning:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LossBufferWarning)
            kept = torch.from_numpy(callback.select())
    by_logits, by_features = early[0]
    run = Run(
        rows[kept],
        network_outputs(network, x).features.cpu()[kept],
        by_logits[kept],
        by_features[kept],
        statistics_of(callback.cpu().statistics(), kept.numpy()),
        early_norms[EARLY - 1][kept],
    )
    return run, kept


@cache
def prepared(
    dataset: str, subset: int | None, kind: str, noise: float, rows: str, seed: int, device: str | None, folder: Path
) -> tuple[datasets.Data, Tensor, Tensor, Run]:
    """Data, given labels, where they are wrong, and the run; kept, since many cells share them."""
    data = datasets.load(dataset, folder, subset)
    labels, wrong = data.labels, torch.zeros(len(data.labels), dtype=torch.bool)
    if kind != "none":
        noisy = noisy_labels(data, kind, noise, None, seed)
        labels, wrong = torch.from_numpy(noisy.labels), torch.from_numpy(noisy.noise_mask)
    among = torch.nonzero(~wrong).flatten() if rows == "clean" else torch.arange(len(labels))
    return data, labels, wrong, watched(data, labels, among, seed, device, rows == "cleaned")[0]


def narrow(sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """ConvNet-3 of width 32."""
    channels, height, breadth = sample_shape
    return networks.ConvNet(channels, num_classes, (height, breadth), width=32)


def compute(settings: Settings, device: str | None, folder: Path, compiled: bool) -> dict[str, Any]:
    """The values of a cell."""
    data, labels, wrong, run = prepared(
        settings.dataset, settings.subset, settings.noise_kind, settings.noise, settings.rows,
        settings.seed, device, folder,
    )  # fmt: skip
    x, given = data.x[run.rows], labels[run.rows]
    chooser = METHODS[settings.method](run, settings.ipc, settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossBufferWarning)  # a class may be short of rows after cleaning
        chooser.fit(x.numpy(), given.numpy())
    chosen = torch.from_numpy(np.asarray(chooser.sample_indices_))
    weights = getattr(chooser, "sample_weight_", None)
    found = evaluate(
        x[chosen],
        given[chosen],
        data.test_x,
        data.test_labels,
        network=architectures.convnet3 if settings.table == "accuracy" else narrow,
        num_classes=data.num_classes,
        weights=None if weights is None else torch.from_numpy(np.asarray(weights)).float(),
        augment=DC_MNIST if settings.augment else None,
        settings=EvalSettings(
            networks=settings.networks,
            epochs=settings.eval_epochs,
            seed=settings.seed,
            device=device,
            dtype=settings.dtype,
            compiled=compiled,
        ),
    )
    return {
        "size": len(chosen),
        "purity": float((~wrong[run.rows][chosen]).double().mean()),
        "accuracies": list(found.accuracies),
        "seconds": found.seconds,
    }


def run_cells(
    todo: list[Settings], out: Path, device: str | None, folder: Path, threads: int | None, compiled: bool
) -> None:
    """Compute some cells, those that are not done yet."""
    if threads is not None:
        torch.set_num_threads(threads)
    for settings in todo:
        path = out / settings.table / f"{settings.name}.json"
        results.cell(path, asdict(settings), lambda settings=settings: compute(settings, device, folder, compiled))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    table: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(TABLES)}.")] = ",".join(TABLES),
    dataset: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(EPOCHS)}.")] = "digits",
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(METHODS),
    ipc: Annotated[str, typer.Option(help="Rows a class, comma-separated.")] = "1,10",
    networks: Annotated[int, typer.Option(min=1, help="Fresh networks a cell; 3 for the noise table.")] = 5,
    eval_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each: 300, 1000 if augmented.")] = None,
    augment: Annotated[
        bool | None, typer.Option(help="Crop, scale and rotate in the accuracy table; as published for MNIST alone.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the noise table.")] = 3,
    subset: Annotated[int | None, typer.Option(min=100, help="Training rows to use.")] = None,
    dtype: Annotated[str, typer.Option(help="What evaluated networks compute in: float32 or bfloat16.")] = "float32",
    compiled: Annotated[bool, typer.Option(help="Compile evaluated networks; needs a C++ compiler.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time; with one thread each if several.")] = 1,
    device: Annotated[str | None, typer.Option(help="Where to train, by default a GPU if there is one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data; by default LOSSBUF_DATA.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/coresets"),
) -> None:
    tables, names = listed("table", table, TABLES), listed("dataset", dataset, EPOCHS)
    chosen, sizes = listed("methods", methods, METHODS), [int(size) for size in ipc.split(",")]
    folder = data_dir or datasets.default_folder()
    with data_or_exit():
        for name in names:
            datasets.load(name, folder, subset)
    plan = partial(Settings, subset=subset, eval_epochs=eval_epochs or 300, dtype=dtype)
    groups: list[list[Settings]] = []  # cells that share a training
    if "accuracy" in tables:
        for name in names:
            augmented = name == "mnist" if augment is None else augment
            epochs = eval_epochs or (1000 if augmented else 300)
            accuracy = partial(
                plan, table="accuracy", dataset=name, seed=0, networks=networks, augment=augmented, eval_epochs=epochs
            )
            groups.append([accuracy(method=method, ipc=size) for method in chosen for size in sizes])
    if "noise" in tables:
        for seed, name, (kind, rate), rows in product(range(seeds), names, NOISE, ROWS):
            noise = partial(plan, table="noise", dataset=name, noise_kind=kind, noise=rate, rows=rows, ipc=10)
            groups.append([noise(method=method, seed=seed, networks=min(networks, 3)) for method in chosen])
    threads = 1 if jobs > 1 else None
    Parallel(n_jobs=jobs)(delayed(run_cells)(group, out, device, folder, threads, compiled) for group in groups)
    if "speed" in tables:
        coreset_speed.speed(out)
    if "growth" in tables:
        coreset_speed.growth(out)
    coreset_report.show(out)
