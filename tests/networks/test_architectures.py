"""The networks that condensed sets are tested on: sizes counted by hand, and the samples they refuse."""

import itertools
import pickle

import pytest
import torch
from torch import nn

from lossbuf.networks import architectures

IMAGES = [
    architectures.convnet3,
    architectures.lenet,
    architectures.alexnet,
    architectures.vgg11,
    architectures.resnet18,
]
ALL = [*IMAGES, architectures.mlp]
MNIST, CIFAR, DIGITS = (1, 28, 28), (3, 32, 32), (1, 8, 8)


def convolution(before, after, size):
    return (before * size * size + 1) * after


# A convolution has a bias; a norm has two weights a channel; a linear layer has a bias.
def convnet3(channels, features):
    return convolution(channels, 128, 3) + 2 * convolution(128, 128, 3) + 3 * 256 + (features + 1) * 10


def mlp(features):
    return (features + 1) * 128 + 129 * 128 + 129 * 10


def lenet(channels):
    return convolution(channels, 6, 5) + convolution(6, 16, 5) + 401 * 120 + 121 * 84 + 85 * 10


def alexnet(channels, features=192 * 4 * 4):
    first = convolution(channels, 128, 5) + convolution(128, 192, 5) + convolution(192, 256, 3)
    return first + convolution(256, 192, 3) + convolution(192, 192, 3) + (features + 1) * 10


def vgg11(channels):
    widths = [channels, 64, 128, 256, 256, 512, 512, 512, 512]
    blocks = (convolution(a, b, 3) + 2 * b for a, b in itertools.pairwise(widths))
    return sum(blocks) + 513 * 10


@pytest.mark.parametrize(
    ("network", "shape", "weights"),
    [
        # LeNet's 61,706 and, of ConvNet-3, 320,010 are known from the literature; so are ResNet-18's and VGG-11's.
        (architectures.lenet, MNIST, 61_706),
        (architectures.lenet, CIFAR, lenet(3)),
        (architectures.convnet3, CIFAR, 320_010),
        (architectures.convnet3, CIFAR, convnet3(3, 128 * 4 * 4)),
        (architectures.convnet3, MNIST, convnet3(1, 128 * 4 * 4)),
        (architectures.convnet3, DIGITS, convnet3(1, 128)),
        (architectures.mlp, MNIST, mlp(784)),
        (architectures.mlp, CIFAR, mlp(3072)),
        (architectures.mlp, (64,), mlp(64)),
        (architectures.alexnet, MNIST, alexnet(1)),
        (architectures.alexnet, CIFAR, alexnet(3)),
        (architectures.alexnet, DIGITS, alexnet(1, 192)),
        (architectures.vgg11, MNIST, vgg11(1)),
        (architectures.vgg11, CIFAR, 9_231_114),
        (architectures.vgg11, CIFAR, vgg11(3)),
        (architectures.resnet18, CIFAR, 11_173_962),
        (architectures.resnet18, MNIST, 11_173_962 - 2 * 64 * 9),
    ],
)
def test_weights(network, shape, weights):
    assert sum(part.numel() for part in network(shape, 10).parameters()) == weights


@pytest.mark.parametrize(
    ("network", "shape"),
    [(network, shape) for network in ALL for shape in (MNIST, CIFAR)]
    + [(network, DIGITS) for network in (architectures.convnet3, architectures.mlp, architectures.alexnet)]
    + [(architectures.lenet, (2, 16, 19)), (architectures.alexnet, (2, 9, 17)), (architectures.vgg11, (1, 33, 64)),
       (architectures.resnet18, (1, 9, 9)), (architectures.mlp, (5,)), (architectures.convnet3, (1, 1, 3))],
)  # fmt: skip
def test_shapes(network, shape, device, generator):
    made = network(torch.Size(shape), 4).to(device)
    for batch in (1, 3):
        logits = made(torch.randn(batch, *shape, generator=generator).to(device))
        assert logits.shape == (batch, 4)
    logits.sum().backward()
    assert all(part.grad is not None for part in made.parameters())


@pytest.mark.parametrize("network", [architectures.convnet3, architectures.vgg11])
def test_mnist_is_padded_to_32(network, generator):
    made = network(MNIST, 10)
    sizes = []
    first = next(part for part in made.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_hook(lambda _, before, after: sizes.append(after.shape[2:]))
    made(torch.randn(2, *MNIST, generator=generator))
    assert sizes == [(32, 32)]
    assert first.padding == (3, 3)


@pytest.mark.parametrize(
    ("network", "norms"), [(architectures.convnet3, 3), (architectures.vgg11, 8), (architectures.resnet18, 20)]
)
def test_norms_have_a_group_a_channel(network, norms):
    found = [part for part in network(CIFAR, 3).modules() if isinstance(part, nn.GroupNorm)]
    assert len(found) == norms
    assert all(part.num_groups == part.num_channels and part.affine for part in found)


@pytest.mark.parametrize("network", ALL)
def test_rows_do_not_see_each_other_and_networks_travel(network, generator):
    made = network(CIFAR, 3)
    x = torch.randn(4, *CIFAR, generator=generator)
    torch.testing.assert_close(made(x[1:2]), made(x)[1:2], rtol=1e-3, atol=1e-4)
    assert next(made.buffers(), None) is None
    assert torch.equal(pickle.loads(pickle.dumps(made))(x), made(x))


@pytest.mark.parametrize(
    ("network", "shape", "rule"),
    [(network, (64,), "must be \\(channels, height, width\\) for ") for network in IMAGES]
    + [
        (architectures.lenet, DIGITS, "for lenet with at least 16x16 pixels"),
        (architectures.vgg11, DIGITS, "for vgg11 with at least 32x32 pixels"),
        (architectures.resnet18, DIGITS, "for resnet18 with at least 9x9 pixels"),
        (architectures.alexnet, (1, 28, 7), "for alexnet with at least 8x8 pixels"),
        (architectures.vgg11, (1, 28, 29), "for vgg11 with at least 32x32 pixels"),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_samples_that_do_not_fit(network, shape, rule):
    with pytest.raises(ValueError, match=f"`sample_shape` .*{rule}.*got"):
        network(shape, 10)


@pytest.mark.parametrize("network", ALL)
@pytest.mark.usefixtures("no_shape_checks")
def test_no_classes(network):
    with pytest.raises(ValueError, match="`num_classes` must be an integer of at least 1, got 0"):
        network(CIFAR, 0)
