"""Condensed sets to test with."""

import io
import zipfile
from dataclasses import fields

import numpy as np
import torch
from PIL import Image

from condensation.artifact import CondensedSet
from condensation.artifact.condensed_set import Cleaning, Normalisation, Provenance, described, fingerprint
from condensation.augmentation.random_changes import DC_MNIST

DAMAGED = "`path` must be a condensed set saved by lossbuf, got "


def hard(**changes):
    """Four images of two channels, three classes, and something in every field."""
    draw = torch.Generator().manual_seed(0)
    whole = {
        "x": torch.randn(4, 1, 5, 6, generator=draw),
        "labels": torch.tensor([2, 0, 2, 1]),
        "method": "DD",
        "weights": torch.rand(4, generator=draw, dtype=torch.float64),
        "learning_rates": torch.rand(3, generator=draw),
        "steps": torch.tensor([[0, 1], [2, 3], [0, 1]]),
        "class_names": ("cat", "dog, $x_$", "Käuzchen"),
        "normalisation": Normalisation(mean=(0.1,), std=(1 / 3,)),
        "augmentation": described(DC_MNIST),
        "schedule": {"epochs": 300, "lr": 0.01, "drops": [150], "momentum": None},
        "settings": {"ipc": 1, "deep": {"a": [1, 2.5, "b", True]}},
        "seed": 7,
        "provenance": Provenance(
            rows=torch.arange(50) * 2,
            n_samples=100,
            fingerprint=fingerprint([1, 2, 3]),
            cleaning=Cleaning(name="ours", settings={"window": 5}, dropped=50, noise_rate=0.4, pure_rate=0.9),
        ),
    }
    return CondensedSet(**{**whole, **changes})


def soft(**changes):
    labels = torch.tensor([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    return hard(**{"labels": labels, **changes})


def bare(**changes):
    return CondensedSet(**{"x": torch.rand(3, 4), "labels": torch.tensor([0, 1, 0]), "method": "DM", **changes})


def pixels(**changes):
    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2) * 5
    return CondensedSet(**{"x": images, "labels": torch.tensor([1, 0, 1, 1]), "method": "Random", **changes})


def as_dict(record):
    """All fields, deep down."""
    if not hasattr(record, "__dataclass_fields__"):
        return record
    return {part.name: as_dict(getattr(record, part.name)) for part in fields(record)}


def parts_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def put(path, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def shown(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# ---- what comes back ----
