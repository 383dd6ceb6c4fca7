"""States of modules: kept, carried through a file, and compared bit by bit."""

import copy
import io
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def kept(module: nn.Module) -> dict[str, Any]:
    """A copy of the state as it is now."""
    return copy.deepcopy(dict(module.state_dict()))


def reloaded(module: nn.Module, fresh: M) -> M:
    """``fresh`` with the state of ``module``, through a file."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def assert_same_bits(one: Any, other: Any, where: str = "") -> None:
    """Tensors, dicts and lists of them, plain values; NaN equals NaN, and 0.0 does not equal -0.0."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_same_bits(one[name], other[name], f"{where}/{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_same_bits(mine, theirs, f"{where}/{place}")
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.device) == (other.dtype, other.shape, other.device), where
        assert one.cpu().numpy().tobytes() == other.cpu().numpy().tobytes(), where
    else:
        assert one == other, where
