"""A set that was saved is the set that comes back, and no file of another makes harm."""

import errno
import io
import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from condensation.artifact import CondensedSet
from condensation.artifact.condensed_set import Cleaning, Normalisation, Provenance, described, fingerprint
from condensation.coresets import Craig, Herding, NetworkFeatures, Random
from condensation.evaluate import EvalSettings, evaluate
from lossbuf.data import standardised
from tests.artifacts import as_dict, bare, hard, pixels, shown, soft
from tests.states import assert_same_bits


@pytest.mark.parametrize("make", [hard, soft, bare, pixels])
def test_everything_comes_back(tmp_path, make):
    saved = make()
    saved.save(tmp_path / "new" / "set.npz")
    assert os.listdir(tmp_path / "new") == ["set.npz"]
    assert_same_bits(as_dict(CondensedSet.load(tmp_path / "new" / "set.npz")), as_dict(saved))


def test_the_same_content_gives_the_same_bytes(tmp_path, monkeypatch):
    hard().save(tmp_path / "one")
    monkeypatch.setattr(time, "time", lambda: 1e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(0))
    other = hard(settings={"deep": {"a": (1, 2.5, "b", True)}, "ipc": 1})
    other.save(tmp_path / "two")
    CondensedSet.load(tmp_path / "two").save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()
    hard(seed=8).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


def test_numpy_reads_it(tmp_path):
    saved = hard()
    saved.save(tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz", allow_pickle=False) as file:
        assert sorted(file) == ["header.json", "labels", "learning_rates", "rows", "steps", "weights", "x"]
        assert file["x"].tobytes() == saved.x.numpy().tobytes()


@pytest.mark.parametrize("x", [torch.randn(6, 5, 1, 4).permute(0, 2, 3, 1)[::2], torch.randn(5, 3).T])
def test_views_are_saved_as_what_they_show(tmp_path, x):
    x.requires_grad_()
    saved = CondensedSet(x=x, labels=torch.tensor([0, 1, 0]), method="DC")
    saved.save(tmp_path / "set")
    loaded = CondensedSet.load(tmp_path / "set")
    assert torch.equal(loaded.x, x)
    assert not loaded.x.requires_grad


@pytest.mark.parametrize(
    ("labels", "given", "classes"),
    [
        (torch.tensor([0, 3]), {}, 4),
        (torch.tensor([0, 3]), {"num_classes": 10}, 10),
        (torch.tensor([0, 0]), {"class_names": ["a", "b"]}, 2),
        (torch.full((2, 5), 0.2), {}, 5),
    ],
)
def test_number_of_classes(tmp_path, labels, given, classes):
    made = CondensedSet(x=torch.zeros(2, 3), labels=labels, method="DC", **given)
    made.save(tmp_path / "set")
    assert made.num_classes == CondensedSet.load(tmp_path / "set").num_classes == len(made.names) == classes


def test_versions_are_filled_in():
    assert bare().versions.keys() == {"lossbuf", "numpy", "torch"}
    assert bare(versions={"lossbuf": "0"}).versions == {"lossbuf": "0"}


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "set"
    hard().save(path)
    old = path.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        bare().save(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="`x` and what belongs to it must be at most"):
        bare(settings={"long": "a" * 2**22}).save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["set"]


# ---- what it is used for ----


def test_data_set():
    x, labels, weights = hard().to_dataset().tensors
    assert torch.equal(x, hard().x)
    assert torch.equal(labels, hard().labels)
    assert torch.equal(weights, hard().weights)
    assert len(bare().to_dataset().tensors) == 2


def test_pixels_are_normalised_as_the_whole_data_were():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 2, 2), dtype=np.uint8)
    wide = images.astype(np.float32)
    deviation, mean = torch.std_mean(torch.from_numpy(wide), (0, 2, 3), correction=0)
    normalisation = Normalisation(mean=tuple(mean.tolist()), std=tuple(deviation.tolist()), white=255)
    small = pixels(x=torch.from_numpy(images[:4]), normalisation=normalisation)
    assert_same_bits(small.to_dataset().tensors[0], standardised(images)[0][:4])
    assert_same_bits(small.samples(), standardised(images)[0][:4])


@pytest.mark.parametrize("labelled", [hard, soft])
def test_a_loaded_set_trains_as_the_one_before(tmp_path, labelled):
    test_x, test_labels = torch.randn(9, 1, 5, 6), torch.arange(9) % 3
    settings = EvalSettings(epochs=2, networks=2, device="cpu")

    def trained(small):
        networks = []

        def factory(shape, num_classes):
            networks.append(nn.Sequential(nn.Flatten(), nn.Linear(30, num_classes)))
            return networks[-1]

        found = evaluate(
            small.samples(),
            small.labels,
            test_x,
            test_labels,
            network=factory,
            num_classes=small.num_classes,
            weights=small.weights,
            settings=settings,
        )
        return found.accuracies, [[part.detach() for part in network.parameters()] for network in networks]

    saved = labelled()
    saved.save(tmp_path / "set")
    before, after = trained(saved), trained(CondensedSet.load(tmp_path / "set"))
    assert_same_bits(before, after)
    assert not torch.equal(before[1][0][0], trained(replace(saved, weights=None))[1][0][0])


# ---- coresets ----


def test_a_coreset_with_its_weights(tmp_path):
    X = np.random.default_rng(0).normal(size=(30, 4))
    y = np.array(["dog", "cat", "emu"])[np.arange(30) % 3]
    estimator = Craig(ipc=2, features=X, random_state=5).fit(X, y)
    made = CondensedSet.of_coreset(estimator, X, y)
    made.save(tmp_path / "set")
    loaded = CondensedSet.load(tmp_path / "set")
    assert_same_bits(as_dict(loaded), as_dict(made))
    rows = estimator.sample_indices_
    assert_same_bits(loaded.x, torch.from_numpy(X[rows].astype(np.float32)))
    assert [loaded.names[label] for label in loaded.labels] == y[rows].tolist()
    assert loaded.weights.tolist() == estimator.sample_weight_.tolist()
    assert (loaded.method, loaded.seed, loaded.synthetic) == ("Craig", 5, False)
    assert loaded.settings["ipc"] == 2
    assert loaded.settings["features"] == {"type": "ndarray", "shape": [30, 4], "fingerprint": fingerprint(X)}
    assert loaded.provenance.rows.tolist() == rows.tolist()
    assert loaded.provenance.fingerprint == fingerprint(X, y)
    assert loaded.provenance.n_samples == 30


def test_a_coreset_of_cleaned_rows_tells_the_rows_of_the_source():
    X, y = torch.randint(256, (20, 1, 3, 3), dtype=torch.uint8), torch.arange(20) % 2
    kept = torch.arange(20)[torch.arange(20) % 5 != 0]
    source = Provenance(rows=kept, n_samples=20, fingerprint=fingerprint(X, y), cleaning=Cleaning(name="ours"))
    estimator = Random(ipc=3, random_state=0).fit(X[kept], y[kept])
    small = CondensedSet.of_coreset(estimator, X[kept], y[kept], provenance=source)
    assert_same_bits(small.x, X[small.provenance.rows])
    assert_same_bits(small.labels, y[small.provenance.rows])
    assert small.provenance.cleaning == Cleaning(name="ours")
    assert small.weights is None
    assert small.class_names == ("0", "1")


@pytest.mark.usefixtures("no_shape_checks")
def test_another_set_than_the_fitted_one():
    X, y = np.zeros((6, 2)), [0, 1, 0, 1, 0, 1]
    estimator = Herding(ipc=1).fit(X, y)
    with pytest.raises(ValueError, match=r"`X` must be 6, as in `fit`, got 5\."):
        CondensedSet.of_coreset(estimator, X[:5], y)
    with pytest.raises(ValueError, match=r"`y` must be 6, as in `fit`, got 5\."):
        CondensedSet.of_coreset(estimator, X, y[:5])
    with pytest.raises(ValueError, match="`y` must hold the labels given to `fit`"):
        CondensedSet.of_coreset(estimator, X, [7] * 6)
    with pytest.raises(ValueError, match=r"`rows` must be 6, as in `fit`, got 2\."):
        CondensedSet.of_coreset(estimator, X, y, provenance=Provenance(rows=torch.tensor([0, 1])))
    with pytest.raises(ValueError, match="`y` must hold the labels given to `fit`"):
        CondensedSet.of_coreset(estimator, X, y[::-1])
    with pytest.raises(ValueError, match="`y` must hold the labels given to `fit`"):
        CondensedSet.of_coreset(estimator, X, np.tile(y, (3, 1)).T)
    with pytest.raises(ValueError, match="`x` must be finite"):
        CondensedSet.of_coreset(estimator, X + 1e300, y)
    column = np.array(y)[:, None]
    assert CondensedSet.of_coreset(estimator, X, column).labels.tolist() == [0, 1]


def test_a_coreset_is_told_as_it_was_fitted():
    X, y = np.arange(12.0).reshape(6, 2), [0, 1, 0, 1, 0, 1]
    estimator = Herding(ipc=1, random_state=4).fit(X, y).set_params(ipc=3, random_state=5)
    made = CondensedSet.of_coreset(estimator, X, y)
    assert (made.seed, made.settings["ipc"], len(made)) == (4, 1, 2)


@pytest.mark.parametrize("name", ["ice\u00a0cream", "\u200b", "", "two\nlines"])
def test_names_of_classes_that_cannot_be_printed(name, tmp_path):
    X, y = np.arange(12.0).reshape(6, 2), np.array([name, "b", "c"] * 2)
    made = CondensedSet.of_coreset(Herding(ipc=1).fit(X, y), X, y)
    made.save(tmp_path / "a.npz")
    assert set(CondensedSet.load(tmp_path / "a.npz").class_names) == {ascii(name), "b", "c"}


def test_a_set_keeps_its_own_memory():
    x = torch.ones(2, 1, 2, 2)
    made = CondensedSet(x=x, labels=torch.tensor([0, 1]), method="m")
    x.zero_()
    assert made.x.all()


def test_settings_as_plain_values():
    given = {"features": NetworkFeatures(nn.Linear(1, 1)), "rate": np.float32(0.5), "far": float("inf"), "call": len}
    assert described(given) == {
        "features": {"type": "NetworkFeatures", "network": {"type": "Linear"}, "standardise": True},
        "rate": 0.5,
        "far": "inf",
        "call": {"type": "len"},
    }
    nested = described(Herding(ipc=1, features=torch.zeros(2, 1), random_state=np.random.RandomState(0)))
    assert (nested["type"], nested["random_state"]) == ("Herding", {"type": "RandomState"})
    json.dumps(nested)


def test_fingerprints_differ():
    seen = {fingerprint(*given) for given in ([[1, 2]], [[1.0, 2.0]], [[1, 3]], [[[1, 2]]], [[1], [2]], [["1", "2"]])}
    assert len(seen) == 6
    assert fingerprint(np.array(["a", "b"], dtype=object)) == fingerprint(["a", "b"])
    assert fingerprint(np.arange(6).reshape(2, 3).T) == fingerprint(torch.arange(6).reshape(2, 3).T)


# ---- pictures ----


def test_grid_of_pixels(tmp_path):
    small = pixels(num_classes=3)
    picture = small.grid()
    expected = torch.full((3, 3 * 2 + 2 * 2, 3 * 2 + 2 * 2), 255, dtype=torch.uint8)
    expected[:, 4:6, 0:2], expected[:, 4:6, 4:6], expected[:, 4:6, 8:10] = small.x[0], small.x[2], small.x[3]
    expected[:, 0:2, 0:2] = small.x[1]
    assert_same_bits(picture, expected)
    assert_same_bits(small.grid(per_class=2), expected[:, :, :6])
    small.save_images(tmp_path / "new" / "grid.png")
    assert_same_bits(shown(tmp_path / "new" / "grid.png"), expected)


@pytest.mark.parametrize("white", [1.0, 16.0, 255.0])
def test_normalisation_is_undone(white):
    shown = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4) * 2
    mean, std = torch.tensor([0.1, 0.5, 0.3]) * white, torch.tensor([0.2, 0.1, 1.5]) * white
    x = (shown.float() / 255 * white - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    normalisation = Normalisation(mean=mean.tolist(), std=std.tolist(), white=white)
    small = CondensedSet(x=x, labels=torch.tensor([0, 1]), method="DC", normalisation=normalisation)
    assert_same_bits(small.grid()[:, :4], shown[0])
    assert_same_bits(small.grid()[:, 6:], shown[1])
    bright = replace(small, x=torch.where(x > 0, 1e30, -1e30))
    assert set(bright.grid().unique().tolist()) == {0, 255}


def test_black_and_white_are_found_where_normalisation_is_unknown():
    x = torch.tensor([-3.0, 0.0, 3.0, 1.0]).view(1, 1, 2, 2)
    small = CondensedSet(x=x, labels=torch.tensor([0]), method="DC")
    assert small.grid().flatten().tolist() == [0, 128, 255, 170]
    assert replace(small, x=torch.ones(1, 1, 1, 1)).grid().tolist() == [[[255]]]


def test_single_files(tmp_path):
    names = ("../../evil", "/etc")
    small = pixels(labels=torch.tensor([[0.1, 0.9], [1, 0], [0, 1], [0, 1]]), class_names=names)
    small.save_images(tmp_path / "images", single_files=True)
    assert os.listdir(tmp_path) == ["images"]
    names = sorted(os.listdir(tmp_path / "images"))
    assert names == [f"0000{row}-class-{label}.png" for row, label in enumerate([1, 0, 1, 1])]
    for row, name in enumerate(names):
        assert_same_bits(shown(tmp_path / "images" / name), small.x[row])


def test_figure():
    figure = hard().figure()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog, $x_$", "Käuzchen"]
    assert axes.get_yticks().tolist() == [2.0, 9.0, 16.0]
    assert axes.get_title() == "DD"
    shown = axes.images[0].get_array()
    assert np.array_equal(shown, hard().grid().expand(3, -1, -1).permute(1, 2, 0).numpy())
    file = io.BytesIO()
    figure.savefig(file)
    assert file.getvalue().startswith(b"\x89PNG")


def test_what_makes_no_picture(tmp_path):
    for small in (bare(), bare(x=torch.zeros(3, 2, 4, 4))):
        with pytest.raises(ValueError, match="`x` must be images of 1 or 3 channels"):
            small.grid()
    with pytest.raises(ValueError, match=r"`path` must end in \.png, got .* Ask for `single_files`"):
        pixels().save_images(tmp_path / "images")
    with pytest.raises(ValueError, match="`per_class` must be an integer of at least 1"):
        pixels().grid(per_class=0)
    wide = bare(x=torch.zeros(3, 1, 100, 100), num_classes=65535)
    with pytest.raises(ValueError, match="`per_class` must make a picture of at most 268435456 values"):
        wide.grid()
    assert os.listdir(tmp_path) == []


# ---- bad values ----


def test_other_samples_are_normalised_alike():
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    normal = Normalisation(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 4.0], white=255)
    small = CondensedSet(x=pixels, labels=torch.tensor([0, 1]), method="Random", normalisation=normal)
    assert torch.equal(small.normalised(pixels.numpy()), small.samples())
    assert small.normalised(pixels[1:] + 1)[0, 2, 0, 0] == (pixels[1, 2, 0, 0] + 1 - 3) / 4
    plain = CondensedSet(x=pixels, labels=torch.tensor([0, 1]), method="Random")
    assert torch.equal(plain.normalised(pixels), pixels.float())
    with pytest.raises(ValueError, match="`X`"):
        small.normalised(pixels[:, :1])
