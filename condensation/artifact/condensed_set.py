"""A condensed set or coreset in one safe file: what to train on, how, and where it came from."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64, Shaped, UInt8
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import Tensor
from torch.utils.data import TensorDataset

import lossbuf
from condensation.artifact import pictures
from condensation.artifact.file import ARRAYS, DAMAGE, FORMAT, HEADER_BYTES, KIND, LARGEST, read, write
from condensation.artifact.provenance import (
    Cleaning,
    Normalisation,
    Provenance,
    check_is,
    checked_tensor,
    described,
    fingerprint,
    names_of,
    plain_dict,
    printable,
)
from lossbuf import checks
from lossbuf.arrays.conversion import as_array, as_tensor
from lossbuf.arrays.image_layout import as_bytes, value_range
from lossbuf.files import write_whole
from lossbuf.selectors import RowSelector

_REAL = (torch.float32, torch.float64)
_MOST_CLASSES = 2**16 - 1


def _versions() -> dict[str, Any]:
    return {"lossbuf": lossbuf.__version__, "numpy": np.__version__, "torch": str(torch.__version__)}


@dataclass(frozen=True, kw_only=True, eq=False)
class CondensedSet:
    """A small set to train on in place of a large one, learned or chosen.

    Attributes:
        x: Samples, float32 as networks are to be given them, or uint8 pixels.
        labels: Classes, int64, or the probability of every class, float32, rows that sum to 1.
        method: Name of what made it.
        synthetic: The samples were learned; False for real rows.
        weights: Of the samples, at least 0.
        learning_rates: Learned ones, a number a step, at least 0.
        steps: Rows of ``x`` of every step, in the order of the steps; where the set is trained on as it was learned.
        num_classes: By default the width of soft labels, else the number of ``class_names``, else the largest label
            plus 1. Once made, it is never ``None``.
        class_names: A name a class, all different.
        normalisation: How ``x`` was made from pixels, or for uint8 is to be, with ``black=0`` and ``white=255``.
        augmentation: To train with, plain values: numbers, texts, ``None``, lists and dicts; :func:`described` makes
            some.
        schedule: To train with, plain values: epochs, lr, momentum and what else there is.
        settings: Of the method, plain values.
        seed: Of the method.
        versions: Of the libraries, by default those at hand.
        provenance: Where it came from.

    Raises:
        ValueError: If a value is not what is told here, or shapes do not fit.

    Example:
        >>> small = CondensedSet(x=torch.zeros(2, 1, 8, 8), labels=torch.tensor([0, 1]), method="DC", seed=0)
        >>> small.num_classes, len(small.to_dataset())
        (2, 2)
    """

    x: Shaped[Tensor, "n_samples ..."] = field(repr=False)
    labels: Int64[Tensor, " n_samples"] | Float32[Tensor, "n_samples num_classes"] = field(repr=False)
    method: str
    synthetic: bool = True
    weights: Float[Tensor, " n_samples"] | None = field(default=None, repr=False)
    learning_rates: Float[Tensor, " n_steps"] | None = field(default=None, repr=False)
    steps: Int[Tensor, "n_steps batch"] | None = field(default=None, repr=False)
    num_classes: int | None = None
    class_names: Sequence[str] | None = None
    normalisation: Normalisation | None = None
    augmentation: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    versions: dict[str, Any] = field(default_factory=_versions)
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        for name, value in (self._checked_tensors() | self._checked_values()).items():
            object.__setattr__(self, name, value)
        self._check_fit()

    def _checked_tensors(self) -> dict[str, Tensor]:
        soft = isinstance(self.labels, Tensor) and self.labels.is_floating_point()
        x = checked_tensor("x", self.x, (torch.float32, torch.uint8), range(2, 9), low=-math.inf)
        found = {"x": x, "labels": checked_tensor("labels", self.labels, (torch.int64, torch.float32), (1 + soft,))}
        if self.weights is not None:
            found["weights"] = checked_tensor("weights", self.weights, _REAL, (1,))
        if self.learning_rates is not None:
            found["learning_rates"] = checked_tensor("learning_rates", self.learning_rates, _REAL, (1,))
        if self.steps is not None:
            found["steps"] = checked_tensor("steps", self.steps, (torch.int64,), (2,), end=len(x))
        return found

    def _checked_values(self) -> dict[str, Any]:
        printable("method", self.method)
        if not isinstance(self.synthetic, bool):
            raise ValueError(checks.problem("synthetic", "must be True or False", repr(self.synthetic)))
        check_is("normalisation", self.normalisation, Normalisation)
        check_is("provenance", self.provenance, Provenance)
        found: dict[str, Any] = {}
        if self.seed is not None:
            found["seed"] = checks.non_negative_int("seed", self.seed)
        for name in ("augmentation", "schedule", "settings", "versions"):
            if name in ("settings", "versions") or getattr(self, name) is not None:
                found[name] = plain_dict(name, getattr(self, name))
        num_classes, names = self.num_classes, self.class_names
        if names is not None:
            if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                raise ValueError(checks.problem("class_names", "must be texts", repr(names)))
            found["class_names"] = tuple(printable("class_names", name) for name in names)
            if len(set(names)) < len(names):
                raise ValueError(checks.problem("class_names", "must all be different", names))
        if num_classes is None:
            given = None if names is None else len(names)
            num_classes = self.labels.shape[1] if self.labels.ndim == 2 else given or int(self.labels.max()) + 1
        if checks.positive_int("num_classes", num_classes) > _MOST_CLASSES:
            raise ValueError(checks.problem("num_classes", f"must be at most {_MOST_CLASSES}", num_classes))
        if names is not None and len(names) != num_classes:
            raise ValueError(checks.problem("class_names", f"must be {num_classes}, one a class", len(names)))
        return found | {"num_classes": int(num_classes)}

    def _check_fit(self) -> None:
        rows = None if self.synthetic or self.provenance is None else self.provenance.rows
        for name, value in (("labels", self.labels), ("weights", self.weights), ("rows", rows)):
            if value is not None and len(value) != len(self.x):
                raise ValueError(checks.problem(name, f"must be {len(self.x)}, one a sample", len(value)))
        if self.labels.ndim == 1:
            checks.in_range("labels", self.labels, self.num_classes or 0)
        elif self.labels.shape[1] != self.num_classes:
            raise ValueError(checks.problem("labels", f"must have {self.num_classes} columns", self.labels.shape[1]))
        elif bool(((self.labels.sum(1, dtype=torch.float64) - 1).abs() > 1e-3).any()):
            raise ValueError(checks.problem("labels", "must sum to 1 in every row", "another sum"))
        if self.weights is not None and not bool(self.weights.any()):
            raise ValueError(checks.problem("weights", "must not all be 0", "no other"))
        if self.learning_rates is not None and self.steps is not None and len(self.learning_rates) != len(self.steps):
            rule = f"must be {len(self.steps)}, one a step"
            raise ValueError(checks.problem("learning_rates", rule, len(self.learning_rates)))
        if self.normalisation is not None:
            if len(self.normalisation.mean) != self.x.shape[1]:
                rule = f"must have {self.x.shape[1]} means, one a channel of `x`"
                raise ValueError(checks.problem("normalisation", rule, len(self.normalisation.mean)))
            shown = self.normalisation.black, self.normalisation.white
            if self.x.dtype == torch.uint8 and shown != (0, 255):
                rule = "must have black=0 and white=255 where `x` is uint8"
                raise ValueError(checks.problem("normalisation", rule, f"{shown[0]} and {shown[1]}"))

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def of_coreset(
        cls, estimator: RowSelector, X: Any, y: Any, *, provenance: Provenance | None = None
    ) -> CondensedSet:
        """The rows that an estimator chose, with its weights and settings; ``dataclasses.replace`` adds the rest.

        Args:
            estimator: Fitted.
            X: Samples, row by row those it was fitted on, if need be in another form, such as the images that features
                are of; uint8 stays, all else becomes float32.
            y: Their labels.
            provenance: Of ``X``, its ``rows`` being those of the source that ``X`` is made of; by default ``X`` and
                ``y`` are the source.

        Raises:
            NotFittedError: If the estimator is not fitted.
            ValueError: If ``X``, ``y`` or ``rows`` are not as many as it was fitted on, a label of a row chosen is not
                the one given then, or a value is not finite in float32.

        Example:
            >>> from condensation.coresets import Herding
            >>> X, y = [[0.0], [4.0], [5.0], [7.0]], ["cat", "cat", "cat", "dog"]
            >>> small = CondensedSet.of_coreset(Herding(ipc=1).fit(X, y), X, y)
            >>> small.class_names, small.x.flatten().tolist(), small.provenance.rows
            (('cat', 'dog'), [4.0, 7.0], tensor([1, 3]))
        """
        n_samples = len(estimator.get_support())
        samples, labels = as_array(X, copy=False), as_array(y, copy=False)
        provenance = provenance or Provenance(n_samples=n_samples, fingerprint=fingerprint(X, y))
        for name, given in (("X", samples), ("y", labels), ("rows", provenance.rows)):
            if given is not None and len(given) != n_samples:
                raise ValueError(checks.problem(name, f"must be {n_samples}, as in `fit`", len(given)))
        indices, classes = estimator.sample_indices_, estimator.classes_
        same = labels.size == n_samples and labels.reshape(-1)[indices] == classes[estimator.sample_classes]
        if not np.all(same):
            raise ValueError(checks.problem("y", "must hold the labels given to `fit`", "others"))
        rows = torch.from_numpy(indices) if provenance.rows is None else provenance.rows[torch.from_numpy(indices)]
        chosen, weights = samples[indices], getattr(estimator, "sample_weight_", None)
        with np.errstate(over="ignore"):  # told of below, as not finite
            chosen = chosen if chosen.dtype == np.uint8 else chosen.astype(np.float32)
        settings = estimator.fitted_params
        seed = settings.get("random_state")
        return cls(
            x=torch.from_numpy(chosen),
            labels=torch.from_numpy(estimator.sample_classes),
            method=type(estimator).__name__,
            synthetic=False,
            weights=None if weights is None else torch.from_numpy(weights),
            class_names=names_of(classes),
            settings=described(settings),
            seed=int(seed) if isinstance(seed, int | np.integer) else None,
            provenance=replace(provenance, rows=rows),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of all classes; their numbers where they have none."""
        return tuple(self.class_names or map(str, range(self.num_classes or 0)))

    def samples(self) -> Float32[Tensor, "n_samples ..."]:
        """The samples as networks are to be given them: uint8 pixels normalised, where it is known how."""
        return self.x if self.x.dtype == torch.float32 else self.normalised(self.x)

    def normalised(self, X: Any) -> Float32[Tensor, "n_rows ..."]:
        """Other samples, say of a test set, made as :meth:`samples` makes those of the set."""
        x = as_tensor(X)
        if x.shape[1:] != self.x.shape[1:]:
            rule = f"must have samples of shape {tuple(self.x.shape[1:])}"
            raise ValueError(checks.problem("X", rule, tuple(x.shape[1:])))
        if self.normalisation is None:
            return x.float()
        mean, std = (self._by_channel(values) for values in (self.normalisation.mean, self.normalisation.std))
        return (x.float() - mean) / std

    def _by_channel(self, values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype).view(-1, *[1] * (self.x.ndim - 2))

    def to_dataset(self) -> TensorDataset:
        """Tuples of :meth:`samples`, the label and, where there are any, the weight."""
        return TensorDataset(self.samples(), self.labels, *([] if self.weights is None else [self.weights]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set to one file, whole or not at all.

        Args:
            path: Where to; missing folders are made.

        Raises:
            ValueError: If the set has more bytes than such a file may, 2 GB, or its plain values more than 4 MiB.
        """
        arrays = {name: getattr(self, name, None) for name in ARRAYS}
        arrays["rows"] = None if self.provenance is None else self.provenance.rows
        arrays = {name: value.numpy() for name, value in arrays.items() if value is not None}
        header = json.dumps({"kind": KIND, "format": FORMAT, "set": self}, default=_fields, sort_keys=True).encode()
        size = sum(value.nbytes for value in arrays.values())
        if size > LARGEST or len(header) > HEADER_BYTES:
            rule = f"must be at most {LARGEST} bytes, and plain values {HEADER_BYTES}"
            raise ValueError(checks.problem("x", f"and what belongs to it {rule}", f"{size} and {len(header)}"))
        write_whole(path, lambda file: write(file, header, arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, max_bytes: int = 2**29) -> CondensedSet:
        """Read what :meth:`save` wrote; everything in it is checked, nothing is run.

        Args:
            path: The file.
            max_bytes: Size of the largest file to take; little more memory than that is used.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, too large, of a later format, or holds anything but a set.
        """
        checks.positive_int("max_bytes", max_bytes)
        if not Path(path).exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        try:
            if not Path(path).is_file():  # to open a pipe may take for ever
                raise ValueError("it is not a file")
            with open(path, "rb") as file:
                plain, arrays = read(file, max_bytes)
            provenance, rows = plain.get("provenance"), arrays.pop("rows")
            if rows is not None and provenance is None:
                raise ValueError("it has rows of no provenance")
            if isinstance(provenance, dict):
                cleaning = _made(Cleaning, "cleaning", provenance.get("cleaning"))
                provenance = _made(Provenance, "provenance", provenance, cleaning=cleaning, rows=rows)
            normalisation = _made(Normalisation, "normalisation", plain.get("normalisation"))
            made = _made(cls, "set", plain, normalisation=normalisation, provenance=provenance, **arrays)
            return cast(CondensedSet, made)
        except DAMAGE as error:
            reason = str(error)[:500]
            raise ValueError(f"`path` must be a {KIND} saved by lossbuf, got {path}: {reason}") from error

    def grid(self, per_class: int | None = None) -> UInt8[Tensor, "channels height width"]:
        """One picture of all images, a row a class in the order of ``x``, soft labels by their largest.

        Pixels are as they were before normalisation. Where that is not known, the values of float images that are
        shown as black and white are those that :func:`lossbuf.arrays.image_layout.value_range` gives for the set.

        Args:
            per_class: Images to show of each class at most; by default all.

        Raises:
            ValueError: If the samples are not images of 1 or 3 channels, or the picture were of more than 2**28 values.
        """
        return pictures.by_class(self._pixels(), self._hard_labels().tolist(), len(self.names), per_class)

    def save_images(
        self, path: str | os.PathLike[str], *, single_files: bool = False, per_class: int | None = None
    ) -> None:
        """Write :meth:`grid` as a PNG file, or a PNG file a sample.

        Args:
            path: A file, or a folder for single files, ``00012-class-3.png`` for row 12 of class 3.
            single_files: A file a sample.
            per_class: As in :meth:`grid`, which is all that it changes.

        Raises:
            ValueError: As of :meth:`grid`, or if ``path`` does not end in ``.png`` and the files are not single.
        """
        if single_files:
            labels = self._hard_labels().tolist()
            files = {
                Path(path) / f"{row:05d}-class-{label}.png": image
                for row, (image, label) in enumerate(zip(self._pixels(), labels, strict=True))
            }
        else:
            if Path(path).suffix != ".png":
                advice = "Ask for `single_files` to fill a folder."
                raise ValueError(checks.problem("path", "must end in .png", path, advice))
            files = {Path(path): self.grid(per_class)}
        for name, image in files.items():
            write_whole(name, partial(imsave, arr=pictures.rgb(image), format="png"))

    def figure(self, per_class: int | None = 10) -> Figure:
        """:meth:`grid` with the names of the classes, after Figure 2 of Zhao et al. 2021; ``savefig`` writes it."""
        picture = self.grid(per_class)
        _, height, width = picture.shape
        cell = (height + pictures.GAP) / len(self.names)
        inches = 0.6 / cell
        figure = Figure(figsize=(min(width * inches + 1.5, 40), min(height * inches + 0.5, 40)), layout="constrained")
        axes = figure.subplots()
        axes.imshow(pictures.rgb(picture), interpolation="nearest")
        middles = [row * cell + (cell - pictures.GAP - 1) / 2 for row in range(len(self.names))]
        axes.set_yticks(middles, self.names, parse_math=False)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.set_frame_on(False)
        axes.set_title(self.method, parse_math=False)
        return figure

    def _hard_labels(self) -> Tensor:
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(1)

    def _pixels(self) -> UInt8[Tensor, "n_samples channels height width"]:
        if self.x.ndim != 4 or self.x.shape[1] not in (1, 3):
            raise ValueError(checks.problem("x", "must be images of 1 or 3 channels", f"shape {tuple(self.x.shape)}"))
        if self.x.dtype == torch.uint8:
            return self.x
        x = self.x.double()
        if self.normalisation is None:
            shown = value_range(x.numpy())
        else:
            mean, std = (
                self._by_channel(values, x.dtype) for values in (self.normalisation.mean, self.normalisation.std)
            )
            x, shown = x * std + mean, (self.normalisation.black, self.normalisation.white)
        return torch.from_numpy(as_bytes(x.numpy(), shown))


def _fields(record: Any) -> dict[str, Any]:
    return {part.name: getattr(record, part.name) for part in fields(record) if part.name not in ARRAYS}


def _made(kind: type, name: str, value: Any, **parts: Any) -> Any:
    """The dataclass from what :func:`_fields` gave and what it left out."""
    if value is None:
        return None
    known = {part.name for part in fields(kind)} - set(ARRAYS)
    if not isinstance(value, dict) or value.keys() != known:
        found = sorted(value) if isinstance(value, dict) else value
        raise ValueError(checks.problem(name, f"must have the keys {sorted(known)}", found))
    return kind(**(value | parts))
