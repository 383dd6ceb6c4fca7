"""An image folder: a subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lossbuf.errors import InputError
from lossbuf.inputs import hints
from lossbuf.inputs.labelled import LabelledData, ReadSettings, labelled
from lossbuf.inputs.names import quoted
from lossbuf.inputs.pictures import SUFFIXES, are_pictures, read_pictures

SPLITS = frozenset(
    (
        "train",
        "training",
        "trainset",
        "test",
        "testing",
        "testset",
        "val",
        "valid",
        "validation",
        "dev",
        "eval",
        "holdout",
    )
)
"""Names of folders that hold parts of a data set rather than classes."""

SYSTEM = frozenset(
    ("@eadir", "__macosx", "$recycle.bin", "recycler", "#recycle", "@recycle", "@__thumb", "#snapshot", "lost+found",
     "system volume information", "network trash folder", "temporary items", "thevolumesettingsfolder", "@tmp",
     "__pycache__")
)  # fmt: skip
"""Names of folders that operating systems and storage devices make, in lower case."""


def read_folder(root: Path, settings: ReadSettings) -> LabelledData:
    """Read ``root/class name/any/depth/picture.png``; ids are paths below ``root``.

    What Pillow can open is a picture, whatever its ending. Skipped, with the reason: pictures that cannot be read, that
    lie in no class folder, or that a link brings a second time; links out of ``root``; files that are not pictures;
    what is hidden; and folders that an operating system made.

    Raises:
        InputError: If there is no class folder with pictures, the folders are parts of a data set, or what
            :func:`~lossbuf.inputs.labelled.labelled` refuses.
    """
    where = f"the folder {root}"
    found = list(_walk(root, settings.follow_links))
    unsure = [file for file, reason in found if not reason and file.suffix.lower() not in SUFFIXES]
    others = {file for file, known in zip(unsure, are_pictures(unsure), strict=True) if not known}
    skipped: list[tuple[str, str]] = []
    files: list[Path] = []
    alone = 0
    for file, reason in found:
        if reason or file in others:
            skipped.append((_name(file, root), reason or "not an image"))
        elif file.parent == root:
            alone += 1
            skipped.append((_name(file, root), "in no class folder"))
        else:
            files.append(file)
    if not files:
        raise InputError(
            f"{where} must hold a subfolder a class with images in it, got {alone} images elsewhere and "
            f"{len(others)} other files. Is it the right folder?{hints.of_labels_beside(list(others), root)}"
        )
    notes = _check_tree(where, root, files)
    files, again = _once(files)
    skipped += [(_name(file, root), "a link to an image that is read already") for file in again]
    pictures = read_pictures(files, size=settings.image_size)
    skipped += [(_name(files[place], root), reason) for place, reason in pictures.skipped]
    read = [files[place] for place in pictures.read]
    notes += [pictures.note] if pictures.note else []
    classes = [_shown(file.relative_to(root).parts[0]) for file in read]
    if others:
        what = (
            "1 file that is not an image was" if len(others) == 1 else f"{len(others):,} files that are not images were"
        )
        notes.append(f"{what} passed over, such as {_name(min(others), root)!r}.")
    empty = sorted({_shown(path.name) for path in _class_folders(root)} - set(classes))
    if empty and classes:
        notes.append(f"Without images that can be read, and so not a class: {quoted(empty)}.")
    beside = hints.of_labels_beside(list(others), root)
    if beside and len(set(classes)) == 1:
        raise InputError(f"{where} must have at least two classes, got one, {classes[0]!r}.{beside}")
    data = labelled(
        pictures.x,
        classes,
        [_name(file, root) for file in read],
        skipped=sorted(skipped, key=lambda one: one[1] in (_HIDDEN, _OF_SYSTEM)),
        notes=notes,
        alike=settings.alike,
        where=where,
    )
    return replace(data, files=tuple(files) if settings.follow_links else ())


def _check_tree(where: str, root: Path, files: list[Path]) -> list[str]:
    """Notes on folders that may not be the classes.

    Raises:
        InputError: If the folders are parts of a data set, such as train and test, each with the classes in it.
    """
    below: dict[str, set[str]] = {}
    for file in files:
        first, *more = file.relative_to(root).parts[:-1]
        below.setdefault(first, set()).update(more[:1])
    common = set.intersection(*below.values()) if below else set()
    if len(common) < 2:
        return []
    names = sorted(below)
    if all(name.casefold() in SPLITS for name in names):
        got = f"parts of a data set, {quoted(names)}, that hold the classes {quoted(sorted(common), 5)}"
        raise InputError(f"{where} must hold a subfolder a class, got {got}: give one part, such as {root / names[0]}.")
    if len(names) < 2:
        return []
    same = f"Each of the folders {quoted(names, 5)} holds the subfolders {quoted(sorted(common), 5)}"
    return [f"{same}. The classes are taken to be {quoted(names, 5)}: if they are the subfolders, give one folder."]


def _class_folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not _reason_of_name(path.name, True)]


def _once(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Files in the order of their names, and links to one of them or to what an earlier link leads to."""
    files = sorted(files)
    seen = {file.resolve() for file in files if not file.is_symlink()}
    once, again = [], []
    for file in files:
        real = file.resolve()
        if file.is_symlink() and real in seen:
            again.append(file)
        else:
            seen.add(real)
            once.append(file)
    return once, again


def _walk(root: Path, follow_links: bool) -> Iterator[tuple[Path, str]]:
    """Files below ``root``, each with the reason to skip it; a folder is entered once, rather than by a link."""
    top = root.resolve()
    entered, open_folders, links = {top}, [root], []
    while open_folders or links:
        if not open_folders:  # links to folders come last: what they lead to may have been read by then
            link = links.pop(0)
            real = link.resolve()
            if real in entered:
                yield link, "a link to a folder that is read already"
                continue
            entered.add(real)
            open_folders.append(link)
        folder = open_folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield folder, "not allowed to read it"
            continue
        for entry in entries:
            path = Path(entry.path)
            if reason := _reason_of_name(entry.name, entry.is_dir(follow_symlinks=False)):
                yield path, reason
            elif entry.is_symlink():
                reason = _reason(path, top, follow_links)
                if reason or not path.is_dir():
                    yield path, reason
                else:
                    links.append(path)
            elif entry.is_dir():
                entered.add(path.resolve())
                open_folders.append(path)
            else:
                yield path, "" if entry.is_file() else "not a regular file"


_HIDDEN, _OF_SYSTEM = "hidden", "a folder of the operating system"


def _reason_of_name(name: str, is_folder: bool) -> str:
    """Why to pass over an entry of this name; empty where nothing speaks against it."""
    if name.startswith("."):
        return _HIDDEN
    return _OF_SYSTEM if is_folder and name.casefold() in SYSTEM else ""


def _reason(link: Path, top: Path, follow_links: bool) -> str:
    """Why not to follow a link; empty where nothing speaks against it."""
    try:
        real = link.resolve(strict=True)
    except (OSError, RuntimeError):  # the target is missing, or the link leads to itself
        return "a link to nothing"
    return "" if follow_links or real.is_relative_to(top) else "a link out of the folder"


def _name(path: Path, root: Path) -> str:
    return _shown(path.relative_to(root).as_posix())


def _shown(name: str) -> str:
    # Bytes that are no text in the file system's encoding stand as escapes, so that every name can be written.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
