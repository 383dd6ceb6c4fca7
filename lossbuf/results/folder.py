"""``ResultFolder``: results that are replaced together, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lossbuf.errors import InputError
from lossbuf.files.locks import alone_in
from lossbuf.results.draft import Draft, Kind, drafts_in, is_in_draft, new_draft
from lossbuf.results.marker import (
    MARKER,
    Marker,
    Swap,
    Written,
    digest_of,
    is_regular,
    is_there,
    read_marker,
    write_marker,
)
from lossbuf.results.places import check_apart, check_folder, check_unread


class ResultFolder:
    """Results of one kind in a folder, where other files may lie as well.

    A run makes its results in a subfolder ``unfinished-1``, ``unfinished-2`` and so on. When all are there, their
    digests are written to the marker of the folder, the files are moved to their places, and the subfolder is removed.
    A run that is killed in the middle of the move is carried through by the next one, or by whoever reads the results.
    One that ends before leaves the old results as they were, and its subfolder only if it holds a state to go on from.

    Args:
        path: The folder; it need not be there yet.
        kind: What the results consist of.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = ResultFolder(place, Kind("sum", ("sum.txt",)))
        ...     with folder.draft() as draft:
        ...         _ = draft.file("sum.txt").write_text("4")
        ...         folder.commit(draft)
        ...     (folder.path / "sum.txt").read_text()
        '4'
    """

    def __init__(self, path: str | os.PathLike[str], kind: Kind) -> None:
        self.path = Path(path)
        self.kind = kind

    def files(self) -> list[Path]:
        """The places of all files of the results, whether they are there or not."""
        return [self.path / name for name in self.kind.files]

    def unfinished(self) -> list[Draft]:
        """The drafts of this kind that have a state to go on from, the newest first."""
        return [draft for draft in drafts_in(self.path) if draft.has_state and draft.kind.name == self.kind.name]

    def check_places(self, inputs: Iterable[Path] = (), *, replacing: bool = False) -> None:
        """Raise unless the outputs have places of their own; nothing is changed.

        Args:
            inputs: Files and folders that are read.
            replacing: Earlier results are to be replaced, so that they must be as lossbuf wrote them.

        Raises:
            InputError: If an output would lie in or over an input, or if something that lossbuf did not write lies in
                its place.
            OSError: If the folder cannot be read.
        """
        inputs = list(inputs)
        check_folder(self.path)
        check_apart([*self.files(), self.path / MARKER], inputs)
        for path in inputs:
            if is_in_draft(path, self.path):
                raise InputError(f"`--out` must be another folder: {path}, which is read, is unfinished work in it.")
        _check_owned(read_marker(self.path), self.files(), self.kind.name, by_content=replacing)

    def check_unread(self, files: Iterable[Path]) -> None:
        """Raise ``InputError`` where one of many files that were read lies in the place of a result."""
        check_unread(self.files(), files)

    def check(self, inputs: Iterable[Path] = (), *, overwrite: bool = False, resume: bool = False) -> None:
        """Raise unless a run may write here; nothing is changed.

        Args:
            inputs: Files and folders that are read.
            overwrite: Earlier results may be replaced.
            resume: The run goes on with an unfinished one.

        Raises:
            InputError: As :meth:`check_places`, or if there are earlier results and they may not be replaced.
            OSError: If the folder cannot be read.
        """
        self.check_places(inputs, replacing=overwrite or resume)
        there, unfinished = [path for path in self.files() if is_there(path)], bool(self.unfinished())
        if overwrite or (resume and unfinished):
            return
        if there:
            rule = ", `--resume` goes on with an unfinished run" if unfinished else ""
            raise InputError(f"{self.path} holds {there[0].name} already: `--overwrite` replaces it{rule}.")
        if unfinished:
            rule = "`--resume` goes on with it, `--overwrite` starts anew"
            raise InputError(f"{self.path} holds an unfinished {self.kind.name}: {rule}.")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out, carry through a move that was cut short, and remove drafts that came to nothing.

        Raises:
            InputError: If another process is at work in the folder.
            OSError: If the folder cannot be made or written to.
        """
        with alone_in(self.path):
            _settle(self.path)
            _sweep(self.path)
            try:
                yield
            finally:
                with suppress(OSError):  # the next run removes them
                    _sweep(self.path)

    @contextmanager
    def draft(
        self,
        about: dict[str, Any] | None = None,
        *,
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        resume: bool = False,
    ) -> Iterator[Draft]:
        """A subfolder to make results in, with other runs kept out; :meth:`commit` puts them in their places.

        Args:
            about: What the run is asked for, plain values, which are kept in the draft.
            inputs: As in :meth:`check`.
            overwrite: As in :meth:`check`.
            resume: Go on with the newest draft that has a state, and rather with one that was asked for the same.

        Raises:
            InputError: As :meth:`check` and :meth:`held`.
            OSError: If the folder cannot be made or written to.
        """
        inputs, about = list(inputs), about or {}
        self.check(inputs, overwrite=overwrite, resume=resume)
        with self.held():
            self.check(inputs, overwrite=overwrite, resume=resume)
            there = self.unfinished() if resume else []
            same = [draft for draft in there if draft.about == about]
            yield (same or there)[0] if there else new_draft(self.path, self.kind, about)

    def commit(self, draft: Draft) -> None:
        """Put the results of a draft in the place of the earlier ones, and remove all drafts of this kind.

        Earlier results that have no counterpart in the draft are removed.

        Raises:
            InputError: If something that lossbuf did not write came to lie in the place of an output.
            OSError: If the files cannot be moved; where the move had begun, the next run carries it through.
        """
        marker = read_marker(self.path)
        _check_owned(marker, self.files(), self.kind.name)
        made = {name: digest_of(draft.file(name)) for name in self.kind.files if is_regular(draft.file(name))}
        left = [path.name for path in self.files() if path.name not in made and is_there(path)]
        swap = Swap(self.kind.name, draft.path.name, made, left)
        write_marker(self.path, Marker(marker.files, swap))
        _settle(self.path)

    def settle(self) -> None:
        """Carry through a move that was cut short, before the results are read.

        Raises:
            InputError: If another process is at work in the folder.
            OSError: If the folder cannot be written to.
        """
        if read_marker(self.path).swap is not None:
            with alone_in(self.path):
                _settle(self.path)


def _settle(folder: Path) -> None:
    """Move results that are complete to their places; the marker says so at the beginning and at the end."""
    marker = read_marker(folder)
    swap = marker.swap
    if swap is None:
        return
    _check_owned(marker, [folder / name for name in (*swap.files, *swap.remove)], swap.kind)
    for name, digest in swap.files.items():
        made = folder / swap.draft / name
        if is_regular(made) and digest_of(made) == digest:
            os.replace(made, folder / name)
    for name in swap.remove:
        (folder / name).unlink(missing_ok=True)
    for draft in drafts_in(folder):
        if draft.kind.name == swap.kind:
            draft.remove()
    files = {name: written for name, written in marker.files.items() if name not in swap.remove}
    files |= {name: Written(swap.kind, digest) for name, digest in swap.files.items()}
    write_marker(folder, Marker(files))


def _sweep(folder: Path) -> None:
    for draft in drafts_in(folder):
        if not draft.has_state:
            draft.remove()


def _check_owned(marker: Marker, files: Iterable[Path], kind: str, *, by_content: bool = True) -> None:
    """Raise ``InputError`` where what lies in the place of a result is not a file that lossbuf wrote."""
    for path in files:
        if not is_there(path):
            continue
        if not is_regular(path):
            what = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a pipe or a device"
            raise InputError(f"{path} must be a regular file or not be there, got {what}: choose another `--out`.")
        if not (marker.owns(path, kind) if by_content else marker.names(path, kind)):
            raise InputError(
                f"{path} was not written by this command, or was changed since then, and is not replaced: "
                "move it away, or choose another `--out`."
            )
