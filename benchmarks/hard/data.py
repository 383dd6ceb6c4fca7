"""The data sets of the hard suite: a name goes in, samples with their true labels come out.

Rows are chosen once and for all, so that a seed decides the noise and the trainings alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import sklearn.datasets
import torch
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from benchmarks.common import data as usual
from benchmarks.hard.files import found
from benchmarks.hard.gradients import oriented_gradients
from benchmarks.hard.pretrained import for_imagenet, tokens_of
from lossbuf.data import standardised

Kind = Literal["features", "images", "tokens"]


@dataclass(frozen=True)
class HardData:
    """One data set.

    Attributes:
        kind: What a sample is. Features are as they come, images are standardized, tokens are numbers of words.
        x: Samples, shape ``(n_samples, ...)``.
        labels: True labels, int64, shape ``(n_samples,)``.
        num_classes: Number of classes.
        confusions: Pairs of classes that are usually taken for each other, from true to given; ``None`` where no pairs
            are known.
        given: Labels with real noise, where there are any, shape ``(n_samples,)``.
        votes: How often people chose each class, where that is known, shape ``(n_samples, num_classes)``.
        is_table: The features have units of their own, so that only standardized ones can be compared.
    """

    kind: Kind
    x: Tensor
    labels: NDArray[np.int64]
    num_classes: int
    confusions: dict[int, int] | None = None
    given: NDArray[np.int64] | None = None
    votes: NDArray[np.float64] | None = None
    is_table: bool = False


@dataclass(frozen=True)
class Folders:
    """Where files lie: those of the suite, and those of torchvision's data sets (``None`` is the usual place)."""

    hard: Path
    torchvision: Path | None


def of_features(x: NDArray[Any], y: NDArray[Any], **more: Any) -> HardData:
    """A data set of features, shape ``(n_samples, n_features)``."""
    features = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    return HardData("features", features, y.astype(np.int64), int(y.max()) + 1, **more)


def exponential_tail(labels: NDArray[np.int64], largest: int, ratio: float) -> NDArray[np.int64]:
    """Rows of a long tail: class ``c`` keeps ``largest * ratio ** (-c / (num_classes - 1))`` rows.

    Args:
        labels: True labels, shape ``(n_samples,)``.
        largest: Rows of the first class.
        ratio: Rows of the first class over those of the last.

    Returns:
        Row numbers, ascending.
    """
    classes = int(labels.max()) + 1
    sizes = np.rint(largest * ratio ** (-np.arange(classes) / (classes - 1))).astype(int)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == label][:size] for label, size in enumerate(sizes)]))


def _rows(size: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(size)[:count]


def _cifar10_embeddings(folders: Folders) -> HardData:
    with np.load(found(folders.hard, "cifar10-efficientnet-lite0.npz")) as file:
        return of_features(file["x"], file["y"], confusions=usual.CONFUSIONS["cifar10"])


def _long_tail_embeddings(folders: Folders) -> HardData:
    data = _cifar10_embeddings(folders)
    rows = exponential_tail(data.labels, largest=int(np.bincount(data.labels).min()), ratio=100)
    return of_features(data.x.numpy()[rows], data.labels[rows], confusions=data.confusions)


def _long_tail_fashion(folders: Folders) -> HardData:
    images, labels, _, _ = usual.raw("fashion-mnist", folders.torchvision)
    rows = exponential_tail(labels, largest=3000, ratio=100)
    return _images(images[rows], labels[rows], confusions=usual.CONFUSIONS["fashion-mnist"])


def _images(pixels: NDArray[Any], labels: NDArray[np.int64], **more: Any) -> HardData:
    (x,) = standardised(pixels.astype(np.float32))
    return HardData("images", x, labels.astype(np.int64), int(labels.max()) + 1, **more)


def _mnist(folders: Folders, count: int) -> HardData:
    images, labels, _, _ = usual.raw("mnist", folders.torchvision)
    rows = _rows(len(images), count)
    return _images(images[rows], labels[rows], confusions=usual.CONFUSIONS["mnist"])


def _banking77(folders: Folders) -> HardData:
    with np.load(found(folders.hard, "banking77-minilm.npz")) as file:
        return of_features(file["x"], file["y"])


def _clinc150(folders: Folders) -> HardData:
    with np.load(found(folders.hard, "clinc150-minilm.npz")) as file:
        size = 33 * len(file["class_names"])  # rows come one of each class at a time
        return of_features(file["x"][:size], file["y"][:size])


def _clinc10(folders: Folders) -> HardData:
    with np.load(found(folders.hard, "clinc150-minilm.npz")) as file:
        rows = _first_of_each(file["domain"], 500)
        return of_features(file["x"][rows], file["domain"][rows])


def _clinc10_sentences(folders: Folders, count: int) -> HardData:
    with np.load(found(folders.hard, "clinc150-minilm.npz")) as file:
        rows = _first_of_each(file["domain"], count // 10)
        texts, labels = file["text"][rows], file["domain"][rows]
    return HardData("tokens", tokens_of(texts.tolist()), labels.astype(np.int64), 10)


def _first_of_each(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The first ``count`` rows of each class, in the order in which they come."""
    parts = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
    return np.sort(np.concatenate(parts))


def _glyphs(folders: Folders, classes: int, as_images: bool = False) -> HardData:
    with np.load(found(folders.hard, "glyphs-150.npz")) as file:
        rows = np.flatnonzero(file["y"] < classes)
        pixels, labels = file["x"][rows], file["y"][rows].astype(np.int64)
    return _images(pixels[:, None], labels) if as_images else of_features(oriented_gradients(pixels), labels)


def _cifar10h(folders: Folders, as_images: bool) -> HardData:
    votes = np.load(found(folders.hard, "cifar10h-counts.npy")).astype(np.float64)
    if as_images:
        _, _, pixels, labels = usual.raw("cifar10", folders.torchvision)
        return _images(pixels, labels, votes=votes)
    with np.load(found(folders.hard, "cifar10-test-efficientnet-lite0.npz")) as file:
        return of_features(file["x"], file["y"], votes=votes)


def _cifar10_for_fine_tuning(folders: Folders, count: int, pixels: int) -> HardData:
    images, labels, _, _ = usual.raw("cifar10", folders.torchvision)
    rows = _rows(len(images), count)
    x = for_imagenet(torch.from_numpy(images[rows]), pixels)
    return HardData("images", x, labels[rows], 10, confusions=usual.CONFUSIONS["cifar10"])


def _hausa(folders: Folders) -> HardData:
    """Headlines as TF-IDF of words and of parts of words, brought to 100 dimensions; the noise is real."""
    clean = pd.read_csv(found(folders.hard, "hausa-newsclass-train_clean.tsv"), sep="\t")
    noisy = pd.read_csv(found(folders.hard, "hausa-newsclass-train_clean_noisy_labels.tsv"), sep="\t", index_col=0)
    if clean["news_title"].tolist() != noisy["news_title"].tolist():
        raise usual.DataError("The two Hausa files must hold the same headlines in the same order.")
    names = sorted(set(clean["label"]) | set(noisy["label"]))
    titles = clean["news_title"].str.lower()
    vectors: Any = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True)
    reduced = TruncatedSVD(100, random_state=0).fit_transform(vectors.fit_transform(titles))
    given = np.array([names.index(label) for label in noisy["label"]], dtype=np.int64)
    labels = np.array([names.index(label) for label in clean["label"]], dtype=np.int64)
    return of_features(reduced, labels, given=given)


def _table(_: Folders, load: Callable[[], Any]) -> HardData:
    bunch = load()
    return of_features(bunch.data, bunch.target, is_table=True)


def _few_digits(_: Folders, count: int) -> HardData:
    bunch: Any = sklearn.datasets.load_digits()
    rows = _rows(len(bunch.data), count)
    return of_features(bunch.data[rows], bunch.target[rows], confusions=usual.CONFUSIONS["digits"])


LOADERS: dict[str, Callable[[Folders], HardData]] = {
    "iris": partial(_table, load=sklearn.datasets.load_iris),
    "wine": partial(_table, load=sklearn.datasets.load_wine),
    "breast-cancer": partial(_table, load=sklearn.datasets.load_breast_cancer),
    "digits-100": partial(_few_digits, count=100),
    "digits-200": partial(_few_digits, count=200),
    "cifar10-embeddings": _cifar10_embeddings,
    "long-tail-embeddings": _long_tail_embeddings,
    "clinc10": _clinc10,
    "clinc150": _clinc150,
    "banking77": _banking77,
    "glyphs-25": partial(_glyphs, classes=25),
    "glyphs-100": partial(_glyphs, classes=100),
    "glyphs-150": partial(_glyphs, classes=150),
    "hausa": _hausa,
    "cifar10h-embeddings": partial(_cifar10h, as_images=False),
    "cifar10h-images": partial(_cifar10h, as_images=True),
    "glyphs-images-100": partial(_glyphs, classes=100, as_images=True),
    "long-tail-fashion-mnist": _long_tail_fashion,
    "mnist": partial(_mnist, count=8000),
    "clinc10-sentences": partial(_clinc10_sentences, count=2000),
    "cifar10-images": partial(_cifar10_for_fine_tuning, count=2000, pixels=96),
}
"""How each data set is read."""
