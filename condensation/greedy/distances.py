"""Distances between all rows of a feature matrix, a block at a time, in bounded memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int32, Int64, Num
from torch import Tensor

from lossbuf import checks
from lossbuf.errors import LossBufferWarning

Metric = Literal["euclidean", "cosine"]

LEVELS = 2**22 - 1
"""Distances are whole numbers up to this, so that a sum of :data:`ROWS` of them fits an ``int32``."""

ROWS = 512
"""Rows of a block, at most."""

_CENTRE_ROWS = 1024

_COARSE = 2**6
"""Levels between the centre and the median row, below which the levels are told to be coarse."""


class Centred(NamedTuple):
    """Rows moved and scaled so that products of them lose no more precision than they must.

    Attributes:
        x: ``(original - centre) / unit``, shape ``(n_samples, num_features)``, float32, or float64 where the rows
            came as float64, int32 or int64.
        unit: A power of two; distances between rows of ``x`` are to be multiplied by it.
    """

    x: Tensor
    unit: float


def centred(x: Num[Tensor, "n_samples num_features"], *, unit_length: bool = False) -> Centred:
    """Check features, and bring them near the origin.

    The centre is the median of each feature, over at most 1,024 rows: a value that occurs in the data, so that whole
    numbers stay whole, and one that outliers do not drag along.

    Args:
        x: Features, shape ``(n_samples, num_features)``; any real dtype, not changed.
        unit_length: Divide each row by its length first.

    Raises:
        ValueError: If ``x`` is not two-dimensional, has no rows or no features, is complex, or holds values that are
            not finite or too far apart for their dtype; with ``unit_length`` if a row is all zeros.

    Example:
        >>> centred(torch.tensor([[1000, 7], [1001, 7], [1004, 7]])).x * 4
        tensor([[-1.,  0.],
                [ 0.,  0.],
                [ 3.,  0.]], dtype=torch.float64)
    """
    check_shape(x)
    if x.is_complex():
        raise ValueError(checks.problem("x", "must be real", f"dtype {x.dtype}"))
    wide = x.dtype in (torch.float64, torch.int32, torch.int64)
    x = x.detach().to(torch.float64 if wide else torch.float32)
    if unit_length:
        lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64).to(x.dtype)
        if not bool((lengths > 0).all()):
            row = int((~(lengths > 0)).flatten().nonzero()[0])
            advice = "A row of zeros has no direction and NaN no meaning."
            raise ValueError(checks.problem("x", "must have rows of a length above 0", f"none at row {row}", advice))
        x = x / lengths
    moved = x - x[:: -(-len(x) // _CENTRE_ROWS)].median(dim=0).values
    low, high = (float(end) for end in torch.aminmax(moved))
    largest = max(-low, high)
    if not math.isfinite(largest):
        raise ValueError(checks.problem("x", "must be finite", "NaN, infinite or too distant values"))
    unit = 2.0 ** max(math.frexp(largest)[1], -100) if largest else 1.0
    return Centred(moved.div_(unit), unit)


def check_shape(x: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is two-dimensional and not empty."""
    if x.ndim != 2 or not x.numel():
        rule = "must have shape (n_samples, num_features), both at least 1"
        raise ValueError(checks.problem("x", rule, f"shape {tuple(x.shape)}"))


class Block(NamedTuple):
    """Distances of a run of rows to a run of columns on or right of the diagonal.

    Attributes:
        rows: The rows.
        columns: The columns.
        beyond: How many of the first columns are rows of this block too, so that both orders of the pair are in it.
        distances: Shape ``(rows, columns)``.
    """

    rows: slice
    columns: slice
    beyond: int
    distances: Tensor


class Distances:
    """All distances between rows, as whole multiples of a quantum.

    The quantum is at most 1e-6 times the largest distance to the centre. Whole numbers add up to the same sum in every
    order, so that what is equal compares as equal whatever the block, the device and the thread; the distance of
    equal rows is 0, and whole-number features tie where they should. Products are taken in float64. The whole matrix is
    kept where it fits the memory allowed, and else worked out again when it is asked for.

    Args:
        x: Features, shape ``(n_samples, num_features)``.
        metric: ``"euclidean"``, or ``"cosine"`` for 1 - cosine.
        memory: Bytes to use beside a copy of ``x``; no less than about 32 MiB are used.

    Attributes:
        quantum: What one level stands for, in the units of ``x``.
        farthest: The largest distance, in levels.
        totals: Sum of the distances of each row, in levels, shape ``(n_samples,)``, int64.

    Raises:
        ValueError: As :func:`centred`, and if ``metric`` is unknown or ``memory`` no positive integer.

    Warns:
        LossBufferWarning: If one row is so far out that the distances of the others are rounded to a few levels.
    """

    def __init__(
        self, x: Num[Tensor, "n_samples num_features"], *, metric: Metric = "euclidean", memory: int = 2**30
    ) -> None:
        checks.one_of("metric", metric, ("euclidean", "cosine"))
        checks.positive_int("memory", memory)
        self._rooted = metric == "euclidean"
        self._x, unit = centred(x, unit_length=not self._rooted)
        size, features = self._x.shape
        if 8 * size * features <= memory // 8:
            self._x = self._x.double()
        self._norms = torch.cat([squared_norms(part.double()) for part in self._x.split(ROWS)])
        largest = 2 * math.sqrt(float(self._norms.max()))  # no two rows are farther apart
        largest, unit = (largest, unit) if self._rooted else (largest**2 / 2, unit**2)
        # A power of two: what is a whole number in x stays one, and sums of such distances tie where they should.
        self._scale = 2.0 ** math.floor(math.log2(LEVELS / largest)) if largest else 1.0
        self.quantum = unit / self._scale
        if self._rooted:
            _warn_where_coarse(self._norms.sqrt() * self._scale)
        kept = 4 * size**2 <= memory // 4 * 3
        self._matrix: Tensor | None = None
        self._width = min(max(memory // 8 // (32 * ROWS), ROWS), 4096)
        self.totals = torch.zeros(size, dtype=torch.int64, device=x.device)
        self.farthest = 0
        matrix = torch.empty(size, size, dtype=torch.int32, device=x.device) if kept else None
        for block in self.blocks():
            if matrix is not None:
                matrix[block.rows, block.columns] = block.distances
                matrix[block.columns, block.rows] = block.distances.t()
            add_up(self.totals, block, block.distances, block.distances)
            self.farthest = max(self.farthest, int(block.distances.max()))
        self._matrix = matrix

    def __len__(self) -> int:
        return len(self._norms)

    @property
    def kept(self) -> bool:
        """Whether the whole matrix is held, so that a row of it costs nothing."""
        return self._matrix is not None

    def blocks(self) -> Iterator[Block]:
        """The matrix on and right of its diagonal, block by block."""
        size = len(self)
        for start in range(0, size, ROWS):
            rows = slice(start, min(start + ROWS, size))
            for left in range(start, size, self._width):
                columns = slice(left, min(left + self._width, size))
                yield Block(rows, columns, max(0, rows.stop - left), self._between(rows, columns))

    def strips(self, rows: Int64[Tensor, " rows"]) -> Iterator[tuple[slice, Int32[Tensor, "rows columns"]]]:
        """Distances of given rows to all others, a run of columns at a time; tensors that may be written to."""
        size = len(self)
        width = size if self.kept else self._width
        for left in range(0, size, width):
            columns = slice(left, min(left + width, size))
            yield columns, self._between(rows, columns)

    def row(self, row: int) -> Int32[Tensor, " n_samples"]:
        """Distances of one row to all."""
        if self._matrix is not None:
            return self._matrix[row]
        index = torch.tensor([row], device=self._norms.device)
        return torch.cat([distances[0] for _, distances in self.strips(index)])

    def _between(self, rows: slice | Tensor, columns: slice) -> Tensor:
        if self._matrix is not None:
            return self._matrix[rows, columns] if isinstance(rows, slice) else self._matrix[:, columns][rows]
        squares = torch.addmm(
            self._norms[columns], self._x[rows].double(), self._x[columns].double().t(), alpha=-2
        ).add_(self._norms[rows].unsqueeze(1))
        far = squares.clamp_(min=0).sqrt_() if self._rooted else squares.clamp_(min=0).div_(2)
        return far.mul_(self._scale).round_().to(torch.int32)


def _warn_where_coarse(lengths: Tensor) -> None:
    """Warn where most rows are but a few levels from the centre, because another is so far."""
    away = lengths[lengths > 0]
    if len(away) and float(away.median()) < _COARSE:
        warnings.warn(
            f"Row {int(lengths.argmax())} is so much farther out than the others that their distances are rounded "
            "coarsely, and the choice among them is nearly arbitrary. Is its value a mistake? Leave it out, or scale "
            "the features.",
            LossBufferWarning,
            stacklevel=4,
        )


def add_up(
    total: Int64[Tensor, " n_samples"], block: Block, by_row: Int32[Tensor, "r c"], by_column: Int32[Tensor, "r c"]
) -> None:
    """Add to ``total`` what a block holds for its rows and, by symmetry, for its columns.

    Args:
        total: One a row of the data; changed in place.
        block: The block.
        by_row: Values to be added to the rows of the block, shape of its distances.
        by_column: Values to be added to its columns, shape of its distances.
    """
    total[block.rows] += row_sums(by_row)
    total[block.columns][block.beyond :] += by_column[:, block.beyond :].sum(0, dtype=torch.int32)


def row_sums(values: Int32[Tensor, "rows columns"]) -> Int64[Tensor, " rows"]:
    """Sums over the columns of values up to :data:`LEVELS`; in runs, since a sum in int32 is many times faster."""
    whole = values.shape[1] // ROWS * ROWS
    runs = values[:, :whole].unflatten(1, (-1, ROWS)).sum(2, dtype=torch.int32) if whole else values[:, :0]
    return runs.sum(1) + values[:, whole:].sum(1, dtype=torch.int32)


class ToChosen:
    """Euclidean distances of all rows to the nearest of chosen ones, one matrix-vector product a choice.

    What a product may be off by is bounded; where that leaves a doubt which row is farthest, distances are taken
    again by differences in float64.

    Args:
        x: Features near the origin, as of :func:`centred`, shape ``(n_samples, num_features)``.

    Attributes:
        chosen: The rows added, in their order.
        nearest: Position in ``chosen`` of the row nearest to each row in the precision of ``x``, of equals the
            first, shape ``(n_samples,)``, int64.
    """

    def __init__(self, x: Float[Tensor, "n_samples num_features"]) -> None:
        self.chosen: list[int] = []
        self._x, self._norms, self._rounding = x, squared_norms(x), rounding(x)
        # Squared distances as products give them, and bounds of the true ones.
        self._near = torch.full_like(self._norms, torch.inf)
        self._low, self._high = self._near.clone(), self._near.clone()
        self.nearest = torch.zeros_like(self._norms, dtype=torch.int64)
        # Distances by differences, and how many of the chosen rows are in them.
        self._exact = torch.full_like(self._norms, torch.inf, dtype=torch.float64)
        self._upto = torch.zeros_like(self.nearest)

    def add(self, row: int) -> None:
        """Choose a row."""
        squares = torch.addmv(self._norms, self._x, self._x[row], alpha=-2).add_(self._norms[row])
        doubt = (self._norms + self._norms[row]).mul_(self._rounding)
        self.nearest.masked_fill_(squares < self._near, len(self.chosen))
        torch.minimum(self._near, squares, out=self._near)
        torch.minimum(self._high, squares + doubt, out=self._high)
        torch.minimum(self._low, squares.sub_(doubt), out=self._low)
        self._low[row] = self._high[row] = -torch.inf
        self.chosen.append(row)

    def farthest(self) -> tuple[int, float]:
        """The lowest row farthest from those chosen, of those not chosen, and its distance."""
        candidates = (self._high >= self._low.max()).nonzero().flatten()
        exact = self._by_differences(candidates)
        return int(candidates[exact.argmax()]), float(exact.max())

    def exact(self, row: int) -> float:
        """Distance of a row that is not chosen to the nearest one that is, infinite where none is."""
        return float(self._by_differences(torch.tensor([row], device=self._x.device)))

    def _by_differences(self, rows: Tensor) -> Tensor:
        due = rows[(self._upto[rows] < len(self.chosen)) & (self._exact[rows] > 0)]
        if len(due):
            others = self._x[self.chosen[int(self._upto[due].min()) :]].double()
            for part in due.split(ROWS):
                far = torch.cdist(self._x[part].double(), others, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
                self._exact[part] = far = torch.minimum(self._exact[part], far)
                self._upto[part] = len(self.chosen)
                # Wide enough for the dtype of the bounds.
                self._low[part] = (far.square() * (1 - self._rounding)).to(self._low.dtype)
                self._high[part] = (far.square() * (1 + self._rounding)).to(self._high.dtype)
        return self._exact[rows]


def squared_norms(x: Float[Tensor, "n_samples num_features"]) -> Float[Tensor, " n_samples"]:
    """Squared length of each row, summed in float64, in the dtype of ``x``."""
    return torch.cat([part.double().square().sum(1) for part in x.split(ROWS)]).to(x.dtype)


def rounding(x: Float[Tensor, "n_samples num_features"]) -> float:
    """What abs(a)^2 - 2ab + abs(b)^2 may be off by for rows a and b, as a share of abs(a)^2 + abs(b)^2."""
    return (math.sqrt(x.shape[1]) + 8) * torch.finfo(x.dtype).eps
