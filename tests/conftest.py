"""Fixtures of all tests."""

import os
from collections.abc import Iterator

import jaxtyping
import pytest
import torch

# Workers share the cores (pyproject.toml), so each takes one thread, and so do the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

_NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _NO_CUDA])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that a routine runs on."""
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator on the CPU: the same draws on every device."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """Switch off the shape checks that exist only while testing, to see what a user sees."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Forget what other tests compiled: the number of variants is limited."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
