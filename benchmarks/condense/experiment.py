"""Condensed sets: test accuracy by method and size, beside the published figures, and on other networks.

    python -m benchmarks.condense                                   (digits, every method: ends in minutes)
    python -m benchmarks.condense --dataset mnist --methods dc --ipc 1 --minutes 40
    python -m benchmarks.condense --dataset fashion-mnist --methods dc --ipc 1 --minutes 40 --dtype bfloat16 --compiled
    python -m benchmarks.condense --table dc1,dsa1 --dataset mnist,fashion-mnist,cifar10 --ipc 1,10,50 --networks 20 \
        --device cuda                                               (a GPU: the published protocol)
    python -m benchmarks.condense --table dc3 --networks 20 --device cuda

Protocol. A method learns, or chooses, ``ipc`` images a class from all training rows. Fresh networks of the kind it
learned with (``--network``: ConvNet-3 of width 128 with instance norm; two blocks of width 64 for the 8x8 digits) are
trained on them by :func:`condensation.evaluate.evaluate`: 300 epochs, or 1000 with augmentation. Mean and deviation of
their test accuracies. What a set is augmented with while they train is part of the method, as published: DSA's changes
for DSA and DM; for DC and coresets nothing, on MNIST crops, scales and rotations. ``random+`` and ``herding+`` are
trained on with DSA's changes too, which is what DSA and DM must be compared with. A distilled set (DD) is trained on
step by step, as it was learned. Herding looks at the features of a network trained on all rows, Forgetting at its
training.

Iterations and rates are the published ones. On digits there are fewer iterations (``METHODS``), DC starts at real
images as DSA does, and rates suit 8x8 pixels. ``--iterations`` and ``--minutes`` end earlier.

A cell is one JSON file with its settings; one that is done with the same settings is skipped, one that was interrupted
goes on from its checkpoint. The sets themselves and their pictures are written to ``sets/``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import typer
from joblib import Parallel, delayed
from matplotlib.image import imsave
from torch import Tensor

from benchmarks.common import data as datasets
from benchmarks.common import results
from benchmarks.common.command import data_or_exit, listed
from benchmarks.condense import report as condense_report
from benchmarks.condense.methods import METHODS, NETWORKS, Settings
from benchmarks.coresets.experiment import METHODS as CORESETS
from benchmarks.coresets.experiment import prepared
from condensation.artifact import CondensedSet, pictures
from condensation.distillation import evaluate_distilled
from condensation.distillation.dataset import Xavier
from condensation.evaluate import EvalSettings, Evaluation, evaluate
from condensation.learned.condenser import Condenser
from condensation.learned.run import Progress
from lossbuf.files import write_whole

TABLES = {
    "dc1": (("mnist", "fashion-mnist", "svhn", "cifar10"), ("random", "herding", "k-center", "forgetting", "dc")),
    "dc3": (("mnist", "cifar10"), ("dd", "dc")),
    "dsa1": (
        ("mnist", "fashion-mnist", "svhn", "cifar10"),
        ("random", "herding", "forgetting", "dd", "ld", "dc", "dsa"),
    ),
}
"""Data sets and methods of the published tables: Zhao et al. 2021, Tables 1 and 3; Zhao, Bilen 2021, Table 1."""

DATASETS = ("digits", "mnist", "fashion-mnist", "svhn", "cifar10")


class Small(NamedTuple):
    """What a method gives: the set to train on, in the units of the data; what it was learned by, if by anything."""

    x: Tensor
    labels: Tensor
    learner: Condenser | None = None


class How(NamedTuple):
    """What decides no value, but for rounding.

    Attributes:
        device: Where to compute; ``None`` is a GPU if there is one.
        folder: Of the data.
        out: Folder of the results.
        threads: Threads a process; ``None`` is torch's own choice.
        compiled: Compile what can be.
    """

    device: str | None
    folder: Path
    out: Path
    threads: int | None = None
    compiled: bool = False


def chosen(settings: Settings, how: How) -> Small:
    """A coreset."""
    data, _, _, run = prepared(
        settings.dataset, settings.subset, "none", 0.0, "clean", settings.seed, how.device, how.folder
    )
    chooser = CORESETS[settings.method.removesuffix("+")](run, settings.ipc, settings.seed)
    rows = torch.from_numpy(np.asarray(chooser.fit(data.x.numpy(), data.labels.numpy()).sample_indices_))
    return Small(data.x[rows], data.labels[rows])


def learned(settings: Settings, make: Callable[[Settings], Condenser], how: How, state: Path) -> Small:
    """A condensed set; stops when the time is over."""
    data = datasets.load(settings.dataset, how.folder, settings.subset)
    end = None if settings.minutes is None else time.perf_counter() + 60 * settings.minutes

    def over(_: Progress) -> bool:
        return end is not None and time.perf_counter() >= end

    learner = make(settings)
    known = learner.get_params()
    learner.set_params(**{name: getattr(how, name) for name in ("device", "compiled") if name in known})
    images, labels = learner.fit_resample(data.x.numpy(), data.labels.numpy(), checkpoint=state, callback=over)
    return Small(torch.from_numpy(images), torch.from_numpy(labels), learner=learner)


def tested(small: Small, network: str, settings: Settings, data: datasets.Data, device: str | None) -> Evaluation:
    """Test accuracies of fresh networks trained on the set."""
    told = None if small.learner is None else small.learner.condensed_set()
    if told is not None and told.steps is not None:
        factory, many = Xavier(NETWORKS[network]), settings.networks
        return evaluate_distilled(
            told, data.test_x, data.test_labels, network=factory, networks=many, seed=settings.seed, device=device
        )
    schedule = (told.schedule if told is not None else None) or {}
    wanted = EvalSettings(
        networks=settings.networks,
        epochs=settings.eval_epochs,
        temperature=schedule.get("temperature", 1.0),
        seed=settings.seed,
        device=device,
    )
    return evaluate(
        small.x,
        small.labels,
        data.test_x,
        data.test_labels,
        network=NETWORKS[network],
        num_classes=data.num_classes,
        augment=METHODS[settings.method].augment(settings.dataset),
        settings=wanted,
        progress="evaluating",
    )


def compute(settings: Settings, how: How) -> dict[str, Any]:
    """The values of a cell."""
    data = datasets.load(settings.dataset, how.folder, settings.subset)
    state = how.out / "state" / f"{settings.name}.pt"
    state.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    make = METHODS[settings.method].make
    small = chosen(settings, how) if make is None else learned(settings, make, how, state)
    seconds = time.perf_counter() - start
    values: dict[str, Any] = {"size": len(small.x), "seconds": seconds}
    if small.learner is not None:
        values["losses"] = [float(f"{loss:.4g}") for loss in small.learner.losses_]
        save(small.learner.condensed_set(), how.out / "sets" / settings.name)
    found = {network: tested(small, network, settings, data, how.device) for network in settings.test_on}
    values["accuracies"] = {network: list(each.accuracies) for network, each in found.items()}
    values["eval_seconds"] = {network: each.seconds for network, each in found.items()}
    return values


def save(small: CondensedSet, path: Path) -> None:
    """The set as one file, and a picture of up to ten images a class, a class a column, three times as large.

    The data's own units are standardised, in which black and white are no whole numbers: the picture is stretched.
    """
    small.save(path.with_suffix(".npz"))
    rows = F.pad(replace(small, normalisation=None).grid(10), (0, pictures.GAP, 0, pictures.GAP), value=255)
    height, width = (size + pictures.GAP for size in small.x.shape[2:])
    cells = rows.unflatten(1, (-1, height)).unflatten(3, (-1, width)).permute(0, 3, 2, 1, 4)
    columns = cells.flatten(3).flatten(1, 2)[:, : -pictures.GAP, : -pictures.GAP]
    large = columns.repeat_interleave(3, 1).repeat_interleave(3, 2)
    write_whole(path.with_suffix(".png"), lambda file: imsave(file, pictures.rgb(large), format="png"))


def run_cell(settings: Settings, how: How) -> None:
    """Compute a cell, if it is not done yet."""
    if how.threads is not None:
        torch.set_num_threads(how.threads)
    path = how.out / f"{settings.name}.json"
    results.cell(path, asdict(settings), lambda: compute(settings, how))
    (how.out / "state" / f"{settings.name}.pt").unlink(missing_ok=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def data_sets(text: str) -> list[str]:
    """The data sets of a comma-separated text: names, or paths of files that :mod:`benchmarks.common.data` reads."""
    own = [part.strip() for part in text.split(",") if part.strip().endswith(".npz")]
    named = [part for part in text.split(",") if part.strip() not in own]
    return [*(listed("dataset", ",".join(named), DATASETS) if named else []), *own]


@app.command(help=__doc__)
def main(
    table: Annotated[
        str | None, typer.Option(help=f"Comma-separated, of {', '.join(TABLES)}; decides the methods.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help=f"Comma-separated, of {', '.join(DATASETS)}, or .npz files.")
    ] = None,
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(METHODS),
    ipc: Annotated[str, typer.Option(help="Images a class, comma-separated.")] = "1,10",
    network: Annotated[str | None, typer.Option(help=f"To learn with: {', '.join(NETWORKS)}.")] = None,
    test_on: Annotated[str | None, typer.Option(help="Networks to test on, comma-separated.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Of every method that learns.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Most time to learn a set.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, of DC and DSA.")] = "float32",
    compiled: Annotated[bool, typer.Option(help="Compile the networks of DC and DSA; needs a C++ compiler.")] = False,
    networks: Annotated[int, typer.Option(min=1, help="Fresh networks to test on.")] = 5,
    eval_epochs: Annotated[int | None, typer.Option(min=1, help="Of each: 300, 1000 if augmented.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds.")] = 1,
    subset: Annotated[int | None, typer.Option(min=100, help="Training rows to use.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time; with one thread each if several.")] = 1,
    device: Annotated[str | None, typer.Option(help="Where to compute, by default a GPU if there is one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data; by default LOSSBUF_DATA.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/condense"),
) -> None:
    cells: list[tuple[str, str, str]] = []
    for name in [None] if table is None else listed("table", table, TABLES):
        own_sets, own_methods = TABLES[name] if name else (("digits",), tuple(listed("methods", methods, METHODS)))
        for each in own_sets if dataset is None else data_sets(dataset):
            small = {"digits": "mlp", "mnist": "lenet", "fashion-mnist": "lenet"}.get(each, "alexnet")
            for method in own_methods:
                usual = "convnet2" if each == "digits" else "convnet3"
                cells.append((each, method, network or (small if name == "dc3" or method in ("dd", "ld") else usual)))
    if network:
        listed("network", network, NETWORKS)
    folder = data_dir or datasets.default_folder()
    with data_or_exit():
        for name in dict.fromkeys(name for name, _, _ in cells):
            datasets.load(name, folder, subset)
    todo = [
        Settings(
            dataset=name, method=method, ipc=size, seed=seed, network=own, networks=networks, eval_epochs=eval_epochs,
            test_on=tuple(listed("test-on", test_on, NETWORKS)) if test_on else (own,),
            iterations=iterations if METHODS[method].make else None, minutes=minutes if METHODS[method].make else None,
            dtype=dtype, subset=subset,
        )
        for seed, (name, method, own), size in product(range(seeds), dict.fromkeys(cells), map(int, ipc.split(",")))
    ]  # fmt: skip
    how = How(device, folder, out, threads=1 if jobs > 1 else None, compiled=compiled)
    Parallel(n_jobs=jobs)(delayed(run_cell)(settings, how) for settings in todo)
    condense_report.show(out)
