"""Gradients of every class's loss in a network's parameters: class by class, or all in one pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap


def class_gradients(
    network: nn.Module,
    x: Float[Tensor, "num_classes batch channels height width"],
    weights: Float[Tensor, "num_classes batch"],
    *,
    together: bool = False,
    create_graph: bool = False,
    rows_at_once: int | None = None,
    first: int = 0,
) -> list[Tensor]:
    """Gradients of the weighted mean cross-entropy of each class, all images of class c having the label c.

    Args:
        network: Gives logits. With ``together`` its parameters alone may decide what it gives: no dropout, and batch
            norm in evaluation mode.
        x: Images, class by class.
        weights: Of the images, at least 0, with a sum above 0 in every class; 0 for places that hold no image.
        together: All classes in one pass, as a GPU likes it; the same but for rounding.
        create_graph: The gradients are to be differentiated in ``x``.
        rows_at_once: Images of a class that are passed through at once, where no graph is created; the gradients of
            the parts are summed. Bounds memory, and on a CPU keeps activations in the cache.
        first: Label of the first class.

    Returns:
        For each parameter the gradients of all classes, shape ``(num_classes, *parameter)``.
    """
    classes = torch.arange(first, first + len(x), device=x.device)
    shares = weights / weights.sum(1, keepdim=True)
    size = x.shape[1] if rows_at_once is None or create_graph else rows_at_once
    total: list[Tensor] = []
    for images, share in zip(x.split(size, 1), shares.split(size, 1), strict=True):
        found = (_in_one_pass if together else _class_by_class)(network, images, share, classes, create_graph)
        total = [one + other for one, other in zip(total, found, strict=True)] if total else found
    return total


def _in_one_pass(network: nn.Module, x: Tensor, shares: Tensor, classes: Tensor, create_graph: bool) -> list[Tensor]:
    parameters, buffers = dict(network.named_parameters()), dict(network.named_buffers())
    fixed = {name: value if create_graph else value.detach() for name, value in parameters.items()}

    def loss(values: dict[str, Tensor], images: Tensor, share: Tensor, label: Tensor) -> Tensor:
        return _loss(functional_call(network, (values, buffers), (images,)), share, label)

    found = vmap(grad(loss), in_dims=(None, 0, 0, 0))(fixed, x, shares, classes)
    return [found[name] for name in parameters]


def _class_by_class(network: nn.Module, x: Tensor, shares: Tensor, classes: Tensor, create_graph: bool) -> list[Tensor]:
    parameters = list(network.parameters())
    rows = [
        torch.autograd.grad(_loss(network(images), share, label), parameters, create_graph=create_graph)
        for images, share, label in zip(x, shares, classes, strict=True)
    ]
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


def _loss(logits: Tensor, share: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits, label.expand(len(logits)), reduction="none") @ share


def freeze_statistics(network: nn.Module, x: Float[Tensor, "batch channels height width"]) -> bool:
    """Let batch norm take its statistics from ``x`` and keep them; puts the network in training mode otherwise.

    Returns:
        True if there is any batch norm.

    Source:
        The code published with Zhao et al. 2021: 16 real images a class, at every outer step.
    """
    network.train()
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return False
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean: after one batch its own statistics
    with torch.no_grad():
        network(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return True
