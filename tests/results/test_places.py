"""Outputs in places where they would lie in or over what is read, however the place is named."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from condensation.cli import app
from tests.results.faults import content

FAST = {
    "scan": ["--epochs", "1", "--network", "mlp", "--device", "cpu", "--top", "3"],
    "coreset": ["--method", "random", "--ipc", "2"],
    "condense": ["--iterations", "1", "--ipc", "1", "--device", "cpu"],
    "apply": [],
}


def run(command, source, out, *more):
    return CliRunner().invoke(app, [command, str(source), "--out", str(out), *FAST[command], *more])


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of images, a file of the user's own, and a working directory."""
    x = np.random.default_rng(0).integers(0, 255, (24, 8, 8), dtype=np.uint8)
    for row, image in enumerate(x):
        path = tmp_path / "photos" / ("cat", "dog")[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "keep").mkdir()
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "nowhere").symlink_to("not-there")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["scan", "coreset", "condense"])
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("photos", "must lie outside the folder photos"), ("photos/out", "must lie outside the folder photos"),
        ("keep/../photos/./out", "must lie outside the folder photos"), ("link", "must lie outside the folder photos"),
        ("link/out", "must lie outside the folder photos"), ("mine.txt", "mine.txt is no folder"),
        ("mine.txt/out", "mine.txt is no folder"), ("/dev/null", "/dev/null is no folder"),
        ("/dev/null/out", "/dev/null is no folder"), ("nowhere", "nowhere is a link to nothing"),
        ("nowhere/out", "nowhere is a link to nothing"), ("loop/out", "loop is a link to nothing"), ("", "got nothing"),
        ("/proc/self/cwd/photos/out", "must lie outside the folder photos"),
    ],
)  # fmt: skip
def test_places_that_are_refused(root, command, out, message):
    if out.startswith("/proc") and not os.path.exists("/proc/self/cwd"):
        pytest.skip("needs /proc")
    before = content(root)
    ended = run(command, "photos", out, "--overwrite")
    assert ended.exit_code == 2, ended.output
    assert message in " ".join(ended.stderr.replace("│", " ").split())
    assert content(root) == before


def table_of(root):
    rows = [(str(path), path.parent.name) for path in sorted(root.glob("photos/*/*.png"))]
    pd.DataFrame([*rows, ("small/coreset.png", "cat")], columns=["image", "label"]).to_csv("t.csv", index=False)
    return "t.csv", ()


def links_of(root):
    (root / "photos" / "cat" / "more.png").symlink_to("../../small/coreset.png")
    return "photos", ("--follow-links",)


def hard_links_of(root):
    os.link("small/coreset.png", "other.png")
    rows = [(str(path), path.parent.name) for path in sorted(root.glob("photos/*/*.png"))]
    pd.DataFrame([*rows, ("other.png", "cat")], columns=["image", "label"]).to_csv("t.csv", index=False)
    return "t.csv", ()


@pytest.mark.parametrize("make", [table_of, links_of, hard_links_of])
def test_a_result_that_is_read_as_an_image_is_not_replaced(root, make):
    assert run("coreset", "photos", "small").exit_code == 0
    source, options = make(root)
    before = content(root)
    ended = run("coreset", source, "small", "--overwrite", *options)
    assert ended.exit_code == 2
    assert "small/coreset.png is " in ended.stderr
    assert "which is read and would be replaced" in ended.stderr
    assert content(root) == before
    assert run("coreset", source, "elsewhere", *options).exit_code == 0


@pytest.mark.parametrize("out", ["photos/labels.csv", "photos/cat/labels.csv", "link/labels.csv", "found/labels.csv"])
def test_labels_are_not_written_among_what_was_scanned(root, out):
    assert run("scan", "photos", "found").exit_code == 0
    before = content(root)
    ended = run("apply", "found", out, "--overwrite")
    assert ended.exit_code == 2
    assert "must lie outside the folder" in ended.stderr
    assert content(root) == before
    assert run("apply", "found", "keep/labels.csv").exit_code == 0
