"""An image folder: a subfolder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lossbuf.inputs.labelled import InputError, LabelledData, ReadSettings, labelled
from lossbuf.inputs.pictures import SUFFIXES, read_pictures


def read_folder(root: Path, settings: ReadSettings) -> LabelledData:
    """Read ``root/class name/any/depth/picture.png``; ids are paths below ``root``.

    Hidden files, and files whose ending is not a picture's, are passed over. Skipped, with the reason: pictures that
    cannot be read, that lie in no class folder, or that a link brings a second time; and links out of ``root``.

    Raises:
        InputError: If there is no class folder with pictures, or what
            :func:`~lossbuf.inputs.labelled.labelled` refuses.
    """
    where = f"the folder {root}"
    skipped: list[tuple[str, str]] = []
    files: list[Path] = []
    others = 0
    for file, reason in _walk(root, settings.follow_links):
        if reason:
            skipped.append((_name(file, root), reason))
        elif file.suffix.lower() not in SUFFIXES:
            others += 1
        elif file.parent == root:
            skipped.append((_name(file, root), "in no class folder"))
        else:
            files.append(file)
    if not files:
        raise InputError(
            f"{where} must hold a subfolder a class with images in it, got {len(skipped)} images elsewhere and "
            f"{others} other files. Is it the right folder? Labels that stand in a table: give the table."
        )
    files, again = _once(files)
    skipped += [(_name(file, root), "a link to an image that is read already") for file in again]
    pictures = read_pictures(files, size=settings.image_size)
    skipped += [(_name(files[place], root), reason) for place, reason in pictures.skipped]
    read = [files[place] for place in pictures.read]
    notes = [pictures.note] if pictures.note else []
    if others:
        notes.append(f"{others} files that are no images were passed over.")
    return labelled(
        pictures.x,
        [_shown(file.relative_to(root).parts[0]) for file in read],
        [_name(file, root) for file in read],
        skipped=skipped,
        notes=notes,
        where=where,
    )


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
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                reason = _reason(path, top, follow_links)
                if reason or not path.is_dir():
                    yield path, reason
                else:
                    links.append(path)
            elif entry.is_dir():
                entered.add(path.resolve())
                open_folders.append(path)
            elif entry.is_file():
                yield path, ""


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
