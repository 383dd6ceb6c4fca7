"""Coresets chosen over shards beside those chosen from all rows at once: objective, time and memory.

    python -m benchmarks.coresets.shards                             (200,000 rows, 8 shards: ends in minutes)
    python -m benchmarks.coresets.shards --shards 2,8,32 --oversample 1,2 --jobs 1,2
    python -m benchmarks.coresets.shards --rows 50000 --classes 1    (all pairs of rows)

Protocol. Rows of Gaussian clusters that are spread over the classes, float32. Each choice is made class by class, in a
process of its own, whose peak resident memory is told, data and libraries in it; that of the largest worker stands
beside it. One after the other. *facility location* is CRAIG's; its objective is the mean over all rows of 1 - distance
to the nearest chosen row of the class / largest distance in the class. The objective of *k-center* is the largest
distance of a row to the nearest chosen one of its class, and its ratio that of the whole choice over that of the
shards. Distances are taken again from all rows, in float64. Random rows say how much there is to lose: by their mean
distance, since 1 - distance / largest is forgiving.

A cell is one JSON file; one that is done with the same settings is skipped.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.common import results
from benchmarks.common.apart import apart, peak_bytes
from benchmarks.common.command import listed
from benchmarks.common.results import cells
from benchmarks.common.tables import markdown, plain_table
from condensation.coresets import Craig, KCenter, Random, Sharded
from condensation.greedy.distances import Distances
from lossbuf.files import write_whole

METHODS = ("facility location", "k-center")
COLUMNS = ("method", "rows", "classes", "k", "choice", "jobs", "seconds", "times_faster", "peak_gib", "worker_gib",
           "objective_ratio", "mean_distance_ratio")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the values of a cell."""

    method: str
    rows: int
    features: int
    classes: int
    clusters: int
    k: int
    seed: int
    choice: str
    shards: int = 0
    oversample: float = 1.0
    jobs: int = 1

    @property
    def name(self) -> str:
        """Of the cell's file, without its ending."""
        return "-".join(
            [self.method.replace(" ", "-"), f"n{self.rows}", f"classes{self.classes}", f"k{self.k}", f"seed{self.seed}",
             self.choice.replace(", ", "-").replace(" ", "-"), f"jobs{self.jobs}"]
        )  # fmt: skip


@cache
def data(rows: int, features: int, classes: int, clusters: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Features, float32, and classes."""
    draws = np.random.default_rng(seed)
    centres = 2 * draws.standard_normal((clusters, features), dtype=np.float32)
    cluster = draws.integers(0, clusters, rows)
    x = draws.standard_normal((rows, features), dtype=np.float32)
    x += centres[cluster]
    return x, cluster % classes


def choose(settings: Settings) -> dict[str, Any]:
    """One choice, its time and memory; to be called in a process of its own."""
    x, y = data(settings.rows, settings.features, settings.classes, settings.clusters, settings.seed)
    selector = {
        "random": Random(size=settings.k, random_state=settings.seed),
        "facility location": Craig(size=settings.k, features=x),
        "k-center": KCenter(size=settings.k),
    }["random" if settings.choice == "random" else settings.method]
    if settings.shards and not isinstance(selector, Random):
        selector = Sharded(
            selector, n_shards=settings.shards, oversample=settings.oversample, n_jobs=settings.jobs,
            random_state=settings.seed,
        )  # fmt: skip
    start = time.perf_counter()
    selector.fit(x, y)
    took = time.perf_counter() - start
    own = peak_bytes() / 2**30
    asked: Any = Parallel(n_jobs=settings.jobs)(delayed(peak_bytes)() for _ in range(4 * settings.jobs))
    worker = max(asked) / 2**30 if settings.jobs > 1 else None
    if worker is not None:
        get_reusable_executor().shutdown(wait=True)  # this process's end would wait for its workers', minutes later
    return {"seconds": took, "peak_gib": own, "worker_gib": worker, "chosen": selector.sample_indices_.tolist()}


@cache
def largest(rows: int, features: int, classes: int, clusters: int, seed: int) -> list[float]:
    """The largest distance between two rows of each class."""
    x, y = data(rows, features, classes, clusters, seed)
    parts = [Distances(torch.from_numpy(x[y == label])) for label in range(classes)]
    return [part.farthest * part.quantum for part in parts]


def compute(settings: Settings) -> dict[str, Any]:
    """The values of a cell."""
    values = apart(choose, {"settings": settings})
    where = (settings.rows, settings.features, settings.classes, settings.clusters, settings.seed)
    (x, y), chosen = data(*where), np.array(values.pop("chosen"))
    served, distance, radius = 0.0, 0.0, 0.0
    for label, far in enumerate(largest(*where)):
        mine, picked = (torch.from_numpy(part).double() for part in (x[y == label], x[chosen[y[chosen] == label]]))
        near = torch.cat([torch.cdist(part, picked).amin(1) for part in mine.split(4096)])
        served += float((1 - near / far).sum())
        distance += float(near.sum())
        radius = max(radius, float(near.max()))
    return values | {"objective": served / len(x), "mean_distance": distance / len(x), "radius": radius}


def compared(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells with what they are in multiples of the choice from all rows at once."""
    same = ("method", "rows", "features", "classes", "clusters", "k", "seed")
    whole = {tuple(cell[name] for name in same): cell for cell in found if cell["choice"] == "all rows"}
    rows = []
    for cell in sorted(found, key=lambda cell: (*(cell[name] for name in same), cell["shards"], cell["oversample"])):
        base = whole.get(tuple(cell[name] for name in same))
        if base is not None:
            by_radius = base["radius"] / cell["radius"]
            ratios = {
                "times_faster": base["seconds"] / cell["seconds"],
                "objective_ratio": by_radius if cell["method"] == "k-center" else cell["objective"] / base["objective"],
                "mean_distance_ratio": cell["mean_distance"] / base["mean_distance"],
            }
            rows.append(cell | ratios | {"worker_gib": cell["worker_gib"] or ""})
    return rows


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    methods: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(METHODS)}.")] = ",".join(METHODS),
    rows: Annotated[int, typer.Option(min=100, help="Rows.")] = 200_000,
    features: Annotated[int, typer.Option(min=1, help="Features of each.")] = 32,
    classes: Annotated[int, typer.Option(min=1, help="Classes, of about as many rows each.")] = 10,
    clusters: Annotated[int, typer.Option(min=1, help="Clusters, at least as many as classes.")] = 200,
    k: Annotated[int, typer.Option(min=1, help="Rows to choose in all.")] = 500,
    shards: Annotated[str, typer.Option(help="Comma-separated.")] = "8",
    oversample: Annotated[str, typer.Option(help="Comma-separated, multiples of k that shards choose.")] = "1",
    jobs: Annotated[str, typer.Option(help="Shards at a time, comma-separated.")] = "1,2",
    seed: Annotated[int, typer.Option(min=0, help="Of the data, the deal and the random rows.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/coreset_shards"),
) -> None:
    plan = partial(Settings, rows=rows, features=features, classes=classes, clusters=clusters, k=k, seed=seed)
    todo: list[Settings] = []
    for method in listed("methods", methods, METHODS):
        todo += [plan(method=method, choice="all rows"), plan(method=method, choice="random")]
        for parts, times, side in product(shards.split(","), oversample.split(","), jobs.split(",")):
            choice = f"{int(parts)} shards" + (f", oversample {float(times):g}" if float(times) != 1 else "")
            todo.append(plan(method=method, choice=choice, shards=int(parts), oversample=float(times), jobs=int(side)))
    for settings in todo:
        results.cell(out / "cells" / f"{settings.name}.json", asdict(settings), partial(compute, settings))
    text = markdown(plain_table(compared(cells(out / "cells")), COLUMNS))
    Console(soft_wrap=True).print(text, highlight=False, markup=False)
    write_whole(out / "table.md", lambda file: file.write(text.encode()))


if __name__ == "__main__":
    # Not this module's own: workers find functions by the name of their module, and __main__ is another one there.
    importlib.import_module("benchmarks.coresets.shards").app()
