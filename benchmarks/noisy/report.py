"""Results of ``benchmarks.noisy`` -> one table and three figures, drawn from the saved values alone.

python -m benchmarks.noisy.report runs/noisy/FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.common.results import read_json, write_json
from lossbuf.files import write_whole
from lossbuf.report.figures import draw_histogram, draw_pure_rates, pure_rates

NAMES = {
    "posterior": "posterior",
    "score": "score, mean",
    "score2": "score2, mean",
    "score3": "score3, mean",
    "last_score": "score, last epoch",
    "last_score2": "score2, last epoch",
    "last_score3": "score3, last epoch",
    "label_loss": "label loss, mean",
    "aum": "AUM",
    "wrong_count": "wrong count",
    "random": "random",
}
COLUMNS = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "fnr_at_rate": "FNR@rate",
    "noise_rate": "est. rate",
    "pure_rate": "pure rate",
    "clean_recall": "clean kept",
    "test_accuracy": "test accuracy",
}


def rows(folder: Path) -> pd.DataFrame:
    """One row a seed and method, from the cells of a folder."""
    found: list[dict[str, Any]] = []
    for seed_folder in sorted(folder.glob("seed*")):
        cells = {path.stem: content["values"] for path in seed_folder.glob("*.json") if (content := read_json(path))}
        seed = int(seed_folder.name.removeprefix("seed"))
        for name, values in cells.items():
            row: dict[str, Any] = {"seed": seed, "method": name, **_columns(values)}
            if name in ("filter", "reweight"):
                row |= values["ranking"]["posterior"]
            elif name.startswith("kept-") and "watch" in cells:
                method = name.removeprefix("kept-")
                row |= cells["watch"]["ranking"][method]
                estimated = cells["watch"]["estimated_noise_rate"][method]
                row["noise_rate"] = estimated.get("own", estimated["mixture"])
            found.append(row)
    return pd.DataFrame(found)


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    last = values["test_accuracy"][-1] if values["test_accuracy"] else None
    return {
        "test_accuracy": last,
        **{name: values[name] for name in ("pure_rate", "clean_recall") if name in values},
    }


Summary = dict[str, dict[str, dict[str, float]]]


def summary(folder: Path) -> Summary:
    """Mean, deviation and number of seeds by method and column, in the order of the table."""
    table = rows(folder)
    order = ["watch", "oracle", "filter", "reweight", *(f"kept-{name}" for name in NAMES)]
    found: Summary = {}
    for method in (name for name in order if name in set(table["method"])):
        part = table[table["method"] == method]
        columns = {name: pd.Series(part[name]).dropna().to_numpy(dtype=float) for name in COLUMNS if name in part}
        found[method] = {
            name: {"mean": values.mean(), "std": values.std(ddof=1) if len(values) > 1 else 0.0, "count": len(values)}
            for name, values in columns.items()
            if len(values)
        }
    return found


def title_of(method: str) -> str:
    """What a method is called in tables."""
    fixed = {
        "watch": "all rows, as they are",
        "oracle": "truly clean rows (oracle)",
        "filter": "online filter",
        "reweight": "online reweighting",
    }
    return fixed.get(method) or f"kept by {NAMES[method.removeprefix('kept-')]}"


def show(folder: Path) -> None:
    """Print the table, and write it and the figures to the folder."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = summary(folder)
    seeds = max(values["test_accuracy"]["count"] for values in table.values())
    printed = Table(title=f"{folder.name}, {seeds} seed{'s' if seeds > 1 else ''}")
    printed.add_column("training rows")
    columns = [name for name in COLUMNS if any(name in values for values in table.values())]
    for column in columns:
        printed.add_column(COLUMNS[column], justify="right")
    for method, values in table.items():
        printed.add_row(title_of(method), *(_cell(values.get(column)) for column in columns))
    console.print(printed)
    write_json(folder / "summary.json", table)
    write_whole(folder / "table.md", lambda file: file.write(markdown(table).encode()))
    drawn = figures(folder)
    console.print(f"values and figures: {folder} ({', '.join(path.name for path in drawn)})", highlight=False)


def markdown(table: Summary) -> str:
    """The table as Markdown."""
    columns = [name for name in COLUMNS if any(name in values for values in table.values())]
    lines = ["| training rows | " + " | ".join(COLUMNS[name] for name in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for method, values in table.items():
        lines.append(f"| {title_of(method)} | " + " | ".join(_cell(values.get(name)) for name in columns) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: dict[str, float] | None) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.4f}" + (f" ±{value['std']:.4f}".replace("±0", "±") if value["count"] > 1 else "")


def figures(folder: Path) -> list[Path]:
    """Draw the figures of a folder; returns their paths."""
    matplotlib.use("Agg")
    seed_folders = [path for path in sorted(folder.glob("seed*")) if (path / "scores.npz").exists()]
    if not seed_folders:
        return []
    scores: list[dict[str, NDArray[Any]]] = []
    for path in seed_folders:
        with np.load(path / "scores.npz", allow_pickle=False) as file:
            scores.append(dict(file))
    drawings = {
        "pure-rate.png": _pure_rate_figure(scores),
        "by-epoch.png": _epoch_figure(seed_folders),
        "histograms.png": _histogram_figure(scores[0]),
    }
    for name, figure in drawings.items():
        write_whole(folder / name, lambda file, figure=figure: figure.savefig(file, format="png", dpi=120))
    return [folder / name for name in drawings]


def _pure_rate_figure(scores: list[dict[str, NDArray[Any]]]) -> Figure:
    curves = {
        name: np.mean([pure_rates(seed[key], seed["noise_mask"], tie_break=seed["label_loss"]) for seed in scores], 0)
        for key, name in NAMES.items()
    }
    return draw_pure_rates(curves, kept_share=1 - float(scores[0]["noise_mask"].mean()))


def _epoch_figure(seed_folders: list[Path]) -> Figure:
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    pure, test = figure.subplots(1, 2)
    for method in ("watch", "filter", "reweight", "oracle", "kept-posterior"):
        cells = [content["values"] for path in seed_folders if (content := read_json(path / f"{method}.json"))]
        if not cells:
            continue
        label = title_of(method)
        curve = np.mean([values["test_accuracy"] for values in cells], 0)
        test.plot(range(1, len(curve) + 1), curve, label=label)
        for name in cells[0].get("pure_rate_by_epoch", [{}])[0]:
            rates = np.mean([[epoch[name] for epoch in values["pure_rate_by_epoch"]] for values in cells], 0)
            pure.plot(range(1, len(rates) + 1), rates, label=f"{label}: {NAMES[name]}", linewidth=1.2)
    pure.set(xlabel="epoch", ylabel="pure rate at the true rate", title="Purity while training")
    test.set(xlabel="epoch", ylabel="test accuracy", title="Test accuracy while training")
    pure.legend(fontsize=7)
    test.legend(fontsize=7)
    return figure


def _histogram_figure(scores: dict[str, NDArray[Any]]) -> Figure:
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    methods = ("posterior", "score", "score2", "score3", "label_loss", "aum")
    for axes, method in zip(figure.subplots(2, 3).flat, methods, strict=True):
        draw_histogram(axes, scores[method], scores["noise_mask"])
        axes.set(title=NAMES[method], xlabel="higher is more suspect", ylabel="rows")
        axes.title.set_fontsize(9)
    figure.axes[0].legend(fontsize=8)
    return figure


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(folder: Annotated[Path, typer.Argument(help="A folder of results.", exists=True, file_okay=False)]) -> None:
    show(folder)


if __name__ == "__main__":
    app()
