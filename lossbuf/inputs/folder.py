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
    cannot be read, that lie in no class folder, or that a symbolic link outside ``root`` leads to.

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


def _walk(root: Path, follow_links: bool) -> Iterator[tuple[Path, str]]:
    """Files below ``root`` in a fixed order, each with the reason to skip it; a folder is entered once."""
    top, entered, open_folders = root.resolve(), {root.resolve()}, [root]
    while open_folders:
        folder = open_folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield folder, "not allowed to read it"
            continue
        below: list[Path] = []
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                real = path.resolve()
                if not real.exists():
                    yield path, "a link to nothing"
                    continue
                if not follow_links and not real.is_relative_to(top):
                    yield path, "a link out of the folder"
                    continue
                if real.is_dir() and real in entered:
                    continue
            if path.is_dir():
                entered.add(path.resolve())
                below.append(path)
            elif path.is_file():
                yield path, ""
        open_folders += reversed(below)


def _name(path: Path, root: Path) -> str:
    return _shown(path.relative_to(root).as_posix())


def _shown(name: str) -> str:
    # Bytes that are no text in the file system's encoding stand as escapes, so that every name can be written.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
