"""Several processes at one file or folder at once.

Protocol. Two processes save different content to one file, over and over, while a third loads it: each time it must be
the one content or the other. Two scans are started into one folder at the same moment, the second also with
``--overwrite`` and ``--resume``: one must end with the results of a scan left alone, the other must be refused in one
line and change nothing.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reliability import children
from benchmarks.reliability.commands import Scans
from benchmarks.reliability.trials import Trials
from benchmarks.reliability.writers import WRITERS

Advance = Callable[[], object]
SAVED = ("LossBufferCallback.save", "checkpoints of trainings and condensations", "CondensedSet.save")


def races(saves: int = 100, advance: Advance = lambda: None) -> list[dict[str, Any]]:
    """Let processes race.

    Args:
        saves: Of each process to one file.
        advance: Called after every race.

    Returns:
        Rows of :class:`~benchmarks.reliability.trials.Trials`.
    """
    trials = Trials("races")
    for writer in SAVED:
        race_to_save(trials, writer, saves)
        advance()
    with tempfile.TemporaryDirectory() as folder:
        scans = Scans(Path(folder))
        reference = scans.alone()
        for number, option in enumerate(("", "--overwrite", "--resume")):
            race_to_scan(trials, scans, Path(folder) / f"out{number}", option, reference)
            advance()
    return trials.rows()


def race_to_save(trials: Trials, writer: str, saves: int) -> None:
    """Two processes save, this one loads."""
    both = [WRITERS[writer](which) for which in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "saved"
        both[0].save(path)
        running = [children.start(save_often, writer, which, path, saves) for which in (0, 1)]
        known = {one.state(): which for one, which in zip(both, ("the first", "the second"), strict=True)}
        while any(child.is_alive() for child in running):
            try:
                found = known.get(both[0].held(path))
            except (ValueError, OSError) as error:
                found, told = None, str(error)
            else:
                told = "a mixture"
            trials.note(f"two processes save, one loads: {writer}", found or told, right=found is not None)
        for child in running:
            if children.finish(child) != 0 or list(Path(folder).glob("*.part")):
                trials.note(f"two processes save, one loads: {writer}", "a process failed", right=False)


def save_often(writer: str, which: int, path: Path, saves: int) -> None:
    """Save over and over; for a process of its own."""
    made = WRITERS[writer](which)
    for _ in range(saves):
        made.save(path)


def race_to_scan(trials: Trials, scans: Scans, out: Path, option: str, reference: dict[str, Any]) -> None:
    """Two scans at the same moment into one folder."""
    answers = [out.with_name(f"{out.name}-{which}.json") for which in (0, 1)]
    words = [scans.words(out), scans.words(out, *([option] if option else []))]
    at = time.time() + 3
    running = [children.start(scan_at, at, *one) for one in zip(words, answers, strict=True)]
    for child in running:
        children.finish(child)
    ended = [json.loads(answer.read_text()) for answer in answers]
    refused = [told for status, told in ended if status == 2 and len(told) == 1 and "another process" in told[0]]
    right = sorted(status for status, _ in ended) == [0, 2] and len(refused) == 1 and scans.results(out) == reference
    found = "one ends as if alone, the other is refused in one line" if right else repr(ended)
    trials.note(f"two scans into one folder{', the second with ' * bool(option)}{option}", found, right=right)


def scan_at(moment: float, words: list[str], answer: Path) -> None:
    """Scan from a moment on, and write the exit status and the errors; for a process of its own."""
    from typer.testing import CliRunner

    from condensation.cli import app

    time.sleep(max(0.0, moment - time.time()))
    result = CliRunner().invoke(app, words)
    told = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    answer.write_text(json.dumps([result.exit_code, told]))
