"""The methods of ``benchmarks.condense``: what each makes of a cell's settings, and how its sets are augmented."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from benchmarks.common.data import short_name
from condensation import coresets
from condensation.augmentation.random_changes import DC_MNIST, Augmentation
from condensation.augmentation.siamese import SiameseAugmentation
from condensation.coresets import NetworkFeatures
from condensation.distillation import (
    DatasetDistillation,
    KnowledgeDistillation,
    LabelDistillation,
)
from condensation.distillation.dataset import Xavier
from condensation.learned.condenser import Condenser
from condensation.matching import DistributionMatching, GradientMatching
from condensation.matching.gradient import loops
from condensation.subspace import LDAPCAImages, PCAImages
from lossbuf import networks
from lossbuf.networks import NetworkFactory, architectures


def digits_net(sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two blocks of width 64, for images of 8 pixels a side."""
    channels, height, width = sample_shape
    return networks.ConvNet(channels, num_classes, (height, width), width=64, depth=2)


NETWORKS: dict[str, NetworkFactory] = {
    "convnet3": architectures.convnet3,
    "convnet2": digits_net,
    "mlp": architectures.mlp,
    "lenet": architectures.lenet,
    "alexnet": architectures.alexnet,
    "vgg11": architectures.vgg11,
    "resnet18": architectures.resnet18,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the values of a cell."""

    dataset: str
    method: str
    ipc: int
    seed: int
    network: str
    networks: int
    eval_epochs: int | None
    test_on: tuple[str, ...]
    iterations: int | None
    minutes: float | None
    dtype: str
    subset: int | None

    @property
    def name(self) -> str:
        """Of the cell's files, without their endings."""
        return f"{short_name(self.dataset)}-{self.method}-ipc{self.ipc}-{self.network}-seed{self.seed}"


def siamese(dataset: str) -> SiameseAugmentation:
    """DSA's families: no flips where left and right matter."""
    families = ("color", "crop", "cutout", "flip", "scale", "rotate")
    mirrored = dataset in ("digits", "mnist", "svhn")
    return SiameseAugmentation(tuple(family for family in families if not (mirrored and family == "flip")))


def no_augmentation(dataset: str) -> Augmentation | None:
    """With what coresets and DC are trained on."""
    return DC_MNIST if dataset == "mnist" else None


class Method(NamedTuple):
    """A method: what it makes of all rows, its iterations where it has any, and what its sets are augmented with."""

    make: Callable[[Settings], Condenser] | None
    iterations: int = 0
    on_digits: int = 0
    augment: Callable[[str], Augmentation | None] = no_augmentation


def _of(settings: Settings, method: Method) -> int:
    return settings.iterations or (method.on_digits if settings.dataset == "digits" else method.iterations)


def gradient_matching(settings: Settings, augment: SiameseAugmentation | None) -> Condenser:
    """DC, or DSA where there is an augmentation.

    On digits smaller steps, since gradients are longer; and few iterations, which are as many steps of the images for
    all sizes and start at real ones.
    """
    digits = settings.dataset == "digits"
    iterations = _of(settings, METHODS[settings.method])
    if digits and settings.iterations is None:
        iterations = max(1, iterations // loops(settings.ipc)[0])
    return GradientMatching(
        settings.ipc,
        augment=augment,
        network=NETWORKS[settings.network],
        iterations=iterations,
        init="real" if digits else None,
        lr=0.03 if digits else 0.1,
        dtype=settings.dtype,
        random_state=settings.seed,
        progress=True,
    )


def distribution_matching(settings: Settings) -> Condenser:
    """DM."""
    return DistributionMatching(
        settings.ipc,
        augment=siamese(settings.dataset),
        network=NETWORKS[settings.network],
        iterations=_of(settings, METHODS[settings.method]),
        random_state=settings.seed,
        progress=True,
    )


def dataset_distillation(settings: Settings) -> Condenser:
    """DD."""
    digits = settings.dataset == "digits"
    return DatasetDistillation(
        settings.ipc,
        network=Xavier(NETWORKS[settings.network]),
        iterations=_of(settings, METHODS[settings.method]),
        lr=0.03 if digits else 0.01,
        init_lr=0.001 if settings.dataset == "cifar10" else 0.02,
        random_state=settings.seed,
        progress=True,
    )


def label_distillation(settings: Settings) -> Condenser:
    """LD, by ridge regression; larger steps on digits, where there are fewer."""
    return LabelDistillation(
        settings.ipc,
        network=NETWORKS[settings.network],
        iterations=_of(settings, METHODS[settings.method]),
        lr=0.003 if settings.dataset == "digits" else 0.001,
        random_state=settings.seed,
        progress=True,
    )


def knowledge_distillation(settings: Settings) -> Condenser:
    """KD: rows that herding chooses, and a teacher's labels."""
    base = coresets.Herding(ipc=settings.ipc, features=NetworkFeatures())
    return KnowledgeDistillation(base, random_state=settings.seed)


METHODS: dict[str, Method] = {
    "random": Method(None),
    "herding": Method(None),
    "k-center": Method(None),
    "forgetting": Method(None),
    "random+": Method(None, augment=siamese),
    "herding+": Method(None, augment=siamese),
    "dc": Method(lambda settings: gradient_matching(settings, None), 1000, 200),
    "dsa": Method(lambda settings: gradient_matching(settings, siamese(settings.dataset)), 1000, 200, siamese),
    "dm": Method(distribution_matching, 20_000, 400, siamese),
    "dd": Method(dataset_distillation, 23_600, 800),
    "ld": Method(label_distillation, 19_600, 2000),
    "kd": Method(knowledge_distillation),
    "pca": Method(lambda settings: PCAImages(settings.ipc)),
    "lda-pca": Method(lambda settings: LDAPCAImages(settings.ipc, random_state=settings.seed)),
}
