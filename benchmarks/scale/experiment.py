"""How rows a second and memory behave as streams, classes, ranks and records grow.

    python -m benchmarks.scale                                                     (10^6 rows: some minutes)
    python -m benchmarks.scale --table streams --samples 100000000 --classes 10    (some 20 minutes, 5 GB of disk)
    python -m benchmarks.scale --table storage --samples 100000000                 (10 GB of disk)

Protocol. Samples are simulated: logits of a network that knows its classes, a fifth of the labels wrong, every sample
once an epoch, one epoch; no network is trained, so the rows a second are those of the bookkeeping alone. Each cell runs
in a process of its own, with one thread, and tells the most memory that the process held beyond what it held before the
cell began, files mapped to memory aside.

*streams*: :class:`~lossbuf.streams.LossBufferStream` writes what it saw of every sample, named by a string, and
:func:`~lossbuf.streams.summarise` sums it up in another process; beside it (*machine*) the speed at which memory is
copied and the same disk written. *same*: the suspects of the summary beside those of a callback that held everything in
memory, over two epochs. *storage*: the record of the samples beside the network, in the host's memory and in mapped
files. *ranks*: one process, and groups of 2 and 4 over gloo that share the same rows, and the machine's cores.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from tqdm.auto import tqdm

from benchmarks.common import results
from benchmarks.common.apart import apart
from benchmarks.common.command import listed
from benchmarks.common.tables import markdown
from benchmarks.scale import cells as scale_cells
from lossbuf.files import write_whole

TABLES = ("machine", "streams", "same", "storage", "ranks")
PLACES = ("device", "cpu", "mapped")


def cells(table: str, samples: list[int], classes: list[int]) -> list[dict[str, Any]]:
    """Settings of every cell of a table."""
    if table == "machine":
        return [{}]
    sizes = [{"samples": rows, "classes": width} for width in classes for rows in samples]
    if table in ("streams", "same"):
        return sizes
    if table == "storage":
        return [size | {"place": place} for size in sizes for place in PLACES]
    kinds = ("aum", "posterior")
    return [size | {"count": count, "rank_by": kind} for size in sizes for kind in kinds for count in (1, 2, 4)]


def compute(table: str, settings: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """The values of a cell; what it writes goes to a folder under ``scratch`` and is removed."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        if table == "ranks":  # has processes of its own
            return scale_cells.ranks(**settings, folder=name)
        if table in ("machine", "storage"):
            return apart(getattr(scale_cells, table), settings | {"folder": name})
        written, out = folder / "stream", folder / "summary.parquet"
        written.mkdir()
        if table == "same":
            apart(scale_cells.streamed, settings | {"folder": str(written), "epochs": 2})
            return apart(scale_cells.same, settings | {"folder": str(written), "out": str(out)})
        values = apart(scale_cells.streamed, settings | {"folder": str(written)})
        summary = apart(scale_cells.summed, {"folder": str(written), "out": str(out)})
        return values | {f"summary_{key}": value for key, value in summary.items()}


def file_of(table: str, settings: dict[str, Any]) -> str:
    """Name of a cell's file."""
    return "-".join([table, *(f"{value:.0e}" if key == "samples" else str(value) for key, value in settings.items())])


def shown(table: str, found: list[dict[str, Any]]) -> str:
    """The cells of a table that are done, as Markdown."""
    columns = list(dict.fromkeys(key for cell in found for key in (*cell["settings"], *cell["values"])))
    rows = [[key.replace("_", " ").replace("bytes", "MB") if _large(key) else key.replace("_", " ") for key in columns]]
    rows += [[_text(key, {**cell["settings"], **cell["values"]}.get(key)) for key in columns] for cell in found]
    return f"### {table}\n\n{markdown(rows)}\n"


def _large(key: str) -> bool:
    return "bytes" in key and "a_row" not in key


def _text(key: str, value: Any) -> str:
    if value is None or isinstance(value, str | bool):
        return "" if value is None else str(value)
    if _large(key):
        return f"{value / 1e6:,.0f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _numbers(name: str, text: str) -> list[int]:
    try:
        found = [int(float(part)) for part in text.split(",")]
    except (ValueError, OverflowError):
        found = [0]
    if min(found) < 1:
        raise typer.BadParameter(f"must be whole numbers above 0 between commas, got {text!r}", param_hint=f"--{name}")
    return found


def main(
    table: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(TABLES)}.")] = ",".join(TABLES),
    samples: Annotated[str, typer.Option(help="Rows, comma-separated; 1e8 is fine.")] = "1e6",
    classes: Annotated[str, typer.Option(help="Numbers of classes, comma-separated.")] = "10,1000",
    out: Annotated[Path, typer.Option(help="Folder of the results; cells done there are not done again.")] = Path(
        "runs/scale"
    ),
) -> None:
    """Measure rows a second and memory of streams, records and ranks."""
    chosen = listed("table", table, TABLES)
    rows, widths = _numbers("samples", samples), _numbers("classes", classes)
    out.mkdir(parents=True, exist_ok=True)
    todo = [(name, settings) for name in chosen for settings in cells(name, rows, widths)]
    for name, settings in tqdm(todo, desc="cells", disable=None):
        results.cell(out / f"{file_of(name, settings)}.json", settings, partial(compute, name, settings, out))
    text = ""
    for name in TABLES:
        found = [done for path in sorted(out.glob(f"{name}*.json")) if (done := results.read_json(path)) is not None]
        text += shown(name, found) if found else ""
    write_whole(out / "tables.md", lambda file: file.write(text.encode()))
    Console().print(text, highlight=False, soft_wrap=True)
