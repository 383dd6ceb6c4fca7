"""From decisions on suspects, as the page gives them, to corrected labels."""

from __future__ import annotations

import json
import os

import pandas as pd

from lossbuf import checks
from lossbuf.errors import InputError
from lossbuf.files import size_of
from lossbuf.files.safe_csv import read_csv
from lossbuf.scan.folder import ScanFolder

DECISIONS = ("relabel", "keep", "drop")
"""What can be decided of a suspect."""

_COLUMNS = ("id", "given_label", "decision", "label")
_OF_ISSUES = ("row", "id", "given_label", "suggested_label")
_OF_CLEAN = ("row", "id", "label")


def corrected_labels(
    scan: str | os.PathLike[str],
    decisions: str | os.PathLike[str] | None = None,
    *,
    undecided: str = "keep",
) -> pd.DataFrame:
    """The labels of all rows of a scan, with the decisions carried out.

    Args:
        scan: Folder of a finished scan.
        decisions: CSV file with the columns ``id``, ``given_label``, ``decision`` (one of :data:`DECISIONS`) and
            ``label`` (the right class, for ``"relabel"``), as the page of the scan writes it.
        undecided: What becomes of suspects without a decision: one of :data:`DECISIONS`, where ``"relabel"`` takes the
            suggested label.

    Returns:
        A table in the order of the rows, without those dropped: ``id``, ``label``, ``given_label``, ``decision``
        (empty for rows that were no suspects).

    Raises:
        InputError: If the scan is not finished, or a decision is unknown, comes twice, is of another scan, of a row
            that is no suspect there, or names an unknown class.
    """
    checks.one_of("undecided", undecided, DECISIONS)
    folder = ScanFolder(scan)
    folder.results.settle()
    if not folder.is_finished:
        raise InputError(f"{folder.path} must hold a finished scan.")
    issues, clean = _read(folder.issues, _OF_ISSUES), _read(folder.clean, _OF_CLEAN)
    _check_whole(folder, [*issues["row"], *clean["row"]])
    decided = {} if decisions is None else _decisions(decisions, issues, classes=_classes(issues, clean))
    rows = [(int(row), name, label, label, "") for row, name, label in clean[list(_OF_CLEAN)].itertuples(False)]
    suspects = issues[list(_OF_ISSUES)].itertuples(False)
    for row, name, given, suggested in suspects:
        decision, label = decided.get(name, (undecided, suggested))
        if decision != "drop":
            rows.append((int(row), name, label if decision == "relabel" else given, given, decision))
    rows.sort()
    columns = ["row", "id", "label", "given_label", "decision"]
    return pd.DataFrame(rows, columns=pd.Index(columns)).drop(columns="row")


def n_undecided(scan: str | os.PathLike[str], decisions: str | os.PathLike[str] | None = None) -> int:
    """Suspects of a finished scan without a decision, of files that :func:`corrected_labels` takes."""
    issues = _read(ScanFolder(scan).issues, _OF_ISSUES)
    return len(issues) - (0 if decisions is None else len(_read(decisions, _COLUMNS)))


def _read(path: str | os.PathLike[str], columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = read_csv(path)
    except FileNotFoundError:
        raise InputError(f"{os.fspath(path)} must be there, got no such file.") from None
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        names = "".join(table.columns)
        advice = " Save it with commas." if len(table.columns) == 1 and (";" in names or "\t" in names) else ""
        found = f"got none named {missing[0]!r}.{advice}"
        raise InputError(f"{os.fspath(path)} must have columns {', '.join(columns)}, {found}")
    return table


def _check_whole(folder: ScanFolder, rows: list[str]) -> None:
    """Raise ``InputError`` unless every row of the scan is there once."""
    try:
        size_of(folder.summary)
        expected = int(json.loads(folder.summary.read_bytes())["n_samples"])
        numbers = sorted(int(row) for row in rows)
    except (ValueError, OSError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{folder.path} must hold what `lossbuf scan` wrote, got {error!r}.") from error
    if len(numbers) != expected or numbers != list(range(len(numbers))):
        rule = f"must hold each of {expected} rows once, in {folder.issues.name} or {folder.clean.name}"
        raise InputError(f"{folder.path} {rule}, got others: `lossbuf scan ... --resume` writes them anew.")


def _classes(issues: pd.DataFrame, clean: pd.DataFrame) -> set[str]:
    return {*clean["label"], *issues["given_label"], *issues["suggested_label"]}


def _decisions(path: str | os.PathLike[str], issues: pd.DataFrame, classes: set[str]) -> dict[str, tuple[str, str]]:
    """(decision, label) by id."""
    table, where = _read(path, _COLUMNS), os.fspath(path)
    given = dict(zip(issues["id"], issues["given_label"], strict=True))
    found: dict[str, tuple[str, str]] = {}
    lines = table[list(_COLUMNS)].itertuples(False)
    for number, (name, was, decision, label) in enumerate(lines, start=1):
        at = f"{where}, row {number}:"
        if name not in given:
            raise InputError(f"{at} `id` must be of a suspect of the scan, got {name!r}.")
        if name in found:
            raise InputError(f"{at} `id` must come once, got {name!r} again.")
        if was != given[name]:
            raise InputError(f"{at} `given_label` must be {given[name]!r} as in the scan, got {was!r}.")
        if decision not in DECISIONS:
            raise InputError(f"{at} `decision` must be one of {', '.join(DECISIONS)}, got {decision!r}.")
        if decision == "relabel" and label not in classes:
            raise InputError(f"{at} `label` must be a class of the scan, got {label!r}.")
        found[name] = (decision, label)
    return found
