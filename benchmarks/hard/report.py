"""Cells of the hard suite -> tables: who finds more wrong labels, who knows how many there are, and who says so.

    python -m benchmarks.hard.report runs/hard
    python -m benchmarks.hard.report runs/hard --development

Reported are the seeds below 100, or with ``--development`` those from 100 on, on which choices are made. "First" means
the best mean over seeds, or within one standard error of the best peer in paired differences. A result is a silent
failure where F1 at the own cut is below .8 of the best peer's and a seed raised no warning. The last column says what a
cell falls short of: being first by FNR or by F1, .95 of the best F1 of the own ranking, or a noise rate within .03 (.05
where classes have fewer than 50 rows or people were wrong). Clean data should have at most 1 % flagged and a rate
within .01 where some peer predicts it with an accuracy of .95, and elsewhere at most half of what cleanlab flags.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common.results import write_json
from benchmarks.common.tables import pipe
from benchmarks.hard.standings import KEYS, cells, of_seeds, standings
from lossbuf.files import write_whole

BY_METHOD = {"fnr_at_rate": "FNR at the true rate", "f1": "F1 at the own cut", "noise_rate": "Estimated rate",
             "flagged_share": "Share flagged", "seconds": "Seconds"}  # fmt: skip


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
        texts["silent failure"] = {True: "yes", False: "no"}.get(row.get("silent failure", ""), "")
        found.append(texts | _falls_short(row))
    return found


def _clean(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Standings of cells without wrong labels as text."""
    found: list[dict[str, str]] = []
    for row in rows:
        texts = _named(row)
        texts |= {"flagged, ours": _number(row, "flagged"), "flagged, cleanlab": _number(row, "flagged by cleanlab")}
        texts |= {"estimated rate": _number(row, "estimated rate"), "best accuracy": _number(row, "accuracy")}
        found.append(texts | _said(row) | _falls_short(row))
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


def _falls_short(row: dict[str, Any]) -> dict[str, str]:
    return {"falls short of": row["falls short of"] if _is_there(row, "falls short of") else ""}


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


def show(folder: Path, development: bool = False) -> None:
    """Print the standings, and write them and all tables to the folder.

    Args:
        folder: The results.
        development: Show the seeds on which choices are made, in files of their own.
    """
    table = cells(folder)
    table = table if table.empty else of_seeds(table, development)
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
    done = [row for row in rows if _is_there(row, "flagged")]
    short = sum(bool(row["falls short of"]) for row in done)
    silent = sum(bool(row["silent failure"]) for row in done)
    console.print(f"{len(done)} cells with ours: {short} fall short, {silent} fail silently", highlight=False)
    ending = "-development" if development else ""
    write_json(folder / f"summary{ending}.json", {"standings": rows})
    write_whole(folder / f"tables{ending}.md", lambda file: file.write(markdown(table).encode()))
    console.print(f"values and tables: {folder} (summary{ending}.json, tables{ending}.md)", highlight=False)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    folder: Annotated[Path, typer.Argument(help="A folder of results.", exists=True, file_okay=False)],
    development: Annotated[bool, typer.Option("--development", help="Show the seeds from 100 on.")] = False,
) -> None:
    show(folder, development)


if __name__ == "__main__":
    app()
