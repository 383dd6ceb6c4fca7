"""Tables as Markdown."""

from __future__ import annotations


def pipe(rows: list[dict[str, str]]) -> str:
    """A table with one line for each row, and the columns of the first row; a value that is missing is left empty."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row.get(name, "") for name in rows[0]) + " |" for row in rows]
    return "\n".join(lines) + "\n"
