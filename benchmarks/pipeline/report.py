"""Cells of ``benchmarks.pipeline`` -> tables, on screen and as ``tables.md``.

python -m benchmarks.pipeline.report runs/pipeline
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.common.results import cells
from benchmarks.common.tables import markdown
from lossbuf.files import write_whole

CORESETS = ("random", "herding", "k-center", "k-means")
METHODS = (*CORESETS, "dc", "dsa", "dm")
CLEANERS = ("none", "small-loss", "aum", "ours", "oracle")

Cell = dict[str, Any]
Key = tuple[str, str, float, int]
Accuracies = dict[tuple[str, str, int], list[float]]
"""By cleaner, condenser and seed."""


def _key(cell: Cell) -> Key:
    return cell["dataset"], cell["noise_kind"], cell["noise"], cell["ipc"]


def accuracy_table(found: list[Cell]) -> list[list[str]]:
    """A row a data set, noise, size, condenser and cleaner; means over seeds, deviation over all networks."""
    rows = [
        ["data set", "noise", "ipc", "condenser", "cleaner", "seeds", "rows kept", "purity", "of the coreset",
         "test accuracy", "condensing, s"]
    ]  # fmt: skip
    for dataset, kind, rate, ipc in sorted({_key(cell) for cell in found}):
        for method in METHODS:
            for cleaner in CLEANERS:
                part = [
                    cell
                    for cell in found
                    if (*_key(cell), cell["method"], cell["cleaner"]) == (dataset, kind, rate, ipc, method, cleaner)
                ]
                if not part:
                    continue
                scores = 100 * np.concatenate([cell["accuracies"] for cell in part])
                chosen = [cell["small_purity"] for cell in part if cell["small_purity"] is not None]
                rows.append(
                    [
                        dataset,
                        f"{kind} {rate:g}",
                        str(ipc),
                        method,
                        cleaner,
                        str(len(part)),
                        f"{_mean(part, 'kept'):.0f} of {_mean(part, 'n_samples'):.0f}",
                        f"{_mean(part, 'purity'):.3f}",
                        f"{np.mean(chosen):.3f}" if chosen else "",
                        f"{scores.mean():.1f} ±{scores.std():.1f} ({len(scores)})",
                        f"{_mean(part, 'seconds'):.0f}",
                    ]
                )
    return rows


def recovered_table(found: list[Cell]) -> list[list[str]]:
    """A row a data set, noise, size and condenser, and one for all condensers: the gap, and what of it is recovered."""
    compared = [name for name in CLEANERS if name not in ("none", "oracle")]
    rows = [["data set", "noise", "ipc", "condenser", "gap, points", *compared]]
    for key in sorted({_key(cell) for cell in found}):
        by: Accuracies = {
            (cell["cleaner"], cell["method"], cell["seed"]): cell["accuracies"] for cell in found if _key(cell) == key
        }
        ends = [{(method, seed) for cleaner, method, seed in by if cleaner == end} for end in ("none", "oracle")]
        whole = sorted(ends[0] & ends[1], key=lambda pair: (METHODS.index(pair[0]), pair[1]))
        methods = list(dict.fromkeys(method for method, _ in whole))
        for name, group in [*((method, [method]) for method in methods), ("all", methods)]:
            if name == "all" and len(methods) < 2:
                continue
            pairs = [pair for pair in whole if pair[0] in group]
            gap, error = gap_of(_mean_over(by, "none", pairs), _mean_over(by, "oracle", pairs))
            row = [key[0], f"{key[1]} {key[2]:g}", str(key[3]), name, f"{100 * gap:.1f} ±{100 * error:.1f}"]
            for cleaner in compared:
                there = [pair for pair in pairs if (cleaner, *pair) in by]
                if len(there) < len(pairs):
                    row.append("")
                    continue
                share = recovered(*(_mean_over(by, one, pairs) for one in ("none", cleaner, "oracle")))
                row.append("no gap" if share is None else f"{100 * share:.0f} %")
            rows.append(row)
    return rows


def _mean_over(by: Accuracies, cleaner: str, pairs: Iterable[tuple[str, int]]) -> NDArray[np.float64]:
    """Accuracies of a cleaner, the mean over condensers, shape ``(seeds, networks)``."""
    seeds: dict[int, list[list[float]]] = {}
    for method, seed in pairs:
        seeds.setdefault(seed, []).append(by[cleaner, method, seed])
    return np.array([np.mean(of_seed, axis=0) for _, of_seed in sorted(seeds.items())])


def gap_of(none: NDArray[np.float64], oracle: NDArray[np.float64]) -> tuple[float, float]:
    """Accuracy on truly clean rows less that on noisy ones, and its standard error.

    Args:
        none: Of the noisy rows, shape ``(seeds, networks)``; the same networks in the same places of both.
        oracle: Of the truly clean rows.

    Returns:
        The mean of the differences, and its error: of the networks' differences where there is one seed, else of those
        of the seeds' means, since networks of a seed share their set.
    """
    differences = oracle - none
    alone = differences[0] if len(differences) == 1 else differences.mean(1)
    return float(alone.mean()), float(alone.std(ddof=1) / np.sqrt(len(alone)))


def recovered(none: NDArray[np.float64], cleaned: NDArray[np.float64], oracle: NDArray[np.float64]) -> float | None:
    """Share of the gap that cleaning recovers; ``None`` where the gap is not above its standard error.

    Example:
        >>> none, cleaned, oracle = np.array([[0.5, 0.52]]), np.array([[0.58, 0.6]]), np.array([[0.6, 0.62]])
        >>> round(recovered(none, cleaned, oracle), 2), recovered(none, cleaned, np.array([[0.4, 0.63]]))
        (0.8, None)
    """
    gap, error = gap_of(none, oracle)
    return float(cleaned.mean() - none.mean()) / gap if gap > error else None


def _mean(part: list[Cell], name: str) -> float:
    return float(np.mean([cell[name] for cell in part]))


def show(folder: Path) -> None:
    """Print the tables there are, and save them as ``tables.md``."""
    found = cells(folder)
    if not found:
        return
    text = "\n".join(
        [
            "### Share of the gap between noisy and truly clean rows that a cleaner recovers\n",
            markdown(recovered_table(found)),
            "### Test accuracy, % (mean ± deviation over so many networks)\n",
            markdown(accuracy_table(found)),
        ]
    )
    Console(soft_wrap=True).print(text, highlight=False, markup=False)
    write_whole(folder / "tables.md", lambda file: file.write(text.encode()))


def main(folder: Annotated[Path, typer.Argument(help="Folder of the results.")]) -> None:
    """Print the tables of a folder of results."""
    show(folder)


if __name__ == "__main__":
    typer.run(main)
