"""Compiled networks learn the same images but for rounding, from one graph."""

import numpy as np
import pytest
import torch
from torch import nn

from condensation.evaluate import EvalSettings
from condensation.evaluate.shared_graph import SharedGraph
from condensation.learned.networks import FreshNetworks
from condensation.matching import GradientMatching
from lossbuf.networks import ConvNet

pytestmark = [
    pytest.mark.usefixtures("no_shape_checks", "fresh_compiler"),
    # torch's compiler looks at .grad and hides this warning of its own, but not where warnings are errors.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def small(shape, num_classes):
    return ConvNet(shape[0], num_classes, shape[1:], width=8, depth=2)


SHAPE, CLASSES = (1, 8, 8), 3


def images():
    draw = np.random.RandomState(0)
    return draw.rand(60, 1, 8, 8).astype(np.float32), np.arange(60) % 3


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_images_are_the_same_but_for_rounding(dtype):
    settings = {"ipc": 2, "network": small, "iterations": 2, "outer_steps": 2, "inner_epochs": 2, "lr": 0.01}
    settings |= {"batch_size": 16, "dtype": dtype, "random_state": 0, "device": "cpu"}
    plain = GradientMatching(**settings).fit(*images())
    compiled = GradientMatching(**settings, compiled=True).fit(*images())
    tolerance = 1e-4 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(compiled.images_, plain.images_, atol=tolerance)
    np.testing.assert_allclose(compiled.losses_, plain.losses_, rtol=10 * tolerance)
    if dtype == "bfloat16":
        return
    again = GradientMatching(**settings, compiled=True).fit(*images())
    assert (again.images_ == compiled.images_).all()


def test_a_fresh_network_has_the_weights_of_its_draw():
    plain, shared = (
        FreshNetworks(small, SHAPE, CLASSES, torch.device("cpu"), compiled=compiled) for compiled in (False, True)
    )
    first = None
    for seed in range(3):
        expected = plain.fresh(torch.Generator().manual_seed(seed))
        found = shared.fresh(torch.Generator().manual_seed(seed))
        first = found if first is None else first
        assert found is first
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
        assert all(parameter.grad is None for parameter in found.parameters())
        found.classifier.bias.grad = torch.ones(3)
    assert plain.fast(expected) is expected
    assert all(a is b for a, b in zip(shared.fast(first).parameters(), first.parameters(), strict=True))


def test_networks_that_cannot_share_a_graph_are_refused():
    def with_norm(shape, num_classes):
        return ConvNet(shape[0], num_classes, shape[1:], width=4, norm="batch")

    with pytest.raises(ValueError, match="`network` must have no buffers to be compiled"):
        FreshNetworks(with_norm, SHAPE, CLASSES, torch.device("cpu"), compiled=True).fresh(torch.Generator())
    widths = iter((4, 5))

    def changing(shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, next(widths)), nn.Linear(5, num_classes))

    networks = FreshNetworks(changing, SHAPE, CLASSES, torch.device("cpu"), compiled=True)
    networks.fresh(torch.Generator())
    with pytest.raises(ValueError, match="`network` must make networks of one form"):
        networks.fresh(torch.Generator())


@pytest.mark.slow
def test_other_networks_of_the_class_do_not_count():
    """torch runs code uncompiled, without a word, once it has made eight graphs of it."""
    x, y = images()
    settings = {"ipc": 1, "network": small, "iterations": 1, "outer_steps": 1, "batch_size": 16, "random_state": 0}
    alone = GradientMatching(**settings, compiled=True, device="cpu").fit(x, y).images_
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for size in range(12, 30, 2):
        graph = SharedGraph()
        graph.adopt(ConvNet(1, 3, (size, size), width=8, depth=2))
        graph.graph(torch.zeros(4, 1, size, size))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == made + 9
    np.testing.assert_array_equal(GradientMatching(**settings, compiled=True, device="cpu").fit(x, y).images_, alone)


def test_without_a_compiler_it_is_told_what_to_do(monkeypatch):
    graph = SharedGraph()
    network = small((1, 8, 8), 3)
    graph.adopt(network)

    def broken(x):
        raise OSError("no C++ compiler")

    monkeypatch.setattr(graph.graph, "_run", broken)
    with pytest.raises(
        RuntimeError, match=r"`compiled` must be False where torch.compile fails, got no C\+\+ compiler"
    ):
        graph.graph(torch.zeros(4, 1, 8, 8))
    with pytest.raises(RuntimeError, match="channels"):  # what fails without it, too, is told as it is
        graph.graph(torch.zeros(4, 2, 8, 8))


@pytest.mark.parametrize("value", ["no", None, 1])
def test_compiled_is_true_or_false(value):
    with pytest.raises(ValueError, match="`compiled` must be True or False"):
        EvalSettings(compiled=value)
    with pytest.raises(ValueError, match="`compiled` must be True or False"):
        GradientMatching(ipc=1, iterations=1, compiled=value).fit(*images())
