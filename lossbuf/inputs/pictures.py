"""Pictures of any mode and size, brought to one array; those that cannot be read are listed."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 2**26
"""A picture with more is not decoded."""

_MANY_PIXELS = 2**22
"""Pictures with more are decoded one at a time: together they would take much memory."""

_ONE_AT_A_TIME = Lock()

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is damaged is told once, among the rows left out

LARGEST_SIDE = 64
"""Height and width that larger pictures are brought to, unless another size is asked for."""

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""Endings of files that are taken for pictures, in lower case."""


class Head(NamedTuple):
    """What is known of a picture before it is brought to its size.

    Attributes:
        height: In pixels, upright.
        width: In pixels, upright.
        brightest: Largest value, for pictures of more than a byte a channel; else 0.
    """

    height: int
    width: int
    brightest: float = 0.0


class Pictures(NamedTuple):
    """Pictures that could be read.

    Attributes:
        x: Uint8, shape ``(n_read, channels, height, width)``, one channel where all are grey, else red, green, blue.
        read: Which of the sources they are, ascending, shape ``(n_read,)``.
        skipped: (place among the sources, reason) of the others.
        note: How their size was changed; empty where it was not.
    """

    x: NDArray[np.uint8]
    read: NDArray[np.int64]
    skipped: list[tuple[int, str]]
    note: str


def read_pictures(sources: Sequence[Path | bytes], *, size: int | None = None, workers: int = 4) -> Pictures:
    """Read, turn upright, crop to a square where sizes differ, and bring to one size.

    Args:
        sources: Files, or the content of files.
        size: Height and width in pixels; by default those of the pictures where all are alike and at most
            :data:`LARGEST_SIDE`, else the median of the shorter sides, at most that.
        workers: Threads that decode.

    Returns:
        What could be read. A first frame stands for an animation; transparent parts turn white; pictures of more than a
        byte a channel run from black to the brightest value in any of them.
    """
    # Of damaged metadata, which does no harm. Not in the threads: filters belong to the process.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(workers) as pool:
        heads = list(_watched(pool.map(_head, sources), len(sources), "sizes of images"))
        known = [head for head in heads if isinstance(head, Head)]
        height, width, note = _target([(head.height, head.width) for head in known], size)
        brightest = max((head.brightest for head in known), default=0.0)
        decode = partial(_pixels, height=height, width=width, brightest=brightest)
        wanted = [place for place, head in enumerate(heads) if isinstance(head, Head)]
        x = np.empty((len(wanted), 3, height, width), np.uint8)
        skipped = [(place, head) for place, head in enumerate(heads) if isinstance(head, str)]
        read: list[int] = []
        found = pool.map(decode, (sources[place] for place in wanted))
        for place, pixels in zip(wanted, _watched(found, len(wanted), "reading images"), strict=True):
            if isinstance(pixels, str):
                skipped.append((place, pixels))
            else:
                x[len(read)] = pixels
                read.append(place)
    x = x[: len(read)]
    if all(_is_grey(part) for part in np.array_split(x, max(1, len(x) // 1024))):
        x = np.ascontiguousarray(x[:, :1])
    return Pictures(x, np.array(read, dtype=np.int64), sorted(skipped), note)


def _watched(values: Any, total: int, text: str) -> Any:
    return tqdm(values, total=total, desc=text, leave=False, disable=None, mininterval=0.5)


def _is_grey(x: NDArray[np.uint8]) -> bool:
    return bool((x[:, 0] == x[:, 1]).all() and (x[:, 0] == x[:, 2]).all())


def _target(shapes: list[tuple[int, int]], size: int | None) -> tuple[int, int, str]:
    """Height, width and what is to be said of them."""
    if not shapes:
        return size or 1, size or 1, ""
    alike = len(set(shapes)) == 1
    if size is None and alike and max(shapes[0]) <= LARGEST_SIDE and min(shapes[0]) >= 4:
        return *shapes[0], ""
    if size is None:
        size = int(np.clip(np.median([min(shape) for shape in shapes]), 4, LARGEST_SIDE))
    if alike and shapes[0] == (size, size):
        return size, size, ""
    return (
        size,
        size,
        f"Images were cropped to squares and brought to {size}x{size} pixels (`image_size` sets another).",
    )


def _opened(source: Path | bytes) -> Image.Image:
    from PIL import Image

    if isinstance(source, Path) and not source.is_file():  # a pipe would be waited for
        raise FileNotFoundError
    return Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=_formats())


@cache
def _formats() -> list[str]:
    """The formats that Pillow decodes itself; for some others it would start a program, or has only the head."""
    from PIL import Image

    Image.init()
    return [name for name in Image.ID if name not in ("EPS", "WMF", "HDF5", "GRIB", "BUFR", "MPEG")]


def _guarded(routine: Any, source: Path | bytes) -> Any:
    """What the routine gives, or in words why it does not; a damaged file may raise almost anything."""
    try:
        return routine(source)
    except FileNotFoundError:
        return "no such file"
    except PermissionError:
        return "not allowed to read it"
    except MemoryError:
        return "too large for the memory"
    except Exception as error:
        if type(error).__name__ == "DecompressionBombError":
            return f"more than {MOST_PIXELS:,} pixels"
        return "no image, or a damaged one"


def has_picture(content: bytes) -> bool:
    """True where Pillow takes the content of a file for an image; the pixels are not decoded."""
    return not isinstance(_guarded(_size, content), str)


def is_picture(path: Path) -> bool:
    """True where Pillow takes a file for an image; the pixels are not decoded."""
    return not isinstance(_guarded(_size, path), str)


def are_pictures(paths: Sequence[Path], *, workers: int = 4) -> list[bool]:
    """:func:`is_picture` of many files."""
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(workers) as pool:
        return list(_watched(pool.map(is_picture, paths), len(paths), "looking for images"))


def _size(source: Path | bytes) -> tuple[int, int]:
    with _opened(source) as picture:
        return picture.size


def _is_wide(picture: Image.Image) -> bool:
    return picture.mode.startswith("I;16") or picture.mode in ("I", "F")


def _head(source: Path | bytes) -> Head | str:
    """What the file's head tells, or why nothing; wide pictures are decoded for their brightest value."""

    def routine(source: Path | bytes) -> Head | str:
        with _opened(source) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                return f"more than {MOST_PIXELS:,} pixels"
            turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            with _turn(picture):
                brightest = _brightest(picture) if _is_wide(picture) else 0.0
            return Head(width, height, brightest) if turned else Head(height, width, brightest)

    return _guarded(routine, source)


def _pixels(source: Path | bytes, *, height: int, width: int, brightest: float) -> NDArray[np.uint8] | str:
    """Pixels of shape ``(3, height, width)``, or why there are none."""

    def routine(source: Path | bytes) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        with _opened(source) as picture, _turn(picture):
            picture.draft("RGB", (2 * width, 2 * height))  # a JPEG is decoded smaller, and faster
            ImageOps.exif_transpose(picture, in_place=True)
            upright = _in_colour(picture, brightest)
            if upright.size != (width, height):
                upright = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
            return np.asarray(upright, dtype=np.uint8).transpose(2, 0, 1)

    return _guarded(routine, source)


def _in_colour(picture: Image.Image, brightest: float) -> Image.Image:
    from PIL import Image

    if _is_wide(picture):
        values = np.asarray(picture)
        grey = np.empty(values.shape, np.uint8)
        for rows in _blocks(values):
            part = np.nan_to_num(values[rows].astype(np.float64)) / (brightest or 1.0)
            grey[rows] = (part.clip(0, 1) * 255).round()
        picture = Image.fromarray(grey)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        over = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        picture = Image.new("RGB", over.size, "white")
        picture.paste(over, mask=over)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _brightest(picture: Image.Image) -> float:
    values = np.asarray(picture)
    return max(float(np.nan_to_num(values[rows].astype(np.float64)).max()) for rows in _blocks(values))


def _blocks(values: NDArray[Any]) -> list[slice]:
    """Rows to be looked at together, so that numbers of eight bytes take little memory."""
    step = max(1, _MANY_PIXELS // values.shape[1])
    return [slice(start, start + step) for start in range(0, len(values), step)]


def _turn(picture: Image.Image) -> AbstractContextManager[object]:
    return _ONE_AT_A_TIME if picture.width * picture.height > _MANY_PIXELS else nullcontext()
