"""Cells of ``benchmarks.grid`` -> tables: who finds more wrong labels, who knows how many there are, at what cost.

python -m benchmarks.grid.report runs/grid      (or runs/hard)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.common.results import read_json, write_json
from benchmarks.common.tables import pipe
from benchmarks.hard import report as hard_report
from benchmarks.hard.standings import cells as hard_cells
from lossbuf.files import write_whole

PEERS = {
    "aum": "AUM",
    "aum-package": "AUM, threshold samples",
    "cleanlab": "cleanlab",
    "label_loss": "label loss",
    "gmm": "GMM, last loss",
    "mean-gmm": "GMM, mean loss",
    "wrong_count": "wrong count",
    "forgetting_events": "forgetting",
}
OWN_EARLIER = ("score", "score2", "score3")
KEYS = ["dataset", "noise_kind", "noise"]
STRUCTURED = ("pair-flip", "class-dependent", "instance-dependent")


def cells(folder: Path) -> pd.DataFrame:
    """One row a cell and method."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*/*.json")):
        content = read_json(path)
        if content is None or "methods" not in content.get("values", {}):
            continue
        settings, values = content["settings"], content["values"]
        common = {
            **{name: settings[name] for name in (*KEYS, "seed", "subset", "epochs")},
            "true_noise_rate": values["true_noise_rate"],
            "transition_error": values["transition_error"],
            "suggestion_right": values["suggestion_right"],
            "plain_seconds": values["plain_seconds"],
            **{f"accuracy, {name}": value for name, value in values["test_accuracy"].items()},
        }
        rows += [{**common, "method": name, **found} for name, found in values["methods"].items()]
    return pd.DataFrame(rows)


def standings(table: pd.DataFrame) -> pd.DataFrame:
    """A row a data set and noise: ours, the best peer, and whether ours is first or within a standard error of it."""
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys(table[KEYS].itertuples(index=False, name=None)):
        part = table.loc[(table[KEYS] == list(key)).all(axis=1)].sort_values("seed")
        by_method = {name: part.loc[part["method"] == name] for name in dict.fromkeys(part["method"])}
        ours = by_method["ours"]

        def values(name: str, method: str = "ours", by_method: dict[str, Any] = by_method) -> NDArray[np.float64]:
            return by_method[method][name].to_numpy(dtype=float)

        row: dict[str, Any] = {**dict(zip(KEYS, key, strict=True)), "seeds": len(ours)}
        for name, sign in (("auroc", 1), ("fnr_at_rate", -1)):
            row[name] = float(values(name).mean())
            means = {peer: float(values(name, peer).mean()) for peer in PEERS if peer in by_method}
            if not means:
                continue
            best = max(means, key=lambda peer, means=means, sign=sign: sign * means[peer])
            gap = sign * (values(name) - values(name, best))
            error = float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else 0.0
            row |= {f"{name} of best peer": means[best], f"{name}: best peer": best}
            row[f"{name}: first"] = bool(gap.mean() + error >= 0)
        row["true rate"] = float(values("true_noise_rate").mean())
        row["estimated rate"] = float(values("noise_rate").mean())
        row["rate error"] = float(np.abs(values("noise_rate") - values("true_noise_rate")).mean())
        row["f1"], row["best f1"] = float(values("f1").mean()), float(values("best_f1").mean())
        if "cleanlab" in by_method:
            row["f1 of cleanlab"] = float(values("f1", "cleanlab").mean())
        row["transition error"] = float(values("transition_error").mean())
        row["suggestion right"] = float(np.mean(values("suggestion_right")))
        row["cost"] = float(np.median(values("seconds") / values("plain_seconds")))
        for name in ("all rows", "ours", "oracle"):
            row[f"accuracy, {name}"] = float(values(f"accuracy, {name}").mean())
        found.append(row)
    return pd.DataFrame(found)


def fnr_gain(rows: pd.DataFrame) -> float:
    """Mean share of the best peer's missed labels that ours finds, over structured noise; NaN where there is none."""
    if "fnr_at_rate of best peer" not in rows:
        return float("nan")
    part = rows.loc[rows["noise_kind"].isin(STRUCTURED) & rows["fnr_at_rate of best peer"].notna()]
    ours, best = (part[name].to_numpy(dtype=float) for name in ("fnr_at_rate", "fnr_at_rate of best peer"))
    return float((1 - ours / best).mean()) if len(part) else float("nan")


def comparison(table: pd.DataFrame, name: str) -> list[dict[str, str]]:
    """Mean and deviation over seeds of one value, a row a noise, a column a method."""
    rows: list[dict[str, str]] = []
    for key, part in table.groupby(KEYS, sort=False):
        _, kind, rate = key if isinstance(key, tuple) else (key, "", "")
        row = {"noise": f"{kind} {rate:g}"}
        for method in ("ours", *PEERS, *OWN_EARLIER):
            values = part.loc[part["method"] == method, name].to_numpy(dtype=float)
            if len(values):
                spread = f" ±{values.std(ddof=1):.4f}".replace("±0", "±") if len(values) > 1 else ""
                row[PEERS.get(method, method)] = f"{values.mean():.4f}{spread}"
        rows.append(row)
    return rows


def markdown(table: pd.DataFrame) -> str:
    """All tables as Markdown."""
    rows = standings(table)
    parts: list[str] = []
    for dataset in dict.fromkeys(table["dataset"]):
        own, mine = rows.loc[rows["dataset"] == dataset], table.loc[table["dataset"] == dataset]
        seeds = "/".join(str(count) for count in sorted(set(own["seeds"])))
        first = mine.iloc[0]
        size = "all rows" if pd.isna(first["subset"]) else f"{int(first['subset']):,} rows"
        parts.append(f"### {dataset} ({size}, {first['epochs']} epochs, {seeds} seeds)\n")
        parts.append(pipe(_short(own)))
        if set(mine["method"]) == {"ours"}:
            continue
        for name, title in (("auroc", "AUROC"), ("fnr_at_rate", "FNR at the true rate"), ("f1", "F1 at the own cut")):
            parts.append(f"{title}, by method:\n")
            parts.append(pipe(comparison(mine, name)))
    return "\n".join(parts)


def _short(rows: pd.DataFrame) -> list[dict[str, str]]:
    """The standings as text, a dict a row."""
    found: list[dict[str, str]] = []
    for row in rows.to_dict("records"):
        texts = {"noise": f"{row['noise_kind']} {row['noise']:g}"}
        for name, title in (("auroc", "AUROC"), ("fnr_at_rate", "FNR")):
            texts[title] = f"{row[name]:.4f}"
            if not isinstance(row.get(f"{name}: best peer"), str):  # a cell without peers
                continue
            texts[title] += "" if row[f"{name}: first"] else " (not first)"
            texts[f"best peer's {title}"] = f"{row[f'{name} of best peer']:.4f} {PEERS[row[f'{name}: best peer']]}"
        texts["rate, estimated / true"] = f"{row['estimated rate']:.3f} / {row['true rate']:.3f}"
        texts["F1 / best F1"] = f"{row['f1']:.3f} / {row['best f1']:.3f}"
        texts["transition error"] = f"{row['transition error']:.3f}"
        texts["suggestion right"] = f"{row['suggestion right']:.3f}"
        accuracies = (f"{row[f'accuracy, {name}']:.4f}" for name in ("all rows", "ours", "oracle"))
        texts["accuracy: all rows / ours / oracle"] = " / ".join(accuracies)
        texts["cost"] = f"{row['cost']:.2f}"
        found.append(texts)
    return found


def _against(rows: pd.DataFrame) -> str:
    return "ours against the best peer" if "auroc of best peer" in rows else "ours"


def show(folder: Path) -> None:
    """Print the standings, and write them and all tables to the folder."""
    table = cells(folder)
    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    if table.empty:
        console.print(f"no cells in {folder}")
        return
    rows = standings(table)
    for dataset in dict.fromkeys(rows["dataset"]):
        own = rows.loc[rows["dataset"] == dataset]
        short = _short(own)
        printed = Table(title=f"{dataset}: {_against(own)}, seeds: {own['seeds'].min()}")
        for column in short[0]:
            printed.add_column(column)
        for row in short:
            printed.add_row(*row.values())
        console.print(printed)
        if np.isfinite(gain := fnr_gain(own)):
            console.print(f"{dataset}: of the best peer's missed labels, ours finds {gain:.0%} (structured noise)")
    write_json(folder / "summary.json", {"standings": rows.to_dict("records")})
    write_whole(folder / "tables.md", lambda file: file.write(markdown(table).encode()))
    console.print(f"values and tables: {folder} (summary.json, tables.md)", highlight=False)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(folder: Annotated[Path, typer.Argument(help="A folder of results.", exists=True, file_okay=False)]) -> None:
    if hard_cells(folder).empty:
        show(folder)
    else:
        hard_report.show(folder)


if __name__ == "__main__":
    app()
