"""The archives that the benchmarks read: where channels are is decided as it is everywhere else."""

import numpy as np
import pytest
import torch

from benchmarks.common import data
from lossbuf.arrays.image_layout import channel_layout

LABELS = np.arange(40) % 2


@pytest.mark.parametrize(
    "shape",
    [
        (1, 28, 28), (28, 28, 1), (3, 12, 16), (12, 16, 3), (4, 9, 9), (9, 9, 4), (2, 9, 9), (9, 9, 2), (7, 9, 9),
        (9, 9, 7), (2, 3, 5), (5, 3, 2),
    ],
)  # fmt: skip
def test_channels_come_first_wherever_they_were(tmp_path, shape):
    x = np.random.default_rng(0).integers(0, 255, (40, *shape), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x=x, y=LABELS, x_test=x[:6], y_test=LABELS[:6])
    first = x if channel_layout(x.shape) == "first" else np.moveaxis(x, -1, 1)
    np.savez(tmp_path / "first.npz", x=first, y=LABELS, x_test=first[:6], y_test=LABELS[:6])
    loaded, expected = (data.load(str(tmp_path / name)) for name in ("own.npz", "first.npz"))
    assert loaded.x.shape == first.shape
    assert torch.equal(loaded.x, expected.x)
    assert torch.equal(loaded.test_x, expected.test_x)


def test_grey_images_and_features_keep_their_shape(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 6, 6)).astype(">f4")
    np.savez(tmp_path / "grey.npz", x=x, y=LABELS.astype(">i2"))
    np.savez(tmp_path / "rows.npz", x=x.reshape(40, -1), y=LABELS.astype(np.uint8))
    assert data.load(str(tmp_path / "grey.npz")).x.shape == (32, 1, 6, 6)
    assert data.load(str(tmp_path / "rows.npz")).x.shape == (32, 36)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((40, 8, 8, 8)), LABELS, r"`x` in .* one axis of channels .*got shape \(40, 8, 8, 8\)"),
        (np.zeros((40, 3, 64, 3)), LABELS, "one axis of channels"),
        (np.zeros(40), LABELS, r"numbers of at least two axes, got shape \(40,\)"),
        (np.full((40, 2), "a"), LABELS, "must be numbers"),
        (np.zeros((40, 2), complex), LABELS, "must be numbers"),
        (np.zeros((40, 2)), LABELS - 1, r"`y` must lie in \[0, num_classes\), got -1 at row 0"),
        (np.zeros((40, 2)), LABELS + 0.5, "`y` must be integers"),
        (np.zeros((40, 2)), np.eye(2)[LABELS], "one-hot"),
        (np.zeros((40, 2)), LABELS.astype(str), "`y` must be integers"),
        (np.zeros((40, 2)), LABELS.astype("datetime64[D]"), "`y` must be integers"),
    ],
)
def test_archives_that_say_too_little_are_refused(tmp_path, x, y, message):
    np.savez(tmp_path / "own.npz", x=x, y=y)
    with pytest.raises(data.DataError, match=message):
        data.load(str(tmp_path / "own.npz"))
