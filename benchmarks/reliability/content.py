"""Whole files of the right form, made anew with something in them changed."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image


def changed(path: Path, form: str, draws: Generator, canary: Path) -> None:
    """The same file with other values, keys, types or shapes; everything that tells damage is right again."""
    {"torch": _torch, "json": _json, "npz": _npz, "npy": _npy, "parquet": _parquet, "csv": _csv}.get(form, _picture)(
        path, draws
    )


# --- trees of plain values ---


def _quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is to give them up
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)


def _altered(tree: Any, draws: Generator, others: list[Any]) -> Any:
    """A copy with one part, anywhere, gone, renamed or another."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if type(tree) in (list, tuple) else []
    if not keys or draws.random() < 0.1:
        return others[draws.integers(len(others))]
    key = keys[draws.integers(len(keys))]
    parts: dict[Any, Any] = dict(tree) if isinstance(tree, dict) else dict(enumerate(tree))
    act = draws.random()
    if act < 0.1:
        del parts[key]
    elif act < 0.2 and isinstance(tree, dict):
        parts[str(others[draws.integers(len(others))]) if act < 0.13 else f"{key}2"] = parts.pop(key)
    else:
        parts[key] = _altered(parts[key], draws, others)
    return parts if isinstance(tree, dict) else type(tree)(parts.values())


def _deep(levels: int) -> list[Any]:
    tree: list[Any] = []
    for _ in range(levels):
        tree = [tree]
    return tree


def _laughs() -> list[Any]:
    """Little to write, 2**40 parts to visit."""
    tree: list[Any] = ["ha"]
    for _ in range(40):
        tree = [tree, tree]
    return tree


def _in_itself() -> list[Any]:
    tree: list[Any] = []
    tree.append(tree)
    return tree


_VALUES = (
    *(None, True, 0, -1, 2**62, -(2**62), 0.5, -1.5, 1e308, float("nan"), float("inf"), "", "a\nb", "x" * 10**5),
    *([], {}, [1], {"a": 1}, "\ud800", "\0"),
)


def _torch(path: Path, draws: Generator) -> None:
    content = torch.load(path, weights_only=False)
    one = torch.zeros(1)
    others: list[Any] = [
        *(value for value in _VALUES if value != "\ud800"),
        *(_deep(200), _laughs(), _in_itself(), 10**400, b"bytes", (1, 2), {1: 2}, 1j, torch.float32, torch.Size([3])),
        *(one, torch.zeros(0), torch.zeros((), dtype=torch.int64), torch.full((4,), float("nan")), torch.zeros(3, 3)),
        *(one.expand(10**12), one.to_sparse(), torch.zeros(2, device="meta"), one.to(torch.complex64), one > 0),
        *(torch.nn.Parameter(one), torch.arange(24), torch.full((24,), 10**15), torch.full((24,), -1)),
        _quantized() if draws.random() < 0.1 else one,
    ]
    torch.save(_altered(content, draws, others), path)


def _json(path: Path, draws: Generator) -> None:
    others = [*_VALUES, _deep(50), 10**300, "/dev/zero", "/", "../data", "nothing", list(range(1000))]
    path.write_text(json.dumps(_altered(json.loads(path.read_text()), draws, others)))


# --- arrays ---


def _odd_array(array: np.ndarray[Any, Any], draws: Generator) -> np.ndarray[Any, Any]:
    size = len(array) if array.ndim else 1
    choices: list[Callable[[], Any]] = [
        lambda: array[:-1],
        lambda: array[:0],
        lambda: np.array(3),
        lambda: array[None],
        lambda: array.astype("U"),
        lambda: array.astype("S"),
        lambda: np.full(array.shape, np.nan),
        lambda: np.full(array.shape, np.inf),
        lambda: np.full(array.shape, -1),
        lambda: np.full(array.shape, 2**62),
        lambda: np.full(array.shape, 1e300),
        lambda: np.full(array.shape, 2**63, np.uint64),
        lambda: np.zeros(array.shape, complex),
        lambda: np.zeros(array.shape, bool),
        lambda: np.zeros(array.shape, "M8[s]"),
        lambda: np.zeros(array.shape, "V8"),
        lambda: np.zeros(array.shape, "f2"),
        lambda: np.zeros(array.shape, ">i4"),
        lambda: np.zeros(array.shape, [("a", "f4"), ("b", "i4")]),
        lambda: np.asfortranarray(np.ones((size, 3, 2))),
        lambda: np.zeros((size, *[1] * 20)),
        lambda: np.array([f"a\nb\0{row}\ud800" for row in range(size)]),
        lambda: np.array([f"class {row}\x1b[31m" * 1000 for row in range(size)]),
    ]
    return np.asarray(choices[draws.integers(len(choices))]())


def _npz(path: Path, draws: Generator) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = list(parts)[draws.integers(len(parts))]
    if name.endswith(".json"):
        parts[name] = json.dumps(_altered(json.loads(parts[name]), draws, [*_VALUES, _deep(50), 10**300])).encode()
    elif draws.random() < 0.15:
        parts[f"{name[:-4]}2.npy" if draws.random() < 0.5 else "a.txt"] = parts.pop(name)
    else:
        file = io.BytesIO()
        with np.errstate(all="ignore"):
            np.save(file, _odd_array(np.load(io.BytesIO(parts[name])), draws))
        parts[name] = file.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def _npy(path: Path, draws: Generator) -> None:
    np.save(path, _odd_array(np.load(path), draws))


# --- tables ---


def _parquet(path: Path, draws: Generator) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(path)
    name, size = table.column_names[draws.integers(table.num_columns)], table.num_rows
    choices: list[Callable[[], Any]] = [
        lambda: pa.nulls(size),
        lambda: pa.array([[1, 2]] * size),
        lambda: pa.array([{"bytes": b"x" * 10, "path": "../../a"}] * size),
        lambda: pa.array([{"bytes": None, "path": None}] * size),
        lambda: pa.array([{"bytes": "text", "path": 3}] * size),
        lambda: pa.array([b"\xff\xfe"] * size),
        lambda: pa.array([["nested", None]] * size),
        lambda: pa.array([f"{'9' * 30}.{row}" for row in range(size)]).cast(pa.string()),
        lambda: pa.array([f"a\nb{row}" for row in range(size)]),
        lambda: pa.array([2**63 - 1 - row for row in range(size)]),
        lambda: pa.array([10**12 + row for row in range(size)], pa.timestamp("s")),
        lambda: pa.array([2**62] * size, pa.timestamp("ns", "Mars/Olympus")),
        lambda: pa.array([-(2**62)] * size, pa.timestamp("ms")),
        lambda: pa.array([2**62] * size, pa.duration("s")),
        lambda: pa.array(range(size)).cast(pa.decimal128(38, 10)),
        lambda: pa.array(["a", "b"] * (size // 2)).dictionary_encode(),
        lambda: pa.array([1.5, None] * (size // 2)),
        lambda: pa.array([True, None] * (size // 2)),
        lambda: pa.array([float("nan")] * size),
        lambda: pa.array([[("k", 1)]] * size, pa.map_(pa.string(), pa.int64())),
        lambda: pa.array([2**31 - 1] * size, pa.date32()),
        lambda: pa.array([1] * size, pa.time64("ns")),
        lambda: pa.array([1e-300] * size, pa.float64()),
    ]
    column = choices[draws.integers(len(choices))]()
    if draws.random() < 0.1:
        table = table.append_column(name, column)
    else:
        table = table.set_column(table.column_names.index(name), name, column)
    if draws.random() < 0.3:
        odd = (b"{", b"[]", b'{"columns": 3}', b'{"index_columns": ["nothing"], "columns": []}', b"\xff", b"null")
        table = table.replace_schema_metadata({b"pandas": odd[draws.integers(len(odd))]})
    parquet.write_table(table, path)


def _csv(path: Path, draws: Generator) -> None:
    lines = path.read_text().splitlines()
    separator = "\t" if path.suffix == ".tsv" else ","
    cells = [line.split(separator) for line in lines]
    row = int(draws.integers(len(cells)))
    column = int(draws.integers(len(cells[row])))
    odd = (
        *("", "NaN", "inf", "-1", "1e400", "9" * 400, "'=1", '"', '"a\nb"', "a" * 10**5, "\0", "label", "id"),
        *("../../a", "/dev/zero", "row", "cat", "drop", "relabel", " ", "1.5", "True", "\u2028", "\x1b[31m"),
        *("0x10", "1_000", str(2**64), "2020-01-01", "٣", "."),
    )
    act = draws.random()
    if act < 0.6:
        cells[row][column] = odd[draws.integers(len(odd))]
    elif act < 0.7:
        cells = [line[:column] + line[column + 1 :] for line in cells]
    elif act < 0.8:
        del cells[row]
    elif act < 0.9:
        cells.append(list(cells[row]))
    else:
        cells = [[*line, odd[draws.integers(len(odd))]] for line in cells]
    path.write_text("\n".join(separator.join(line) for line in cells) + "\n")


# --- pictures ---


def _picture(path: Path, draws: Generator) -> None:
    form = {".jpg": "jpeg", ".tif": "tiff"}.get(path.suffix, path.suffix[1:])
    known = {"png": ["1", "L", "LA", "P", "RGBA", "I;16", "I"], "jpeg": ["L", "CMYK"], "gif": ["P", "L"]}
    known |= {"tiff": ["F", "I;16", "CMYK", "LAB", "1"], "ppm": ["1", "L", "I"], "webp": ["RGBA"]}
    modes = known.get(form, ["L", "P"])
    mode = modes[draws.integers(len(modes))]
    width, height = ((1, 1), (1, 5000), (3000, 1), (7, 13), (12, 12))[draws.integers(5)]
    image = Image.new(mode, (width, height))
    options: dict[str, Any] = {}
    if form in ("jpeg", "png", "webp", "tiff") and draws.random() < 0.6:
        exif = Image.Exif()
        exif[0x0112] = int(draws.integers(0, 10))
        exif[0x9286] = "x" * 10_000
        options["exif"] = exif.tobytes()
        if draws.random() < 0.5 and form != "tiff":
            options["exif"] = options["exif"][:20] + draws.bytes(40)
    if form in ("gif", "png", "webp", "tiff") and draws.random() < 0.4:
        options |= {"save_all": True, "append_images": [image] * 30}
    try:
        image.save(path, form, **options)
    except (OSError, ValueError, KeyError):  # the form cannot hold it
        Image.new("L", (width, height)).save(path, form)
