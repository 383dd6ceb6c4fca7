"""Few bytes that claim, or unfold to, gigabytes."""

from __future__ import annotations

import io
import zipfile
import zlib
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

VARIANTS = 8
"""Numbers of the variants that :func:`bomb` is asked for."""

_MEGABYTES = 2048
_ZEROS = bytes(2**20)


@cache
def bomb(form: str, which: int) -> bytes:
    """A file of a form; the same number gives the same file."""
    if form == "torch":
        return _torch(which)
    if form == "parquet":
        return _parquet(which % 3)
    if form == "json":
        return _json(which)
    if form == "csv":
        return _csv(which)
    if form == "npz" and which < 3:
        dtype, shape = (("<f4", (2**24, 32)), ("|u1", (2**19, 32, 32, 4)), ("<i8", (2**28,)))[which]
        start = npy_head(dtype, shape)
        return unfolding(
            {f"{name}.npy": (start, _MEGABYTES) for name in (("x", "y"), ("X", "y"), ("given", "x"))[which]}
        )
    if form in ("npy", "npz"):
        part = _claim(which)
        return part if form == "npy" else stored({f"{name}.npy": part for name in ("x", "X", "y", "given", "labels")})
    return _picture(form, which % 3)


# --- zip files ---


def stored(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def unfolding(members: dict[str, tuple[bytes, int]]) -> bytes:
    """A zip file of members that begin as told and go on with so many megabytes of zeros; its checksums are right."""
    file, directory = io.BytesIO(), b""
    packer = zlib.compressobj(9, wbits=-15)
    zeros = packer.compress(_ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, wbits=-15).flush()
    for name, (start, megabytes) in members.items():
        packer, total = zlib.compressobj(9, wbits=-15), zlib.crc32(start)
        for _ in range(megabytes):
            total = zlib.crc32(_ZEROS, total)
        body = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH) + zeros * megabytes + end
        head = _two(20, 0, 8, 0, 0x21) + _four(total, len(body), len(start) + megabytes * 2**20) + _two(len(name), 0)
        directory += b"PK\x01\x02" + _two(20) + head + _two(0, 0, 0) + _four(0, file.tell()) + name.encode()
        file.write(b"PK\x03\x04" + head + name.encode() + body)
    counts = _two(0, 0, len(members), len(members)) + _four(len(directory), file.tell())
    return file.getvalue() + directory + b"PK\x05\x06" + counts + _two(0)


def _two(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "little") for value in values)


def _four(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


# --- forms ---


def npy_head(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What an ``.npy`` begins with."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (53 - len(text) % 64) + "\n" if len(text) < 53 else "\n"
    return b"\x93NUMPY\x01\x00" + _two(len(text)) + text.encode()


def _claim(which: int) -> bytes:
    if which % 4 == 3:
        return b"\x93NUMPY\x02\x00" + _four(2**31 - 1 if which == 3 else 50_000) + b"(" * 50_000
    shape = ((10**12,), (2**62, 8), (2**40, 0), (-5, 3), (10**30,))[which % 5]
    return npy_head(("<f4", "|S1000000000", "<U500000000", "|O", "|V2000000000", "<M8[ns]")[which % 6], shape)


def _torch(which: int) -> bytes:
    kind = ("lossbuf.callback", "lossbuf.training", "condensation.learning")[which % 3]
    file = io.BytesIO()
    torch.save({"kind": kind, "of": {}, "state": {"a": torch.zeros(3)}, "values": {}}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    size = {0: "data/0", 1: "data.pkl", 2: "version", 3: ".format_version"}.get(which, "data/0")
    return unfolding({name: (content, _MEGABYTES * name.endswith(size)) for name, content in parts.items()})


def _json(which: int) -> bytes:
    deep = 100_000
    return (
        '{"kind":' * deep,
        "[" * deep + "]" * deep,
        f'{{"kind": {"9" * 10**6}}}',
        f'"{"x" * 10**7}"',
        '{"n_samples": ' + "9" * 4000 + "}",
        '{"n_samples": 1e300, "kind": "lossbuf.scan", "read": NaN}',
        '{"n_samples": 999999999999, "kind": "lossbuf.scan", "read": {}, "settings": {"epochs": 1e999}}',
        '{"kind": "lossbuf.scan", "read": {}, "settings": {"' + "x" * 10**6 + '": 1}, "source": "/dev/zero"}',
    )[which].encode()


def _csv(which: int) -> bytes:
    head = b"id,given_label,decision,label\n"
    return (
        lambda: b",".join(b"%d" % column for column in range(100_000)) + b"\n" + b"1," * 99_999 + b"1\n",
        lambda: b"label\n" + b"x" * 20_000_000,
        lambda: head + b'"' + b"x,\n" * 1_000_000,
        lambda: b"," * 1_000_000,
        lambda: b"\n" * 2_000_000,
        lambda: b"label,a\n" + b"x,1\n" * 3 + b"y," * 200_000,
        lambda: b"9" * 1_000_000 + b",label\n1,2\n",
        lambda: head + b"".join(b"%d,a,drop,b\n" % row for row in range(100_000)),
    )[which]()


def _parquet(which: int) -> bytes:
    """Runs of one value are a number and a count; one long text may come again and again."""
    import pyarrow as pa
    from pyarrow import parquet

    rows, parts = ((10**7, 20), (2000, 15), (10**6, 30))[which]
    columns: Any = (
        lambda: {"label": np.zeros(rows, np.int64), "a": np.zeros(rows), "b": np.zeros(rows)},
        lambda: {"label": pa.array(["x" * 100_000] * rows), "a": np.zeros(rows)},
        lambda: {"image": pa.array([b"\0"] * rows), "label": pa.array(["a"] * rows)},
    )[which]()
    table, file = pa.table(columns), io.BytesIO()
    with parquet.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for _ in range(parts):
            writer.write_table(table)
    return file.getvalue()


_PICTURES = {
    "png": (("1", 30_000), ("I;16", 9_990), ("RGBA", 9_990)),
    "jpg": (("L", 9_000), ("RGB", 9_990), ("CMYK", 9_000)),
    "tif": (("1", 30_000), ("F", 9_990), ("I;16", 9_990)),
    "gif": (("P", 9_990), ("1", 30_000), ("L", 9_990)),
    "webp": (("RGB", 9_990), ("RGBA", 9_000), ("L", 9_990)),
    "ppm": (("1", 9_990), ("L", 5_000), ("RGB", 3_000)),
    "bmp": (("1", 9_990), ("L", 5_000), ("RGB", 3_000)),
}


def _picture(form: str, which: int) -> bytes:
    """A picture of one colour; some have few enough pixels to be decoded."""
    mode, side = _PICTURES[form][which]
    options = {"tif": {"compression": "tiff_deflate"}, "png": {"compress_level": 1}, "webp": {"method": 0}}
    file, name = io.BytesIO(), {"jpg": "jpeg", "tif": "tiff"}.get(form, form)
    Image.new(mode, (side, side)).save(file, name, **options.get(form, {}))
    return file.getvalue()
