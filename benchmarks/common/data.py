"""The data sets of the benchmarks: images as float32, standardised a channel, with labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from lossbuf import checks, noise
from lossbuf.arrays.image_layout import channel_layout, with_channels_first
from lossbuf.data import standardised

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "svhn")

CONFUSIONS = {
    "digits": noise.MNIST_CONFUSIONS,
    "mnist": noise.MNIST_CONFUSIONS,
    "svhn": noise.MNIST_CONFUSIONS,
    "fashion-mnist": noise.FASHION_MNIST_CONFUSIONS,
    "cifar10": noise.CIFAR10_CONFUSIONS,
}


class DataError(ValueError):
    """The data cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Data:
    """Training and test images ``(n_samples, channels, height, width)``, or features, and their true labels."""

    name: str
    x: Tensor
    labels: Tensor
    test_x: Tensor
    test_labels: Tensor
    num_classes: int


def default_folder() -> Path:
    """``LOSSBUF_DATA``, or a folder in the user's cache."""
    return Path(os.environ.get("LOSSBUF_DATA") or Path.home() / ".cache" / "lossbuf")


def short_name(name: str) -> str:
    """The name of a data set, without the folders and the ending of a file."""
    return Path(name).stem if name.endswith(".npz") else name


def load(name: str, folder: Path | None = None, subset: int | None = None) -> Data:
    """Load a data set.

    Args:
        name: One of :data:`NAMES`, or the path of an ``.npz`` file with ``x``, ``y`` and, if the set has its own test
            rows, ``x_test``, ``y_test``; else a fifth of the rows becomes the test set. Images may have their channels
            first or last, as :func:`lossbuf.arrays.image_layout.channel_layout` tells from their shape.
        folder: Where torchvision's files lie, or are downloaded to.
        subset: Use the first so many training rows of a fixed random order; by default all.

    Raises:
        DataError: If the name is unknown, files are missing and cannot be downloaded, or a file does not fit.
    """
    if name == "digits":
        bunch: Any = load_digits()
        parts = _split(bunch.images[:, None], bunch.target)
    elif name in NAMES:
        parts = raw(name, folder)
    elif name.endswith(".npz"):
        parts = _npz(Path(name))
    else:
        raise DataError(f"`dataset` must be one of {', '.join(NAMES)} or the path of an .npz file, got {name!r}.")
    x, labels, test_x, test_labels = parts
    if subset is not None:
        if not 1 <= subset <= len(x):
            raise DataError(f"`subset` must lie in [1, {len(x)}], got {subset}.")
        rows = np.random.default_rng(0).permutation(len(x))[:subset]
        x, labels = x[rows], labels[rows]
    train_x, test_x = standardised(x, test_x)
    num_classes = int(max(labels.max(), test_labels.max())) + 1
    return Data(short_name(name), train_x, torch.from_numpy(labels), test_x, torch.from_numpy(test_labels), num_classes)


Parts = tuple[NDArray[Any], NDArray[np.int64], NDArray[Any], NDArray[np.int64]]


def _split(x: NDArray[Any], y: NDArray[Any]) -> Parts:
    parts: Any = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    return parts[0], parts[2].astype(np.int64), parts[1], parts[3].astype(np.int64)


def raw(name: str, folder: Path | None = None) -> Parts:
    """Training images, their labels, test images and their labels of a torchvision data set, as its files hold them.

    Args:
        name: One of :data:`NAMES` but ``"digits"``.
        folder: Where torchvision's files lie, or are downloaded to.

    Returns:
        Images as integers of shape ``(n_samples, channels, height, width)`` and labels of shape ``(n_samples,)``.

    Raises:
        DataError: If the files are missing and cannot be downloaded.
    """
    folder = folder or default_folder()
    sets = torchvision.datasets
    makers: dict[str, Any] = {"mnist": sets.MNIST, "fashion-mnist": sets.FashionMNIST, "cifar10": sets.CIFAR10}

    def open_part(training: bool) -> Any:
        def make(download: bool) -> Any:
            if name == "svhn":
                return sets.SVHN(folder / "svhn", split="train" if training else "test", download=download)
            return makers[name](folder, train=training, download=download)

        try:
            return make(download=False)
        except RuntimeError:
            try:
                return make(download=True)
            except (URLError, OSError, RuntimeError) as error:
                place = folder / "svhn" if name == "svhn" else folder
                raise DataError(
                    f"{name} is not in {place} and could not be downloaded ({error}). Put the files there as "
                    "torchvision lays them out, or name their folder with --data-dir or LOSSBUF_DATA."
                ) from error

    arrays: list[NDArray[Any]] = []
    for training in (True, False):
        part = open_part(training)
        images = np.asarray(part.data)
        if images.ndim == 3:
            images = images[:, None]
        elif name == "cifar10":
            images = np.moveaxis(images, -1, 1)
        arrays += [images, np.asarray(part.labels if name == "svhn" else part.targets, dtype=np.int64)]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def _npz(path: Path) -> Parts:
    if not path.exists():
        raise DataError(f"`dataset` must be an .npz file that exists, got {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError) as error:
        raise DataError(f"`dataset` must be an .npz file of plain arrays, got {path}: {error}.") from error
    if not {"x", "y"} <= arrays.keys():
        raise DataError(f"{path} must hold arrays `x` and `y`, got {', '.join(sorted(arrays)) or 'none'}.")
    x, y = _samples(path, "x", arrays["x"]), _labels(path, "y", arrays["y"])
    if "x_test" in arrays and "y_test" in arrays:
        return x, y, _samples(path, "x_test", arrays["x_test"]), _labels(path, "y_test", arrays["y_test"])
    return _split(x, y)


def _labels(path: Path, name: str, y: NDArray[Any]) -> NDArray[np.int64]:
    try:
        return checks.class_labels(name, y).numpy()
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _samples(path: Path, name: str, x: NDArray[Any]) -> NDArray[Any]:
    """Rows of features, or images with their channels first."""
    if x.dtype.kind not in "biuf" or x.ndim < 2:
        raise DataError(f"`{name}` in {path} must be numbers of at least two axes, got shape {x.shape}, {x.dtype}.")
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        return x
    layout = channel_layout(x.shape)
    if layout is None:
        raise DataError(
            f"`{name}` in {path} must have one axis of channels that is shorter than height and width, got shape "
            f"{x.shape}. Save images of shape (n_samples, channels, height, width) with fewer channels, or features "
            "of shape (n_samples, n_features)."
        )
    return with_channels_first(x, layout)
