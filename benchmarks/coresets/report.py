"""Cells of ``benchmarks.coresets`` -> tables, on screen and as ``tables.md``.

python -m benchmarks.coresets.report runs/coresets
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.common.results import Cell, cells
from benchmarks.common.tables import markdown, plain_table
from lossbuf.files import write_whole

PUBLISHED = {
    "mnist": {
        "random": ((64.9, 3.5), (95.1, 0.9), (97.9, 0.2)),
        "herding": ((89.2, 1.6), (93.7, 0.3), (94.9, 0.2)),
        "k-center": ((89.3, 1.5), (84.4, 1.7), (97.4, 0.3)),
        "forgetting": ((35.5, 5.6), (68.1, 3.3), (88.2, 1.2)),
    },
    "fashion-mnist": {
        "random": ((51.4, 3.8), (73.8, 0.7), (82.5, 0.7)),
        "herding": ((67.0, 1.9), (71.1, 0.7), (71.9, 0.8)),
        "k-center": ((66.9, 1.8), (54.7, 1.5), (68.3, 0.8)),
        "forgetting": ((42.0, 5.5), (53.9, 2.0), (55.0, 1.1)),
    },
    "cifar10": {
        "random": ((14.4, 2.0), (26.0, 1.2), (43.4, 1.0)),
        "herding": ((21.5, 1.2), (31.6, 0.7), (40.4, 0.6)),
        "k-center": ((21.5, 1.3), (14.7, 0.9), (27.0, 1.4)),
        "forgetting": ((13.5, 1.2), (23.3, 1.0), (23.3, 1.1)),
    },
}
"""Test accuracy and deviation in percent at 1, 10 and 50 rows a class. Source: Zhao et al. 2021, Table 1."""


def _key(cell: Cell) -> tuple[str, int, bool, str]:
    return cell["dataset"], cell["ipc"], cell["augment"], cell["dtype"]


def accuracy_table(found: list[Cell]) -> list[list[str]]:
    """A row a data set and size, a column a method; ours over the published figure."""
    methods = _ordered(cell["method"] for cell in found)
    rows = [["data set", "ipc", "augmented", "networks", "computed in", *methods]]
    for key in sorted({_key(cell) for cell in found}):
        dataset, ipc, augmented, dtype = key
        part = {cell["method"]: cell for cell in found if _key(cell) == key}
        networks = "/".join(map(str, sorted({cell["networks"] for cell in part.values()})))
        row = [dataset, str(ipc), "yes" if augmented else "no", networks, dtype]
        for method in methods:
            values = 100 * np.array(part[method]["accuracies"]) if method in part else np.array([])
            spread = f" ±{values.std():.1f}" if len(values) > 1 else ""
            ours = f"{values.mean():.1f}{spread}" if len(values) else ""
            columns = PUBLISHED.get(dataset, {}).get(method)
            published = columns[(1, 10, 50).index(ipc)] if columns and ipc in (1, 10, 50) else None
            row.append(ours + (f" (published {published[0]} ±{published[1]})" if published else ""))
        rows.append(row)
    return rows


def noise_table(found: list[Cell]) -> list[list[str]]:
    """A row a data set, noise and method: purity, and accuracy on noisy, cleaned and clean rows; means over seeds."""
    rows = [
        [
            "data set",
            "noise",
            "method",
            "seeds",
            "purity: noisy / cleaned",
            "accuracy: noisy / cleaned / clean",
            "better",
        ]
    ]
    keys = dict.fromkeys((cell["dataset"], cell["noise_kind"], cell["noise"]) for cell in found)
    for dataset, kind, rate in sorted(keys):
        for method in _ordered(cell["method"] for cell in found):
            part = [
                cell
                for cell in found
                if (cell["dataset"], cell["noise_kind"], cell["noise"], cell["method"]) == (dataset, kind, rate, method)
            ]
            by_rows = {name: [cell for cell in part if cell["rows"] == name] for name in ("noisy", "cleaned", "clean")}
            if not all(by_rows.values()):
                continue
            purity = {name: np.mean([cell["purity"] for cell in some]) for name, some in by_rows.items()}
            accuracy = {name: np.mean([cell["accuracies"] for cell in some]) for name, some in by_rows.items()}
            better = sum(
                np.mean(one["accuracies"]) > np.mean(other["accuracies"])
                for one, other in zip(by_rows["cleaned"], by_rows["noisy"], strict=False)
            )
            rows.append(
                [
                    dataset,
                    f"{kind} {rate:g}",
                    method,
                    str(len(by_rows["cleaned"])),
                    f"{purity['noisy']:.2f} / {purity['cleaned']:.2f}",
                    " / ".join(f"{100 * accuracy[name]:.1f}" for name in by_rows),
                    f"{better} of {len(by_rows['cleaned'])}",
                ]
            )
    return rows


def _ordered(names: Any) -> list[str]:
    known = ["random", "herding", "k-center", "k-means", "forgetting", "forgetting-last", "el2n", "craig", "crust"]
    there = set(names)
    return [name for name in known if name in there]


def show(folder: Path) -> None:
    """Print the tables there are, and save them as ``tables.md``."""
    parts = []
    for name, title, make in (
        ("accuracy", "Test accuracy, %", accuracy_table),
        ("noise", "Under label noise, ipc 10", noise_table),
        ("speed", "Facility location, against peers", lambda found: plain_table(found, SPEED)),
        ("growth", "How time and memory grow", lambda found: plain_table(found, GROWTH)),
    ):
        found = cells(folder / name)
        if found:
            parts.append(f"### {title}\n\n{markdown(make(found))}")
    text = "\n".join(parts)
    Console(soft_wrap=True).print(text, highlight=False, markup=False)
    if parts:
        write_whole(folder / "tables.md", lambda file: file.write(text.encode()))


SPEED = ("n", "d", "k", "method", "seconds", "objective_ratio", "times_slower")
GROWTH = ("method", "n", "d", "k", "seconds", "peak_gib", "passes_a_pick")


def main(folder: Annotated[Path, typer.Argument(help="Folder of the results.")]) -> None:
    """Print the tables of a folder of results."""
    show(folder)


if __name__ == "__main__":
    typer.run(main)
