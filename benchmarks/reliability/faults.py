"""Writing where nothing can be written: full disks, folders without leave, folders that go away.

Protocol. Everything that writes a file saves over an old one in such a place, in a process of its own. It must raise
``OSError`` in one line; the old file must be whole, no part may be left beside it, what is in memory must be the same,
and a later save must work. A training and a condensation whose checkpoint cannot be written must go on from the last
one, and end with the bits of an undisturbed one. ``lossbuf scan`` must exit with one line and status 1, or 2 where
there is no folder; earlier results must be whole, and ``--resume`` must end with the same results once the place is
fixed.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.reliability import children, jobs, places
from benchmarks.reliability.commands import Scans
from benchmarks.reliability.places import NotHereError
from benchmarks.reliability.trials import Trials, one_line
from benchmarks.reliability.writers import WRITERS
from condensation.learned import run as learning
from lossbuf.training import loop as training

Advance = Callable[[], object]
PLACES = (
    "limit on the size of files",
    "full disk",
    "disk mounted for reading only",
    "folder without leave to write",
    "folder removed in the middle",
    "file where a folder should be",
    "folder where the file should be",
)
LIMITS_EACH = 5
"""Sizes, drawn at random, at which the first is tried."""


def faults(seed: int, advance: Advance = lambda: None) -> list[dict[str, Any]]:
    """Try every writer in every place.

    Returns:
        Rows of :class:`~benchmarks.reliability.trials.Trials`.
    """
    trials, draws = Trials("faults"), random.Random(f"faults {seed}")
    for place in PLACES:
        for writer in WRITERS:
            for _ in range(LIMITS_EACH if place == PLACES[0] else 1):
                _try(trials, f"{place}: {writer}", save_in, place, writer, draws.random())
                advance()
    for job in (jobs.TRAININGS[0], *jobs.CONDENSATIONS):
        _try(trials, f"{PLACES[0]}: {job.name}, and on", job_interrupted, job.name, draws.randint(1, 5))
        advance()
    with tempfile.TemporaryDirectory() as folder:
        scans = Scans(Path(folder))
        reference = scans.alone()
        for place in PLACES[:-1]:
            sizes = (0.0, 0.5, 1.0) if place == PLACES[0] else (0.0,)  # of the first file, of the state, of the report
            for size in sizes:
                _try(trials, f"{place}: `lossbuf scan`", scan_in, place, scans.source, size, reference)
                advance()
    return trials.rows()


def _try(trials: Trials, what: str, work: Callable[..., Any], *arguments: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # nobody is to come this far
        happened, right = children.call(work, Path(folder), *arguments)
    trials.note(what, happened, right=right)


def _inside(place: str, folder: Path, size: int) -> AbstractContextManager[None]:
    make: dict[str, Callable[[], AbstractContextManager[None]]] = {
        PLACES[0]: lambda: places.size_limit(size),
        PLACES[1]: lambda: places.full(folder),
        PLACES[2]: lambda: places.read_only(folder),
        PLACES[3]: lambda: places.without_leave(folder),
        PLACES[4]: lambda: places.removed(folder),
    }
    return make[place]()


def save_in(folder: Path, place: str, writer: str, share: float) -> tuple[str, bool]:
    """Save over an old file in a place; for a process of its own.

    Args:
        folder: An empty one.
        place: One of :data:`PLACES`.
        writer: One of :data:`~benchmarks.reliability.writers.WRITERS`.
        share: Of the old file's size, where sizes are limited.

    Returns:
        What happened, and whether it should.
    """
    home = folder / "home"
    home.mkdir()
    old, new = WRITERS[writer](0), WRITERS[writer](1)
    target, before, state = home / "saved", None, new.state()
    try:
        if place in PLACES[1:3]:
            places.own_disk(home)
        if place == PLACES[5]:
            (home / "file").write_text("mine")
            target = home / "file" / "saved"
        elif place == PLACES[6]:
            (target / "mine").mkdir(parents=True)
        else:
            old.save(target)
            before = target.read_bytes()
        if place in PLACES[5:]:
            new.save(target)
        else:
            with _inside(place, home, int(share * len(before or b""))):
                new.save(target)
    except NotHereError as error:
        return f"left out: {error}", True
    except Exception as error:
        return _judged(error, place, home, target, before, new.state() == state, lambda: _saved(new, target, place))
    return "saved all the same", False


def _saved(new: Any, target: Path, place: str) -> bool:
    if place in PLACES[5:]:
        target = target.parents[1] / "elsewhere"
    new.save(target)
    return new.held(target) == new.state()


def _judged(
    error: Exception, place: str, home: Path, target: Path, before: bytes | None, same: bool, later: Callable[[], bool]
) -> tuple[str, bool]:
    wrong = [] if isinstance(error, OSError) and one_line(error) else [f"an unclear error: {error!r}"]
    kept = before if place != PLACES[4] else None
    if kept is not None and target.read_bytes() != kept:
        wrong.append("the old file changed")
    if place == PLACES[5] and (home / "file").read_text() != "mine":
        wrong.append("the file in the way changed")
    if place == PLACES[6] and not (target / "mine").is_dir():
        wrong.append("the folder in the way changed")
    if home.exists() and list(home.rglob("*.part")):
        wrong.append("a part was left")
    if not same:
        wrong.append("what was in memory changed")
    if not later():
        wrong.append("a later save did not work")
    told = error.strerror if isinstance(error, OSError) else type(error).__name__
    return f"{told}: {', '.join(wrong) if wrong else 'nothing lost'}", not wrong


def job_interrupted(folder: Path, name: str, saves: int) -> tuple[str, bool]:
    """A job whose ``saves``-th checkpoint cannot be written, started again; for a process of its own."""
    job, save, left = jobs.JOBS[name], training.save_tensors, saves

    def failing(path: Path, content: dict[str, Any]) -> None:
        nonlocal left
        left -= 1
        with places.size_limit(1000 if left == 0 else 2**40):
            save(path, content)

    alone = children.digest(job.run(folder / "alone.pt"))
    training.save_tensors = learning.save_tensors = failing
    try:
        job.run(folder / "run.pt")
    except NotHereError as error:
        return f"left out: {error}", True
    except OSError as error:
        told = error.strerror if one_line(error) else f"an unclear error: {error!r}"
    else:
        return "no error", False
    same = children.digest(job.run(folder / "run.pt")) == alone
    parts = list(folder.glob(".*.part"))
    return f"{told}: {'the bits of an undisturbed run' if same else 'other bits'}", same and not parts


def scan_in(folder: Path, place: str, source: Path, size: float, reference: dict[str, Any]) -> tuple[str, bool]:
    """``lossbuf scan`` in a place, and again where it is fixed; for a process of its own."""
    from typer.testing import CliRunner

    from condensation.cli import app

    out = folder / "out"
    scans = Scans(folder)

    def run(*options: str) -> tuple[int, list[str]]:
        result = CliRunner().invoke(app, scans.words(out, *options, source=source))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            return -1, [repr(result.exception)]
        return result.exit_code, [line for line in result.stderr.splitlines() if line.startswith("error:")]

    options: list[str] = []
    try:
        if place == PLACES[5]:
            out.write_text("mine")
            status, told = run()
            out.unlink()
        else:
            out.mkdir()
            if place in PLACES[1:3]:
                places.own_disk(out)
            limit = 10
            if size > 0:
                run()
                of = out / ("scan.pt" if size < 1 else "report.html")
                # Well below its size: the report tells the seconds, and may be some bytes shorter the next time.
                limit, options = of.stat().st_size - 100, ["--overwrite"] if size < 1 else ["--resume"]
            with _inside(place, out, limit):
                status, told = run(*options)
    except NotHereError as error:
        return f"left out: {error}", True
    # Where a scan was there before, its results.
    kept = Scans.results(out) == reference if size > 0 else not (out / "summary.json").exists()
    again, _ = run("--resume")
    same = again == 0 and Scans.results(out) == reference
    expected = 2 if place == PLACES[5] else 1  # another `--out` is to be chosen, or the place fixed
    right = status == expected and len(told) == 1 and kept and same
    what = told[0].removeprefix("error: ").replace(str(folder), "").split(": ")[0] if told else "no error"
    return f"status {status}, {what}: {'the same results once fixed' if same else 'other results'}", right
