"""Cells of the hard suite -> tables: who finds more wrong labels, who knows how many there are, and who says so.

    python -m benchmarks.hard.report runs/hard

"First" means the best mean over seeds, or within one standard error of the best peer in paired differences. A result is
a silent failure where F1 at the own cut is below .8 of the best peer's and no warning was raised.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.hard.suite import SUITE
from benchmarks.markdown import pipe
from benchmarks.results import read_json, write_json
from lossbuf.files import write_whole

KEYS = ["dataset", "noise_kind", "noise"]
SILENT = 0.8
"""Share of the best peer's F1 below which a result must come with a warning."""

BY_METHOD = {"fnr_at_rate": "FNR at the true rate", "f1": "F1 at the own cut", "noise_rate": "Estimated rate",
             "flagged_share": "Share flagged", "seconds": "Seconds"}  # fmt: skip


def cells(folder: Path) -> pd.DataFrame:
    """One row for each cell and method."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*/*.json")):
        content = read_json(path)
        if content is None or content.get("settings", {}).get("suite") != "hard":
            continue
        settings, values = content["settings"], content["values"]
        common = {name: settings[name] for name in (*KEYS, "seed")} | {"true_noise_rate": values["true_noise_rate"]}
        accuracy = max(values.get("out_of_sample_accuracy", {}).values(), default=float("nan"))
        common |= {"accuracy": accuracy, "n_samples": values["n_samples"]}
        for name, found in values["methods"].items():
            more = {key: values.get(key) for key in ("noise_rate_interval", "warnings")} if name == "ours" else {}
            rows.append({**common, "method": name, **found, **more})
    if not rows:
        return pd.DataFrame()
    known = {name: place for place, name in enumerate(SUITE)}
    table = pd.DataFrame(rows)
    order = table["dataset"].map(lambda name: known.get(name, len(known)))
    return table.assign(order=order).sort_values(["order", "noise_kind", "noise", "seed"], kind="stable")


def standings(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each data set and noise: ours beside the best peer, by FNR and by F1.

    Where ours was not computed yet its values are missing. Seeds count that have both, or else those of the peers.
    """
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys(table[KEYS].itertuples(index=False, name=None)):
        part = table.loc[(table[KEYS] == list(key)).all(axis=1)]
        by_method = {name: part.loc[part["method"] == name].set_index("seed") for name in dict.fromkeys(part["method"])}
        ours = by_method.pop("ours", None)
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        row |= {"seeds": part["seed"].nunique(), "n_samples": int(part["n_samples"].max())}
        row |= {
            "true rate": part.drop_duplicates("seed")["true_noise_rate"].mean(),
            "accuracy": part["accuracy"].mean(),
        }
        for name, sign in (("auroc", 1), ("fnr_at_rate", -1), ("f1", 1)):
            row |= _against(ours, by_method, name, sign)
        if ours is not None:
            row |= _of_ours(ours)
            best = row.get("f1 of best peer", 0.0)
            row["silent failure"] = bool(row["f1"] < SILENT * best and row["warned"] < len(ours))
        least = [float(peer["flagged_share"].mean()) for name, peer in by_method.items() if name.startswith("cleanlab")]
        row["flagged by cleanlab"] = min(least, default=float("nan"))
        found.append(row)
    return pd.DataFrame(found)


def _against(ours: pd.DataFrame | None, peers: dict[str, pd.DataFrame], name: str, sign: int) -> dict[str, Any]:
    """The best peer by one value, and whether ours is first or within one standard error of it."""
    row: dict[str, Any] = {}
    seeds = None if ours is None else ours.index
    means = {peer: float(_values(part, name, seeds).mean()) for peer, part in peers.items()}
    means = {peer: mean for peer, mean in means.items() if np.isfinite(mean)}
    best = max(means, key=lambda peer: sign * means[peer], default=None)
    if best is not None:
        row |= {f"{name} of best peer": means[best], f"{name}: best peer": best}
    if ours is not None:
        own = _values(ours, name)
        row[name] = float(own.mean())
        if best is not None:
            gap = sign * (own - _values(peers[best], name, seeds))
            error = float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else 0.0
            row[f"{name}: first"] = bool(gap.mean() + error >= 0)
    return row


def _values(part: pd.DataFrame, name: str, seeds: pd.Index | None = None) -> NDArray[np.float64]:
    column = part[name] if seeds is None else part[name].reindex(seeds)
    return column.to_numpy(dtype=float)


def _of_ours(ours: pd.DataFrame) -> dict[str, Any]:
    rates, true = _values(ours, "noise_rate"), _values(ours, "true_noise_rate")
    intervals = [interval for interval in ours["noise_rate_interval"] if interval is not None]
    covered = [low <= value <= high for (low, high), value in zip(intervals, true, strict=True)] if intervals else []
    return {
        "estimated rate": float(rates.mean()),
        "rate error": float(np.abs(rates - true).mean()),
        "best f1": float(_values(ours, "best_f1").mean()),
        "flagged": float(_values(ours, "flagged_share").mean()),
        "covered": int(sum(covered)),
        "warned": int(sum(bool(texts) for texts in ours["warnings"])),
        "seconds": float(_values(ours, "seconds").mean()),
    }


def _noisy(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Standings of cells with wrong labels as text."""
    found: list[dict[str, str]] = []
    for row in rows:
        texts = _named(row)
        for name, title in (("auroc", "AUROC"), ("fnr_at_rate", "FNR"), ("f1", "F1")):
            first = "" if row.get(f"{name}: first", True) is not False else " (not first)"
            texts[f"{title}, ours"] = _number(row, name) + first
            texts[f"{title}, best peer"] = f"{_number(row, f'{name} of best peer')} {row.get(f'{name}: best peer', '')}"
        texts["best F1 of our ranking"] = _number(row, "best f1")
        texts["rate, estimated / true"] = f"{_number(row, 'estimated rate')} / {_number(row, 'true rate')}"
        texts |= _said(row)
        texts["silent failure"] = "yes" if row.get("silent failure") is True else "no"
        found.append(texts)
    return found


def _clean(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Standings of cells without wrong labels as text."""
    found: list[dict[str, str]] = []
    for row in rows:
        texts = _named(row)
        texts |= {"flagged, ours": _number(row, "flagged"), "flagged, cleanlab": _number(row, "flagged by cleanlab")}
        texts |= {"estimated rate": _number(row, "estimated rate"), "best accuracy": _number(row, "accuracy")}
        found.append(texts | _said(row))
    return found


def _named(row: dict[str, Any]) -> dict[str, str]:
    kind = row["noise_kind"] if row["noise_kind"] in ("clean", "real") else f"{row['noise_kind']} {row['noise']:g}"
    return {"data": row["dataset"], "noise": kind, "seeds": str(row["seeds"])}


def _said(row: dict[str, Any]) -> dict[str, str]:
    return {
        "interval covers": _count(row, "covered"),
        "warnings": _count(row, "warned"),
        "seconds": f"{row['seconds']:.1f}" if _is_there(row, "seconds") else "",
    }


def _is_there(row: dict[str, Any], name: str) -> bool:
    return name in row and pd.notna(row[name])


def _number(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f}" if _is_there(row, name) else "-"


def _count(row: dict[str, Any], name: str) -> str:
    """In how many seeds; yes or no where there is one."""
    if not _is_there(row, name):
        return ""
    count = int(row[name])
    return ("yes" if count else "no") if row["seeds"] == 1 else f"{count} of {row['seeds']}"


def comparison(table: pd.DataFrame, name: str) -> list[dict[str, str]]:
    """Mean over seeds of one value, one row for each data set and noise, one column for each method."""
    methods = sorted(set(table["method"]), key=lambda method: (method != "ours", method))
    rows: list[dict[str, str]] = []
    for key in dict.fromkeys(table[KEYS].itertuples(index=False, name=None)):
        part = table.loc[(table[KEYS] == list(key)).all(axis=1)]
        row = {"data": str(key[0]), "noise": f"{key[1]} {key[2]:g}"}
        for method in methods:
            values = part.loc[part["method"] == method, name].to_numpy(dtype=float)
            row[method] = f"{values.mean():.3f}" if len(values) else ""
        rows.append(row)
    return rows


def _tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    sorted_out: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, str]]]] = {
        "Wrong labels": _noisy,
        "Clean data": _clean,
    }
    found = {}
    for title, describe in sorted_out.items():
        own = [row for row in rows if (row["noise_kind"] == "clean") == (title == "Clean data")]
        if own:
            found[title] = describe(own)
    return found


def markdown(table: pd.DataFrame) -> str:
    """All tables as Markdown."""
    parts = [f"### {title}\n\n{pipe(rows)}" for title, rows in _tables(standings(table).to_dict("records")).items()]
    parts += [f"### {title}, by method\n\n{pipe(comparison(table, name))}" for name, title in BY_METHOD.items()]
    return "\n".join(parts)


def show(folder: Path) -> None:
    """Print the standings, and write them and all tables to the folder."""
    table = cells(folder)
    console = Console()
    if not console.is_terminal:
        console = Console(width=260)
    if table.empty:
        console.print(f"no cells in {folder}")
        return
    rows = standings(table).to_dict("records")
    for title, texts in _tables(rows).items():
        printed = Table(title=title)
        for column in texts[0]:
            printed.add_column(column)
        for row in texts:
            printed.add_row(*row.values())
        console.print(printed)
    write_json(folder / "summary.json", {"standings": rows})
    write_whole(folder / "tables.md", lambda file: file.write(markdown(table).encode()))
    console.print(f"values and tables: {folder} (summary.json, tables.md)", highlight=False)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(folder: Annotated[Path, typer.Argument(help="A folder of results.", exists=True, file_okay=False)]) -> None:
    show(folder)


if __name__ == "__main__":
    app()
