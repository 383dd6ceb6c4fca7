"""Fresh networks, one after the other; compiled, they share one graph."""

from __future__ import annotations

import torch
from torch import nn

from condensation.condenser import RealImages
from condensation.learning import Factory, fresh_network
from lossbuf import checks


class Networks:
    """Makes networks and, where asked to, what runs them faster.

    A compiled graph belongs to a network's parameters. So that it serves all networks, the values of each are copied
    into those of the first.

    Args:
        factory: Makes a network.
        real: The images to make it for.
        device: Where it runs.
        compiled: Compile the first.
    """

    def __init__(self, factory: Factory, real: RealImages, device: torch.device, *, compiled: bool) -> None:
        self.factory, self.device = factory, device
        self.shape, self.num_classes = tuple(real.x.shape[1:]), real.num_classes
        self.compiled = compiled
        self._first: nn.Module | None = None
        self._graph: nn.Module | None = None

    def fresh(self, generator: torch.Generator) -> nn.Module:
        """A network with weights drawn from the generator; compiled, the one before is overwritten.

        Raises:
            ValueError: If networks are to be compiled and have buffers, as batch norm has, or are not all of one form.
        """
        network = fresh_network(self.factory, self.shape, self.num_classes, self.device, generator)
        if not self.compiled:
            return network
        if next(network.buffers(), None) is not None:
            mend = "Instance norm has none."
            raise ValueError(checks.problem("network", "must have no buffers to be compiled", "some", mend))
        if self._first is None:
            self._first = network
            self._graph = torch.compile(network, dynamic=False)  # pyright: ignore[reportAttributeAccessIssue]
            return network
        if repr(network) != repr(self._first):
            raise ValueError(checks.problem("network", "must make networks of one form to be compiled", "two forms"))
        self._first.load_state_dict(network.state_dict())
        self._first.zero_grad(set_to_none=True)
        return self._first

    def fast(self, network: nn.Module) -> nn.Module:
        """What gives the same as the network but for rounding, and cannot be differentiated twice."""
        return network if self._graph is None else self._graph
