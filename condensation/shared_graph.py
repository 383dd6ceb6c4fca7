"""One compiled graph for networks of one form, which run one after the other."""

from __future__ import annotations

import copy

import torch
from torch import nn

from lossbuf import checks


class SharedGraph:
    """Compiles a network, and lends its graph to others.

    A compiled graph belongs to a network's parameters. So that it serves all networks, the values of each are copied
    into those of one.
    """

    def __init__(self) -> None:
        self.own: nn.Module | None = None
        self.graph: nn.Module | None = None

    def adopt(self, network: nn.Module) -> nn.Module:
        """The one network, with the values of this one; those it had are overwritten.

        Raises:
            ValueError: If the network has buffers, as batch norm has, or is not of the form of those before.
        """
        if next(network.buffers(), None) is not None:
            mend = "Instance norm has none."
            raise ValueError(checks.problem("network", "must have no buffers to be compiled", "some", mend))
        if self.own is None:
            self.own = copy.deepcopy(network)
            self.graph = torch.compile(self.own, dynamic=False)  # pyright: ignore[reportAttributeAccessIssue]
        elif repr(network) != repr(self.own):
            raise ValueError(checks.problem("network", "must make networks of one form to be compiled", "two forms"))
        self.own.load_state_dict(network.state_dict())
        self.own.zero_grad(set_to_none=True)
        return self.own
