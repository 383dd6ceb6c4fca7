"""Files that someone made on purpose: code, bombs, links, odd zip files, another kind under the right name."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from PIL import Image

from benchmarks.reliability import bombs
from benchmarks.reliability.bombs import stored

Maker = Callable[[Path, str, Generator, Path], None]
"""Called with the file to replace, its form, the generator, and a path that only code in a file would make."""

_KINDS = ("lossbuf.callback", "lossbuf.training", "condensation.learning")
_ARRAYS = ("x", "X", "y", "ids", "class_names", "labels", "weights", "given")


class Runs:
    """Runs a command where a careless reader unpickles it."""

    def __init__(self, canary: Path) -> None:
        self.command = f"touch {canary}"

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def _torch(content: Any, *, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def _numpy(save: Callable[..., Any], *arrays: Any, **named: Any) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def code(path: Path, form: str, draws: Generator, canary: Path) -> None:
    """A pickle that runs a command, in the wrappings that readers of the form open."""
    runs, kind = Runs(canary), str(draws.choice(_KINDS))
    objects, raw = np.array([runs, 1], dtype=object), pickle.dumps(runs, protocol=int(draws.integers(6)))
    made: list[Callable[[], bytes]] = [
        lambda: raw,
        lambda: _torch(runs),
        lambda: _torch({"kind": kind, "state": runs, "of": runs}),
        lambda: _torch({"kind": kind, "of": {"x": [runs]}, "values": {"images": runs}}),
        lambda: _torch({runs: "kind"}),
        lambda: _torch(runs, old=True),
        lambda: stored({"archive/data.pkl": raw, "archive/version": b"3\n"}),
        lambda: _numpy(np.save, objects),
        lambda: _numpy(np.savez, **dict.fromkeys(_ARRAYS, objects)),
        lambda: stored({f"{name}.npy": raw for name in _ARRAYS} | {"header.json": raw}),
        lambda: stored(dict.fromkeys(_ARRAYS, raw)),
    ]
    of_form = {"torch": slice(0, 7), "npz": slice(6, 11), "npy": slice(7, 9)}.get(form, slice(0, 11))
    chosen = made[of_form]
    path.write_bytes(chosen[draws.integers(len(chosen))]())


def bomb(path: Path, form: str, draws: Generator, canary: Path) -> None:
    """Few bytes that claim or unfold to gigabytes."""
    path.write_bytes(bombs.bomb(form, int(draws.integers(bombs.VARIANTS))))


def other_kind(path: Path, form: str, draws: Generator, canary: Path) -> None:
    """A whole file of another kind under the right name."""
    file = io.BytesIO()
    Image.new("RGB", (12, 12)).save(file, "png")
    made: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: b"\n",
        lambda: b"text",
        lambda: b"\xef\xbb\xbf",
        lambda: "label,a\nx,1\n".encode("utf-16"),
        lambda: b"<!DOCTYPE html><html><body>Not found</body></html>",
        lambda: b"[]",
        lambda: b"null",
        lambda: b"{}",
        lambda: b"3",
        lambda: pickle.dumps({"kind": "lossbuf.training"}),
        file.getvalue,
        lambda: gzip.compress(b"label,a\nx,1\n"),
        lambda: stored({}),
        lambda: stored({"a.txt": b"text"}),
        lambda: _numpy(np.save, np.arange(24)),
        lambda: _numpy(np.savez, a=np.arange(24)),
        lambda: _torch(torch.zeros(3)),
        lambda: _torch([1, 2]),
        lambda: _torch({"kind": "box"}, old=True),
        lambda: _torch({"kind": 3}),
        lambda: json.dumps({"kind": "lossbuf.scan", "n_samples": 24}).encode(),
        lambda: _parquet(pd.DataFrame({"a": [1.0, 2.0]})),
        lambda: _parquet(pd.DataFrame()),
    ]
    path.write_bytes(made[draws.integers(len(made))]())


def _parquet(table: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


def no_file(path: Path, form: str, draws: Generator, canary: Path) -> None:
    """A folder, a pipe, a device, a link to one of them, to itself or to nothing, or nothing."""
    path.unlink()
    target = path.with_name("elsewhere")
    made: list[Callable[[], object]] = [
        path.mkdir,
        lambda: (path.mkdir(), (path / "x.npy").write_bytes(b"")),
        lambda: os.mkfifo(path),
        lambda: (os.mkfifo(target), path.symlink_to(target)),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("nothing"),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/dev/null"),
        lambda: path.symlink_to("."),
        lambda: None,
    ]
    made[draws.integers(len(made))]()


def odd_zip(path: Path, form: str, draws: Generator, canary: Path) -> None:
    """A zip file unlike its writer's: names with paths, doubled or encrypted parts, other methods, many members."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    whole, first = path.read_bytes(), next(iter(parts))

    def patched(offset: int, value: int) -> bytes:
        """A field of two bytes in every entry of the directory and, 2 before it, in every head."""
        damaged = bytearray(whole)
        for mark, place in ((b"PK\x01\x02", offset), (b"PK\x03\x04", offset - 2)):
            at = damaged.find(mark)
            while at >= 0 and at + place + 2 <= len(damaged):
                struct.pack_into("<H", damaged, at + place, value)
                at = damaged.find(mark, at + 4)
        return bytes(damaged)

    def doubled() -> bytes:
        file = io.BytesIO(whole)
        with zipfile.ZipFile(file, "a") as archive:
            archive.start_dir = archive.start_dir
            info = zipfile.ZipInfo(first)
            archive.NameToInfo.pop(first, None)  # or it warns
            archive.writestr(info, b"other")
        return file.getvalue()

    made: list[Callable[[], bytes]] = [
        lambda: stored({f"../../{name}": content for name, content in parts.items()}),
        lambda: stored({f"/{name}": content for name, content in parts.items()}),
        lambda: stored({name.replace("/", "\\"): content for name, content in parts.items()}),
        lambda: stored(parts, zipfile.ZIP_DEFLATED),
        lambda: stored(parts, zipfile.ZIP_LZMA),
        lambda: stored(parts, zipfile.ZIP_BZIP2),
        lambda: stored(parts | {"more.npy": parts[first], "folder/": b""}),
        lambda: stored({"file.npz": whole, "file.pt": whole}),
        lambda: stored(parts | {f"{number}": b"" for number in range(40_000)}),
        lambda: stored(parts | {"n" * 60_000 + str(number): b"" for number in range(50)}),
        lambda: stored({name: content[:-1] for name, content in parts.items()}),
        lambda: stored(dict.fromkeys(parts, b"")),
        doubled,
        lambda: patched(8, 1),  # encrypted
        lambda: patched(10, 99),  # of a method that nobody knows
        lambda: patched(38, 0x10),  # a folder
        lambda: b"#!/bin/sh\ntouch " + str(canary).encode() + b"\n" + whole,
        lambda: whole[:-2] + _comment(b"PK\x05\x06" + bytes(18)),
        lambda: whole + whole,
    ]
    path.write_bytes(made[draws.integers(len(made))]())


def _comment(text: bytes) -> bytes:
    return struct.pack("<H", len(text)) + text


def replaced(path: Path) -> None:
    """Remove what is there, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


ON_PURPOSE: dict[str, Maker] = {"code": code, "bomb": bomb, "other kind": other_kind, "no file": no_file}
