"""Figures of scores, purity, loss buffers and label noise, drawn with matplotlib.

Every function gives a :class:`matplotlib.figure.Figure`, which ``savefig`` writes and a notebook shows; nothing goes
through ``pyplot`` and its list of open figures. Colours are told apart by the colour-blind too, and lines that share a
colour differ in their dashes. Pictures of condensed sets are made by
:meth:`condensation.artifact.CondensedSet.figure`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.detection.verdict import Verdict
from lossbuf.recording.scores import suspicion_order

RIGHT, WRONG, CUT = "#0072B2", "#D55E00", "#000000"
COLOURS = (RIGHT, WRONG, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Colours that the colour-blind tell apart. Source: Okabe, Ito 2008, without yellow, which is pale on white."""

DASHES = ("-", "--", ":", "-.")
SHARES = np.linspace(0.05, 1.0, 96)
"""Shares of the rows kept at which the pure rate is drawn."""

_MOST_NAMES, _LONGEST, _ANNOTATED = 120, 24, 15


# ---- scores ----------------------------------------------------------------------------------------------------------


def score_histogram(verdict: Verdict, noise_mask: ArrayLike | None = None, *, bins: int = 60) -> Figure:
    """How many rows have which suspicion, and where the cut is.

    Args:
        verdict: Suspicion and cut.
        noise_mask: True for labels that are truly wrong, where that is known, shape ``(n_samples,)``; they are then
            drawn apart, else the suspects are.
        bins: Number of bars.

    Raises:
        ValueError: If there are no bars, or the mask does not fit.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    mask = verdict.suspect_mask if noise_mask is None else _mask(noise_mask, len(verdict.suspicion))
    names = ("kept", "suspects") if noise_mask is None else ("right label", "wrong label")
    draw_histogram(axes, verdict.suspicion, mask, names=names, bins=bins)
    suspects = int(verdict.suspect_mask.sum())
    if suspects:
        axes.axvline(verdict.cut.threshold, color=CUT, linestyle="--", linewidth=1, label=f"cut: {suspects} suspects")
    axes.set(xlabel=_unit(verdict), ylabel="rows", title="Suspicion of the labels")
    axes.legend(fontsize=8)
    return figure


def draw_histogram(
    axes: Axes,
    suspicion: ArrayLike,
    mask: ArrayLike,
    *,
    names: tuple[str, str] = ("right label", "wrong label"),
    bins: int = 60,
) -> None:
    """Two histograms over one another, counts on a logarithmic scale.

    Args:
        axes: Where to draw.
        suspicion: Shape ``(n_samples,)``; NaN is left out, the most suspect .5 % count into the last bar.
        mask: True for the rows of the second, shape ``(n_samples,)``.
        names: What the two are called.
        bins: Number of bars.
    """
    checks.positive_int("bins", bins)
    values = np.asarray(suspicion, dtype=np.float64)
    chosen, seen = _mask(mask, len(values)), ~np.isnan(values)
    low, high = np.percentile(values[seen], [0, 99.5]) if seen.any() else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-6 * max(abs(low), 1.0)), bins + 1)
    for name, colour, part in zip(names, (RIGHT, WRONG), (seen & ~chosen, seen & chosen), strict=True):
        shown = np.clip(values[part], edges[0], edges[-1])
        axes.hist(
            shown, bins=edges.tolist(), histtype="stepfilled", facecolor=f"{colour}80", edgecolor=colour, label=name
        )
    if seen.any():
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(bottom=0.5)


def score_curves(verdict: Verdict, noise_mask: ArrayLike | None = None) -> Figure:
    """Suspicion from the most to the least suspect row, the cut marked; where the truth is known the ROC curve too.

    Args:
        verdict: Suspicion and cut.
        noise_mask: True for labels that are truly wrong, shape ``(n_samples,)``.

    Raises:
        ValueError: If the mask does not fit, or has not both right and wrong labels.
    """
    size, seen = len(verdict.suspicion), ~np.isnan(verdict.suspicion)
    order = suspicion_order(verdict.suspicion, verdict.tie_break)[: int(seen.sum())]
    figure = Figure(figsize=(6.4 if noise_mask is None else 10.5, 4.0), layout="constrained")
    panels = np.ravel(np.asarray(figure.subplots(1, 1 if noise_mask is None else 2)))
    curve: Axes = panels[0]
    shares = np.arange(1, len(order) + 1) / max(len(order), 1)
    suspects = verdict.suspect_mask[order]
    curve.plot(shares, verdict.suspicion[order], color="0.6", linewidth=1)
    for name, colour, part in (("suspects", WRONG, suspects), ("kept", RIGHT, ~suspects)):
        curve.plot(shares[part], verdict.suspicion[order][part], ".", color=colour, markersize=3, label=name)
    if suspects.any():
        share = float(suspects.mean())
        curve.axvline(share, color=CUT, linestyle="--", linewidth=1, label=f"cut: {share:.1%} of the rows seen")
    curve.set(xlabel="share of the rows, most suspect first", ylabel=_unit(verdict), title="Suspicion by rank")
    curve.legend(fontsize=8, markerscale=3)
    if noise_mask is not None:
        _roc(panels[1], verdict, _mask(noise_mask, size), order)
    return figure


def _roc(axes: Axes, verdict: Verdict, noise_mask: NDArray[np.bool_], order: NDArray[np.int64]) -> None:
    wrong = noise_mask[order]
    if not 0 < int(wrong.sum()) < len(wrong):
        found = f"{int(wrong.sum())} wrong of {len(wrong)} rows seen"
        raise ValueError(checks.problem("noise_mask", "must have right labels and wrong ones", found))
    found = np.concatenate(([0.0], np.cumsum(wrong) / wrong.sum()))
    alarms = np.concatenate(([0.0], np.cumsum(~wrong) / (~wrong).sum()))
    axes.plot(alarms, found, color=RIGHT, label=f"area {np.trapezoid(found, alarms):.4f}")
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1, label="by chance")
    flagged = verdict.suspect_mask[order]
    here = (float(flagged[~wrong].mean()), float(flagged[wrong].mean()))
    axes.plot(*here, "o", color=CUT, label=f"cut: {here[1]:.1%} of the wrong, {here[0]:.1%} of the right")
    axes.set(
        xlabel="share of the right labels flagged",
        ylabel="share of the wrong labels found",
        title="Wrong labels found (ROC)",
        aspect="equal",
    )
    axes.legend(fontsize=8, loc="lower right")


# ---- purity ----------------------------------------------------------------------------------------------------------


def pure_rates(
    suspicion: ArrayLike, noise_mask: ArrayLike, *, tie_break: ArrayLike | None = None, shares: ArrayLike = SHARES
) -> NDArray[np.float64]:
    """Pure rate of the rows kept, for shares of them from the least suspect on; rows never seen (NaN) are kept first.

    Args:
        suspicion: Higher is more suspect, shape ``(n_samples,)``.
        noise_mask: True for labels that are truly wrong, shape ``(n_samples,)``.
        tie_break: Decides between equals, shape ``(n_samples,)``.
        shares: In (0, 1]; at least one row is kept.

    Raises:
        ValueError: If the mask does not fit.

    Example:
        >>> pure_rates([0.1, 0.9, 0.5, 0.2], [False, True, True, False], shares=[0.5, 0.75, 1.0]).round(2)
        array([1.  , 0.67, 0.5 ])
    """
    values = np.asarray(suspicion, dtype=np.float64)
    wrong = _mask(noise_mask, len(values))
    if not len(values):
        raise ValueError(checks.problem("suspicion", "must hold at least one row", "none"))
    order = suspicion_order(values, values if tie_break is None else tie_break)[::-1]
    pure = np.cumsum(~wrong[order]) / np.arange(1, len(order) + 1)
    kept = np.maximum(np.round(np.asarray(shares, dtype=np.float64) * len(order)).astype(np.int64), 1)
    return pure[kept - 1]


def pure_rate_curve(
    suspicion: ArrayLike | Mapping[str, ArrayLike],
    noise_mask: ArrayLike,
    *,
    tie_break: ArrayLike | None = None,
    kept_share: float | None = None,
) -> Figure:
    """Pure rate of the rows kept against the share kept, a line a ranking.

    Args:
        suspicion: Higher is more suspect, shape ``(n_samples,)``; or several by name.
        noise_mask: True for labels that are truly wrong, shape ``(n_samples,)``.
        tie_break: Decides between equals, shape ``(n_samples,)``.
        kept_share: Share of the rows that the cut keeps, marked: ``1 - verdict.suspect_mask.mean()``.

    Raises:
        ValueError: If the mask does not fit, or the share is not in [0, 1].
    """
    several: Mapping[str, Any] = suspicion if isinstance(suspicion, Mapping) else {"kept": suspicion}
    curves = {name: pure_rates(values, noise_mask, tie_break=tie_break) for name, values in several.items()}
    return draw_pure_rates(curves, kept_share=kept_share)


def draw_pure_rates(curves: Mapping[str, ArrayLike], *, kept_share: float | None = None) -> Figure:
    """The figure of :func:`pure_rate_curve` from pure rates at :data:`SHARES`, by name; means over seeds for one."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for place, (name, curve) in enumerate(curves.items()):
        turn, colour = divmod(place, len(COLOURS))
        dashes = DASHES[turn % len(DASHES)]
        axes.plot(SHARES, np.asarray(curve), dashes, color=COLOURS[colour], label=name, linewidth=1.4)
    if kept_share is not None:
        checks.rate("kept_share", kept_share)
        axes.axvline(kept_share, color=CUT, linestyle="--", linewidth=1, label=f"cut: {kept_share:.1%} kept")
    axes.set(xlabel="share of rows kept, least suspect first", ylabel="pure rate", title="Clean share of the kept rows")
    axes.margins(x=0.02)
    for text in axes.legend(fontsize=7, loc="best").get_texts():
        text.set_parse_math(False)
    return figure


# ---- loss buffers over time ------------------------------------------------------------------------------------------


class BufferHistory:
    """Keeps the class means of the label loss of every epoch, which the rings themselves forget.

    Call it after each epoch, or give it to :func:`~lossbuf.training.train` as ``after_epoch``; what it returns is a
    plain list, which a checkpoint holds. A run that was resumed has those from before in
    :attr:`~lossbuf.training.History.after_epoch`, which :func:`buffer_heat_map` takes as well.

    Args:
        callback: Whose rings to read.

    Example:
        >>> callback = LossBufferCallback([0, 1])
        >>> history = BufferHistory(callback)
        >>> callback.end_epoch()
        >>> history()
        [nan, nan]
    """

    def __init__(self, callback: LossBufferCallback) -> None:
        self.callback = callback
        self._means: list[list[float]] = []

    def __call__(self, network: object = None) -> list[float]:
        """Note the means as they are now; waits for the device.

        Args:
            network: Not looked at; it is what ``after_epoch`` is called with.

        Returns:
            Mean label loss of the ring of every class in nats, NaN where it is empty.
        """
        means: list[float] = self.callback.rings.class_means()[0].cpu().tolist()
        self._means.append(means)
        return means

    @property
    def label_loss(self) -> NDArray[np.float64]:
        """Mean label loss in nats, shape ``(epochs, num_classes)``."""
        return np.array(self._means, dtype=np.float64).reshape(-1, self.callback.num_classes)


def buffer_heat_map(history: BufferHistory | ArrayLike, class_names: Sequence[Hashable] | None = None) -> Figure:
    """Mean label loss in the rings, a row a given class and a column an epoch; grey where a ring is empty.

    Args:
        history: What was kept, or its values of shape ``(epochs, num_classes)``.
        class_names: A name a class; by default their numbers.

    Raises:
        ValueError: If there is no epoch, or the names are not as many as the classes.
    """
    means = history.label_loss if isinstance(history, BufferHistory) else np.asarray(history, dtype=np.float64)
    if means.ndim != 2 or not means.size:
        found = f"shape {means.shape}"
        raise ValueError(checks.problem("history", "must have shape (epochs, num_classes), at least one each", found))
    epochs, num_classes = means.shape
    names, cell = _names(class_names, num_classes), min(_cell_size(num_classes), 0.3)
    figure = Figure(figsize=(min(max(5.5, 2.5 + 0.25 * epochs), 16.0), _side(num_classes, cell)), layout="constrained")
    axes = figure.subplots()
    shades = colormaps["viridis"].with_extremes(bad="0.85")
    edges = (0.5, epochs + 0.5, num_classes - 0.5, -0.5)  # epochs count from 1, classes from 0 at the top
    shown = axes.imshow(means.T, cmap=shades, aspect="auto", interpolation="nearest", extent=edges)
    _class_ticks(axes, "y", names, cell)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="given class", title="Mean label loss in the loss buffers")
    _enlarged(axes, figure.colorbar(shown, ax=axes, label="mean label loss (nats)").ax)
    return figure


# ---- label noise -----------------------------------------------------------------------------------------------------


def transition_heat_map(transition: ArrayLike, class_names: Sequence[Hashable] | None = None) -> Figure:
    """P(given | true), a row a true class; shades go with the root of the share, so that small shares are seen too.

    Args:
        transition: Shape ``(num_classes, num_classes)``, rows sum to 1.
        class_names: A name a class; by default their numbers.

    Raises:
        ValueError: If it is no square matrix of shares, or the names are not as many as the classes.
    """
    matrix = np.asarray(transition, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        rule = "must have shape (num_classes, num_classes)"
        raise ValueError(checks.problem("transition", rule, f"shape {matrix.shape}"))
    if not ((matrix >= 0) & (matrix <= 1 + 1e-6)).all():
        found = f"{matrix.min()} to {matrix.max()}"
        raise ValueError(checks.problem("transition", "must hold shares in [0, 1]", found))
    num_classes = len(matrix)
    names, cell = _names(class_names, num_classes), _cell_size(num_classes)
    side = max(_side(num_classes, cell), 4.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(matrix, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    _class_ticks(axes, "x", names, cell)
    _class_ticks(axes, "y", names, cell)
    axes.set(xlabel="given class", ylabel="true class", title="How labels are given")
    if num_classes <= _ANNOTATED:
        for true, given in np.ndindex(matrix.shape):
            value = matrix[true, given]
            colour = "white" if value > 0.45 else "black"
            axes.text(given, true, f"{value:.2f}".lstrip("0") if value < 0.995 else "1", color=colour,
                      ha="center", va="center", fontsize=7)  # fmt: skip
    bar = figure.colorbar(shown, ax=axes, label="P(given | true)", shrink=0.85)
    bar.set_ticks([0, 0.01, 0.05, 0.2, 0.5, 1])
    _enlarged(axes, bar.ax)
    return figure


# ---- what they share -------------------------------------------------------------------------------------------------


def _unit(verdict: Verdict) -> str:
    by_posterior = verdict.transition is not None
    return "log-odds that the label is wrong" if by_posterior else "suspicion (higher is more suspect)"


def _mask(values: ArrayLike, size: int) -> NDArray[np.bool_]:
    mask = np.asarray(values)
    if mask.shape != (size,) or mask.dtype != np.bool_:
        found = f"{mask.dtype} of shape {mask.shape}"
        raise ValueError(checks.problem("noise_mask", f"must be {size} booleans, one a row", found))
    return mask


def _names(class_names: Sequence[Hashable] | None, num_classes: int) -> list[str]:
    names = [" ".join(str(name).split()) for name in (range(num_classes) if class_names is None else class_names)]
    if len(names) != num_classes:
        raise ValueError(checks.problem("class_names", f"must be {num_classes}, one a class", len(names)))
    half = _LONGEST // 2  # names that start alike, and numbers at the end, stay apart
    return [name if len(name) <= _LONGEST else f"{name[:half]}…{name[1 - half :]}" for name in names]


def _cell_size(num_classes: int) -> float:
    """Inches a class."""
    return min(max(12 / num_classes, 0.14), 0.5)


def _side(num_classes: int, cell: float) -> float:
    """Inches of a figure with a class a row."""
    return min(max(1.5 + cell * num_classes, 2.5), 24.0)


def _enlarged(*panels: Axes) -> None:
    """Titles and labels of a size that goes with the figure's."""
    for axes in panels:
        height = axes.figure.get_figure(root=True).get_size_inches()[1]  # pyright: ignore[reportOptionalMemberAccess]
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_fontsize(min(max(1.2 * height, 10), 20))


def _class_ticks(axes: Axes, side: str, names: list[str], cell: float) -> None:
    """Names of the classes, every so many where there are more than fit."""
    step = math.ceil(len(names) / _MOST_NAMES)
    size = min(max(50 * cell, 6), 9)
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_ticks(range(0, len(names), step), names[::step], fontsize=size, parse_math=False)
    if side == "x" and max(map(len, names)) > 2:
        axis.set_tick_params(rotation=90)
    axis.set_tick_params(length=2)
