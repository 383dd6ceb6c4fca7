"""How the networks of the hard suite are trained: settings go in, trained networks come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.hard.pretrained import EfficientNetLite0, SentenceClassifier
from lossbuf import networks
from lossbuf.callback import LossBufferCallback
from lossbuf.training import TrainSettings, build, seeded, train


@dataclass(frozen=True, kw_only=True)
class Training:
    """A network and how it is trained.

    Attributes:
        network: ``"mlp"``, ``"convnet"``, ``"resnet9"``, ``"efficientnet-lite0"`` or ``"minilm"``.
        epochs: Passes over the data.
        lr: Highest learning rate.
        batch_size: Rows of a step.
        optimizer: ``"sgd"`` is the package's own training loop. ``"adam"`` and ``"adamw"`` are a plain loop as people
            write it, with a constant learning rate.
        width: Channels of a ConvNet or ResNet-9.
    """

    network: str
    epochs: int
    lr: float
    batch_size: int = 128
    optimizer: str = "sgd"
    width: int = 16


def make(training: Training, sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A fresh network.

    Raises:
        ValueError: If the name of the network is unknown.
    """
    if training.network == "mlp":
        return networks.MLP(sample_shape[0], num_classes, hidden=(256, 256))
    if training.network == "convnet":
        size = (sample_shape[1], sample_shape[2])
        return networks.ConvNet(sample_shape[0], num_classes, size, width=training.width, norm="batch")
    if training.network == "resnet9":
        return networks.resnet9(sample_shape[0], num_classes, width=training.width)
    if training.network == "efficientnet-lite0":
        return EfficientNetLite0(num_classes)
    if training.network == "minilm":
        return SentenceClassifier(num_classes)
    raise ValueError(f"`network` must be one that is known, got {training.network!r}.")


def fit(
    training: Training, seed: int, x: Tensor, labels: Tensor, num_classes: int, callback: Any, device: str | None = None
) -> nn.Module:
    """Train a fresh network.

    Args:
        training: How.
        seed: Decides the weights and the order of the rows.
        x: Samples as the network takes them, shape ``(n_samples, ...)``.
        labels: Given labels, shape ``(n_samples,)``.
        num_classes: Number of classes.
        callback: Has ``loss(logits, labels, rows)`` and ``end_epoch()``, or is ``None``.
        device: Where to train; by default a GPU where there is one.
    """
    settings = TrainSettings(
        epochs=training.epochs, batch_size=training.batch_size, lr=training.lr, seed=seed, device=device
    )
    network = build(lambda: make(training, tuple(x.shape[1:]), num_classes), settings)
    if training.optimizer == "sgd":
        train(network, x, labels, settings, callback=callback)
    else:
        with seeded(seed, settings.torch_device()):
            _plain_loop(network, x, labels, training, settings.torch_device(), callback)
    return network.eval()


def _plain_loop(
    network: nn.Module, x: Tensor, labels: Tensor, training: Training, device: torch.device, callback: Any
) -> None:
    optimizers = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = optimizers[training.optimizer](network.parameters(), lr=training.lr, fused=True)
    if isinstance(callback, LossBufferCallback):
        callback.attach(network, optimizer, training.epochs)
    x, labels = x.to(device), labels.to(device)
    for _ in range(training.epochs):
        network.train()
        for rows in torch.randperm(len(x)).to(device).split(training.batch_size):
            logits = network(x[rows])
            if callback is None:
                loss = F.cross_entropy(logits, labels[rows])
            else:
                loss = callback.loss(logits, labels[rows], rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if callback is not None:
            callback.end_epoch()
