"""The folder that a scan leaves: results to read, and the state to go on from."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lossbuf
from lossbuf.export import issue_table
from lossbuf.files import restoring, size_of, write_whole
from lossbuf.inputs import InputError, LabelledData, ReadSettings, read_labelled
from lossbuf.locks import alone_in
from lossbuf.safe_csv import write_csv
from lossbuf.scan.run import Scan, ScanSettings, scan

MOST_CLASSES = 100
"""With more classes ``summary.json`` leaves the transition matrix out, which ``load_scan`` still has."""

_KIND = "lossbuf.scan"
_CUTS = ("top", "max_fdr")
"""Settings that a finished training may be read with anew."""


class ScanFolder:
    """Where a scan is written.

    ``scan.json`` says what was scanned and how, ``scan.pt`` is the state of the training; then come ``issues.csv``
    (suspects, worst first, and ``issues.parquet`` where PyArrow is there), ``clean.csv`` (the other rows),
    ``report.html`` and, when all is done, ``summary.json``.

    Args:
        path: The folder; it need not be there yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.about = self.path / "scan.json"
        self.state = self.path / "scan.pt"
        self.issues = self.path / "issues.csv"
        self.issues_parquet = self.path / "issues.parquet"
        self.clean = self.path / "clean.csv"
        self.report = self.path / "report.html"
        self.summary = self.path / "summary.json"

    def files(self) -> list[Path]:
        """All that may be in it."""
        return [value for name, value in vars(self).items() if name != "path"]

    @property
    def is_finished(self) -> bool:
        """True where a scan ended."""
        return self.summary.is_file() and self.state.is_file() and self.about.is_file()

    def held(self) -> AbstractContextManager[None]:
        """Keeps other scans out from before :meth:`begin` until after :meth:`write`.

        Raises:
            InputError: If another process scans into the folder.
            OSError: If the folder cannot be made or written to.
        """
        return alone_in(self.path)

    def begin(
        self,
        source: Path,
        data: LabelledData,
        read: ReadSettings,
        settings: ScanSettings,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Make the folder ready for a scan.

        Args:
            source: What was read.
            data: As it was read.
            read: How it was read.
            settings: Of the scan.
            resume: Go on from what is there; another ``top`` may be given, which is read afterwards.
            overwrite: Remove an earlier scan.

        Raises:
            InputError: If there is an earlier scan and neither is asked for; the earlier one, to go on from, was of
                other data or settings; or the source is one of the files to be written.
        """
        about = {
            "kind": _KIND,
            "source": str(source.resolve()),
            "read": asdict(read),
            "settings": asdict(settings),
            "fingerprint": data.fingerprint(),
        }
        if source.resolve() in {file.resolve() for file in self.files()}:
            rule = f"must be another folder than that of {source.name}, which would be replaced"
            raise InputError(f"{self.path} {rule}.")
        there = [file for file in self.files() if file.exists()]
        if there == [self.about]:  # of a start that failed: nothing was trained
            there = []
        if there and overwrite:
            for file in there:
                file.unlink()
        elif there and not resume:
            state = "a finished scan" if self.is_finished else "an unfinished scan" if self.about in there else ""
            state = state or f"a file named {there[0].name}"
            raise InputError(f"{self.path} holds {state}: `--resume` goes on from it, `--overwrite` starts anew.")
        elif self.about in there:
            self._check_same(self.read_about(), about)
        self.summary.unlink(missing_ok=True)  # results are not whole before it is there again
        write_whole(self.about, lambda file: file.write(_json(about)))

    def read_about(self) -> dict[str, Any]:
        """What was scanned and how.

        Raises:
            InputError: If there is no such file, or it is none of a scan.
        """
        try:
            size_of(self.about)
            about = json.loads(self.about.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{self.path} must hold a scan, got no {self.about.name} in it.") from None
        except (ValueError, OSError, RecursionError) as error:
            raise InputError(f"{self.about} must be JSON as `lossbuf scan` writes it, got {error}.") from error
        if not isinstance(about, dict) or about.get("kind") != _KIND:
            raise InputError(f"{self.about} must be of kind {_KIND}, got another.")
        return about

    def _check_same(self, earlier: dict[str, Any], now: dict[str, Any]) -> None:
        if earlier.get("fingerprint") != now["fingerprint"]:
            raise InputError(
                f"{self.path} holds a scan of other rows, or they changed since: `--overwrite` starts anew."
            )
        was = earlier.get("settings")
        was = was if isinstance(was, dict) else {}
        other = [name for name, value in now["settings"].items() if name not in _CUTS and was.get(name) != value]
        if other:
            got = ", ".join(f"{name} {was.get(name)!r} and now {now['settings'][name]!r}" for name in other)
            raise InputError(f"{self.path} holds a scan of other settings, {got}: `--overwrite` starts anew.")

    def write(self, result: Scan, source: Path) -> None:
        """Write all results, each file whole; ``summary.json`` comes last.

        Raises:
            InputError: If what :meth:`begin` wrote is gone.
            OSError: If a file cannot be written.
        """
        from lossbuf.report import save_page
        from lossbuf.scan.page import page_content

        self.read_about()  # the folder may have been removed on the way
        issues = issues_table(result)
        write_csv(self.issues, issues)
        if importlib.util.find_spec("pyarrow") is not None:
            write_whole(self.issues_parquet, lambda file: issues.to_parquet(file, index=False))
        write_csv(self.clean, clean_table(result))
        save_page(self.report, page_content(result, source))
        write_whole(self.summary, lambda file: file.write(_json(summary(result, source))))


def load_scan(path: str | os.PathLike[str]) -> Scan:
    """A finished scan, with its data read anew, its network and its buffers.

    Raises:
        InputError: If the folder holds no finished scan, the source is not where it was, or it changed since.
        ValueError: If the state is damaged.
    """
    folder = ScanFolder(path)
    about = folder.read_about()
    if not folder.is_finished:
        raise InputError(f"{folder.path} must hold a finished scan: `lossbuf scan ... --resume` goes on with it.")
    try:
        read, settings = ReadSettings(**about["read"]), ScanSettings(**about["settings"])
        source = Path(about["source"])
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{folder.about} must be as `lossbuf scan` writes it, got {error}.") from error
    try:
        data = read_labelled(source, read)
    except (InputError, FileNotFoundError) as error:
        raise InputError(f"What {folder.path} was made of must be there as it was: {error}") from error
    if data.fingerprint() != about.get("fingerprint"):
        raise InputError(f"{source} must be as it was when {folder.path} was written, got other rows: scan it again.")
    with restoring(folder.path):
        return scan(data, settings, checkpoint=folder.state)


def issues_table(result: Scan) -> pd.DataFrame:
    """The suspects, worst first, with the columns that users of cleanlab know and every statistic."""
    data, table = result.data, result.table.query("is_suspect")
    issues = issue_table(result.verdict, data.labels, data.ids, data.class_names).loc[table.index]
    known = [*issues.columns, "is_suspect", "wrong_probability"]
    statistics = table[[name for name in table.columns if name not in known]]
    return issues.join(statistics).reset_index(names="row")


def clean_table(result: Scan) -> pd.DataFrame:
    """The other rows in their order: ``row``, ``id``, ``label``."""
    kept = np.flatnonzero(~result.suspect_mask)
    names = np.array(result.data.class_names, dtype=object)
    ids = [result.data.ids[row] for row in kept]
    return pd.DataFrame({"row": kept, "id": ids, "label": names[result.data.labels[kept]]})


def summary(result: Scan, source: Path) -> dict[str, Any]:
    """What a script may want to know of a scan: plain values, no NaN."""
    data, verdict = result.data, result.verdict
    suspects = np.bincount(data.labels[result.suspect_mask], minlength=len(data.class_names))
    rows = np.bincount(data.labels, minlength=len(data.class_names))
    planted = verdict.planted
    return {
        "lossbuf": lossbuf.__version__,
        "source": str(source),
        "settings": asdict(result.settings),
        "device": str(result.settings.training().torch_device()),
        "n_samples": len(data),
        "n_suspects": int(result.suspect_mask.sum()),
        "n_skipped": len(data.skipped),
        "noise_rate": verdict.noise_rate,
        "noise_rate_estimates": _plain(verdict.noise_rates),
        "noise_rate_interval": _plain(verdict.noise_rate_interval),
        "threshold": verdict.cut.threshold if math.isfinite(verdict.cut.threshold) else None,
        "planted_found": None if planted is None else float(planted.found),
        "classes": [
            {"name": name, "rows": int(n), "suspects": int(bad)}
            for name, n, bad in zip(data.class_names, rows, suspects, strict=True)
        ],
        "transition": (None if verdict.transition is None or len(rows) > MOST_CLASSES else verdict.transition.tolist()),
        "doubts": list(result.doubts),
        "notes": list(data.notes),
        "skipped": [{"id": name, "reason": reason} for name, reason in data.skipped],
        "fingerprint": data.fingerprint(),
        "seconds": round(result.seconds, 3),
    }


def _plain(values: Iterable[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )
