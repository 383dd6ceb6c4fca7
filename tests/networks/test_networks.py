"""Tests of lossbuf.networks."""

import math

import pytest
import torch
from torch import nn

from lossbuf.networks import MLP, ConvNet, PaddedConv2d, default_network, resnet9, resnet18


def halved(image_size, depth):
    """Height, width and number of blocks after at most ``depth`` halvings that leave a pixel."""
    height, breadth = image_size
    blocks = 0
    while blocks < depth and min(height, breadth) >= 2:
        height, breadth, blocks = height // 2, breadth // 2, blocks + 1
    return height, breadth, blocks


def count(network, kind):
    return sum(isinstance(part, kind) for part in network.modules())


@pytest.mark.parametrize("depth", [1, 3, 9])
@pytest.mark.parametrize("image_size", [(8, 8), (28, 28), (32, 32), (5, 7), (7, 5), (1, 1), (1, 9), (2, 2), (3, 64)])
def test_convnet_shapes(image_size, depth, device, generator):
    network = ConvNet(3, 4, image_size, width=6, depth=depth).to(device)
    height, breadth, blocks = halved(image_size, depth)
    assert count(network, nn.Conv2d) == count(network, nn.AvgPool2d) == count(network, nn.ReLU) == blocks
    assert network.classifier.in_features == (6 if blocks else 3) * height * breadth
    for batch in (1, 5):
        x = torch.randn(batch, 3, *image_size, generator=generator).to(device)
        logits = network(x)
        assert logits.shape == (batch, 4)
        assert logits.isfinite().all()
        logits.sum().backward()
    assert all(weights.grad is not None for weights in network.parameters())


@pytest.mark.parametrize(("norm", "kind"), [("instance", nn.GroupNorm), ("batch", nn.BatchNorm2d), ("none", None)])
def test_norms(norm, kind, generator):
    network = ConvNet(1, 2, (8, 8), width=5, norm=norm)
    assert count(network, (nn.GroupNorm, nn.BatchNorm2d)) == (0 if kind is None else 3)
    if kind is not None:
        assert count(network, kind) == 3
    if norm == "instance":
        first = next(part for part in network.modules() if isinstance(part, nn.GroupNorm))
        assert (first.num_groups, first.num_channels, first.affine) == (5, 5, True)
    x = torch.randn(6, 1, 8, 8, generator=generator)
    # Only a batch norm lets one image change another's logits.
    alone, together = network(x[:1]), network(x)[:1]
    assert torch.allclose(alone, together, atol=1e-5) == (norm != "batch")


def test_the_published_size():
    # ConvNet-3 of width 128 on 3x32x32 images and 10 classes has 320,010 weights (Zhao et al. 2021).
    assert sum(weights.numel() for weights in ConvNet(3, 10, (32, 32)).parameters()) == 320_010


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("first_padding", [1, 2, 3])
@pytest.mark.parametrize("image_size", [(1, 1), (5, 8), (28, 28)])
def test_first_padding(norm, first_padding, image_size, generator):
    network = ConvNet(1, 2, image_size, width=3, norm=norm, first_padding=first_padding)
    height, breadth, blocks = halved([size + 2 * first_padding - 2 for size in image_size], 3)
    paddings = [part.padding for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert paddings == [(first_padding, first_padding)][:blocks] + [(1, 1)] * (blocks - 1)
    assert network(torch.randn(2, 1, *image_size, generator=generator)).shape == (2, 2)
    if blocks:
        assert network.classifier.in_features == 3 * height * breadth


@pytest.mark.parametrize(("size", "padding"), [(3, 0), (3, 1), (3, 2), (3, 3), (5, 4), (1, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_wide_padding_is_that_of_a_convolution(size, padding, bias, device, generator):
    ours, theirs = (
        kind(2, 3, size, padding=padding, bias=bias).double().to(device) for kind in (PaddedConv2d, nn.Conv2d)
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 2, 6, 7, generator=generator, dtype=torch.float64).to(device)
    gradients = []
    for one in (ours, theirs):
        images = x.clone().requires_grad_()
        (once,) = torch.autograd.grad(one(images).pow(3).sum(), images, create_graph=True)
        gradients.append(torch.autograd.grad(once.pow(2).sum(), [images, *one.parameters()], allow_unused=True))
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (2, 5), (8, 8), (7, 9)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_pools_as_the_others_do(size, layout, device, generator):
    x = torch.randn(3, 4, *size, generator=generator, dtype=torch.float64).to(device, memory_format=layout)
    pool = next(part for part in ConvNet(1, 2, (8, 8)).modules() if isinstance(part, nn.AvgPool2d))
    gradients = []
    for one in (pool, nn.AvgPool2d(2)):
        leaf = x.clone().requires_grad_()
        y = one(leaf)
        torch.testing.assert_close(y, nn.functional.avg_pool2d(x, 2))
        gradients.append(torch.autograd.grad((y**3).sum(), leaf)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "width", "depth", "image_size", "first_padding"])
@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
@pytest.mark.usefixtures("no_shape_checks")
def test_convnet_refuses_bad_sizes(name, bad):
    arguments = {"in_channels": 1, "num_classes": 2, "image_size": (8, 8)}
    arguments[name] = (8, bad) if name == "image_size" else bad
    with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1, got {bad}"):
        ConvNet(**arguments)


@pytest.mark.usefixtures("no_shape_checks")
def test_convnet_refuses_other_norms():
    with pytest.raises(ValueError, match="`norm` must be one of 'instance', 'batch', 'none', got 'layer'"):
        ConvNet(1, 2, (8, 8), norm="layer")


@pytest.mark.parametrize("hidden", [(), (7,), (5, 4, 3)])
@pytest.mark.parametrize("sample_shape", [(6,), (2, 3), (1, 2, 3, 1)])
def test_mlp_shapes(hidden, sample_shape, generator):
    network = MLP(6, 4, hidden)
    assert [part.out_features for part in network.modules() if isinstance(part, nn.Linear)] == [*hidden, 4]
    assert count(network, nn.ReLU) == len(hidden)
    for batch in (1, 5):
        assert network(torch.randn(batch, *sample_shape, generator=generator)).shape == (batch, 4)


@pytest.mark.parametrize("name", ["in_features", "num_classes", "hidden"])
@pytest.mark.usefixtures("no_shape_checks")
def test_mlp_refuses_bad_sizes(name):
    arguments = {"in_features": 3, "num_classes": 2, "hidden": (4,)}
    arguments[name] = (4, 0) if name == "hidden" else 0
    with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1, got 0"):
        MLP(**arguments)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 1), (9,), (4, 3), (2, 2, 2, 2)])
def test_default_network(shape, generator):
    network = default_network(shape, 3)
    assert isinstance(network, ConvNet if len(shape) == 3 else MLP)
    assert network(torch.randn(1, *shape, generator=generator)).shape == (1, 3)  # one sample, while training too
    first = next(part for part in network.modules() if isinstance(part, nn.Linear | nn.Conv2d))
    if shape == (3, 5, 7):
        assert first.weight.shape == (32, 3, 3, 3)
        assert count(network, nn.BatchNorm2d) == 2
    if len(shape) != 3:
        assert first.in_features == math.prod(shape)
    assert isinstance(default_network(torch.Size(shape), 3), type(network))


def test_resnet18_keeps_small_images_large(generator):
    network = resnet18(1, 5)
    assert network.conv1.stride == (1, 1)
    assert network(torch.randn(2, 1, 8, 8, generator=generator)).shape == (2, 5)
    sizes = []
    network.layer1.register_forward_hook(lambda _, before, after: sizes.extend([before[0].shape, after.shape]))
    network(torch.randn(2, 1, 8, 8, generator=generator))
    assert sizes == [(2, 64, 8, 8)] * 2


@pytest.mark.parametrize(("norm", "kind"), [("instance", nn.GroupNorm), ("batch", nn.BatchNorm2d), ("none", None)])
def test_resnet18_norms(norm, kind):
    network = resnet18(3, 5, norm=norm)
    assert count(network, (nn.GroupNorm, nn.BatchNorm2d)) == (0 if kind is None else count(network, kind))
    assert count(network, nn.Conv2d) == 20
    if kind is nn.GroupNorm:
        assert all(part.num_groups == part.num_channels for part in network.modules() if isinstance(part, kind))
    if kind is not None:
        assert count(network, kind) == 20


@pytest.mark.parametrize("size", [8, 28, 32])
def test_resnet9(size, generator):
    x = torch.randn(3, 2, size, size, generator=generator)
    network = resnet9(2, 5, width=4)
    assert network(x).shape == (3, 5)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [4, 8, 8, 8, 16, 32, 32, 32]


def test_resnet9_refuses_bad_sizes():
    with pytest.raises(ValueError, match="`width` must be an integer of at least 1, got 0"):
        resnet9(3, 10, width=0)
