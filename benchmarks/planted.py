"""Labels planted on purpose: do they tell how many wrong labels were found, and how many there are?

    python -m benchmarks.planted --dataset digits --seeds 10

Protocol. A cell is one training of ``benchmarks.grid`` with ``LossBufferCallback(mode="filter", planted=SHARE)``. For
the wrong labels that were not planted it holds the share truly found at our cut beside that of the planted ones and
what the posterior expects; the true share of right labels among the suspects beside both estimates, at the cut and at
half, three quarters and five quarters of it; and the noise rate beside both estimates. The same training with nothing
planted is there for what planting costs in test accuracy.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from joblib import Parallel, delayed
from rich.console import Console
from scipy.special import expit

from benchmarks.common import data as datasets
from benchmarks.common import results
from benchmarks.common.command import data_or_exit
from benchmarks.grid import experiment as grid
from lossbuf import LossBufferCallback, LossBufferWarning
from lossbuf.detection import planted
from lossbuf.files import write_whole

DEPTHS = (0.5, 0.75, 1.0, 1.25)
"""Suspects looked at, as shares of those at our cut."""


def compute(cell: grid.Cell, share: float) -> dict[str, Any]:
    """The values of a cell."""
    accuracy, verdict = {}, None
    for name, planted_share in (("nothing planted", 0.0), ("planted", share)):
        callback = LossBufferCallback(
            cell.labels,
            cell.data.num_classes,
            mode="filter",
            epochs=cell.settings.epochs,
            planted=planted_share,
            planted_seed=cell.settings.seed,
        )
        network = cell.fit(cell.data.x, cell.labels, cell.data.num_classes, callback)
        accuracy[name] = cell.accuracy(network)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LossBufferWarning)
            verdict = callback.verdict()
    if verdict is None or verdict.planted is None or verdict.noise_rates is None:
        raise RuntimeError("nothing was planted")
    check, rest = verdict.planted, np.ones(len(cell.labels), dtype=bool)
    rest[check.rows] = False
    wrong, suspicion = cell.noisy.noise_mask[rest], verdict.suspicion[rest]
    wrong_probability, suspects = expit(suspicion.astype(np.float64)), verdict.suspect_mask[rest]
    order = np.argsort(-suspicion, kind="stable")
    by_planting = planted.false_discovery(suspicion, check.suspicion, verdict.noise_rate)
    depths = {}
    for depth in DEPTHS:
        first = order[: max(1, round(depth * suspects.sum()))]
        depths[f"{depth:g}"] = {
            "true": float(1 - wrong[first].mean()),
            "planted": float(by_planting[first[-1]]),
            "posterior": float(1 - wrong_probability[first].mean()),
        }
    return {
        "planted": len(check.rows),
        "found": {
            "true": float(suspects[wrong].mean()),
            "planted": check.found,
            "planted_error": check.found_error,
            "posterior": float(wrong_probability[suspects].sum() / wrong_probability.sum()),
        },
        "false_discovery": depths,
        "noise_rate": {
            "true": float(wrong.mean()),
            "planted": verdict.noise_rates[-1],
            "posterior": sum(verdict.noise_rates[:2]) / 2,
            "both": verdict.noise_rate,
        },
        "test_accuracy": accuracy,
    }


def run_cell(
    settings: grid.Settings, share: float, folder: Path, device: str | None, data_dir: Path | None, threads: int | None
) -> None:
    """Compute a cell, where it is not done yet."""
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = datasets.load(settings.dataset, data_dir, settings.subset)
    path = folder / f"{settings.name}.json"
    results.cell(
        path, {**asdict(settings), "share": share}, lambda: compute(grid.Cell(loaded, settings, device), share)
    )


def table(folder: Path) -> pd.DataFrame:
    """Means over the seeds, a row a kind and rate of noise; errors are mean absolute differences from the truth."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        content = results.read_json(path) or {}
        settings, values = content["settings"], content["values"]
        found, rate, at_cut = values["found"], values["noise_rate"], values["false_discovery"]["1"]
        accuracy = values["test_accuracy"]
        rows.append(
            {
                "noise": f"{settings['noise_kind']} {settings['noise']:g}",
                **{f"found, {name}": found[name] for name in ("true", "planted", "posterior")},
                **{f"found, error {name}": abs(found[name] - found["true"]) for name in ("planted", "posterior")},
                **{f"FDR, error {name}": abs(at_cut[name] - at_cut["true"]) for name in ("planted", "posterior")},
                **{f"rate, error {name}": abs(rate[name] - rate["true"]) for name in ("planted", "posterior", "both")},
                "accuracy lost": accuracy["nothing planted"] - accuracy["planted"],
            }
        )
    names = dict.fromkeys(row["noise"] for row in rows)
    parts = {name: pd.DataFrame([row for row in rows if row["noise"] == name]) for name in names}
    return pd.DataFrame(
        [{"noise": name, "seeds": len(part), **part.mean(numeric_only=True)} for name, part in parts.items()]
    )


def show(folder: Path) -> None:
    """Print the table and save it as ``table.md``."""
    found = table(folder)
    lines = ["| " + " | ".join(found.columns) + " |", "|---" * len(found.columns) + "|"]
    for row in found.itertuples(index=False):
        lines.append(
            "| " + " | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row) + " |"
        )
    text = "\n".join(lines) + "\n"
    Console(soft_wrap=True).print(text, highlight=False)
    write_whole(folder / "table.md", lambda file: file.write(text.encode()))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(grid.PRESETS)}.")] = "digits",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    share: Annotated[float, typer.Option(min=0.001, max=0.5, help="Share of the rows to plant.")] = 0.05,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time.")] = 1,
    device: Annotated[str | None, typer.Option(help="Where to train, by default a GPU if there is one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data; by default LOSSBUF_DATA.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/planted"),
) -> None:
    if dataset not in grid.PRESETS:
        raise typer.BadParameter(f"must be one of {', '.join(grid.PRESETS)}, got {dataset!r}", param_hint="--dataset")
    with data_or_exit():
        datasets.load(dataset, data_dir, grid.PRESETS[dataset].subset)
    todo = [
        grid.settings_of(dataset, kind, rate, seed)
        for seed in range(first_seed, first_seed + seeds)
        for kind, rate in grid.NOISE
        if rate < 0.8  # above, the rows kept are never pure enough to drop any
    ]
    threads = 1 if jobs > 1 else None
    Parallel(n_jobs=jobs)(
        delayed(run_cell)(settings, share, out / dataset, device, data_dir, threads) for settings in todo
    )
    show(out / dataset)


if __name__ == "__main__":
    app()
