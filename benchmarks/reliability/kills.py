"""Work killed at random moments, resumed, and compared bit by bit with the same work left alone.

Protocol. A run starts, is killed with SIGKILL at a moment drawn from its whole length, is started again, some three to
eight times, and is then left to its end. Every other kill waits, from its moment on, until the run is writing a file,
and strikes a few milliseconds later. After each kill what is on disk is read: a checkpoint must have the bits that the
run never killed had written at that place, and may not fall behind an earlier one. At the end all that was learned must
have the bits of the run never killed. Then the parts that killed writers left are made to look an hour old: the next
run must remove them.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reliability import children, jobs
from benchmarks.reliability.commands import Scans
from benchmarks.reliability.jobs import Job
from benchmarks.reliability.trials import Trials
from lossbuf.files import load_tensors

Advance = Callable[[], object]
"""Called after every kill."""

_WRITING = 0.006
"""Seconds, at most, between seeing a file being written and the kill."""


def kills(count: int, seed: int, advance: Advance = lambda: None) -> list[dict[str, Any]]:
    """Kill ``count`` trainings, some condensations of each kind, and some scans by the command line.

    Returns:
        Rows of :class:`~benchmarks.reliability.trials.Trials`.
    """
    trials = Trials("kills")
    kill_jobs(trials, jobs.TRAININGS, count, seed, advance)
    for job in jobs.CONDENSATIONS:
        kill_jobs(trials, (job,), -(-count // 10), seed, advance)
    kill_scans(trials, -(-count // 6), seed, advance)
    return trials.rows()


class Killed:
    """A run of a job in a folder of its own, and what it may leave there."""

    def __init__(self, job: Job, folder: Path, alone: tuple[str, dict[int, str]]) -> None:
        self.job, self.folder = job, folder
        self.checkpoint, self.result = folder / "checkpoint.pt", folder / "result"
        self.end, self.legal = alone
        self.place = 0

    def start(self) -> Any:
        """Start or go on."""
        return children.start(jobs.do, self.job.name, self.checkpoint, self.result)

    def parts(self) -> set[Path]:
        """What killed writers left, or a living one writes on."""
        return set(self.folder.glob(".*.part"))

    def on_disk(self) -> tuple[str, bool]:
        """What the checkpoint is, and whether that is as it should be."""
        if not self.checkpoint.exists():
            return "no checkpoint yet", self.place == 0
        try:
            state = load_tensors(self.checkpoint, self.job.kind)
        except ValueError as error:
            return f"damaged: {error}", False
        earlier, self.place = self.place, self.job.place(state)
        if children.digest(state) != self.legal.get(self.place):
            return "a checkpoint that the run never wrote", False
        return "a whole checkpoint", self.place >= earlier


def kill_jobs(trials: Trials, which: tuple[Job, ...], count: int, seed: int, advance: Advance) -> None:
    """Kill ``count`` times, over runs of the jobs in turn."""
    draws, killed, runs = random.Random(f"{which[0].name} {seed}"), 0, 0
    alone: dict[str, tuple[tuple[str, dict[int, str]], float]] = {}
    while killed < count:
        job = which[runs % len(which)]
        runs += 1
        with tempfile.TemporaryDirectory() as folder:
            if job.name not in alone:
                alone[job.name] = _alone(job, Path(folder))
            reference, length = alone[job.name]
            run = Killed(job, Path(folder) / "killed", reference)
            run.folder.mkdir()
            for _ in range(min(draws.randint(3, 8), count - killed)):
                if not _kill(run, trials, draws, length):
                    break
                killed += 1
                advance()
            _end(run, trials)


def _alone(job: Job, folder: Path) -> tuple[tuple[str, dict[int, str]], float]:
    """Digests of a run that is never killed, and how long one takes."""
    reference = children.call(jobs.do_recorded, job.name, folder / "alone.pt")
    started = time.perf_counter()
    children.finish(children.start(jobs.do, job.name, folder / "timed.pt", folder / "timed"))
    return reference, time.perf_counter() - started


def _kill(run: Killed, trials: Trials, draws: random.Random, length: float) -> bool:
    """Start and kill; False where the run came to its end before."""
    before, saving = run.parts(), draws.random() < 0.5
    moment, more = draws.uniform(0, length), draws.uniform(0, _WRITING)
    until = (lambda: not run.parts() <= before) if saving else None
    if not children.kill_after(run.start(), moment, until, more if saving else 0.0):
        return False
    found, right = run.on_disk()
    where = "while saving" if run.parts() - before else "between saves"
    trials.note(f"{run.job.name}: SIGKILL {where}", found, right=right)
    return True


def _end(run: Killed, trials: Trials) -> None:
    run.on_disk()
    parts, unfinished = run.parts(), run.place < max(run.legal)
    for part in parts:
        os.utime(part, (0, 0))
    run.result.unlink(missing_ok=True)
    status = children.finish(run.start())
    same = status == 0 and run.result.read_text() == run.end
    found = "the bits of the run never killed" if same else f"other bits, status {status}"
    trials.note(f"{run.job.name}: the end of a killed run", found, right=same)
    if parts and unfinished:  # it wrote again
        left = run.parts()
        found = "removed an hour later" if not left else f"{len(left)} left"
        trials.note(f"{run.job.name}: parts of killed writers", found, right=not left)


def kill_scans(trials: Trials, count: int, seed: int, advance: Advance) -> None:
    """Kill ``lossbuf scan`` ``count`` times, each in a folder of its own, and go on with ``--resume``."""
    draws, what = random.Random(f"scan {seed}"), "`lossbuf scan`: SIGKILL"
    with tempfile.TemporaryDirectory() as folder:
        scans = Scans(Path(folder))
        reference = scans.alone()
        for number in range(count):
            out, resumed = Path(folder) / f"out{number}", False
            while True:
                # Most of the time goes into imports and reading: half of the kills wait for the training.
                until, moment = None, draws.uniform(0, scans.length)
                if draws.random() < 0.5:
                    until, moment = (lambda out=out: (out / "scan.json").exists()), 0.0
                more = 0.0 if until is None else draws.uniform(0, scans.length / 3)
                if scans.killed(out, moment, until, more, resume=resumed):
                    found, right = scans.on_disk(out, reference)
                    trials.note(what, found, right=right)
                    advance()
                    break
                resumed = True
            status, told = scans.ended(out, resume=True)
            same = status == 0 and scans.results(out) == reference
            found = "the results of the scan never killed" if same else f"others, status {status}: {told}"
            trials.note("`lossbuf scan --resume`: the end of a killed scan", found, right=same)
