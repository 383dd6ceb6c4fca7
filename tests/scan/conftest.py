"""Digits with wrong labels, as an image folder, and a scan of them."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from lossbuf.noise import corrupt, symmetric


def write_digits(root, rows=500):
    """An image folder of digits; which labels are wrong, by the names of the files."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:rows], y[:rows]
    noisy = corrupt(y, symmetric(10, 0.2), 0)
    for row, label in enumerate(noisy.labels):
        folder = root / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        image = (x[row].reshape(8, 8) * 255 / 16).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{row:04d}.png")
    names = [f"digit {label}/{row:04d}.png" for row, label in enumerate(noisy.labels)]
    return dict(zip(names, (f"digit {label}" for label in y), strict=True))


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
    """The folder, not to be changed, and the true class of every file."""
    root = tmp_path_factory.mktemp("digits") / "photos"
    return root, write_digits(root)
