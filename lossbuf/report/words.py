"""Numbers as the page writes them."""

from __future__ import annotations

import math

_MINUS, _SPACE = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


def count(value: int) -> str:
    """A whole number with separators.

    Example:
        >>> count(12345)
        '12,345'
    """
    return f"{value:,}"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, with a space that does not break.

    Example:
        >>> percent(0.1874).replace(chr(160), " ")
        '18.7 %'
    """
    return f"{100 * share:.{digits}f}{_SPACE}%"


def short(value: float) -> str:
    """A number to three digits, with a proper minus sign and no exponent where it can be helped.

    Example:
        >>> short(1234.6), short(0.000012), short(0.5)
        ('1,235', '1.2e-05', '0.5')
    """
    if not math.isfinite(value):
        return "none" if math.isnan(value) else "∞" if value > 0 else f"{_MINUS}∞"
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    return _MINUS + text[1:] if text.startswith("-") else text
