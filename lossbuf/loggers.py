"""What a training tells TensorBoard, Weights & Biases or a logger of your own after every epoch.

Both libraries are extras, imported when their adapter is made. A logger is anything with :meth:`Logger.log`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lossbuf import checks
from lossbuf.callback import LossBufferCallback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CLASSES = 50
"""Classes up to which each has a value of its own."""


@runtime_checkable
class Logger(Protocol):
    """Takes note of named values."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Note values of one step, such as an epoch; a step comes once, and later ones have higher numbers."""
        ...


@runtime_checkable
class FigureLogger(Protocol):
    """A logger that shows figures too, as :class:`TensorBoardLogger` and :class:`WandbLogger` do."""

    def log_figure(self, name: str, figure: Figure, step: int) -> None:
        """Note a figure."""
        ...


class TensorBoardLogger:
    """Writes to TensorBoard.

    Args:
        writer: A folder, or a ``torch.utils.tensorboard.SummaryWriter`` of your own, which you close yourself.

    Raises:
        ImportError: If ``writer`` is a folder and TensorBoard is not installed.
        ValueError: If it is neither.
    """

    def __init__(self, writer: Any) -> None:
        self._own = isinstance(writer, str | os.PathLike)
        if self._own:
            try:
                from torch.utils.tensorboard.writer import SummaryWriter
            except ImportError as error:
                raise ImportError("`TensorBoardLogger` needs TensorBoard: pip install tensorboard") from error
            writer = SummaryWriter(os.fspath(writer))
        elif not hasattr(writer, "add_scalar"):
            raise ValueError(checks.problem("writer", "must be a folder or a SummaryWriter", type(writer).__name__))
        self.writer = writer

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Note values of one step."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def log_figure(self, name: str, figure: Figure, step: int) -> None:
        """Note a figure, as an image."""
        self.writer.add_image(name, _pixels(figure), step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Close the writer that was made here; one of your own stays open."""
        if self._own:
            self.writer.close()

    def __enter__(self) -> TensorBoardLogger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WandbLogger:
    """Writes to a run of Weights & Biases.

    Values carry their step as ``lossbuf/step``, which becomes the axis of all that start with ``lossbuf/``, whatever
    the run's own count of steps is, which each call moves on by one as every ``run.log`` does.

    Args:
        run: What ``wandb.init`` gave; you finish it yourself.

    Raises:
        ValueError: If it is no run.
    """

    STEP = "lossbuf/step"

    def __init__(self, run: Any) -> None:
        if not hasattr(run, "log") or not hasattr(run, "define_metric"):
            raise ValueError(checks.problem("run", "must be a run, as wandb.init gives it", type(run).__name__))
        self.run = run
        run.define_metric(self.STEP, hidden=True)
        run.define_metric("lossbuf/*", step_metric=self.STEP)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Note values of one step."""
        self.run.log({**values, self.STEP: step})

    def log_figure(self, name: str, figure: Figure, step: int) -> None:
        """Note a figure, as an image."""
        from wandb import Image

        self.run.log({name: Image(_pixels(figure)), self.STEP: step})


def epoch_values(
    callback: LossBufferCallback, *, prefix: str = "lossbuf/", max_classes: int = MAX_CLASSES
) -> dict[str, float]:
    """What is known at the end of an epoch; waits for the device, so not for a training step.

    Reads the whole verdict, which takes as long as :meth:`~lossbuf.callback.LossBufferCallback.verdict` does; its
    warnings are left to that.

    Args:
        callback: After its ``end_epoch``.
        prefix: In front of every name.
        max_classes: Classes up to which each has a value of its own, at least 1.

    Returns:
        ``noise_rate`` (estimated or given); ``suspects`` and ``suspect_share`` of the rows; ``dropped_share``, the
        share of weight that training leaves out from now on; the label loss in the rings, in nats, as
        ``label_loss/mean``, ``label_loss/max`` over classes and, where these are few, ``label_loss/class_3``; and
        ``rejected/...``, rows left out since the start by reason. Values that are not known yet are not there.

    Raises:
        ValueError: If ``max_classes`` is no positive integer.
    """
    checks.positive_int("max_classes", max_classes)
    verdict = callback.verdict(warn=False)
    suspects, means = verdict.suspect_mask, callback.rings.class_means()[0].cpu().numpy()
    values = {
        "noise_rate": verdict.noise_rate,
        "suspects": float(suspects.sum()),
        "suspect_share": float(suspects.mean()),
        "dropped_share": 1.0 - float(callback.sample_weights.double().mean()),
        **_class_values(means, max_classes),
        **{f"rejected/{reason}": float(count) for reason, count in callback.rejected().items()},
    }
    return {prefix + name: value for name, value in values.items() if math.isfinite(value)}


def _class_values(means: NDArray[np.float32], max_classes: int) -> dict[str, float]:
    known = means[~np.isnan(means)].astype(np.float64)
    values = {"label_loss/mean": float(known.mean()), "label_loss/max": float(known.max())} if len(known) else {}
    if len(means) <= max_classes:
        values |= {f"label_loss/class_{label}": float(mean) for label, mean in enumerate(means)}
    return values


def log_epoch(
    callback: LossBufferCallback,
    logger: Logger,
    *,
    prefix: str = "lossbuf/",
    max_classes: int = MAX_CLASSES,
) -> None:
    """Log :func:`epoch_values`, with the number of epochs ended as the step. Call it after ``callback.end_epoch()``.

    In a process group call it on one rank.

    Args:
        callback: What to log of.
        logger: Where to.
        prefix: In front of every name.
        max_classes: Classes up to which each has a value of its own.

    Raises:
        ValueError: If ``logger`` cannot log, or ``max_classes`` is no positive integer.

    Example:
        >>> class Printed:
        ...     def log(self, values, step):
        ...         print(step, values["lossbuf/suspects"])
        >>> callback = LossBufferCallback([0, 1])
        >>> callback.end_epoch()
        >>> log_epoch(callback, Printed())
        1 0.0
    """
    if not isinstance(logger, Logger):
        raise ValueError(checks.problem("logger", "must have a method `log(values, step)`", type(logger).__name__))
    logger.log(epoch_values(callback, prefix=prefix, max_classes=max_classes), callback.epoch)


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure in RGB, shape ``(height, width, 3)``; pyplot is not asked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
