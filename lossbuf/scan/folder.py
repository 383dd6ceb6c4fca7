"""The folder that a scan leaves: results to read, and the state to go on from."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lossbuf.errors import InputError
from lossbuf.files import restoring, size_of, write_whole
from lossbuf.files.safe_csv import read_csv, write_csv
from lossbuf.inputs import LabelledData, ReadSettings, read_labelled
from lossbuf.inputs.names import listed
from lossbuf.results import Draft, Kind, ResultFolder
from lossbuf.results.draft import new_draft
from lossbuf.scan.run import Scan, ScanSettings, scan
from lossbuf.scan.tables import clean_table, issues_table, summary

SCAN = Kind(
    "scan",
    ("scan.json", "scan.pt", "issues.csv", "issues.parquet", "clean.csv", "report.html", "summary.json"),
    state="scan.pt",
)
"""What a scan leaves."""

_KIND = "lossbuf.scan"
_CUTS = ("top", "max_fdr")
"""Settings that a finished training may be read with anew."""


class ScanFolder:
    """Where a scan is written.

    ``scan.json`` says what was scanned and how, ``scan.pt`` is the state of the training; then come ``issues.csv``
    (suspects, worst first, and ``issues.parquet`` where PyArrow is installed), ``clean.csv`` (the other rows),
    ``report.html`` and ``summary.json``. While a scan runs, its files are made in a subfolder, and an earlier scan
    stays as it was; see :class:`~lossbuf.results.ResultFolder`.

    Args:
        path: The folder; it need not be there yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.about = self.path / "scan.json"
        self.issues = self.path / "issues.csv"
        self.issues_parquet = self.path / "issues.parquet"
        self.clean = self.path / "clean.csv"
        self.report = self.path / "report.html"
        self.summary = self.path / "summary.json"
        self.results = ResultFolder(self.path, SCAN)
        self._draft: Draft | None = None

    @property
    def state(self) -> Path:
        """The state of the training: that of the scan begun here, and else that of the finished scan."""
        return self.path / "scan.pt" if self._draft is None else self._draft.state

    def files(self) -> list[Path]:
        """All files that a finished scan may consist of."""
        return self.results.files()

    @property
    def is_finished(self) -> bool:
        """True where a scan ended."""
        return all((self.path / name).is_file() for name in ("summary.json", "scan.pt", "scan.json"))

    def held(self) -> AbstractContextManager[None]:
        """Keeps other scans out from before :meth:`begin` until after :meth:`write`.

        Raises:
            InputError: If another process scans into the folder.
            OSError: If the folder cannot be made or written to.
        """
        return self.results.held()

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
        """Make a subfolder ready for a scan; what an earlier scan left stays until :meth:`write`.

        Args:
            source: What was read.
            data: As it was read.
            read: How it was read.
            settings: Of the scan.
            resume: Go on from what is there; another ``top`` or ``max_fdr`` may be given, which is read afterwards.
            overwrite: Start anew; :meth:`write` replaces the earlier scan.

        Raises:
            InputError: If there is an earlier scan and neither is asked for; the earlier one, to go on from, was of
                other data or settings; the folder lies in the source; or a file that lossbuf did not write lies in the
                place of one of the results.
            OSError: If the subfolder cannot be made or written to.
        """
        about = {
            "kind": _KIND,
            "source": str(source.resolve()),
            "read": asdict(read),
            "settings": asdict(settings),
            "fingerprint": data.fingerprint(),
        }
        self.results.check_places([source], replacing=resume or overwrite)
        unfinished, there = self.results.unfinished(), any(file.exists() for file in self.files())
        if (there or unfinished) and not (overwrite or resume):
            state = "a finished scan" if there else "an unfinished scan"
            raise InputError(f"{self.path} holds {state}: `--resume` goes on from it, `--overwrite` starts anew.")
        earlier = self._earlier(unfinished, about, data) if resume and not overwrite else None
        self.path.mkdir(parents=True, exist_ok=True)
        self._draft = earlier if isinstance(earlier, Draft) else new_draft(self.path, SCAN, {})
        write_whole(self._draft.file(self.about.name), lambda file: file.write(_json(about)))
        if isinstance(earlier, Path):
            with earlier.open("rb") as file:
                write_whole(self.state, partial(shutil.copyfileobj, file))

    def _earlier(self, unfinished: list[Draft], about: dict[str, Any], data: LabelledData) -> Draft | Path | None:
        """The unfinished scan, or the state of the finished one, to go on from; ``None`` where there is none."""
        refused: list[InputError] = []
        for draft in unfinished:
            try:
                self._check_same(_about(draft.file(self.about.name)), about)
                return draft
            except FileNotFoundError:  # someone removed it: nothing says what the state is of
                continue
            except InputError as error:
                refused.append(error)
        if self.is_finished:
            try:
                self._check_same(self.read_about(), about, data)
                return self.path / "scan.pt"
            except InputError as error:
                refused.append(error)
        if refused:
            raise refused[0]
        return None

    def read_about(self) -> dict[str, Any]:
        """What was scanned and how.

        Raises:
            InputError: If there is no such file, or it was not written by a scan.
        """
        try:
            return _about(self.about)
        except FileNotFoundError:
            unfinished = bool(self.results.unfinished())
            rule = "must hold a finished scan: `lossbuf scan ... --resume` goes on with it" if unfinished else ""
            raise InputError(f"{self.path} {rule or f'must hold a scan, got no {self.about.name} in it'}.") from None

    def _check_same(self, earlier: dict[str, Any], now: dict[str, Any], data: LabelledData | None = None) -> None:
        if earlier.get("fingerprint") != now["fingerprint"]:
            changed = "" if data is None else f" ({changes_since(self, data)})"
            raise InputError(
                f"{self.path} holds a scan of other rows, or they changed since{changed}: `--overwrite` starts anew."
            )
        was = earlier.get("settings")
        was = was if isinstance(was, dict) else {}
        other = [name for name, value in now["settings"].items() if name not in _CUTS and was.get(name) != value]
        if other:
            got = ", ".join(f"{name} {was.get(name)!r} and now {now['settings'][name]!r}" for name in other)
            raise InputError(f"{self.path} holds a scan of other settings, {got}: `--overwrite` starts anew.")

    def write(self, result: Scan, source: Path) -> None:
        """Write all results of the scan that was begun, and put them in the place of the earlier ones.

        Raises:
            RuntimeError: If no scan was begun here.
            InputError: If what :meth:`begin` wrote is gone.
            OSError: If a file cannot be written.
        """
        from lossbuf.report import save_page
        from lossbuf.scan.page import page_content

        draft = self._draft
        if draft is None:
            raise RuntimeError("`write` needs a scan that was begun: call `begin` first.")
        if not draft.file(self.about.name).is_file():
            raise InputError(f"{draft.path} must stay while the scan runs, got nothing there: scan again.")
        issues = issues_table(result)
        write_csv(draft.file(self.issues.name), issues)
        if importlib.util.find_spec("pyarrow") is not None:
            parquet = draft.file(self.issues_parquet.name)
            write_whole(parquet, lambda file: issues.to_parquet(file, index=False))
        write_csv(draft.file(self.clean.name), clean_table(result))
        save_page(draft.file(self.report.name), page_content(result, source))
        write_whole(draft.file(self.summary.name), lambda file: file.write(_json(summary(result, source))))
        self.results.commit(draft)
        self._draft = None


def _about(path: Path) -> dict[str, Any]:
    """What a ``scan.json`` says.

    Raises:
        FileNotFoundError: If there is none.
        InputError: If it was not written by a scan.
    """
    try:
        size_of(path)
        about = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path} must be JSON as `lossbuf scan` writes it, got {error}.") from error
    if not isinstance(about, dict) or about.get("kind") != _KIND:
        raise InputError(f"{path} must be of kind {_KIND}, got another.")
    return about


def load_scan(path: str | os.PathLike[str]) -> Scan:
    """A finished scan, with its data read anew, its network and its buffers.

    Raises:
        InputError: If the folder holds no finished scan, the source is not where it was, or it changed since.
        ValueError: If the state is damaged.
    """
    folder = ScanFolder(path)
    folder.results.settle()
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
        rule = f"must be as it was when {folder.path} was written"
        raise InputError(f"{source} {rule}, got {changes_since(folder, data)}: scan it again.")
    with restoring(folder.path):
        return scan(data, settings, checkpoint=folder.state)


def changes_since(folder: ScanFolder, data: LabelledData) -> str:
    """In words, how the rows differ from those of a finished scan: which are new, gone or have another label.

    Args:
        folder: With the scan.
        data: As they are now.
    """
    try:
        tables = [read_csv(folder.issues).rename(columns={"given_label": "label"}), read_csv(folder.clean)]
        before = dict(pair for table in tables for pair in zip(table["id"], table["label"], strict=True))
    except (ValueError, OSError, KeyError):  # the results are not whole
        return "other rows"
    now = {name: data.class_names[label] for name, label in zip(data.ids, data.labels, strict=True)}
    found = [
        ("new", [name for name in now if name not in before]),
        ("missing", [name for name in before if name not in now]),
        ("with another label", [name for name in now if name in before and now[name] != before[name]]),
    ]
    told = [
        f"{len(names):,} {'row' if len(names) == 1 else 'rows'} {what}: {listed(names, 3)}"
        for what, names in found
        if names
    ]
    return "; ".join(told) or "rows with another content"


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )
