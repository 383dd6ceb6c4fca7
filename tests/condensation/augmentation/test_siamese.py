"""Siamese augmentation: shared draws, slow references, gradients."""

import pytest
import torch

from condensation.augmentation import siamese
from condensation.augmentation.siamese import FAMILIES, SiameseAugmentation
from tests.reference import matching as reference


def images(count=3, channels=2, size=8, dtype=torch.float64):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def draws(count, seed=1):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_draw_treats_all_images_of_all_batches_alike(family):
    augment, x, y = SiameseAugmentation((family,)), images(5), images(2)
    change = augment.draw(torch.Generator().manual_seed(3))
    whole = change(torch.cat([x, y]))
    torch.testing.assert_close(change(x), whole[:5])
    torch.testing.assert_close(change(y), whole[5:])
    for image, changed in zip(x, change(x), strict=True):
        torch.testing.assert_close(change(image[None])[0], changed)


@pytest.mark.parametrize("family", FAMILIES)
def test_as_an_augmentation_each_image_has_its_own_draws_and_a_seed_decides(family):
    augment, x = SiameseAugmentation((family,)), images(1).expand(40, 2, 8, 8)
    first, again = (augment(x, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(x, torch.Generator().manual_seed(1)))
    assert len({changed.numpy().tobytes() for changed in first}) > 1
    assert first.shape == x.shape
    assert first.dtype == x.dtype


@pytest.mark.parametrize("family", FAMILIES)
def test_it_can_be_differentiated(family):
    x = images(2, 1, 5).requires_grad_()
    change = SiameseAugmentation((family,)).draw(torch.Generator().manual_seed(5))
    assert torch.autograd.gradcheck(change, (x,))


def test_all_families_are_drawn():
    x, seen = images(1), set()
    for seed in range(200):
        changed = SiameseAugmentation().draw(torch.Generator().manual_seed(seed))(x)
        for name, family in FAMILIES.items():
            generator = torch.Generator().manual_seed(seed)
            torch.randint(6, (1,), generator=generator)
            if torch.allclose(changed, family(x, torch.rand(1, 3, generator=generator).double())):
                seen.add(name)
    assert seen == set(FAMILIES)


def test_color():
    x, drawn = images(4), draws(4)
    for image, changed, numbers in zip(x, siamese.color(x, drawn), drawn.tolist(), strict=True):
        torch.testing.assert_close(changed, reference.color(image, *numbers))


@pytest.mark.parametrize("size", [8, 12])
def test_crop_moves_by_whole_pixels_and_fills_up_with_zeros(size):
    x, drawn = images(300, 1, size), draws(300)
    most = int(size * 0.125 + 0.5)
    shifts = set()
    for image, changed in zip(x, siamese.crop(x, drawn), strict=True):
        fits = [
            (across, down)
            for across in range(-most, most + 1)
            for down in range(-most, most + 1)
            if torch.allclose(changed, reference.nearest_pixel_shift(image, across, down), atol=1e-6)
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) == (2 * most + 1) ** 2


@pytest.mark.parametrize("size", [7, 8])
def test_cutout_is_a_square_of_half_the_side_at_most(size):
    x = torch.ones(300, 2, size, size)
    changed = siamese.cutout(x, draws(300).float())
    side = int(size * 0.5 + 0.5)
    areas = (changed[:, 0] == 0).sum((1, 2))
    assert int(areas.max()) == side**2
    assert int(areas.min()) >= (side // 2) ** 2
    assert torch.equal(changed[:, 0], changed[:, 1])
    for image in changed[:, 0]:
        rows, columns = (image == 0).any(1), (image == 0).any(0)
        assert int((image == 0).sum()) == int(rows.sum()) * int(columns.sum())


def test_flip():
    x, drawn = images(20), draws(20)
    changed = siamese.flip(x, drawn)
    for image, other, number in zip(x, changed, drawn[:, 0].tolist(), strict=True):
        assert torch.equal(other, image.flip(2) if number < 0.5 else image)
    assert 0 < int((drawn[:, 0] < 0.5).sum()) < 20


def test_scale_and_rotate_look_up_where_they_should():
    ramp = torch.arange(9.0, dtype=torch.float64)
    x = torch.stack([ramp.view(9, 1).expand(9, 9), ramp.view(1, 9).expand(9, 9)])[None]  # each pixel says where it is
    degrees = 10.0
    drawn = torch.tensor([[degrees / 30 + 0.5, 0.0, 0.0]], dtype=torch.float64)
    turned = siamese.rotate(x, drawn)[0]
    for y in range(2, 7):
        for column in range(2, 7):
            expected = reference.rotated_point(y, column, 9, degrees)
            torch.testing.assert_close(
                turned[:, y, column], torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0
            )
    factors = torch.tensor([[0.0, 1.0 - 1e-12, 0.0]], dtype=torch.float64)  # across by 1 / 1.2, down by 1.2
    scaled = siamese.scale(x, factors)[0]
    middle = 4.0
    for y in range(2, 7):
        for column in range(2, 7):
            expected = (middle + (y - middle) * 1.2, middle + (column - middle) / 1.2)
            if max(expected) <= 8 and min(expected) >= 0:
                found = scaled[:, y, column]
                torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("families", [(), ("nonsense",)])
def test_bad_families(families):
    with pytest.raises(ValueError, match="`families`"):
        SiameseAugmentation(families)
