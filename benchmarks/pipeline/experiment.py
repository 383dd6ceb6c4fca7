"""From noisy rows to a small set: test accuracy by what cleans and what condenses, beside noisy and truly clean rows.

    python -m benchmarks.pipeline --noise 0.4 --jobs 2              (digits, class-dependent: ends in ten minutes)
    python -m benchmarks.pipeline --noise 0.4 --noise-kind symmetric,class-dependent --seeds 3 --jobs 2
    python -m benchmarks.pipeline --dataset fashion-mnist --width 32 --methods random,herding,k-center,k-means,dm \
        --iterations 300 --subset 20000 --jobs 2
    python -m benchmarks.pipeline --dataset fashion-mnist,cifar10 --noise-kind symmetric,class-dependent --ipc 10,50 \
        --networks 5 --device cuda                                  (a GPU: published iterations, width 128)

Protocol. Labels are made wrong (the seed decides which); test labels never are. A cleaner says which rows stay:

    none        all of them, as they are
    ours        LossBufferSelector with its own cut, .03 planted labels and no knowledge of the noise
    small-loss  those left when as many of the largest mean loss over the epochs are dropped as are truly wrong
    aum         the same by the lowest area under the margin
    oracle      the truly clean ones

The cut of small-loss and AUM is thus given the true number of wrong labels, which nobody knows; that of ours is not. No
cleaner but the oracle leaves less than .05 of the rows of a given class. Ours cleans in one training. One more, which
only watches, serves none, small-loss and AUM, and one on clean rows the oracle. All are of the same network (ConvNet,
width 32, batch norm), epochs and seed; Herding, K-Center and k-means look at the features of these networks.

A condenser then makes ``ipc`` images a class of the rows that stay, through
:class:`~condensation.pipeline.CleanAndCondense`. Fresh networks of the kind it learned with (ConvNet-3 of
``--width``, instance norm; two blocks for the 8x8 digits) are trained on the set, 300 epochs, by
:func:`condensation.evaluate.evaluate`; their first weights are the same for all cleaners. DSA and DM are trained on
with DSA's changes, on other data than digits for 1000 epochs as published; on MNIST the others are with crops, scales
and rotations, so too. Iterations are the published ones; on digits as few as end in minutes, from real images.

The share of the gap that a cleaner recovers is (accuracy - none) / (oracle - none), a condenser at a time and over all
of them. Where the gap oracle - none is not above its standard error there is "no gap". The error is that of the mean of
differences: of networks with the same first weights where there is one seed, else of the seeds' means.

A cell is one JSON file; one that is done with the same settings is skipped, one that was interrupted goes on from its
checkpoint. The sets, each with the rows it came from and how they were cleaned, are written to ``sets/``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn

from benchmarks.common import data as datasets
from benchmarks.common import results
from benchmarks.common.command import data_or_exit, listed
from benchmarks.common.labels import noisy_labels
from benchmarks.condense.methods import no_augmentation, siamese
from benchmarks.coresets.experiment import EPOCHS, PLANTED
from benchmarks.pipeline import report as pipeline_report
from condensation import coresets
from condensation.augmentation.random_changes import Augmentation
from condensation.coresets.base import Coreset
from condensation.coresets.features import network_outputs
from condensation.evaluate import EvalSettings, evaluate
from condensation.learned.condenser import Condenser
from condensation.matching import DistributionMatching, GradientMatching
from condensation.pipeline import CleanAndCondense
from lossbuf import networks
from lossbuf.detection.thresholds import KnownRate, with_floor
from lossbuf.detection.verdict import CLASS_FLOOR
from lossbuf.errors import LossBufferWarning
from lossbuf.networks import NetworkFactory
from lossbuf.selectors import LossBufferSelector, RowSelector

NOISE_KINDS = ("symmetric", "class-dependent")
CLEANERS = ("none", "ours", "small-loss", "aum", "oracle")
DIGITS = {"dc": 150, "dsa": 150, "dm": 200}
"""Iterations for digits, from batches of 64 rows a class. DC and DSA take one step of the images a network; DC too
starts at real images, since so few iterations make no digits of noise."""

RANKED_BY = {"small-loss": "label_loss", "aum": "aum"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the values of a cell."""

    dataset: str
    noise_kind: str
    noise: float
    cleaner: str
    method: str
    ipc: int
    seed: int
    width: int
    networks: int
    eval_epochs: int | None
    iterations: int | None
    subset: int | None

    @property
    def name(self) -> str:
        """Of the cell's files, without their endings."""
        noise = f"{self.noise_kind}-{self.noise:g}"
        return f"{self.dataset}-{noise}-{self.cleaner}-{self.method}-ipc{self.ipc}-seed{self.seed}"


class GivenRows(RowSelector):
    """Keeps rows that are known already.

    Args:
        rows: Row numbers, ascending.
        by: How they came to be known, for the provenance.
    """

    def __init__(self, *, rows: NDArray[np.int64], by: str) -> None:
        self.rows = rows
        self.by = by

    def _select(self, X: NDArray[Any], labels: Tensor, classes: NDArray[Any]) -> NDArray[np.int64]:
        return self.rows


class Noisy(NamedTuple):
    """A data set with wrong labels in it."""

    data: datasets.Data
    labels: NDArray[np.int64]
    wrong: NDArray[np.bool_]


class Cleaned(NamedTuple):
    """What cleans, which rows it keeps, and the features of these."""

    cleaner: RowSelector | FrozenEstimator | None
    rows: NDArray[np.int64]
    features: Tensor


@lru_cache(maxsize=2)
def noisy(dataset: str, subset: int | None, kind: str, noise: float, seed: int, folder: Path) -> Noisy:
    """The data, kept, since many cells share them."""
    data = datasets.load(dataset, folder, subset)
    found = noisy_labels(data, kind, noise, None, seed)
    return Noisy(data, found.labels, found.noise_mask)


@lru_cache(maxsize=3)
def trained(
    training: str,
    dataset: str,
    subset: int | None,
    kind: str,
    noise: float,
    seed: int,
    folder: Path,
    device: str | None,
) -> tuple[LossBufferSelector, Tensor]:
    """A selector and its network's features of the rows it was trained on; kept, since many cells share them."""
    data, labels, wrong = noisy(dataset, subset, kind, noise, seed, folder)
    x, usual = data.x, partial(LossBufferSelector, epochs=EPOCHS[dataset], device=device, random_state=seed)
    if training == "oracle":
        x, labels = x[torch.from_numpy(~wrong)], labels[~wrong]
    cleans = training == "ours"
    selector = usual(planted=PLANTED) if cleans else usual(mode="watch", rank_by="aum")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossBufferWarning)  # the purity of what is kept tells
        selector.fit(x.numpy(), labels)
    return selector, network_outputs(selector.module_, x).features.cpu()


def cleaned(settings: Settings, device: str | None, folder: Path) -> Cleaned:
    """The rows that a cleaner keeps."""
    given = (settings.dataset, settings.subset, settings.noise_kind, settings.noise, settings.seed, folder)
    _, labels, wrong = noisy(*given)
    training = settings.cleaner if settings.cleaner in ("ours", "oracle") else "watch"
    selector, features = trained(training, *given, device)
    if settings.cleaner == "none":
        return Cleaned(None, np.arange(len(labels)), features)
    if settings.cleaner == "ours":
        rows = selector.sample_indices_
        return Cleaned(FrozenEstimator(selector), rows, features[torch.from_numpy(rows)])
    if settings.cleaner == "oracle":
        rows = np.flatnonzero(~wrong)
        return Cleaned(GivenRows(rows=rows, by="oracle"), rows, features)
    statistics = selector.callback_.statistics()
    suspicion = statistics.suspicion(RANKED_BY[settings.cleaner]).numpy()
    cut = KnownRate(float(wrong.mean()))(suspicion, statistics.label_loss.numpy())
    rows = np.flatnonzero(~with_floor(cut, suspicion, labels, CLASS_FLOOR).suspect_mask)
    return Cleaned(GivenRows(rows=rows, by=settings.cleaner), rows, features[torch.from_numpy(rows)])


def factory(settings: Settings) -> NetworkFactory:
    """Of the networks to learn with and to test on."""

    def convnet(sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        channels, height, width = sample_shape
        depth = 2 if settings.dataset == "digits" else 3
        return networks.ConvNet(channels, num_classes, (height, width), width=settings.width, depth=depth)

    return convnet


def gradient_matching(settings: Settings, augmented: bool) -> Condenser:
    """DC, or DSA; smaller steps on digits, whose gradients are longer."""
    method = partial(
        GradientMatching,
        settings.ipc,
        augment=siamese(settings.dataset) if augmented else None,
        network=factory(settings),
        random_state=settings.seed,
    )
    if settings.dataset != "digits":
        return method(iterations=settings.iterations or 1000)
    iterations = settings.iterations or DIGITS["dsa" if augmented else "dc"]
    return method(iterations=iterations, outer_steps=1, inner_epochs=0, init="real", lr=0.03, batch_size=64)


def distribution_matching(settings: Settings) -> Condenser:
    """DM."""
    digits = settings.dataset == "digits"
    return DistributionMatching(
        settings.ipc,
        augment=siamese(settings.dataset),
        network=factory(settings),
        iterations=settings.iterations or (DIGITS["dm"] if digits else 20_000),
        batch_size=64 if digits else 256,
        random_state=settings.seed,
    )


class Method(NamedTuple):
    """A condenser, of the settings and the features of the rows, and what its sets are augmented with."""

    make: Callable[[Settings, Tensor], Coreset | Condenser]
    augment: Callable[[str], Augmentation | None] = no_augmentation


METHODS = {
    "random": Method(lambda cell, _: coresets.Random(ipc=cell.ipc, random_state=cell.seed)),
    "herding": Method(lambda cell, features: coresets.Herding(ipc=cell.ipc, features=features)),
    "k-center": Method(lambda cell, features: coresets.KCenter(ipc=cell.ipc, features=features)),
    "k-means": Method(lambda cell, features: coresets.KMeans(ipc=cell.ipc, features=features, random_state=cell.seed)),
    "dc": Method(lambda cell, _: gradient_matching(cell, augmented=False)),
    "dsa": Method(lambda cell, _: gradient_matching(cell, augmented=True), siamese),
    "dm": Method(lambda cell, _: distribution_matching(cell), siamese),
}


def compute(settings: Settings, device: str | None, folder: Path, out: Path) -> dict[str, Any]:
    """The values of a cell."""
    given = (settings.dataset, settings.subset, settings.noise_kind, settings.noise, settings.seed, folder)
    data, labels, wrong = noisy(*given)
    cleaner, rows, features = cleaned(settings, device, folder)
    method, start = METHODS[settings.method], time.perf_counter()
    condenser = method.make(settings, features)
    state = None
    if isinstance(condenser, Condenser):
        condenser.device = device
        state = out / "state" / f"{settings.name}.pt"
        state.parent.mkdir(parents=True, exist_ok=True)
    pipeline = CleanAndCondense(cleaner=cleaner, condenser=condenser)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossBufferWarning)  # a class may be short of rows after cleaning
        images, small_labels = pipeline.fit_resample(data.x.numpy(), labels, checkpoint=state)
    seconds = time.perf_counter() - start
    small = pipeline.condensed_set()
    small.save(out / "sets" / f"{settings.name}.npz")
    epochs = settings.eval_epochs or (300 if settings.dataset == "digits" else None)
    found = evaluate(
        images,
        small_labels,
        data.test_x,
        data.test_labels,
        network=factory(settings),
        num_classes=data.num_classes,
        augment=method.augment(settings.dataset),
        settings=EvalSettings(networks=settings.networks, epochs=epochs, seed=settings.seed, device=device),
    )
    chosen = None if small.synthetic or small.provenance is None else small.provenance.rows
    return {
        "n_samples": len(labels),
        "wrong": float(wrong.mean()),
        "kept": len(rows),
        "purity": float(1 - wrong[rows].mean()),
        "small_purity": None if chosen is None else float(1 - wrong[chosen.numpy()].mean()),
        "size": len(images),
        "accuracies": list(found.accuracies),
        "seconds": seconds,
        "eval_seconds": found.seconds,
    }


def run_cell(settings: Settings, device: str | None, folder: Path, out: Path, threads: int | None) -> None:
    """Compute a cell, if it is not done yet."""
    if threads is not None:
        torch.set_num_threads(threads)
    path = out / f"{settings.name}.json"
    results.cell(path, asdict(settings), lambda: compute(settings, device, folder, out))
    (out / "state" / f"{settings.name}.pt").unlink(missing_ok=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    noise: Annotated[float, typer.Option(min=0, max=0.9, help="Share of labels made wrong, where any are.")] = 0.4,
    noise_kind: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(NOISE_KINDS)}.")] = "class-dependent",
    dataset: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(EPOCHS)}.")] = "digits",
    cleaners: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(CLEANERS),
    methods: Annotated[str, typer.Option(help="Condensers, comma-separated.")] = ",".join(METHODS),
    ipc: Annotated[str, typer.Option(help="Images a class, comma-separated.")] = "10",
    iterations: Annotated[int | None, typer.Option(min=1, help="Of every method that learns.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Of the ConvNets: 64 for digits, else 128.")] = None,
    networks: Annotated[int, typer.Option(min=2, help="Fresh networks a cell.")] = 3,
    eval_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each: 300, 1000 if augmented.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds.")] = 1,
    subset: Annotated[int | None, typer.Option(min=100, help="Training rows to use.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time; with one thread each if several.")] = 1,
    device: Annotated[str | None, typer.Option(help="Where to compute, by default a GPU if there is one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data; by default LOSSBUF_DATA.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/pipeline"),
) -> None:
    names, kinds = listed("dataset", dataset, EPOCHS), listed("noise-kind", noise_kind, NOISE_KINDS)
    cleaning, chosen = listed("cleaners", cleaners, CLEANERS), listed("methods", methods, METHODS)
    folder = data_dir or datasets.default_folder()
    with data_or_exit():
        for name in names:
            datasets.load(name, folder, subset)
    todo = [
        Settings(
            dataset=name, noise_kind=kind, noise=noise, cleaner=cleaner, method=method, ipc=size, seed=seed,
            width=width or (64 if name == "digits" else 128), networks=networks, eval_epochs=eval_epochs,
            iterations=None if method in pipeline_report.CORESETS else iterations, subset=subset,
        )
        for seed, name, kind, cleaner, size, method in product(
            range(seeds), names, kinds, cleaning, map(int, ipc.split(",")), chosen
        )
    ]  # fmt: skip
    threads = 1 if jobs > 1 else None
    Parallel(n_jobs=jobs)(delayed(run_cell)(settings, device, folder, out, threads) for settings in todo)
    pipeline_report.show(out)
