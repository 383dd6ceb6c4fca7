"""Networks trained on a small set one after the other, a row's loss at a time, and tested a sample at a time."""

import torch
from torch import Tensor, nn


def trained(
    network: nn.Module,
    x: Tensor,
    targets: Tensor,
    weights: list[float],
    orders: list[list[int]],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
) -> nn.Module:
    """Trains in place, an epoch an order; ``targets`` are rows of probabilities. A batch goes through as a whole."""
    epochs = len(orders)
    mean = sum(weights) / sum(weight > 0 for weight in weights)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs - epochs // 2], gamma=0.1)
    network.train()
    for order in orders:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            optimizer.zero_grad()
            logits = network(x[batch])
            loss = torch.zeros((), dtype=x.dtype)
            for row, outputs in zip(batch, logits, strict=True):
                log_probs = outputs - outputs.exp().sum().log()
                loss = loss - weights[row] / mean * (targets[row] * log_probs).sum()
            (loss / len(batch)).backward()
            optimizer.step()
        schedule.step()
    return network


def accuracy(network: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Share of samples whose largest logit is the label's."""
    network.eval()
    right = 0
    for sample, label in zip(x, labels.tolist(), strict=True):
        logits = network(sample.unsqueeze(0))[0].tolist()
        right += logits.index(max(logits)) == label
    return right / len(labels)
