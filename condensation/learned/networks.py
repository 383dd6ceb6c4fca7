"""The networks that sets are learned with: made anew by a factory, with seeded weights; compiled on request."""

from __future__ import annotations

from weakref import WeakSet

import torch
from torch import nn

from condensation.evaluate.ensemble import stackable
from condensation.evaluate.shared_graph import SharedGraph
from lossbuf import checks
from lossbuf.networks import NetworkFactory, architectures
from lossbuf.training import seeded

_MADE: WeakSet[nn.Module] = WeakSet()
"""Networks that a factory made."""


def fresh_network(
    factory: NetworkFactory, shape: tuple[int, ...], num_classes: int, device: torch.device, generator: torch.Generator
) -> nn.Module:
    """A network with weights drawn from the generator, on the device.

    Raises:
        ValueError: If the factory gives a network that it gave before, or something else.
    """
    with seeded(int(torch.randint(2**62, (1,), generator=generator)), device):
        network = factory(shape, num_classes)
    if not isinstance(network, nn.Module):
        raise ValueError(checks.problem("network", "must make a torch.nn.Module", type(network).__name__))
    if network in _MADE:
        raise ValueError(checks.problem("network", "must make a new network at every call", "one it made before"))
    _MADE.add(network)
    return network.to(device)


def plain_network(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """LeNet, as published with both distillations; a perceptron of two hidden layers for images it is too large for."""
    if min(shape[-2:]) < 16:
        return architectures.mlp(shape, num_classes)
    return architectures.lenet(shape, num_classes)


def check_differentiable_twice(network: nn.Module) -> None:
    """Raise ``ValueError`` unless the network holds nothing but parameters and draws nothing.

    Else what it gives for given parameters were no function, and the derivative of a step on it no number.
    """
    if next(network.parameters(), None) is None:
        raise ValueError(checks.problem("network", "must have parameters to train", "none"))
    if not stackable(network):
        advice = "Instance norm needs neither."
        rule = "must not have buffers, as batch norm has, nor dropout"
        raise ValueError(checks.problem("network", rule, type(network).__name__, advice))


class FreshNetworks:
    """Makes networks and, where asked to, what runs them faster.

    Args:
        factory: Makes a network.
        shape: Shape of an image.
        num_classes: Number of classes.
        device: Where it runs.
        compiled: Compile one for all, see :class:`~condensation.evaluate.shared_graph.SharedGraph`.
    """

    def __init__(
        self, factory: NetworkFactory, shape: tuple[int, ...], num_classes: int, device: torch.device, *, compiled: bool
    ) -> None:
        self.factory, self.device = factory, device
        self.shape, self.num_classes = shape, num_classes
        self._shared = SharedGraph() if compiled else None

    def fresh(self, generator: torch.Generator) -> nn.Module:
        """A network with weights drawn from the generator; compiled, the one before is overwritten.

        Raises:
            ValueError: If networks are to be compiled and have buffers, as batch norm has, or are not all of one form.
        """
        network = fresh_network(self.factory, self.shape, self.num_classes, self.device, generator)
        return network if self._shared is None else self._shared.adopt(network)

    def fast(self, network: nn.Module) -> nn.Module:
        """What gives the same as the network but for rounding, and cannot be differentiated twice."""
        return network if self._shared is None or self._shared.graph is None else self._shared.graph
