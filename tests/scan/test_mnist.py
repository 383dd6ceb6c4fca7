"""What a scan promises, on real images."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from typer.testing import CliRunner

from lossbuf.cli.commands import app
from lossbuf.files.safe_csv import read_csv
from lossbuf.noise import corrupt, symmetric

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif("LOSSBUF_DATA" not in os.environ, reason="LOSSBUF_DATA names no folder with MNIST"),
]


def test_wrong_labels_in_a_folder_of_images(tmp_path):
    mnist = torchvision.datasets.MNIST(os.environ["LOSSBUF_DATA"], train=True)
    rows = np.random.RandomState(0).permutation(len(mnist))[:5000]
    true = mnist.targets.numpy()[rows]
    noisy = corrupt(true, symmetric(10, 0.2), 0)
    flipped = set()
    for row, label, wrong in zip(rows, noisy.labels, noisy.noise_mask, strict=True):
        folder = tmp_path / "digits" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mnist.data[row].numpy()).save(folder / f"{row:05d}.png")
        if wrong:
            flipped.add(f"{label}/{row:05d}.png")
    start = time.monotonic()
    result = CliRunner().invoke(app, ["scan", str(tmp_path / "digits"), "--out", str(tmp_path / "found")])
    seconds = time.monotonic() - start
    assert result.exit_code == 0, result.output
    issues = set(read_csv(Path(tmp_path / "found" / "issues.csv"))["id"])
    assert len(issues & flipped) >= 0.9 * len(flipped)
    assert len(issues & flipped) >= 0.9 * len(issues)
    assert seconds < 180
