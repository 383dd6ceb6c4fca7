"""Tables as Markdown."""

from __future__ import annotations

from typing import Any


def pipe(rows: list[dict[str, str]]) -> str:
    """A table with one line for each row, and the columns of the first row; a value that is missing is left empty."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row.get(name, "") for name in rows[0]) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def plain_table(found: list[dict[str, Any]], columns: tuple[str, ...]) -> list[list[str]]:
    """The values of each cell in one row, under the names of the columns."""
    rows = [[name.replace("_", " ") for name in columns]]
    for cell in found:
        values = [cell.get(name) for name in columns]
        rows.append([f"{value:.4g}" if isinstance(value, float) else str(value) for value in values])
    return rows


def markdown(rows: list[list[str]]) -> str:
    """A table as Markdown; the first row is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"
