"""Networks of one architecture, trained side by side: as one stack where that is possible, or just one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


def stackable(network: nn.Module) -> bool:
    """True where the network holds nothing but parameters and draws nothing.

    Batch norm sees other rows, and dropout would draw other numbers for a stack than for a network alone.
    """
    random = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.modules.batchnorm._BatchNorm)
    return next(network.buffers(), None) is None and not any(isinstance(part, random) for part in network.modules())


class Ensemble:
    """Several networks that are called, and trained, as one.

    Args:
        networks: All of the same architecture; one, or several that are :func:`stackable`.
        fast: What gives the same as a network that is alone.

    Attributes:
        parameters: To be given to an optimizer; those of several networks are stacked copies. An optimizer that treats
            every number for itself, as SGD does, moves them as it would move each network's own.
    """

    def __init__(self, networks: Sequence[nn.Module], fast: nn.Module | None = None) -> None:
        self.networks = networks
        self._alone = networks[0] if fast is None else fast
        self._stacked: dict[str, Tensor] = {}
        if len(networks) > 1:
            self._stacked = stack_module_state(list(networks))[0]
            self._call = vmap(lambda state, part: functional_call(networks[0], state, (part,)))
        self.parameters: list[Tensor] = list(self._stacked.values() or networks[0].parameters())

    def __call__(self, x: Float[Tensor, "networks batch ..."]) -> Float[Tensor, "networks batch num_classes"]:
        """Logits of every network for its own batch."""
        return self._call(self._stacked, x) if self._stacked else self._alone(x[0]).unsqueeze(0)

    @torch.no_grad()
    def unstack(self) -> Sequence[nn.Module]:
        """The networks, with the parameters as they are now."""
        for name, stack in self._stacked.items():
            for network, values in zip(self.networks, stack, strict=True):
                network.get_parameter(name).copy_(values)
        return self.networks
