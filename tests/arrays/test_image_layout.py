"""Where channels are and what is white is decided by stated rules, everywhere by the same ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from condensation.cli import app
from condensation.coresets import Random
from lossbuf import LossBufferSelector
from lossbuf.arrays.image_layout import as_bytes, channel_layout, value_range
from lossbuf.checks import channels_first
from lossbuf.inputs import InputError, ReadSettings, read_labelled

LABELS = np.arange(12) % 2


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 28, 28), "first"), ((28, 28, 1), "last"), ((2, 28, 28), "first"), ((28, 28, 2), "last"),
        ((4, 32, 32), "first"), ((32, 32, 4), "last"), ((13, 64, 64), "first"), ((64, 64, 13), "last"),
        ((3, 3, 5), "first"), ((5, 3, 3), "last"), ((3, 64, 3), None), ((8, 8, 8), None), ((1, 1, 1), None),
        ((3, 20, 40), "first"), ((20, 40, 3), "last"), ((6, 5, 6), None), ((3, 2, 8), "first"), ((8, 2, 3), "last"),
    ],
)  # fmt: skip
def test_the_channels_of_a_shape(tmp_path, shape, layout):
    assert channel_layout((12, *shape)) == layout
    x = np.arange(12 * np.prod(shape)).reshape(12, *shape) % 251
    np.savez(tmp_path / "a.npz", x=x.astype(np.uint8), y=LABELS)
    moved = np.moveaxis(x, -1, 1)
    if layout is None:
        with pytest.raises(InputError, match="by `--channels first` or `--channels last`"):
            read_labelled(tmp_path / "a.npz")
    else:
        assert (read_labelled(tmp_path / "a.npz").x == (x if layout == "first" else moved)).all()
    assert (read_labelled(tmp_path / "a.npz", ReadSettings(channels="first")).x == x).all()
    assert (read_labelled(tmp_path / "a.npz", ReadSettings(channels="last")).x == moved).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_a_shape_and_its_mirror_image_say_the_opposite(second, middle, last):
    opposite = {"first": "last", "last": "first", None: None}
    mirrored = channel_layout((5, last, middle, second))
    assert channel_layout((5, second, middle, last)) == opposite[mirrored]


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28, 2), (32, 32, 3), (32, 32, 4), (16, 20, 3)])
@pytest.mark.parametrize("estimator", [LossBufferSelector(epochs=1), Random(ipc=1)])
def test_estimators_refuse_channels_that_are_last(estimator, shape):
    with pytest.raises(ValueError, match=r"np\.moveaxis\(X, -1, 1\)"):
        estimator.fit(np.zeros((12, *shape), np.float32), LABELS)
    channels_first("X", (12, shape[2], *shape[:2]))


@pytest.mark.parametrize(
    ("values", "black_and_white"),
    [
        (np.array([0, 200], np.uint8), (0, 255)), (np.array([0.2, 0.9]), (0, 1)), (np.array([-1.0, 1.0]), (-1, 1)),
        (np.array([-0.3, 0.4]), (-1, 1)), (np.array([0, 65535], np.uint16), (0, 65535)),
        (np.array([0, 4095]), (0, 4095)),
        (np.array([-2.1, 2.6]), (-2.1, 2.6)), (np.array([0.0, 255.0]), (0, 255)), (np.array([False, True]), (0, 1)),
        (np.array([-100, 5], np.int16), (-100, 5)), (np.zeros(3), (0, 1)), (np.full(3, -7.0), (-7, 0)),
    ],
)  # fmt: skip
def test_black_and_white(values, black_and_white):
    assert value_range(values) == black_and_white
    shown = as_bytes(values, value_range(values))
    assert shown.dtype == np.uint8
    assert (np.argsort(shown, kind="stable") == np.argsort(values, kind="stable")).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_pictures_of_any_number_of_channels(tmp_path, channels):
    x = np.random.default_rng(0).integers(0, 255, (12, channels, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=LABELS)
    data = read_labelled(tmp_path / "a.npz")
    assert data.x.shape == x.shape
    assert (data.picture(1) == x[1, : 3 if channels >= 3 else 1]).all()


def test_the_option_decides(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((12, 8, 8, 8), np.uint8), y=LABELS)
    words = ["scan", str(tmp_path / "a.npz"), "--out", str(tmp_path / "out"), "--epochs", "1", "--device", "cpu"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2
    assert "--channels first" in ended.stderr
    assert CliRunner().invoke(app, [*words, "--channels", "middle"]).exit_code == 2
    assert CliRunner().invoke(app, [*words, "--channels", "last"]).exit_code == 0
