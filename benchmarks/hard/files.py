"""The folder of prepared files that the hard suite reads, and what is said where one is missing."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.common.data import DataError

ENVIRONMENT = "LOSSBUF_HARD_DATA"

SOURCES = {
    "cifar10-efficientnet-lite0.npz": "embeddings of CIFAR-10's training images",
    "cifar10-test-efficientnet-lite0.npz": "written by `python -m benchmarks.hard.prepare`",
    "cifar10h-counts.npy": "human votes for CIFAR-10's test images, from jcpeterson/cifar-10h",
    "banking77-minilm.npz": "sentence embeddings of banking77",
    "clinc150-data_full.json": "`data/data_full.json` of clinc/oos-eval",
    "clinc150-domains.json": "`data/domains.json` of clinc/oos-eval",
    "clinc150-minilm.npz": "written by `python -m benchmarks.hard.prepare`",
    "glyphs-150.npz": "images of Chinese characters in 42 typefaces",
    "hausa-newsclass-train_clean.tsv": "from uds-lsv/transfer-distant-transformer-african",
    "hausa-newsclass-train_clean_noisy_labels.tsv": "from uds-lsv/transfer-distant-transformer-african",
}
"""The files of the folder, and where each comes from."""


def default_folder() -> Path:
    """The folder that ``LOSSBUF_HARD_DATA`` names, or one in the user's cache."""
    return Path(os.environ.get(ENVIRONMENT) or Path.home() / ".cache" / "lossbuf" / "hard")


def found(folder: Path, name: str) -> Path:
    """The path of one of the files.

    Args:
        folder: The folder that holds the files.
        name: One of :data:`SOURCES`.

    Raises:
        DataError: If the file is not there. The message is one line that says where it comes from.
    """
    path = folder / name
    if not path.exists():
        raise DataError(
            f"{name} ({SOURCES[name]}) is not in {folder}: put it there, or name its folder with --hard-dir."
        )
    return path
