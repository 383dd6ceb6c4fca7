"""Fresh networks, one after the other; compiled, they share one graph."""

from __future__ import annotations

import torch
from torch import nn

from condensation.evaluate.shared_graph import SharedGraph
from condensation.learned.condenser import RealImages
from condensation.learned.run import Factory, fresh_network


class Networks:
    """Makes networks and, where asked to, what runs them faster.

    Args:
        factory: Makes a network.
        real: The images to make it for.
        device: Where it runs.
        compiled: Compile one for all, see :class:`~condensation.evaluate.shared_graph.SharedGraph`.
    """

    def __init__(self, factory: Factory, real: RealImages, device: torch.device, *, compiled: bool) -> None:
        self.factory, self.device = factory, device
        self.shape, self.num_classes = tuple(real.x.shape[1:]), real.num_classes
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
