"""Cells of ``benchmarks.condense`` -> tables, on screen and as ``tables.md``, and a figure.

python -m benchmarks.condense.report runs/condense
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.common.data import short_name
from benchmarks.common.results import cells
from benchmarks.common.tables import markdown
from benchmarks.coresets.report import PUBLISHED as CORESETS
from lossbuf.files import write_whole

ORDER = ("random", "herding", "k-center", "forgetting", "random+", "herding+", "pca", "lda-pca", "kd", "dd", "ld", "dc",
         "dsa", "dm")  # fmt: skip

PUBLISHED: dict[tuple[str, str], Mapping[str, tuple[tuple[float, float] | None, ...]]] = {
    ("mnist", "convnet3"): {
        **CORESETS["mnist"],
        "dc": ((91.7, 0.5), (97.4, 0.2), (98.8, 0.2)),
        "dsa": ((88.7, 0.6), (97.8, 0.1), (99.2, 0.1)),
    },
    ("fashion-mnist", "convnet3"): {
        **CORESETS["fashion-mnist"],
        "dc": ((70.5, 0.6), (82.3, 0.4), (83.6, 0.4)),
        "dsa": ((70.6, 0.6), (84.6, 0.3), (88.7, 0.2)),
    },
    ("cifar10", "convnet3"): {
        **CORESETS["cifar10"],
        "dc": ((28.3, 0.5), (44.9, 0.5), (53.9, 0.5)),
        "dsa": ((28.8, 0.7), (52.1, 0.5), (60.6, 0.5)),
    },
    ("svhn", "convnet3"): {
        "random": ((14.6, 1.6), (35.1, 4.1), (70.9, 0.9)),
        "herding": ((20.9, 1.3), (50.5, 3.3), (72.6, 0.8)),
        "k-center": ((21.0, 1.5), (14.0, 1.3), (20.1, 1.4)),
        "forgetting": ((12.1, 1.7), (16.8, 1.2), (27.2, 1.5)),
        "dc": ((31.2, 1.4), (76.1, 0.6), (82.3, 0.3)),
        "dsa": ((27.5, 1.4), (79.2, 0.5), (84.4, 0.4)),
    },
    ("mnist", "lenet"): {
        "dd": (None, (79.5, 8.1), None),
        "dc": ((85.0, 1.6), (93.9, 0.6), None),
        "ld": ((60.9, 3.2), (87.3, 0.7), (93.3, 0.3)),
    },
    ("cifar10", "alexnet"): {
        "dd": (None, (36.8, 1.2), None),
        "dc": ((24.2, 0.9), (39.1, 1.2), None),
        "ld": ((25.7, 0.7), (38.3, 0.4), (42.5, 0.4)),
    },
}
"""Test accuracy and deviation in percent at 1, 10 and 50 images a class, by data set and network. Source: Zhao et al.
2021, Tables 1 and 3; Zhao, Bilen 2021, Table 1."""

Cell = dict[str, Any]


def published(cell: Cell, network: str) -> tuple[float, float] | None:
    """The published figure of a cell, where there is one."""
    columns = PUBLISHED.get((cell["dataset"], network), {}).get(cell["method"])
    return columns[(1, 10, 50).index(cell["ipc"])] if columns and cell["ipc"] in (1, 10, 50) else None


def accuracy_table(found: list[Cell]) -> list[list[str]]:
    """A row a data set, size and method: the network it was learned with first, then the others it was tested on."""
    rows = [["data set", "ipc", "method", "iterations", "network", "test accuracy", "published", "learning, s"]]
    order = {name: place for place, name in enumerate(ORDER)}
    for cell in sorted(found, key=lambda cell: (cell["dataset"], cell["ipc"], order.get(cell["method"], 99))):
        for network, values in cell["accuracies"].items():
            scores, figure = 100 * np.array(values), published(cell, network)
            rows.append(
                [
                    cell["dataset"],
                    str(cell["ipc"]),
                    cell["method"] + ("" if cell["dtype"] == "float32" else f" ({cell['dtype']})"),
                    str(len(cell["losses"])) if "losses" in cell else "",
                    network if network == cell["network"] else f"{cell['network']} -> {network}",
                    f"{scores.mean():.1f} ±{scores.std():.1f} ({len(scores)})",
                    "" if figure is None else f"{figure[0]} ±{figure[1]}",
                    f"{cell['seconds']:.0f}",
                ]
            )
    return rows


def bars(found: list[Cell], dataset: str) -> Figure:
    """Test accuracy of every method by images a class."""
    part = [cell for cell in found if cell["dataset"] == dataset]
    sizes = sorted({cell["ipc"] for cell in part})
    names = [name for name in ORDER if any(cell["method"] == name for cell in part)]
    figure = Figure(figsize=(1.5 + 0.4 * len(names) * len(sizes), 3.5), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        for cell in part:
            if cell["method"] == name:
                scores = 100 * np.array(cell["accuracies"][cell["network"]])
                left = sizes.index(cell["ipc"]) + 0.8 * (place + 0.5) / len(names) - 0.4
                bar = axes.bar(left, scores.mean(), 0.75 / len(names), yerr=scores.std(), color=f"C{place}")
                bar.set_label(name if cell["ipc"] == sizes[0] else "_")
    axes.set_xticks(range(len(sizes)), [f"{size} a class" for size in sizes])
    axes.set_ylabel("test accuracy, %")
    axes.set_title(dataset, loc="left")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def show(folder: Path) -> None:
    """Print the table, and save it as ``tables.md`` with a figure a data set."""
    found = [cell | {"dataset": short_name(cell["dataset"])} for cell in cells(folder)]
    if not found:
        return
    text = f"### Test accuracy, % (mean ± deviation over so many networks)\n\n{markdown(accuracy_table(found))}"
    Console(soft_wrap=True).print(text, highlight=False, markup=False)
    write_whole(folder / "tables.md", lambda file: file.write(text.encode()))
    for dataset in sorted({cell["dataset"] for cell in found}):
        figure = bars([cell for cell in found if cell["seed"] == 0], dataset)
        write_whole(folder / f"{dataset}.png", lambda file, figure=figure: figure.savefig(file, format="png", dpi=150))


def main(folder: Annotated[Path, typer.Argument(help="Folder of the results.")]) -> None:
    """Print the tables of a folder of results."""
    show(folder)


if __name__ == "__main__":
    typer.run(main)
