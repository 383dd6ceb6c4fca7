"""How many rows of each class a coreset is to have."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

from lossbuf import checks


def rows_asked(
    sizes: Sequence[int], *, ipc: int | None = None, size: int | float | None = None, balanced: bool = True
) -> list[int]:
    """Rows to choose from each class, be there so many or not.

    Exactly one of ``ipc`` and ``size`` is given. A share of several classes is taken from each of them, rounded half
    up, but one row at least. A count is spread evenly over them; what is left over goes to the first, a row each.

    Args:
        sizes: Rows of each class.
        ipc: Rows a class.
        size: Rows in all, an integer; or their share of all rows, a float in (0, 1].
        balanced: By class; where False there is one number, for all rows together.

    Returns:
        A number a class where ``balanced``, else one.

    Raises:
        ValueError: If both or neither are given, a number is below 1 or more than there are rows, or a count has not
            a row for each class.

    Example:
        >>> rows_asked([50, 30, 7], ipc=10), rows_asked([50, 30, 7], size=20), rows_asked([50, 30, 7], size=0.5)
        ([10, 10, 10], [7, 7, 6], [25, 15, 4])
    """
    total = sum(sizes)
    if (ipc is None) == (size is None):
        given = "neither" if ipc is None else f"ipc={ipc!r} and size={size!r}"
        raise ValueError(checks.problem("ipc", "or `size` must be given, and not both", given))
    if ipc is not None:
        if not balanced:
            raise ValueError(checks.problem("ipc", "must be None where `balanced` is False", repr(ipc), "Give `size`."))
        return [_count("ipc", ipc, total)] * len(sizes)
    groups = list(sizes) if balanced else [total]
    if isinstance(size, numbers.Real) and not isinstance(size, numbers.Integral):
        if not 0 < size <= 1:
            rule = "must be a share in (0, 1] where it is no integer"
            raise ValueError(checks.problem("size", rule, repr(size)))
        return [max(1, math.floor(float(size) * rows + 0.5)) for rows in groups]
    count = _count("size", size, total)
    if count < len(groups):
        advice = "Or choose over all rows, with `balanced=False`."
        raise ValueError(checks.problem("size", f"must be at least {len(groups)}, a row a class", count, advice))
    each, more = divmod(count, len(groups))
    return [each + (group < more) for group in range(len(groups))]


def _count(name: str, value: object, total: int) -> int:
    count = checks.positive_int(name, value)
    if count > total:
        raise ValueError(checks.problem(name, f"must be at most {total}, the number of rows", count))
    return count
