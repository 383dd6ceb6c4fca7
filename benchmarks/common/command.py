"""What the benchmarks' commands have in common: lists of names, and data that cannot be had."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from benchmarks.common.data import DataError
from benchmarks.common.labels import LabelFileError


def listed(name: str, text: str, known: Collection[str]) -> list[str]:
    """Names in a comma-separated text; an error of option ``--name`` if one is not known."""
    parts = [part.strip() for part in text.split(",")]
    unknown = [part for part in parts if part not in known]
    if unknown:
        raise typer.BadParameter(f"must be among {', '.join(known)}, got {unknown[0]!r}", param_hint=f"--{name}")
    return parts


@contextmanager
def data_or_exit() -> Iterator[None]:
    """Data that cannot be had end the command with exit status 2, and the message that says what to do."""
    try:
        yield
    except (DataError, LabelFileError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(2) from error
