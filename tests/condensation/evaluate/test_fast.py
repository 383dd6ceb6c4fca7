"""Networks in half precision, and compiled ones, do as well as plain ones but for rounding."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from condensation.augmentation.random_changes import Crop
from condensation.evaluate import evaluate
from lossbuf.networks import ConvNet
from tests.condensation.evaluate.test_protocol import (
    SETTINGS,
    Factory,
    batch_norm,
    data,
    dropout,
    in_double,
    small_convnet,
)

__all__ = ["data"]  # the fixture


def trained(data, make=small_convnet, **changed):
    factory = Factory(make)
    found = evaluate(*data, network=factory, settings=replace(SETTINGS, **changed), augment=Crop(1))
    return torch.stack(factory.weights()).cpu(), found.accuracies


@pytest.mark.usefixtures("no_shape_checks", "fresh_compiler")
# torch's compiler looks at .grad and hides this warning of its own, but not where warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestCompiled:
    @pytest.fixture
    def quick(self, monkeypatch):
        """The tracing of a compiler, with nothing compiled."""
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))

    @pytest.mark.usefixtures("quick")
    def test_one_graph_serves_all_networks(self, data):
        plain, accuracies = trained(data)
        weights, found = trained(data, compiled=True)
        assert torch.equal(weights, plain)
        assert found == accuracies

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_the_same_but_for_rounding(self, data, dtype):
        plain, accuracies = trained(data, dtype=dtype, lr=0.01)
        weights, found = trained(data, dtype=dtype, lr=0.01, compiled=True)
        torch.testing.assert_close(weights, plain, rtol=0, atol=1e-4 if dtype == "float32" else 2e-2)
        assert found == pytest.approx(accuracies, abs=0.05)
        again, same = trained(data, dtype=dtype, lr=0.01, compiled=True)
        assert torch.equal(again, weights)
        assert same == found

    @pytest.mark.usefixtures("quick")
    def test_networks_of_several_forms_are_refused(self, data):
        widths = iter((4, 5))

        def changing(shape, num_classes):
            return ConvNet(shape[0], num_classes, shape[1:], width=next(widths))

        with pytest.raises(ValueError, match="`network` must make networks of one form"):
            trained(data, changing, compiled=True)


def test_half_precision_is_near_and_seeded(data, device):
    settings = {"lr": 0.01, "device": str(device)}
    plain, accuracies = trained(data, **settings)
    half, found = trained(data, **settings, dtype="bfloat16")
    assert not torch.equal(half, plain)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, rtol=0, atol=0.02)
    assert found == pytest.approx(accuracies, abs=0.05)
    again, same = trained(data, **settings, dtype="bfloat16")
    assert torch.equal(again, half)
    assert same == found


def test_half_precision_is_that_of_the_networks_alone(data):
    seen = []

    class Watching(nn.Linear):
        def forward(self, input):
            outputs = super().forward(input.flatten(1))
            seen.append((input.dtype, self.weight.dtype, outputs.dtype, self.training))
            return outputs

    evaluate(*data, network=lambda *_: Watching(64, 3), settings=replace(SETTINGS, networks=1, dtype="bfloat16"))
    assert set(seen) == {(torch.float32, torch.float32, torch.bfloat16, training) for training in (True, False)}


@pytest.mark.parametrize("make", [batch_norm, dropout])
def test_networks_that_cannot_be_compiled(data, make):
    with pytest.raises(ValueError, match="`network` must have neither buffers, as batch norm has, nor dropout to be"):
        trained(data, make, compiled=True)
    trained(data, make, dtype="bfloat16")


def test_settings_that_do_not_go_together(data):
    with pytest.raises(ValueError, match="`dtype` must be one of 'float32', 'bfloat16'"):
        replace(SETTINGS, dtype="float16")
    with pytest.raises(ValueError, match="`dtype` must be 'float32' where `x` is float64"):
        trained(in_double(data), dtype="bfloat16")
    with pytest.raises(ValueError, match="`together` must be 1 for networks that are compiled"):
        evaluate(*data, settings=replace(SETTINGS, compiled=True), together=2)
