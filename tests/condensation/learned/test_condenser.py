"""What all condensers have in common: weights of rows, callbacks, artefacts, resuming after SIGKILL.

This file is the script too: ``python test_condenser.py FOLDER METHOD DIE_AT`` condenses into a checkpoint, kills
itself in an iteration, and prints the digest of the images if it comes to the end.
"""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from condensation.artifact import CondensedSet, pictures
from condensation.augmentation.siamese import SiameseAugmentation
from condensation.learned import run as learning
from condensation.learned.real_images import RealImages
from condensation.matching import DistributionMatching, GradientMatching
from lossbuf.arrays.image_layout import as_bytes
from lossbuf.networks import ConvNet

CPU = torch.device("cpu")


def narrow(shape, classes):
    return ConvNet(shape[0], classes, shape[1:], width=8, depth=2)


def digits(rows=200):
    x, y = load_digits(return_X_y=True)
    return x[:rows].reshape(-1, 1, 8, 8), y[:rows]


def dc(**settings):
    usual = {"ipc": 2, "network": narrow, "iterations": 6, "outer_steps": 2, "inner_epochs": 1, "random_state": 0}
    return GradientMatching(**{**usual, "batch_size": 16, "device": "cpu", **settings})


def dsa(**settings):
    return dc(augment=SiameseAugmentation(("color", "crop", "cutout")), **settings)


def dm(**settings):
    usual = {"ipc": 2, "network": narrow, "iterations": 40, "batch_size": 16, "lr": 0.3, "random_state": 0}
    return DistributionMatching(**{**usual, "device": "cpu", **settings})


METHODS = {"dc": dc, "dsa": dsa, "dm": dm}
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


@every_method
def test_rows_without_weight_are_as_if_they_were_not_there(make):
    x, y = digits()
    weights = np.ones(len(y))
    weights[::3] = 0
    left_out = make(iterations=2).fit(x, y, sample_weight=weights)
    gone = make(iterations=2).fit(x[weights > 0], y[weights > 0])
    np.testing.assert_array_equal(left_out.images_, gone.images_)
    twice = make(iterations=2).fit(x, y, sample_weight=2 * weights)
    np.testing.assert_allclose(twice.images_, gone.images_, atol=1e-3)
    weights[1::3] = 9
    other = make(iterations=2).fit(x, y, sample_weight=weights)
    assert np.abs(other.images_ - gone.images_).max() > 1e-2
    with pytest.raises(ValueError, match="two classes"):
        make().fit(x, y, sample_weight=(y == 3) * 1.0)
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        make().fit(x, y, sample_weight=-weights)


def test_weights_go_with_the_images_drawn():
    labels = torch.arange(12) % 3
    real = RealImages(torch.arange(12.0).view(12, 1, 1, 1), labels, torch.arange(1.0, 13.0))
    x, weights = real.batch(3, torch.Generator().manual_seed(0))
    assert torch.equal(weights, x.flatten(1) + 1)


@every_method
def test_a_callback_sees_every_iteration_and_may_end_it(make):
    x, y = digits()
    seen = []

    def note(progress):
        seen.append((progress.iteration, progress.loss, progress.values["images"].clone()))
        return progress.iteration == 3

    found = make().fit(x, y, callback=note)
    assert [number for number, _, _ in seen] == [1, 2, 3]
    np.testing.assert_array_equal(found.losses_, [loss for _, loss, _ in seen])
    np.testing.assert_array_equal(found.images_, make(iterations=3).fit(x, y).images_)
    assert seen[0][2].shape == (10, 2, 1, 8, 8)
    assert not torch.equal(seen[0][2], seen[2][2])


@every_method
def test_the_set_is_saved_loaded_and_in_the_units_of_the_network(make, tmp_path):
    x, y = digits()
    names = np.array(["zero", "one", *"23456789"])[y]
    with pytest.raises(NotFittedError):
        make().condensed_set()
    found = make(iterations=1).fit(x.astype(np.uint8), names)
    path = tmp_path / "set.npz"
    found.condensed_set().save(path)
    loaded = CondensedSet.load(path)
    assert loaded.synthetic
    assert loaded.class_names == tuple(found.classes_)
    assert [loaded.class_names[label] for label in loaded.labels.tolist()] == found.labels_.tolist()
    normal = loaded.normalisation
    np.testing.assert_allclose(loaded.samples() * normal.std[0] + normal.mean[0], found.images_, atol=1e-4)
    np.testing.assert_allclose([normal.mean[0], normal.std[0], normal.white], [x.mean(), x.std(), 255], rtol=1e-5)
    augmented = found.get_params()["augment"] is not None
    assert loaded.schedule["epochs"] == (1000 if augmented else 300)
    assert (loaded.augmentation is not None) == augmented
    assert (loaded.seed, loaded.settings["ipc"], loaded.provenance.n_samples) == (0, 2, 200)


@every_method
def test_clones_do_not_share_and_bad_images_are_told(make):
    x, y = digits(60)
    assert clone(make()).get_params()["ipc"] == 2
    with pytest.raises(ValueError, match=r"`X`.*moveaxis"):
        make().fit(np.moveaxis(np.repeat(x, 3, 1), 1, -1), y)
    with pytest.raises(ValueError, match="sample_weight"):
        make().fit(x, y, sample_weight=np.ones(3))


def test_bfloat16_is_close_to_float32():
    x, y = digits()
    one, other = (dc(iterations=2, lr=0.03, dtype=dtype).fit(x, y) for dtype in ("float32", "bfloat16"))
    np.testing.assert_allclose(other.losses_, one.losses_, rtol=0.02)
    assert 0 < np.abs(other.images_ - one.images_).max() < 2  # of pixels from 0 to 16
    with pytest.raises(ValueError, match="`dtype`"):
        dc(dtype="float16").fit(x, y)


def test_a_loss_that_is_not_finite_ends_it_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    dm(iterations=2).fit(*digits(), checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(FloatingPointError, match="learning rate"):
        dm(lr=1e30, momentum=0.9).fit(*digits())
    assert path.read_bytes() == before


def test_checkpoints_are_written_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    written = []
    save = learning.save_tensors

    def note(path, state):
        written.append(len(state["losses"]))
        save(path, state)

    monkeypatch.setattr(learning, "save_tensors", note)
    dm(iterations=5).fit(*digits(), checkpoint=tmp_path / "a.pt")
    assert written == [0, 5]  # the first to see whether it can be
    monkeypatch.setattr(learning, "_SECONDS", 0.0)
    dm(iterations=3).fit(*digits(), checkpoint=tmp_path / "b.pt")
    assert written == [0, 5, 0, 1, 2, 3]


def main(folder, method, die_at):
    learning._SECONDS = 0.0

    def die(progress):
        if progress.iteration == int(die_at):  # the checkpoint is that of the iteration before
            os.kill(os.getpid(), signal.SIGKILL)

    found = METHODS[method]().fit(*digits(), checkpoint=Path(folder) / "run.pt", callback=die)
    print(hashlib.sha256(found.images_.tobytes() + found.losses_.tobytes()).hexdigest())


@every_method
def test_killed_and_resumed_it_ends_with_the_same_bits(make, tmp_path, request):
    method = request.node.callspec.id
    found = make().fit(*digits())
    expected = hashlib.sha256(found.images_.tobytes() + found.losses_.tobytes()).hexdigest()

    def run(die_at):
        command = [sys.executable, __file__, str(tmp_path), method, str(die_at)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    assert run(4).returncode == -signal.SIGKILL
    assert (tmp_path / "run.pt").exists()
    ended = run(0)
    assert ended.stdout.strip() == expected, ended.stderr


@pytest.mark.parametrize(
    ("scale", "black", "white"),
    [
        (lambda x: (x * 15).astype(np.uint8), 0, 255), (lambda x: x / 16, 0, 1), (lambda x: x / 40, 0, 1),
        (lambda x: x / 8 - 1, -1, 1), (lambda x: x / 16 - 0.5, -1, 1), (lambda x: x, 0, 16),
        (lambda x: (x * 4000).astype(np.uint16), 0, 64000), (lambda x: x * 255 / 16, 0, 255),
        (lambda x: x - 5, -5, 11), (lambda x: (x > 8), 0, 1),
    ],
)  # fmt: skip
def test_black_and_white_of_a_learned_set_are_those_of_its_source(tmp_path, scale, black, white):
    x, y = digits(60)
    source = scale(x)
    found = dm(ipc=1, iterations=1).fit(source, y)
    made = found.condensed_set()
    assert (made.normalisation.black, made.normalisation.white) == (black, white)
    made.save(tmp_path / "set.npz")
    assert CondensedSet.load(tmp_path / "set.npz").normalisation == made.normalisation
    shown = as_bytes(found.images_, (float(black), float(white)))
    gap = pictures.GAP
    rows = made.grid()[0].unfold(0, 8, 8 + gap).permute(0, 2, 1).numpy()
    assert np.abs(rows.astype(int) - shown[:, 0]).max() <= 1


if __name__ == "__main__":
    main(*sys.argv[1:])
