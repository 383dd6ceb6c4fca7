"""``LabelledData``: samples, given labels and names, wherever they were read from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossbuf import checks
from lossbuf.arrays.content_hash import content_hash
from lossbuf.arrays.image_layout import Layout, as_bytes, value_range
from lossbuf.errors import InputError
from lossbuf.inputs.classes import Alike, merge_names


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How to read a source.

    Attributes:
        label: Column (of a table) or array (of an archive) of labels; by default a usual name.
        image: Column of paths to images; by default a usual name, and ``"none"`` for a table of features.
        row_id: Column or array of names of the rows; by default the paths of images, else row numbers.
        image_size: Height and width that images are brought to, in pixels; by default that of the images where all
            are alike and small, else at most 64.
        follow_links: Read what symbolic links out of the folder lead to.
        channels: ``"first"`` or ``"last"``: where the images of an archive have their channels; by default what
            :func:`~lossbuf.arrays.image_layout.channel_layout` says.
        alike: ``"merge"`` or ``"keep"``: what becomes of names of classes that look alike; by default what
            :func:`~lossbuf.inputs.classes.merged` says.

    Raises:
        ValueError: If a value is of another type, or ``image_size`` not at least 4.
    """

    label: str | None = None
    image: str | None = None
    row_id: str | None = None
    image_size: int | None = None
    follow_links: bool = False
    channels: Layout | None = None
    alike: Alike | None = None

    def __post_init__(self) -> None:
        for name in ("label", "image", "row_id"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(checks.problem(name, "must be a text or None", repr(getattr(self, name))))
        checks.flag("follow_links", self.follow_links)
        if self.channels is not None:
            checks.one_of("channels", self.channels, ("first", "last"))
        if self.alike is not None:
            checks.one_of("alike", self.alike, ("merge", "keep"))
        if self.image_size is not None and checks.positive_int("image_size", self.image_size) < 4:
            raise ValueError(checks.problem("image_size", "must be at least 4", self.image_size))


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledData:
    """Samples with their given labels.

    Attributes:
        x: Images, uint8 or float32, shape ``(n_samples, channels, height, width)``, or features, float32, shape
            ``(n_samples, n_features)``.
        labels: Number of each row's class in ``class_names``, int64, shape ``(n_samples,)``.
        class_names: All different.
        ids: A name a row, all different.
        skipped: What was left out, as (id, reason).
        notes: What a user should know of how it was read.
        files: Files outside the source that were read with it, such as the images that a table names.
    """

    x: NDArray[Any]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_images(self) -> bool:
        """True for images, False for features."""
        return self.x.ndim == 4

    @cached_property
    def value_range(self) -> tuple[float, float]:
        """The values of images that are shown as black and as white."""
        return value_range(self.x)

    def picture(self, row: int) -> NDArray[np.uint8]:
        """An image as bytes, shape ``(1 or 3, height, width)``: the first three channels, or the first one."""
        image = self.x[row, :3] if self.x.shape[1] >= 3 else self.x[row, :1]
        return as_bytes(image, self.value_range)

    def fingerprint(self) -> str:
        """The same for the same rows in the same order, as hexadecimal digits."""
        return content_hash(repr((self.x.shape, str(self.x.dtype), self.class_names, self.ids)), self.labels, self.x)


def labelled(
    x: NDArray[Any],
    names: Sequence[str],
    ids: Sequence[str],
    *,
    skipped: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    alike: Alike | None = None,
    where: str,
) -> LabelledData:
    """Put together what was read.

    Args:
        x: As in :class:`LabelledData`.
        names: Class name of every row.
        ids: Name of every row.
        skipped: As in :class:`LabelledData`.
        notes: As in :class:`LabelledData`.
        class_names: The order of the classes; those without a row are left out. By default sorted, numbers by value.
            Names that are given so are kept apart, however much they look alike.
        alike: As in :class:`ReadSettings`.
        where: The source, for messages.

    Raises:
        InputError: If fewer than two classes are left, classes have fewer than two rows on average, or an id comes
            twice.
    """
    names, ids = [_whole(name) for name in names], [_whole(name) for name in ids]
    if not names:
        first = f" The first of {len(skipped)} skipped: {skipped[0][0]}, {skipped[0][1]}." if skipped else ""
        raise InputError(f"{where} has no rows to read.{first}")
    class_names = None if class_names is None else [_whole(name) for name in class_names]
    names, told = merge_names(names, alike if class_names is None else alike or "keep")
    notes = [*notes, *told]
    counts = Counter(names)
    order = sorted(counts, key=_by_value) if class_names is None else [name for name in class_names if counts[name]]
    if len(order) < len(counts):
        other = next(name for name in counts if name not in order)
        raise InputError(f"{where} must name every class, got {other!r}, which is not among the names of the classes.")
    if len(order) < 2:
        raise InputError(f"{where} must have at least two classes, got one, {order[0]!r}: nothing can be mistaken.")
    if len(names) < 2 * len(order):
        rule = f"must have at least two rows a class on average, got {len(names)} rows of {len(order)} classes"
        raise InputError(f"{where} {rule}. Are the labels numbers to predict, or names of rows?")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(
            f"{where} must name every row once, got {twice[0]!r} more than once. Choose another column by `--id`."
        )
    number = {name: place for place, name in enumerate(order)}
    labels = np.array([number[name] for name in names], dtype=np.int64)
    if "-1" in counts and all(name.isdecimal() for name in counts if name != "-1"):
        text = "Class '-1' is taken for a class like any other: leave these rows out if it stands for no label."
        notes = [*notes, text]
    few = [name for name in order if counts[name] < 5]
    if few:
        shown = ", ".join(repr(name) for name in few[:5]) + (", ..." if len(few) > 5 else "")
        notes = [*notes, f"{len(few)} classes have fewer than 5 rows ({shown}): of those little can be told."]
    return LabelledData(
        x=x, labels=labels, class_names=tuple(order), ids=tuple(ids), skipped=tuple(skipped), notes=tuple(notes)
    )


def _whole(text: str) -> str:
    # Half a surrogate pair cannot be written to any file.
    return text.encode("utf-8", "backslashreplace").decode()


def _by_value(name: str) -> tuple[int, float, str]:
    try:
        value = float(name)
    except ValueError:
        return (1, 0.0, name)
    return (0, value, name) if value == value else (1, 0.0, name)
