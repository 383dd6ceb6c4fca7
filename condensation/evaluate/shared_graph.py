"""One compiled graph for networks of one form, which run one after the other."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from lossbuf import checks

_VARIANTS = 64
"""Graphs for as many shapes of a batch, where torch lets us say how many; its own limit is 8."""


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
            advice = "Instance norm has none."
            raise ValueError(checks.problem("network", "must have no buffers to be compiled", "some", advice))
        if self.own is None:
            self.own = copy.deepcopy(network)
            self.graph = _Compiled(self.own)
        elif repr(network) != repr(self.own):
            raise ValueError(checks.problem("network", "must make networks of one form to be compiled", "two forms"))
        self.own.load_state_dict(network.state_dict())
        self.own.zero_grad(set_to_none=True)
        return self.own


class _Compiled(nn.Module):
    """What runs a network through a graph of its own.

    torch counts graphs by the code they were made from, whoever made them, and runs that code as it is once there are
    too many. So that other networks of the same class do not count, the code is a copy.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

        def run(x: Tensor) -> Tensor:
            return network(x)

        own = FunctionType(run.__code__.replace(), run.__globals__, "run", None, run.__closure__)
        limited = "recompile_limit" in inspect.signature(torch.compile).parameters
        limit: dict[str, Any] = {"recompile_limit": _VARIANTS} if limited else {}
        self._run: Callable[[Tensor], Tensor] = torch.compile(own, dynamic=False, fullgraph=True, **limit)
        self._ran = False

    def forward(self, x: Tensor) -> Tensor:
        if self._ran:
            return self._run(x)
        try:
            found = self._run(x)
        except Exception as error:
            self.network(x)  # where it cannot run at all its own error tells more
            advice = "On a CPU a C++ compiler must be there. Or leave `compiled` out."
            reason = checks.problem("compiled", "must be False where torch.compile fails", error, advice)
            raise RuntimeError(reason) from error
        self._ran = True
        return found
