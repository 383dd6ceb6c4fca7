"""The cells of the hard suite: which data set is trained how, and under which noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.hard.trainings import Training

Noise = tuple[tuple[str, float], ...]

CLEAN = ("clean", 0.0)
SYMMETRIC = ("symmetric", 0.4)
PAIR_FLIP = ("pair-flip", 0.4)
CONFUSABLE = ("confusable", 0.3)
HUMAN = (("human", 0.1), ("human", 0.2), ("human", 0.4))


@dataclass(frozen=True)
class Entry:
    """A data set of the suite.

    Attributes:
        data: Its name in :data:`~benchmarks.hard.data.LOADERS`.
        training: How the network is trained that ours and the peers watch.
        noise: Kinds and rates of noise.
        cross_validated: Whether cleanlab is run with the same network, which takes as long as four trainings.
        scarce: Some class has fewer than 50 rows, so that the noise rate can be known less exactly.
    """

    data: str
    training: Training
    noise: Noise
    cross_validated: bool = True
    scarce: bool = False


TABLE = Training(network="mlp", epochs=20, lr=0.05, batch_size=16)
PERCEPTRON = Training(network="mlp", epochs=20, lr=0.05)
CONVNET = Training(network="convnet", epochs=12, lr=0.05)


def _sentences(epochs: int) -> Training:
    return Training(network="minilm", epochs=epochs, lr=2e-4, batch_size=32, optimizer="adamw")


def _photographs(epochs: int) -> Training:
    return Training(network="efficientnet-lite0", epochs=epochs, lr=1e-3, batch_size=32, optimizer="adamw")


def _fine_tuned(data: str, training: Training, *noise: tuple[str, float]) -> Entry:
    return Entry(data, training, noise, cross_validated=False)


def _on_mnist(network: str, optimizer: str = "sgd", lr: float = 0.05, width: int = 16) -> Training:
    return Training(network=network, epochs=8, lr=lr, optimizer=optimizer, width=width)


_FEW = (("symmetric", 0.2), SYMMETRIC, ("pair-flip", 0.3))

SUITE: dict[str, Entry] = {
    # Small tables.
    "iris": Entry("iris", TABLE, (*_FEW, CLEAN)),
    "wine": Entry("wine", TABLE, (*_FEW, CLEAN), scarce=True),
    "breast-cancer": Entry("breast-cancer", TABLE, (("symmetric", 0.2), SYMMETRIC, CLEAN)),
    "digits-100": Entry("digits-100", TABLE, _FEW, scarce=True),
    "digits-200": Entry("digits-200", TABLE, (*_FEW, CLEAN), scarce=True),
    # Embeddings and other features.
    "cifar10-embeddings": Entry(
        "cifar10-embeddings",
        PERCEPTRON,
        (*_FEW, PAIR_FLIP, ("class-dependent", 0.4), CONFUSABLE, CLEAN),
    ),
    "long-tail-embeddings": Entry("long-tail-embeddings", PERCEPTRON, (*_FEW, CONFUSABLE), scarce=True),
    "clinc10": Entry("clinc10", PERCEPTRON, (SYMMETRIC, PAIR_FLIP, CONFUSABLE, CLEAN)),
    "clinc150": Entry("clinc150", PERCEPTRON, (*_FEW, CONFUSABLE, CLEAN), scarce=True),
    "banking77": Entry(
        "banking77", PERCEPTRON, (("symmetric", 0.2), SYMMETRIC, PAIR_FLIP, CONFUSABLE, CLEAN), scarce=True
    ),
    "glyphs-25": Entry("glyphs-25", PERCEPTRON, (SYMMETRIC, ("pair-flip", 0.3), CONFUSABLE), scarce=True),
    "glyphs-100": Entry("glyphs-100", PERCEPTRON, (*_FEW, CONFUSABLE, CLEAN), scarce=True),
    "glyphs-150": Entry("glyphs-150", PERCEPTRON, (SYMMETRIC, ("pair-flip", 0.3), CONFUSABLE), scarce=True),
    # Labels by people, and by weak supervision.
    "hausa": Entry("hausa", PERCEPTRON, (("real", 0.5), CLEAN)),
    "cifar10h-embeddings": Entry("cifar10h-embeddings", PERCEPTRON, (*HUMAN, CLEAN)),
    # Images, and other networks than the usual one.
    "glyphs-images-100": Entry("glyphs-images-100", CONVNET, (SYMMETRIC, ("pair-flip", 0.3)), scarce=True),
    "mnist-convnet": Entry("mnist", _on_mnist("convnet"), (SYMMETRIC, PAIR_FLIP, CLEAN)),
    "mnist-adam": Entry("mnist", _on_mnist("convnet", "adam", 1e-3), (SYMMETRIC,)),
    "mnist-wide": Entry("mnist", _on_mnist("convnet", width=48), (SYMMETRIC,)),
    "mnist-resnet9": Entry("mnist", _on_mnist("resnet9", width=8), (SYMMETRIC,)),
    "long-tail-fashion-mnist": Entry("long-tail-fashion-mnist", CONVNET, (SYMMETRIC, ("pair-flip", 0.3)), scarce=True),
    "cifar10h-images": Entry("cifar10h-images", CONVNET, HUMAN),
    # Fine-tuning.
    "photographs-1-epoch": _fine_tuned("cifar10-images", _photographs(1), SYMMETRIC, PAIR_FLIP),
    "photographs-3-epochs": _fine_tuned("cifar10-images", _photographs(3), SYMMETRIC, PAIR_FLIP, CLEAN),
    "photographs-5-epochs": _fine_tuned("cifar10-images", _photographs(5), SYMMETRIC),
    "sentences-1-epoch": _fine_tuned("clinc10-sentences", _sentences(1), SYMMETRIC, PAIR_FLIP),
    "sentences-3-epochs": _fine_tuned("clinc10-sentences", _sentences(3), SYMMETRIC, PAIR_FLIP, CLEAN),
    "sentences-5-epochs": _fine_tuned("clinc10-sentences", _sentences(5), SYMMETRIC),
}
"""All data sets, from cheap to dear."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the values of a cell."""

    dataset: str
    noise_kind: str
    noise: float
    seed: int

    @property
    def entry(self) -> Entry:
        """The data set's entry in :data:`SUITE`."""
        return SUITE[self.dataset]

    @property
    def name(self) -> str:
        """The name of the cell's file, without its ending."""
        return f"{self.dataset}-{self.noise_kind}-{self.noise:g}-seed{self.seed}"

    def described(self) -> dict[str, Any]:
        """The settings as they are saved."""
        entry = self.entry
        training = {**asdict(entry.training), "cross_validated": entry.cross_validated}
        return {"suite": "hard", **asdict(self), "data": entry.data, **training}


def cells(datasets: list[str], noise: Noise | None, seeds: range) -> list[Settings]:
    """The cells of some data sets and seeds, ordered by seed and from cheap to dear.

    Args:
        datasets: Names in :data:`SUITE`.
        noise: Kinds and rates to take, where a data set has them; ``None`` takes all.
        seeds: Seeds.
    """
    return [
        Settings(dataset=dataset, noise_kind=kind, noise=rate, seed=seed)
        for seed in seeds
        for dataset in SUITE
        if dataset in datasets
        for kind, rate in SUITE[dataset].noise
        if noise is None or (kind, rate) in noise
    ]
