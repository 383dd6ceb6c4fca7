"""Back to the weights that a training began with, so that nothing memorized since remains."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer

from lossbuf import checks


class StartingPoint:
    """A network and its optimizer as they were when this was made.

    Args:
        network: The network that trains, wrapped or not.
        optimizer: Its optimizer; momentum and the like start anew too, while the learning rate stays as it is.

    Raises:
        ValueError: If either is something else, or the network has weights that its first batch is to make.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer) -> None:
        for name, value, kind in (("network", network, nn.Module), ("optimizer", optimizer, Optimizer)):
            if not isinstance(value, kind):
                raise ValueError(checks.problem(name, f"must be a torch {kind.__name__}", type(value).__name__))
        if any(isinstance(value, UninitializedParameter) for value in network.parameters()):
            advice = "Run a batch through it before the training."
            raise ValueError(checks.problem("network", "must have all its weights", "lazy modules", advice))
        self.network, self.optimizer = network, optimizer
        self._weights = self._copied_weights()
        self._progress = copy.deepcopy(optimizer.state_dict()["state"])

    @torch.no_grad()
    def restore(self) -> None:
        """Give network and optimizer the state they had."""
        self.network.load_state_dict(self._weights, strict=False)  # what records the training is not among them
        state = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**state, "state": copy.deepcopy(self._progress)})

    def state(self) -> dict[str, Any]:
        """All that :meth:`load` needs."""
        return {"weights": self._weights, "progress": self._progress}

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise where :meth:`load` would not fit.

        Raises:
            ValueError: If the state is that of another network.
        """
        shapes = {name: tuple(value.shape) for name, value in self._weights.items() if isinstance(value, Tensor)}
        found = {name: tuple(value.shape) for name, value in state["weights"].items() if isinstance(value, Tensor)}
        if shapes != found:
            rule = "must be of a training of the same network"
            raise ValueError(checks.problem("state_dict", rule, f"other weights than {len(shapes)} of this one"))

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` gave.

        Raises:
            ValueError: If it is that of another network.
        """
        self.check(state)
        self._weights = _copied(state["weights"])
        self._progress = copy.deepcopy(state["progress"])

    def _copied_weights(self) -> dict[str, Any]:
        """The network's state without that of callbacks of this package that are modules of it, which must go on."""
        records = [
            f"{name}." for name, part in self.network.named_modules() if getattr(part, "records_training", False)
        ]
        state = self.network.state_dict()
        return _copied({name: value for name, value in state.items() if not name.startswith(tuple(records))})


def _copied(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in weights.items()
    }
