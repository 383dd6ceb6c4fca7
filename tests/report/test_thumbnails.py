"""Tests of lossbuf.report.thumbnails."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lossbuf.report import thumbnail
from lossbuf.report.thumbnails import LOSSLESS


def opened(data):
    return Image.open(BytesIO(data))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", [(1, 1), (8, 8), (28, 20), (LOSSLESS, LOSSLESS)])
def test_small_images_stay_exact(channels, sides):
    image = noise(channels, *sides)
    found = opened(thumbnail(image))
    assert found.format == "PNG"
    pixels = np.asarray(found)
    assert np.array_equal(pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("sides", "size", "found"), [
    ((300, 200), 64, (43, 64)),
    ((200, 300), 64, (64, 43)),
    ((64, 64), 64, (64, 64)),
    ((5, 4000), 64, (64, 1)),
    ((50, 40), 96, (40, 50)),
])  # fmt: skip
def test_large_images_are_brought_to_size(channels, sides, size, found):
    picture = opened(thumbnail(noise(channels, *sides), size=size))
    assert picture.size == found
    assert picture.format == "WEBP"


def test_a_large_image_looks_the_same():
    ramp = np.linspace(0, 255, 320).astype(np.uint8)
    image = np.stack([np.tile(ramp, (320, 1)), np.tile(ramp[:, None], (1, 320)), np.full((320, 320), 128, np.uint8)])
    pixels = np.asarray(opened(thumbnail(image, size=64)).convert("RGB")).astype(float)
    expected = np.moveaxis(image.reshape(3, 64, 5, 64, 5).mean((2, 4)), 0, -1)
    assert np.abs(pixels - expected).mean() < 4


def test_jpeg_where_there_is_no_webp(monkeypatch):
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    assert opened(thumbnail(noise(3, 100, 100))).format == "JPEG"


def test_thumbnail_takes_little_room():
    photo = np.cumsum(noise(3, 256, 256) % 3, axis=2).clip(0, 255).astype(np.uint8)
    assert len(thumbnail(photo)) < 3000


@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8), (4, 8, 8), (8, 8, 3), (1, 0, 8), (1, 3, 8, 8)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match=r"`image` must have shape \(channels, height, width\)"):
        thumbnail(np.zeros(shape, dtype=np.uint8))


def test_other_values(no_shape_checks):
    with pytest.raises(ValueError, match=r"`image` must be of dtype uint8, got float64\."):
        thumbnail(np.zeros((1, 8, 8)))
    with pytest.raises(ValueError, match=r"`size` must be an integer of at least 1, got 0\."):
        thumbnail(np.zeros((1, 8, 8), dtype=np.uint8), size=0)
