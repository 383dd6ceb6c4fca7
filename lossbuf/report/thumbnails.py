"""Small encoded pictures for a page."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lossbuf import checks

if TYPE_CHECKING:
    from PIL.Image import Image

LOSSLESS = 32
"""Pictures whose sides are at most this stay exact; larger ones are compressed with some loss."""


def thumbnail(image: NDArray[np.uint8], *, size: int = 64) -> bytes:
    """Encode an image so that it takes little room in a page.

    A small image stays as it is, for the browser to enlarge with hard edges. A larger one is brought to ``size``.

    Args:
        image: Grey or RGB values, shape ``(channels, height, width)`` with 1 or 3 channels.
        size: Longest side of what comes out, in pixels, at least 1.

    Returns:
        PNG where both sides are at most :data:`LOSSLESS`, else WebP, or JPEG where Pillow has no WebP.

    Raises:
        ValueError: If the image has another shape or dtype or no pixels, or ``size`` is no positive integer.

    Example:
        >>> thumbnail(np.zeros((1, 8, 8), dtype=np.uint8))[1:4]
        b'PNG'
    """
    from PIL import Image, features

    checks.positive_int("size", size)
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        rule = "must have shape (channels, height, width) with 1 or 3 channels and pixels"
        raise ValueError(checks.problem("image", rule, f"shape {image.shape}"))
    if image.dtype != np.uint8:
        raise ValueError(checks.problem("image", "must be of dtype uint8", image.dtype))
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    longest = max(picture.size)
    if longest > size:
        width, height = (max(1, round(side * size / longest)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if max(picture.size) <= LOSSLESS:
        return _encoded(picture, "PNG", optimize=True)
    if features.check("webp"):
        return _encoded(picture, "WEBP", quality=80)
    return _encoded(picture, "JPEG", quality=85)


def _encoded(picture: Image, kind: str, *, quality: int = 80, optimize: bool = False) -> bytes:
    file = BytesIO()
    picture.save(file, kind, quality=quality, optimize=optimize)
    return file.getvalue()
