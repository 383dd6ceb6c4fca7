"""Label noise by counting and by walking along a row of the matrix."""

import math
from collections import Counter
from collections.abc import Sequence


def realised(true_labels: Sequence[int], labels: Sequence[int], num_classes: int) -> list[list[float]]:
    """P(given | true) by counting pairs; the identity's row for a class without samples."""
    pairs = Counter(zip(true_labels, labels, strict=True))
    rows = []
    for true in range(num_classes):
        counts = [pairs[true, given] for given in range(num_classes)]
        total = sum(counts)
        rows.append([n / total for n in counts] if total else [float(given == true) for given in range(num_classes)])
    return rows


def drawn(row: Sequence[float], draw: float) -> int:
    """The class on which a draw in [0, 1) lands, where the classes lie side by side with their shares as widths."""
    for label in range(len(row)):
        if draw < math.fsum(row[: label + 1]):
            return label
    return max(label for label, share in enumerate(row) if share > 0)


def bounds(rate: float, size: int, deviations: float = 5.0) -> tuple[float, float]:
    """Shares between which a count of ``size`` tries at ``rate`` lies, but for one time in a million."""
    reach = deviations * math.sqrt(rate * (1 - rate) / size)
    return rate - reach, rate + reach
