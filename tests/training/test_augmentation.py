"""``CropFlip`` against slices of padded images."""

import pytest
import torch

from lossbuf.training import TrainSettings, build, seeded, train
from lossbuf.training.augmentation import CropFlip


@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (40, 3, 5, 7)])
def test_every_image_is_a_crop_of_the_padded_one(pad, flip, shape, device, generator):
    x = (torch.rand(shape, generator=generator) + 1).to(device)
    with seeded(0, device):
        found = CropFlip(pad, flip)(x)
    padded = torch.nn.functional.pad(x, (pad,) * 4)
    seen = set()
    for image, whole in zip(found, padded, strict=True):
        crops = {
            (top, left, mirrored): (part.flip(-1) if mirrored else part)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            for mirrored in {False, flip}
            for part in [whole[:, top : top + shape[2], left : left + shape[3]]]
        }
        matches = {which for which, crop in crops.items() if torch.equal(crop, image)}
        assert matches
        seen |= matches
    if shape[0] > 1:
        assert {mirrored for _, _, mirrored in seen} == {False, flip}
        assert len({top for top, _, _ in seen}) > pad


def test_memory_layout_does_not_matter(generator):
    x = torch.rand(6, 3, 4, 4, generator=generator)
    drawn = []
    for layout in (x, x.contiguous(memory_format=torch.channels_last)):
        with seeded(1, torch.device("cpu")):
            drawn.append(CropFlip(2)(layout))
    assert torch.equal(*drawn)


def test_training_augments_what_the_network_sees():
    seen = []

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(16, 2)

        def forward(self, x):
            seen.append(x.detach().clone())
            return self.layer(x.flatten(1))

    settings = TrainSettings(epochs=1, batch_size=4, device="cpu")
    x, labels = torch.ones(4, 1, 4, 4), torch.tensor([0, 1, 0, 1])
    train(build(Watching, settings), x, labels, settings, augment=CropFlip(2, flip=False))
    assert (seen[0] == 0).any()
    seen.clear()
    train(build(Watching, settings), x, labels, settings)
    assert torch.equal(seen[0], x)


def test_bad_pad():
    with pytest.raises(ValueError, match="`pad` must be an integer of at least 0, got -1"):
        CropFlip(-1)
