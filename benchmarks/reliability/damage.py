"""Bytes of a file damaged at random."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from numpy.random import Generator

Damage = Callable[[bytes, Generator], bytes]

_MARKS = re.compile(
    rb"PK\x01\x02|PK\x03\x04|PK\x05\x06|PK\x06\x07|\x93NUMPY|PAR1|IHDR|IDAT|IEND|\xff[\xc0-\xdb]|\n|,|\}"
)
"""Where a part of a file begins."""

_HUGE = (2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 2**30, 2**32)

_ODD = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8"),
    *(b"\r", b"\r\n", b"\t", b",", b";", b'"', b"'", b"\x1a", b"\x1b[31m", b"[" * 50, b"-" * 300, b"\\u0000"),
    *(b"1e400", b"9" * 5000, b"NaN", b"-Infinity", b"1_0", b"0x1F", b"true", b"=cmd()", b"../../x", b"/dev/zero"),
)


def cut(whole: bytes, draws: Generator) -> bytes:
    """The file ends early: anywhere, or where a part begins."""
    places = [found.start() for found in _MARKS.finditer(whole)]
    if places and draws.random() < 0.5:
        return whole[: max(0, places[draws.integers(len(places))] + int(draws.integers(-1, 5)))]
    return whole[: draws.integers(len(whole))]


def flipped(whole: bytes, draws: Generator) -> bytes:
    """One to eight bits are others."""
    damaged = bytearray(whole)
    for _ in range(draws.integers(1, 9)):
        damaged[_place(whole, draws)] ^= 1 << int(draws.integers(8))
    return bytes(damaged)


def overwritten(whole: bytes, draws: Generator) -> bytes:
    """A stretch of bytes is zeros, ones or noise."""
    size = int(draws.integers(1, max(2, min(200, len(whole)))))
    place = min(_place(whole, draws), len(whole) - size)
    filling = (b"\0" * size, b"\xff" * size, draws.bytes(size))[draws.integers(3)]
    return whole[:place] + filling + whole[place + size :]


def moved(whole: bytes, draws: Generator) -> bytes:
    """Blocks change places, come twice, or are missing."""
    a, b, c = sorted(int(place) for place in draws.integers(0, len(whole) + 1, 3))
    first, second = whole[a:b], whole[b:c]
    middle = (second + first, first + first + second, second, first + second + b"\0" * 64)[draws.integers(4)]
    return whole[:a] + middle + whole[c:]


def enlarged(whole: bytes, draws: Generator) -> bytes:
    """What may be a size says that there is far more."""
    huge = _HUGE[draws.integers(len(_HUGE))]
    digits = [found.span() for found in re.finditer(rb"\d+", whole)]
    if digits and draws.random() < 0.3:
        start, end = digits[draws.integers(len(digits))]
        return whole[:start] + str(huge).encode() + whole[end:]
    width = int(draws.choice([2, 4, 8]))
    number = struct.pack(">Q", huge)[-width:] if draws.random() < 0.3 else struct.pack("<Q", huge)[:width]
    place = _place(whole, draws)
    return whole[:place] + number + whole[place + width :]


def odd_text(whole: bytes, draws: Generator) -> bytes:
    """NUL, byte order marks, bytes of no encoding, huge numbers, NaN, quotes, formulas, paths."""
    piece = _ODD[draws.integers(len(_ODD))] * int(draws.choice([1, 1, 2, 100]))
    place = 0 if draws.random() < 0.2 else _place(whole, draws)
    return whole[:place] + piece + whole[place + int(draws.choice([0, 0, 1, 8])) :]


def _place(whole: bytes, draws: Generator) -> int:
    """A place close after a mark as often as not: the small parts there steer the large ones."""
    marks = [found.start() for found in _MARKS.finditer(whole)]
    if marks and draws.random() < 0.6:
        return min(marks[draws.integers(len(marks))] + int(draws.integers(0, 48)), len(whole) - 1)
    return int(draws.integers(len(whole)))


AT_RANDOM: dict[str, Damage] = {
    "cut": cut,
    "bits flipped": flipped,
    "bytes overwritten": overwritten,
    "blocks moved": moved,
    "sizes enlarged": enlarged,
    "odd text": odd_text,
}
