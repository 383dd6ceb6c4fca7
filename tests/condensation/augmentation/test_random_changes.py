"""The augmentations against images looked up a pixel at a time."""

import math

import pytest
import torch

from condensation.augmentation.random_changes import DC_MNIST, Augmentation, Crop, OneOf, Rotate, Scale
from tests.reference import augment as reference

SHAPES = [(1, 1, 1, 1), (5, 3, 8, 8), (4, 1, 7, 12)]


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def symmetric(shape):
    return (2 * torch.rand(shape, generator=seeded()) - 1).double()


def compare(found, x, sources):
    means = x.mean((0, 2, 3)).tolist()
    for image, one, source in zip(found, x, sources, strict=True):
        for channel, plane, mean in zip(image, one, means, strict=True):
            expected = torch.tensor(reference.looked_up(plane.tolist(), source, mean), dtype=torch.float64)
            torch.testing.assert_close(channel.cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", [0.0, 45.0, 180.0])
def test_rotate(shape, degrees, device, generator):
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + 2
    found = Rotate(degrees)(x.to(device), seeded())
    angles = symmetric((shape[0],)) * math.radians(degrees)
    compare(found, x, [reference.turned(angle) for angle in angles.tolist()])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_scale(shape, share, device, generator):
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + 2
    found = Scale(share)(x.to(device), seeded())
    factors = 1 + share * symmetric((shape[0], 2))
    # The first factor is the width's.
    compare(found, x, [reference.scaled(height, width) for width, height in factors.tolist()])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_crop(shape, pad, device, generator):
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + 2
    found = Crop(pad)(x.to(device), seeded())
    shifts = torch.randint(-pad, pad + 1, (shape[0], 2), generator=seeded())
    compare(found, x, [reference.shifted(down, right) for right, down in shifts.tolist()])


def test_crops_reach_as_far_as_told(generator):
    x = torch.zeros(500, 1, 9, 9)
    x[:, :, 4, 4] = 1
    places = (Crop(2)(x, generator) > 0.5).nonzero()[:, 2:]
    assert len(places) == 500
    assert places.amin(0).tolist() == [2, 2]
    assert places.amax(0).tolist() == [6, 6]
    assert len(places.unique(dim=0)) == 25


def mark(value):
    return lambda x, _: torch.full_like(x, value)


def test_one_of_draws_for_each_image(generator, device):
    found = OneOf((mark(0.0), mark(1.0), mark(2.0)))(torch.zeros(900, 1, 2, 2, device=device), generator)
    assert (found == found[:, :, :1, :1]).all()
    assert (found[:, 0, 0, 0].long().bincount() > 230).all()


def test_one_of_keeps_each_image_in_its_place(generator, device):
    x = torch.randn(40, 2, 3, 3, generator=generator).to(device)
    assert torch.equal(OneOf((lambda x, _: x, lambda x, _: x.clone()))(x, generator), x)


def test_same_generator_same_bits(generator, device):
    x = torch.randn(10, 1, 28, 28, generator=generator).to(device)
    first, before = DC_MNIST(x, seeded()), torch.get_rng_state()
    assert torch.equal(first, DC_MNIST(x, seeded()))
    assert not torch.equal(first, DC_MNIST(x, seeded(4)))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.dtype == x.dtype
    assert all(not torch.equal(one, other) for one, other in zip(first, x, strict=True))
    assert isinstance(DC_MNIST, Augmentation)


def test_images_can_be_learned_through_it(generator):
    x = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    for augment in (Crop(2), Scale(0.2), Rotate(30.0)):
        assert torch.autograd.gradcheck(lambda images, augment=augment: augment(images, seeded()), (x,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crop(-1), "`pad` must be an integer of at least 0, got -1"),
        (lambda: Scale(1.0), "`share` must be below 1, got 1.0"),
        (lambda: Scale(-0.1), "`share` must lie in \\[0, 1\\], got -0.1"),
        (lambda: Rotate(181.0), "`degrees` must lie in \\[0, 180\\], got 181.0"),
        (lambda: Rotate(math.nan), "`degrees` must lie in \\[0, 180\\], got nan"),
        (lambda: OneOf(()), "`augmentations` must hold at least one, got none"),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
