"""Nothing lost: hostile files, kills, full disks, several processes, changed data.

    python -m benchmarks.reliability --files 10000 --kills 50 --seed 0

The protocols are in the docstrings of ``fuzz.py``, ``kills.py``, ``faults.py``, ``races.py`` and ``changes.py``. Every
part is a JSON file in the folder of the results; a part that is done with the same settings, with nothing amiss, is not
done again. The exit status is 1 where something was not as it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from tqdm.auto import tqdm

from benchmarks.common import results
from benchmarks.common.command import listed
from benchmarks.reliability.report import markdown
from lossbuf.files import write_whole

PARTS = ("fuzz", "kills", "faults", "races", "changes")


def run(part: str, files: int, kills: int, seed: int, advance: Callable[[], object]) -> list[dict[str, Any]]:
    """Do a part; a row for each thing tried."""
    if part == "fuzz":
        from benchmarks.reliability.fuzz import fuzz

        return [common_form(row) for row in fuzz(files, seed, progress=True)]
    if part == "kills":
        from benchmarks.reliability.kills import kills as kill

        return kill(kills, seed, advance)
    if part == "faults":
        from benchmarks.reliability.faults import faults

        return faults(seed, advance)
    if part == "races":
        from benchmarks.reliability.races import races

        return races(advance=advance)
    from benchmarks.reliability.changes import changes

    return changes(advance)


def common_form(row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``fuzz`` with what the rows of the other parts have."""
    texts = {"refused": "refused in one line", "same": "read as it was", "other": "read", "failed": "failed"}
    happened = {text: row[name] for name, text in texts.items() if row[name]}
    what = f"{row['loader']}: {row['damage']}"
    return {"area": "fuzz", "what": what, "happened": happened, "wrong": row["failed"], **row}


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    files: Annotated[int, typer.Option(min=1, help="Damaged and hostile files.")] = 1000,
    kills: Annotated[int, typer.Option(min=1, help="Trainings to kill; other work is killed in proportion.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seeds all that is drawn.")] = 0,
    only: Annotated[str, typer.Option(help=f"Parts, among {', '.join(PARTS)}.")] = ",".join(PARTS),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/reliability"),
) -> None:
    asked = {"fuzz": {"files": files}, "kills": {"kills": kills}}
    for part in listed("only", only, PARTS):
        path, settings = out / f"{part}.json", {"part": part, "seed": seed, **asked.get(part, {})}
        if (rows := done(path)) and any(row["wrong"] for row in rows):
            path.unlink()
        with tqdm(desc=part, disable=None, leave=False) as bar:
            results.cell(path, settings, lambda part=part, bar=bar: {"rows": run(part, files, kills, seed, bar.update)})
    rows = [row for part in PARTS for row in done(out / f"{part}.json")]
    text = markdown(rows)
    write_whole(out / "table.md", lambda file: file.write(text.encode()))
    console = Console(soft_wrap=True)
    console.print(text, highlight=False, markup=False)
    wrong = [row for row in rows if row["wrong"]]
    for row in wrong:
        told = f"not as it should be: {row['area']}, {row['what']}: {row['happened']}"
        console.print(told, highlight=False, markup=False)
    if wrong:
        raise typer.Exit(1)


def done(path: Path) -> list[dict[str, Any]]:
    """Rows of a part that was done, none where it was not."""
    content = results.read_json(path)
    return [] if content is None else content["values"]["rows"]


if __name__ == "__main__":
    app()
