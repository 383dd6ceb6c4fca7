"""What Pillow can open is an image, whatever its ending; everything else is listed by name with its reason."""

import json
import os

import numpy as np
import pytest
from PIL import Image, features
from typer.testing import CliRunner

from lossbuf.cli.commands import app
from lossbuf.inputs import read_labelled


@pytest.fixture
def root(tmp_path):
    for place, name in enumerate(("cat", "dog")):
        (tmp_path / "in" / name).mkdir(parents=True)
        for row in range(6):
            Image.new("L", (8, 8), 90 * place + row).save(tmp_path / "in" / name / f"{row}.png")
    return tmp_path / "in"


def has(kind):
    return {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000"}.get(kind) is None or features.check(
        {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000"}[kind]
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", "JPEG"),
        ("a.jfif", "JPEG"),
        ("a.jpe", "JPEG"),
        ("a.jif", "JPEG"),
        ("a", "PNG"),
        ("a.png.part", "PNG"),
        ("a.jpg!d", "JPEG"),
        ("a.jpg_large", "JPEG"),
        ("a.jpg?w=1", "JPEG"),
        ("a.1", "GIF"),
        ("a.tga", "TGA"),
        ("a.ico", "ICO"),
        ("a.pcx", "PCX"),
        ("a.sgi", "SGI"),
        ("a.dds", "DDS"),
        ("a.j2k", "JPEG2000"),
        ("a.jpx", "JPEG2000"),
        ("a.apng", "PNG"),
        ("a.dib", "DIB"),
        ("a.webp", "WEBP"),
        ("a.txt", "BMP"),
        ("a.csv", "TIFF"),
        ("a.pfm", "PPM"),
        ("a.icns", "ICNS"),
    ],
)
def test_images_of_every_ending_are_read(root, name, kind):
    if not has(kind):
        pytest.skip(f"Pillow without {kind}")
    mode = "RGB" if kind in ("DDS", "SGI") else "RGBA" if kind == "ICNS" else "L"
    size = (16, 16) if kind in ("ICO", "ICNS") else (8, 8)
    Image.new(mode, size, 200 if mode == "L" else (200, 200, 200, 255)[: len(mode)]).save(root / "dog" / name, kind)
    data = read_labelled(root)
    assert f"dog/{name}" in data.ids
    assert not data.skipped


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.txt", b"text", "not an image"),
        ("a.npy", b"\x93NUMPY\x01\x00", "not an image"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        ("a.heic", b"\x00\x00\x00\x18ftypheic", "not an image"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image"),
        ("a.pdf", b"%PDF-1.4", "not an image"),
        ("a.zip", b"PK\x03\x04", "not an image"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0", "not an image"),
        ("empty", b"", "not an image"),
        ("a.png", b"half", "no image, or a damaged one"),
        (".DS_Store", b"x", "hidden"),
        ("._0.png", b"x", "hidden"),
        ("pipe", None, "not a regular file"),
    ],
)
def test_what_is_passed_over_is_listed_with_its_reason(root, tmp_path, name, content, reason):
    path = root / "dog" / name
    os.mkfifo(path) if content is None else path.write_bytes(content)
    data = read_labelled(root)
    assert data.skipped == ((f"dog/{name}", reason),)
    ended = CliRunner().invoke(
        app, ["scan", str(root), "--out", str(tmp_path / "out"), "--epochs", "1", "--device", "cpu"]
    )
    assert ended.exit_code == 0, ended.output
    assert ended.stderr.startswith(f"12 images of 2 classes in {root}, 1 skipped")
    assert f"skipped: dog/{name}: {reason}" in ended.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["n_skipped"] == 1
    assert summary["skipped"] == [{"id": f"dog/{name}", "reason": reason}]


def test_the_pixels_are_those_of_the_file(root):
    Image.fromarray(np.full((8, 8), 201, np.uint8)).save(root / "dog" / "photo", "PNG")
    data = read_labelled(root)
    assert data.x[data.ids.index("dog/photo")].max() == 201
