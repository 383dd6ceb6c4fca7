"""The file of a saved set: one JSON header and some arrays in an ``.npz`` without compression.

What is in it has a checksum, ``numpy.load`` reads it, and it cannot unfold to more than its size. Nothing in it is run.
Its dates are fixed: the same content gives the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zipfile
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

FORMAT = 2
"""Version of the files written; later ones are refused, and so is every key that this one does not have.

Files of version 1 have no value for black, which was 0."""

KIND = "condensed set"
ARRAYS = ("x", "labels", "weights", "learning_rates", "steps", "rows")
HEADER_BYTES = 2**22
LARGEST = 2**31 - 2**24
"""Bytes of arrays; larger zip files have another directory, which is not read."""

_HEADER = "header.json"
_HEADER_KEYS = {"kind", "format", "set"}
_DTYPES = ("<f4", "<f8", "<i8", "|u1")
_LENGTH = rb"[1-9][0-9]{0,9}"
_NPY = re.compile(
    rb"\{'descr': '(...)', 'fortran_order': False, 'shape': \((" + _LENGTH + rb"(?:, " + _LENGTH + rb")*),?\), \} *\n"
)
DAMAGE = (ValueError, TypeError, OSError, EOFError, RuntimeError, OverflowError, zipfile.BadZipFile, struct.error)
"""What reading a bad file may raise."""


def write(file: BinaryIO, header: bytes, arrays: dict[str, Any]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in (_HEADER, *arrays):
            info = zipfile.ZipInfo(name if name == _HEADER else f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # or it would tell Windows from others
            with archive.open(info, "w") as part:
                if name == _HEADER:
                    part.write(header)
                else:
                    np.lib.format.write_array(part, arrays[name], version=(1, 0), allow_pickle=False)


def read(file: BinaryIO, max_bytes: int) -> tuple[dict[str, Any], dict[str, Tensor | None]]:
    """Plain values and arrays of a file; what it claims is held against its size before memory is taken."""
    size = file.seek(0, os.SEEK_END)
    if size > min(max_bytes, 2**31):
        raise ValueError(f"it has {size} bytes, more than max_bytes={max_bytes}")
    file.seek(max(size - 42, 0))
    end = file.read().rjust(42)
    # The end says how large the directory is, of which zipfile makes much more than it has bytes.
    signature, *_, directory, _, comment = struct.unpack("<4s4H2LH", end[20:])
    if signature != b"PK\x05\x06" or comment or directory > 2**16 or end[:4] == b"PK\x06\x07":
        raise ValueError("it is damaged, or not of this kind")
    with zipfile.ZipFile(file) as archive:
        parts = {info.filename: info for info in archive.infolist()}
        stored = all(
            info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size for info in parts.values()
        )
        if not stored or sum(info.file_size for info in parts.values()) > size or _HEADER not in parts:
            raise ValueError("it is damaged, or not of this kind")
        if parts[_HEADER].file_size > HEADER_BYTES:
            raise ValueError(f"its plain values have more than {HEADER_BYTES} bytes")
        header = json.loads(archive.read(_HEADER).decode())
        if not isinstance(header, dict) or header.get("kind") != KIND:
            raise ValueError("it is of another kind")
        if type(header.get("format")) is not int or not 1 <= header["format"] <= FORMAT:
            advice = "a later lossbuf may read it"
            raise ValueError(f"its format must be from 1 to {FORMAT}, got {header.get('format')!r}; {advice}")
        unknown = parts.keys() - {f"{name}.npy" for name in ARRAYS} - {_HEADER} | header.keys() - _HEADER_KEYS
        if unknown or len(archive.infolist()) > len(parts) or not isinstance(header.get("set"), dict):
            raise ValueError(f"it has unknown, doubled or missing parts {sorted(unknown)}")
        members = {name: parts.get(f"{name}.npy") for name in ARRAYS}
        arrays = {name: None if member is None else _array_of(archive, member) for name, member in members.items()}
    normalisation = header["set"].get("normalisation")
    if header["format"] == 1 and isinstance(normalisation, dict):
        normalisation["black"] = 0.0
    return header["set"], arrays


def _array_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    # Not by numpy.load, which evaluates the text that tells the shape, and believes it.
    with archive.open(info) as part:
        start = part.read(10)
        text = part.read(int.from_bytes(start[8:], "little"))
        told = _NPY.fullmatch(text)
        if start[:8] != b"\x93NUMPY\x01\x00" or told is None or told[1].decode() not in _DTYPES:
            raise ValueError(f"{info.filename} is not an array of {', '.join(_DTYPES)}")
        dtype, shape = np.dtype(told[1].decode()), tuple(map(int, told[2].split(b",")))
        if math.prod(shape) * dtype.itemsize != info.file_size - len(start) - len(text) or len(shape) > 8:
            raise ValueError(f"{info.filename} has not the size of its shape {shape}")
        array = np.empty(shape, dtype)
        rest = array.data.cast("B")
        while chunk := part.read(2**20):  # the last one compares the checksum
            rest[: len(chunk)] = chunk
            rest = rest[len(chunk) :]
        if len(rest):
            raise ValueError(f"{info.filename} is cut short")
    return torch.from_numpy(array)
