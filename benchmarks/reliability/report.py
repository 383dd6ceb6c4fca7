"""The tables of all trials."""

from __future__ import annotations

from collections import Counter
from typing import Any


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of all that was tried, and one of the files.

    What differs after a colon, such as the writer or the change, is counted together.

    Args:
        rows: Of :class:`~benchmarks.reliability.trials.Trials`; those of area ``"fuzz"`` have the worst ``seconds`` and
            ``mebibytes`` too.
    """
    files = [row for row in rows if row["area"] == "fuzz"]
    others = [row for row in rows if row["area"] != "fuzz"]
    return "\n".join(table for table in (_trials(others), _files(files)) if table)


def _trials(rows: list[dict[str, Any]]) -> str:
    lines = ["| tried | times | what happened | not as it should |", "|---|---:|---|---:|"]
    for what, part in _together(rows).items():
        happened: Counter[str] = Counter()
        for row in part:
            happened.update(row["happened"])
        tried, wrong = (sum(row[name] for row in part) for name in ("tried", "wrong"))
        lines.append(f"| {_cell(what)} | {tried:,} | {_cell(_told(happened))} | {wrong} |")
    return "\n".join(lines) + "\n" if rows else ""


def _files(rows: list[dict[str, Any]]) -> str:
    counts = ("tried", "refused", "same", "other", "failed")
    head = ("loader", "files", "refused", "read as it was", "read", "failed", "longest, s", "most memory, MiB")
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    parts = _together(rows)
    for what, part in [*parts.items(), *([("all", rows)] if len(parts) > 1 else [])]:
        numbers = [f"{sum(row[name] for row in part):,}" for name in counts]
        worst = [f"{max(row['seconds'] for row in part):.1f}", f"{max(row['mebibytes'] for row in part):.0f}"]
        lines.append(f"| {_cell(what)} | {' | '.join([*numbers, *worst])} |")
    return "\n".join(lines) + "\n" if rows else ""


def _together(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        what = row["what"] if row["area"] == "kills" else row["what"].split(": ")[0]
        found.setdefault(what, []).append(row)
    return found


def _told(happened: Counter[str]) -> str:
    if len(happened) == 1:
        return next(iter(happened))
    return "; ".join(f"{text} ({count:,})" for text, count in happened.most_common())


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())
