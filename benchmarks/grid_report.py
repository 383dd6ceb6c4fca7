"""Cells of ``benchmarks.grid`` -> tables: who finds more wrong labels, who knows how many there are, at what cost.

python -m benchmarks.grid_report runs/grid
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.results import read_json, write_json
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
    for key, part in table.groupby(KEYS, sort=False):
        by_method = {str(name): rows.sort_values("seed") for name, rows in part.groupby("method")}
        ours = by_method["ours"]
        row: dict[str, Any] = {**dict(zip(KEYS, np.atleast_1d(np.asarray(key, dtype=object)), strict=True))}
        row["seeds"] = len(ours)
        for name, sign in (("auroc", 1), ("fnr_at_rate", -1)):
            means = {peer: float(by_method[peer][name].mean()) for peer in PEERS if peer in by_method}
            best = max(means, key=lambda peer: sign * means[peer])
            gap = sign * (ours[name].to_numpy() - by_method[best][name].to_numpy())
            error = float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else 0.0
            row |= {name: float(ours[name].mean()), f"{name} of best peer": means[best], f"{name}: best peer": best}
            row[f"{name}: first"] = bool(gap.mean() + error >= 0)
        row["true rate"] = float(ours["true_noise_rate"].mean())
        row["estimated rate"] = float(ours["noise_rate"].mean())
        row["rate error"] = float((ours["noise_rate"] - ours["true_noise_rate"]).abs().mean())
        row["f1"], row["best f1"] = float(ours["f1"].mean()), float(ours["best_f1"].mean())
        row["f1 of cleanlab"] = float(by_method["cleanlab"]["f1"].mean())
        row["transition error"] = float(ours["transition_error"].mean())
        row["suggestion right"] = float(ours["suggestion_right"].astype(float).mean())
        row["cost"] = float((ours["seconds"] / ours["plain_seconds"]).median())
        for name in ("all rows", "ours", "oracle"):
            row[f"accuracy, {name}"] = float(ours[f"accuracy, {name}"].mean())
        found.append(row)
    return pd.DataFrame(found)


def fnr_gain(rows: pd.DataFrame) -> float:
    """Mean share of the best peer's missed labels that ours finds, over structured noise."""
    part = rows[rows["noise_kind"].isin(STRUCTURED)]
    return float((1 - part["fnr_at_rate"] / part["fnr_at_rate of best peer"]).mean()) if len(part) else float("nan")


def comparison(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Mean and deviation over seeds of one value, a row a noise, a column a method."""
    methods = ["ours", *PEERS, *OWN_EARLIER]
    grouped = table.groupby([*KEYS, "method"], sort=False)[name]
    texts = grouped.mean().map("{:.4f}".format)
    spread = grouped.std().fillna(0).map(lambda value: f" ±{value:.4f}".replace("±0", "±"))
    counted = grouped.count()
    cells_of = texts.where(counted < 2, texts + spread).unstack("method")
    return cells_of[[method for method in methods if method in cells_of]]


def markdown(table: pd.DataFrame) -> str:
    """All tables as Markdown."""
    rows = standings(table)
    parts = []
    for dataset, own in rows.groupby("dataset", sort=False):
        seeds = "/".join(str(count) for count in sorted(set(own["seeds"])))
        first = table[table["dataset"] == dataset].iloc[0]
        size = "all rows" if pd.isna(first["subset"]) else f"{int(first['subset']):,} rows"
        parts.append(f"### {dataset} ({size}, {first['epochs']} epochs, {seeds} seeds)\n")
        parts.append(_pipe(_short(own)))
        for name, title in (("auroc", "AUROC"), ("fnr_at_rate", "FNR at the true rate"), ("f1", "F1 at the own cut")):
            part = comparison(table[table["dataset"] == dataset], name).reset_index().drop(columns="dataset")
            parts.append(f"{title}, by method:\n")
            parts.append(_pipe(part.rename(columns={**PEERS, "noise_kind": "noise", "noise": "rate"})))
    return "\n".join(parts)


def _short(rows: pd.DataFrame) -> pd.DataFrame:
    number = "{:.4f}".format
    return pd.DataFrame(
        {
            "noise": rows["noise_kind"] + " " + rows["noise"].map("{:g}".format),
            "AUROC": rows["auroc"].map(number) + rows["auroc: first"].map({True: "", False: " (not first)"}),
            "best peer's": rows["auroc of best peer"].map(number) + " " + rows["auroc: best peer"].map(PEERS),
            "FNR": rows["fnr_at_rate"].map(number) + rows["fnr_at_rate: first"].map({True: "", False: " (not first)"}),
            "best peer's FNR": rows["fnr_at_rate of best peer"].map(number)
            + " "
            + rows["fnr_at_rate: best peer"].map(PEERS),
            "rate, estimated / true": rows["estimated rate"].map("{:.3f}".format)
            + " / "
            + rows["true rate"].map("{:.3f}".format),
            "F1 / best F1": rows["f1"].map("{:.3f}".format) + " / " + rows["best f1"].map("{:.3f}".format),
            "transition error": rows["transition error"].map("{:.3f}".format),
            "suggestion right": rows["suggestion right"].map("{:.3f}".format),
            "accuracy: all rows / ours / oracle": rows["accuracy, all rows"].map(number)
            + " / "
            + rows["accuracy, ours"].map(number)
            + " / "
            + rows["accuracy, oracle"].map(number),
            "cost": rows["cost"].map("{:.2f}".format),
        }
    )


def _pipe(table: pd.DataFrame) -> str:
    head = [str(column) for column in table.columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


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
    for dataset, own in rows.groupby("dataset", sort=False):
        short = _short(own)
        printed = Table(title=f"{dataset}: ours against the best peer, seeds: {own['seeds'].min()}")
        for column in short.columns:
            printed.add_column(column)
        for row in short.itertuples(index=False):
            printed.add_row(*(str(value) for value in row))
        console.print(printed)
        console.print(f"{dataset}: of the best peer's missed labels, ours finds {fnr_gain(own):.0%} (structured noise)")
    write_json(folder / "summary.json", {"standings": rows.to_dict("records")})
    write_whole(folder / "tables.md", lambda file: file.write(markdown(table).encode()))
    console.print(f"values and tables: {folder} (summary.json, tables.md)", highlight=False)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(folder: Annotated[Path, typer.Argument(help="A folder of results.", exists=True, file_okay=False)]) -> None:
    show(folder)


if __name__ == "__main__":
    app()
