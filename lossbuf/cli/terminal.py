"""What the command line tells: whole lines without escape sequences, which a closed terminal does not stop."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_OPTIONS = frozenset(
    ("label", "image", "image_size", "follow_links", "channels", "alike", "network", "epochs", "batch_size", "lr",
     "augment", "noise_rate", "max_fdr", "top", "planted", "seed", "device", "resume", "overwrite", "undecided", "out",
     "method", "ipc", "size", "iterations", "soft_labels")
)  # fmt: skip
_RENAMED = {"row_id": "id"}
_DATA = {"X": "the samples", "y": "the labels"}


class _Console(Console):
    """Rich's, which goes on without a word where nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


console = _Console(stderr=True, highlight=False)


def printable(text: object) -> str:
    """A text in one line, with escapes for what a terminal would act on instead of showing it.

    Example:
        >>> printable("cat" + chr(27) + "[31m")
        'cat\\\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def options_in(text: str) -> str:
    """A message with options, such as ``--max-fdr``, in place of the arguments of Python that it names."""

    def option(match: re.Match[str]) -> str:
        name = match[1]
        if name in _DATA:
            return _DATA[name]
        if name not in _OPTIONS and name not in _RENAMED:
            return match[0]
        return f"`--{_RENAMED.get(name, name).replace('_', '-')}`"

    return re.sub(r"`(\w+)`", option, text)


def tell(text: str, kind: str = "", colour: str = "yellow") -> None:
    """Write a line to standard error, whole, however long."""
    mark = f"[{colour}]{kind}:[/{colour}] " if kind else ""
    with suppress(OSError, ValueError):  # it was closed: the work goes on
        console.print(mark + escape(printable(text)), soft_wrap=True)


def tell_table(title: str, columns: list[str], rows: list[list[str]], right: int) -> None:
    """Write a table to standard error; the last ``right`` columns are set flush right."""
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place >= len(columns) - right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    with suppress(OSError, ValueError):
        console.print(table)


def say(text: str) -> None:
    """Write the line of results to standard output."""
    with suppress(OSError, ValueError):
        typer.echo(printable(text))


def open_streams() -> None:
    """Put something in the place of standard streams that the process was started without."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # it stays open as long as the process lives


@contextmanager
def closed_quietly() -> Iterator[None]:
    """What is left in streams that nobody reads any more is dropped at the end, instead of an error."""
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                with suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def told_errors(stopped: str = "Nothing was written.") -> Iterator[None]:
    """What goes wrong is told in one line, with an exit status that a script can rely on.

    Args:
        stopped: What to say after Ctrl-C.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if _is_stop(error):
            tell(f"stopped. {stopped}")
            raise typer.Exit(130) from None
        if not isinstance(error, ValueError | OSError | RuntimeError | MemoryError | ArithmeticError):
            raise
        text = options_in(str(error) or type(error).__name__)
        if isinstance(error, MemoryError):
            detail = f" ({text})" if str(error) else ""
            text = f"there is not enough memory{detail}: take smaller images (`--image-size`), or fewer rows."
        tell(text, "error", "red")
        raise typer.Exit(2 if isinstance(error, ValueError) else 1) from error


def _is_stop(error: BaseException | None) -> bool:
    """True for Ctrl-C, and for an error that it led to: a file cut off in writing has one of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
