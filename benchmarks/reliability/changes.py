"""Data that change between a save and a load.

Protocol. A callback, the checkpoints of a training and of a condensation, and a scan are loaded, or gone on with, where
labels, ids, rows, classes or pictures are no longer those of the save. Each must be refused in one line, with
``ValueError`` or exit status 2; what is in memory and on disk must stay as it was. The same data in another form must
be taken.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.reliability import jobs
from benchmarks.reliability.children import digest
from benchmarks.reliability.trials import Trials, one_line
from lossbuf import LossBufferCallback
from lossbuf.scan import ScanFolder

Advance = Callable[[], object]


def changes(advance: Advance = lambda: None) -> list[dict[str, Any]]:
    """Try every change.

    Returns:
        Rows of :class:`~benchmarks.reliability.trials.Trials`.
    """
    trials = Trials("changes")
    for part in (of_callbacks, of_trainings, of_condensations, of_scans):
        part(trials)
        advance()
    return trials.rows()


def of_callbacks(trials: Trials) -> None:
    """``LossBufferCallback.load``."""
    _, labels = jobs.digits(60)
    names, permuted = [f"image {row}" for row in range(60)], np.random.default_rng(0).permutation(60)
    flipped = labels.copy()
    flipped[7] = (flipped[7] + 1) % 10
    twisted = (labels + 1) % 10

    def make(given: Any = labels, num_classes: int = 10, **settings: Any) -> LossBufferCallback:
        return LossBufferCallback(given, num_classes, window=20, **settings)

    others: dict[str, Callable[[], LossBufferCallback]] = {
        "one label changed": lambda: make(flipped, ids=names),
        "every class renamed": lambda: make(twisted, ids=names),
        "rows permuted": lambda: make(labels[permuted], ids=[names[row] for row in permuted]),
        "ids permuted": lambda: make(ids=[names[row] for row in permuted]),
        "other ids": lambda: make(ids=[f"{name}.png" for name in names]),
        "no ids": lambda: make(),
        "a row more": lambda: make(np.append(labels, 0), ids=[*names, "new"]),
        "a row fewer": lambda: make(labels[:-1], ids=names[:-1]),
        "a class more": lambda: make(num_classes=11, ids=names),
        "labels planted": lambda: make(ids=names, planted=0.1),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        saved = make(ids=names)
        saved.end_epoch()
        saved.save(path)
        for what, other in others.items():
            found = other()
            _refused(trials, f"LossBufferCallback.load: {what}", lambda found=found: found.load(path), found.state_dict)
        same = make(labels.tolist(), ids=tuple(names))
        same.load(path)
        right = digest(dict(same.state_dict())) == digest(dict(saved.state_dict()))
        trials.note("LossBufferCallback.load: the same, from lists", "loaded" if right else "other bits", right=right)


def _refused(trials: Trials, what: str, load: Callable[[], Any], state: Callable[[], Any]) -> None:
    before = digest(dict(state()))
    try:
        load()
    except ValueError as error:
        kept = digest(dict(state())) == before
        right = kept and one_line(error) and str(error).startswith("`")
        trials.note(what, "refused in one line" if right else f"{error!r}, kept: {kept}", right=right)
    else:
        trials.note(what, "taken", right=False)


def of_trainings(trials: Trials) -> None:
    """A training that goes on from a checkpoint."""
    _, labels = jobs.digits()
    others = {
        "one label changed": labels.copy(),
        "rows permuted": labels[::-1].copy(),
        "every class renamed": 9 - labels,
    }
    others["one label changed"][7] = (labels[7] + 1) % 10
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        jobs.train("filter", path, epochs=4)
        for what, other in others.items():
            _refused_file(
                trials, f"checkpoint of a training: {what}", path, lambda o=other: jobs.train("filter", path, o)
            )


def of_condensations(trials: Trials) -> None:
    """A condensation that goes on from a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        jobs.condense("DM", path)
        what = "checkpoint of a condensation: rows left out"
        _refused_file(trials, what, path, lambda: jobs.condense("DM", path, 150))


def _refused_file(trials: Trials, what: str, path: Path, load: Callable[[], Any]) -> None:
    _refused(trials, what, load, lambda: {"file": path.read_bytes()})


def of_scans(trials: Trials) -> None:
    """``lossbuf scan --resume`` of a folder of images, and ``lossbuf coreset`` of the scan."""
    from typer.testing import CliRunner

    from condensation.cli import app

    with tempfile.TemporaryDirectory() as root:
        photos, out = Path(root) / "photos", Path(root) / "out"
        _write_photos(photos)
        words = ["scan", str(photos), "--out", str(out), "--epochs", "2", "--device", "cpu"]
        status = CliRunner().invoke(app, words).exit_code
        if status:
            raise RuntimeError(f"lossbuf scan ended with status {status}")
        before, original = _content(out), Path(root) / "original"
        shutil.copytree(photos, original)
        for what, change in _changes(photos).items():
            change()
            small = Path(root) / "small"
            choose = ["coreset", str(out), "--out", str(small), "--method", "random", "--ipc", "1"]
            for command in ([*words, "--resume"], choose):
                result = CliRunner().invoke(app, command)
                told = [line for line in result.stderr.splitlines() if line.startswith("error:")]
                kept = _content(out) == before and not list(small.glob("coreset.*"))
                right = result.exit_code == 2 and len(told) == 1 and kept
                found = "refused in one line" if right else f"status {result.exit_code}, {told}, kept: {kept}"
                name = "lossbuf scan --resume" if command[0] == "scan" else "lossbuf coreset SCAN"
                trials.note(f"`{name}`: {what}", found, right=right)
            shutil.rmtree(photos)
            shutil.copytree(original, photos)
        status = CliRunner().invoke(app, [*words, "--resume"]).exit_code
        right = status == 0 and ScanFolder(out).is_finished
        trials.note(
            "`lossbuf scan --resume`: changed back", "gone on with" if right else f"status {status}", right=right
        )


def _write_photos(folder: Path) -> None:
    x, labels = jobs.digits(120)
    for row, label in enumerate(labels):
        (folder / f"digit {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray((x[row, 0] * 15).astype(np.uint8)).save(folder / f"digit {label}" / f"{row:03d}.png")


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _changes(photos: Path) -> dict[str, Callable[[], Any]]:
    zero, one = photos / "digit 0", photos / "digit 1"
    first = sorted(zero.iterdir())[0]
    other = sorted(one.iterdir())[0]

    def new_class() -> None:
        (photos / "digit 10").mkdir()
        shutil.copy(first, photos / "digit 10" / "new.png")

    return {
        "an image added": lambda: shutil.copy(first, zero / "new.png"),
        "an image removed": first.unlink,
        "an image renamed": lambda: first.rename(zero / "other.png"),
        "an image moved to another class": lambda: first.rename(one / first.name),
        "an image replaced": lambda: shutil.copy(other, first),
        "a class added": new_class,
        "a class renamed": lambda: zero.rename(photos / "null"),
        "two classes exchanged": lambda: _exchange(zero, one),
    }


def _exchange(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)
