"""Names of classes that are one class to a reader: found, and merged or kept apart, never without a note."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple

Alike = Literal["merge", "keep"]

_TRUTH = {"true": "1", "false": "0"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


class Merged(NamedTuple):
    """Names of classes after those that are alike were looked at.

    Attributes:
        names: For every name that is to be replaced, the name to replace it by.
        notes: What a user should know, one a group of names that are alike.
    """

    names: dict[str, str]
    notes: list[str]


def merged(counts: Mapping[str, int], alike: Alike | None = None) -> Merged:
    """Look for names that differ only in ways that a reader does not see or does not mind.

    By default names are merged, into the most frequent one that is written cleanly, if they are equal but for invisible
    characters, spaces, the way in which an accent is encoded, case, or as numbers or truth values. Names of one
    character that differ in case, as of letters to be told apart, and numbers that differ in leading zeros, as codes
    do, are kept apart.

    Args:
        counts: Rows of every name.
        alike: ``"merge"`` merges all names that are alike, ``"keep"`` keeps all apart.

    Example:
        >>> merged({"Dog": 9, "dog": 3, "cat": 8}).names
        {'dog': 'Dog'}
    """
    truth = {_loose(name) for name in counts} <= {*_TRUTH, "0", "1"}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        groups[_key(name, truth)].append(name)
    names: dict[str, str] = {}
    notes: list[str] = []
    for group in groups.values():
        if len(group) < 2:
            continue
        kept_apart = alike == "keep" or (alike is None and not _safe(group))
        shown = " and ".join(f"{_shown(name)} ({counts[name]:,} rows)" for name in group)
        if kept_apart:
            notes.append(f"Classes {shown} look alike and are kept apart (`--alike merge` merges them).")
        else:
            clean = next((name for name in group if name == _strict(name)), _strict(group[0]))
            names.update((name, clean) for name in group if name != clean)
            notes.append(
                f"Classes {shown} look alike and are read as one, {clean!r} (`--alike keep` keeps them apart)."
            )
    return Merged(names, notes)


def merge_names(names: Sequence[str], alike: Alike | None) -> tuple[list[str], list[str]]:
    """Names of the classes of all rows, merged, and the notes."""
    found = merged(Counter(names), alike)
    return [found.names.get(name, name) for name in names], found.notes


def _key(name: str, truth: bool) -> str:
    """The same for names that are one class to a reader."""
    loose = _loose(name)
    if truth and loose in _TRUTH:
        return _TRUTH[loose]
    number = _number(loose)
    return loose if number is None else number


def _loose(name: str) -> str:
    """A name without case, spaces, and characters that are not seen."""
    plain = unicodedata.normalize("NFKC", _visible(name)).casefold()
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", plain)) or name


def _visible(name: str) -> str:
    return "".join(
        character
        for character in name
        if unicodedata.category(character) not in ("Cf", "Cc") or character.isspace()
        if not "\ufe00" <= character <= "\ufe0f"  # what only says how the character before is drawn
    )


def _strict(name: str) -> str:
    """A name in composed form, without invisible characters, and with single spaces."""
    return " ".join(unicodedata.normalize("NFC", _visible(name)).split())


def _number(text: str) -> str | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        value = Decimal(text).normalize()
    except InvalidOperation:
        return None
    return str(value + 0)


def _safe(group: list[str]) -> bool:
    """True where nobody would use these names for different classes."""
    if len({_strict(name) for name in group}) == 1:
        return True
    loose = [_loose(name) for name in group]
    if any(_NUMBER.fullmatch(name) and re.match(r"[+-]?0\d", name) for name in loose):
        return False
    return all(len(name) > 1 for name in loose) or any(_NUMBER.fullmatch(name) for name in loose)


def _shown(name: str) -> str:
    """A name in quotes, with escapes for what is not seen or drawn alike."""
    plain = name.isascii() or (_visible(name) == name and unicodedata.normalize("NFC", name) == name)
    return repr(name) if plain and not re.search(r"[^\S ]", name) else ascii(name)
