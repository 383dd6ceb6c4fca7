"""``lossbuf scan`` as a user starts it, and what it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.children import LIMIT, digest
from benchmarks.reliability.jobs import digits
from lossbuf.files import load_tensors
from lossbuf.scan import ScanFolder

_COMMAND = "from condensation.cli import main; main()"


class Scans:
    """Scans of one archive of digits.

    Args:
        folder: Where the archive is written, and the results of the scan left alone.

    Attributes:
        length: Seconds that the scan left alone took.
    """

    def __init__(self, folder: Path) -> None:
        self.source, self._folder, self.length = folder / "digits.npz", folder, 0.0
        x, y = digits()
        np.savez(self.source, x=x[:, 0].astype(np.uint8), y=y)

    def words(self, out: Path, *options: str, source: Path | None = None) -> list[str]:
        """The command, without its name."""
        settings = "--epochs", "20", "--batch-size", "16", "--device", "cpu", "--planted", "0.05"
        return ["scan", str(source or self.source), "--out", str(out), *settings, *options]

    def start(self, out: Path, *options: str) -> subprocess.Popen[str]:
        """Start one."""
        words = [sys.executable, "-c", _COMMAND, *self.words(out, *options)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def ended(self, out: Path, *, resume: bool = False) -> tuple[int, str]:
        """Run one to its end: the exit status and what it told, one line after the other."""
        return waited(self.start(out, *(["--resume"] if resume else [])))

    def alone(self) -> dict[str, Any]:
        """Results of a scan that nothing happens to."""
        started = time.perf_counter()
        status, told = self.ended(self._folder / "alone")
        if status:
            raise RuntimeError(f"lossbuf scan ended with status {status}: {told}")
        self.length = time.perf_counter() - started
        return self.results(self._folder / "alone")

    def killed(
        self, out: Path, seconds: float, until: Callable[[], bool] | None, more: float, *, resume: bool = False
    ) -> bool:
        """Start one and kill it after so many seconds, or so many more after ``until``; False where it ended before."""
        child = self.start(out, *(["--resume"] if resume else []))
        end = time.perf_counter() + seconds
        while child.poll() is None and time.perf_counter() < end:
            time.sleep(0.001)
        while until is not None and child.poll() is None and not until():
            time.sleep(0.001)
        time.sleep(more)
        child.kill()
        child.communicate()
        return child.returncode < 0

    @staticmethod
    def results(out: Path) -> dict[str, Any]:
        """All that a finished scan leaves, but the seconds it took."""
        folder, found = ScanFolder(out), {}
        for file in folder.files():
            if not file.exists():
                found[file.name] = None
            elif file == folder.state:
                found[file.name] = digest(load_tensors(file, "lossbuf.training"))
            elif file == folder.summary:
                found[file.name] = {**json.loads(file.read_text()), "seconds": 0}
            else:
                found[file.name] = re.sub(rb"\d+ s on ", b"", file.read_bytes())
        return found

    def on_disk(self, out: Path, reference: dict[str, Any]) -> tuple[str, bool]:
        """What a killed scan left, and whether all of it is whole."""
        folder = ScanFolder(out)
        try:
            found = self.results(out)
            about = folder.read_about() if folder.about.exists() else None
        except ValueError as error:
            return f"damaged: {error}", False
        names = (folder.issues, folder.issues_parquet, folder.clean, folder.report, folder.summary)
        written = {file.name for file in names if found[file.name] is not None}
        whole = all(found[name] == reference[name] for name in written)
        if folder.is_finished:
            return "a finished scan", found == reference
        left = "some results" if written else "a checkpoint" if folder.results.unfinished() else "no checkpoint yet"
        return left, whole and (about is not None or not written)


def waited(child: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status of a command and what it told of an error."""
    _, told = child.communicate(timeout=LIMIT)
    lines = told.strip().splitlines()
    errors = [place for place, line in enumerate(lines) if line.startswith("error:")]
    return child.returncode, "\n".join(lines[errors[0] :]) if errors else told.strip()
