"""Numbers as people and spreadsheets write them: decimal commas, thousands separators, units, placeholders."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NEARLY_ALL = 0.9
"""A column of which at least this share of the texts are numbers is read as numbers."""

_PLACEHOLDERS = frozenset(
    ("", "-", "--", "---", ".", "..", "...", "/", "*", "?", "??", "na", "n/a", "n.a.", "#n/a", "nan", "null", "none",
     "nil", "nd", "n.d.", "missing", "unknown", "not available", "not applicable", "undefined", "k.a.", "k. a.", "<na>",
     "(null)", "(blank)", "blank", "empty", "tbd", "x")
)  # fmt: skip
_ERROR = re.compile(
    r"#(div/0!?|value!?|ref!?|num!?|name\??|null!?|n/a|spill!?|calc!?|wert!?|bezug!?|zahl!?|####*)", re.I
)
_SIGNS = str.maketrans(dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{EM DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}", "-"))
_QUOTES = str.maketrans(
    dict.fromkeys("\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}`\N{ACUTE ACCENT}", "'")
)
_CURRENCY = r"[$€£¥₹₽₩₺₿¢]|(?:USD|EUR|GBP|CHF|JPY|CNY|INR|Rs\.?|kr)"
_UNIT = r"%|‰|" + _CURRENCY + r"|°?[A-Za-zµμΩ°²³]{1,6}\.?(?:/[A-Za-zµ²³]{1,4}[²³0-9]?)?"
_SCALES = ("%", "‰")
_SPLIT = re.compile(
    rf"(?P<before>{_CURRENCY})?\s*(?P<number>[+-]?\s*[\d.,' ]*\d[.,]?(?:[eE][+-]?\d+)?)\s*(?P<after>{_UNIT})?"
)
_POINT = re.compile(r"[+-]?(?:\d{1,3}(?:[,' ]\d{3})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:[.' ]\d{3})+|\d+)?(?:,\d*)?(?:[eE][+-]?\d+)?")


class Numerals(NamedTuple):
    """What a column of texts is as numbers.

    Attributes:
        values: The numbers, NaN where there is none, shape ``(n_rows,)``.
        share: Share of the texts that are numbers, of those that are not placeholders of a missing value.
        example: A text that Python does not read as a number, and the number that it is; ``None`` where there is none.
        others: Texts that are not numbers, the most frequent first.
        placeholders: Texts that stand for a missing value, other than an empty one.
        ambiguous: The comma may be either a decimal comma or a thousands separator.
    """

    values: NDArray[np.float64]
    share: float
    example: tuple[str, float] | None
    others: tuple[str, ...]
    placeholders: tuple[str, ...]
    ambiguous: bool


def read_numerals(texts: Sequence[str], *, decimal_comma: bool = False) -> Numerals:
    """Read texts as numbers, all by one convention: a decimal point or a decimal comma, and at most one unit.

    Args:
        texts: Any.
        decimal_comma: What to take where all texts can be read either way.

    Example:
        >>> read_numerals(["5,1 cm", "1.234,5 cm", "-"]).values.tolist()
        [5.1, 1234.5, nan]
    """
    counts = Counter(texts)
    parts = {text: _split(text) for text in counts}
    placeholders = [text for text, part in parts.items() if part is None]
    units = _units(counts, parts)
    unit = units.most_common(1)[0][0] if units else ""
    # Beside 12%, a 0.12 may mean the same; beside 5 cm, a 5 can hardly mean anything else.
    allowed = (unit,) if unit in _SCALES else ("", unit)
    numbers = {text: part[0] for text, part in parts.items() if part and part[0] and part[1] in allowed}
    by_point = {text: value for text, digits in numbers.items() if (value := _value(digits, comma=False)) is not None}
    by_comma = {text: value for text, digits in numbers.items() if (value := _value(digits, comma=True)) is not None}
    rows = [sum(counts[text] for text in found) for found in (by_point, by_comma)]
    ambiguous = rows[0] == rows[1] and by_point != by_comma
    comma = rows[1] > rows[0] or (ambiguous and decimal_comma)
    found = by_comma if comma else by_point
    told = sum(count for text, count in counts.items() if parts[text] is not None)
    odd = next((text for text in found if not _is_plain(text)), None)
    return Numerals(
        np.array([found.get(text, np.nan) for text in texts], dtype=np.float64),
        max(rows) / told if told else 0.0,
        None if odd is None else (odd, found[odd]),
        tuple(text for text, _ in counts.most_common() if text not in found and parts[text] is not None),
        tuple(text for text in placeholders if text),
        ambiguous,
    )


def is_placeholder(text: str) -> bool:
    """True for a text that stands for a missing number, such as ``-``, ``n/a`` or ``#DIV/0!``."""
    return _split(text) is None


def _units(counts: Counter[str], parts: dict[str, tuple[str, str] | None]) -> Counter[str]:
    units: Counter[str] = Counter()
    for text, part in parts.items():
        if part and part[0] and part[1]:
            units[part[1]] += counts[text]
    return units


def _split(text: str) -> tuple[str, str] | None:
    """The digits and the unit of a text, two empty texts where it is not a number, ``None`` for a placeholder."""
    plain = " ".join(unicodedata.normalize("NFKC", text).translate(_SIGNS).translate(_QUOTES).split())
    if plain.casefold() in _PLACEHOLDERS or _ERROR.fullmatch(plain):
        return None
    negative = len(plain) > 2 and plain[0] == "(" and plain[-1] == ")"  # as accountants write it
    plain = plain[1:-1] if negative else plain
    sign = "-" if plain[:1] == "-" and not plain[1:2].isdigit() else ""  # -$5
    match = _SPLIT.fullmatch(plain[1:].lstrip() if sign else plain)
    if match is None:
        return "", ""
    digits = re.sub(r"^([+-])\s+", r"\1", match["number"].strip())
    if negative or sign:
        digits = "-" + digits.lstrip("+-")
    return digits, match["before"] or match["after"] or ""


def _value(digits: str, *, comma: bool) -> float | None:
    if not (_COMMA if comma else _POINT).fullmatch(digits):
        return None
    plain = re.sub("[.' ]" if comma else "[,' ]", "", digits)
    try:
        return float(plain.replace(",", "."))
    except ValueError:
        return None


def _is_plain(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
