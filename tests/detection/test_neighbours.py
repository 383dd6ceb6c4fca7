"""The votes of nearest neighbours, and what they add to the outputs of a network."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from lossbuf.callback import LossBufferCallback
from lossbuf.detection import neighbours
from lossbuf.detection.neighbours import (
    Weights,
    as_features,
    best_weights,
    combined,
    nearest,
    true_probabilities,
    votes,
)
from lossbuf.selectors import LossBufferSelector
from tests.reference import neighbours as reference


def blobs(n_samples: int = 200, num_classes: int = 4, dimensions: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clusters and the number of the cluster."""
    generator = torch.Generator().manual_seed(seed)
    centers = 3 * torch.randn(num_classes, dimensions, generator=generator)
    labels = torch.arange(n_samples) % num_classes
    return centers[labels] + torch.randn(n_samples, dimensions, generator=generator), labels


def flipped(labels: Tensor, num_classes: int, rate: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels of which a share is replaced by another class, and which ones."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(labels), generator=generator) < rate
    shift = torch.randint(1, num_classes, (len(labels),), generator=generator)
    return torch.where(wrong, (labels + shift) % num_classes, labels), wrong


@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_nearest_rows_of_a_table_are_those_of_the_reference(count: int) -> None:
    x, labels = blobs()
    x = x * torch.tensor([1.0, 10.0, 100.0, 1e-3, 1.0, 1.0])  # columns in different units
    x = torch.cat([x, torch.full((len(x), 1), 7.0)], 1)  # and a constant one
    expected = reference.nearest(reference.standardized(x.double().numpy()), count)
    assert nearest(x, labels, count=count).numpy().tolist() == expected.tolist()


def test_the_cosine_is_chosen_where_the_direction_decides() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(5, 16, generator=generator), dim=1)
    labels = torch.arange(150) % 5
    x = directions[labels] + 0.1 * torch.randn(150, 16, generator=generator)
    x = x * torch.rand(150, 1, generator=generator).mul(50).add(0.1)  # the length says nothing
    expected = reference.nearest(reference.unit_length(x.double().numpy()), 10)
    assert nearest(x, labels).numpy().tolist() == expected.tolist()


@pytest.mark.parametrize("batch", [1, 7, 1024])
def test_batches_do_not_change_the_neighbours(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = blobs(60)
    expected = nearest(x, labels)
    monkeypatch.setattr(neighbours, "BATCH", batch)
    assert torch.equal(nearest(x, labels), expected)


def test_long_features_are_reduced_without_losing_neighbours_of_the_same_class() -> None:
    x, labels = blobs(400, dimensions=10)
    basis = torch.randn(10, 700, generator=torch.Generator().manual_seed(1))
    noise = 0.05 * torch.randn(400, 700, generator=torch.Generator().manual_seed(2))
    long = x @ basis + noise
    reduced, full = nearest(long, labels), nearest(x, labels)
    agreement = [(labels[rows] == labels.unsqueeze(1)).double().mean() for rows in (reduced, full)]
    assert agreement[0] > agreement[1] - 0.02
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(reduced.tolist(), full.tolist(), strict=True)])
    assert shared > 0.5  # of ten among 400 rows, chance gives .025


def test_only_so_many_rows_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "REFERENCES", 50)
    x, labels = blobs(300)
    found = nearest(x, labels)
    assert len(found.unique()) <= 50
    assert not bool((found == torch.arange(300).unsqueeze(1)).any())
    assert (labels[found] == labels.unsqueeze(1)).double().mean() > 0.9


def test_few_rows_have_fewer_neighbours() -> None:
    x, labels = blobs(4)
    assert nearest(x, labels).shape == (4, 3)
    assert nearest(x[:1], labels[:1]).shape == (1, 0)


def test_votes_are_those_of_the_reference() -> None:
    rows = torch.randint(30, (30, 5), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    expected = reference.votes(rows.numpy(), labels.numpy(), 3)
    assert votes(rows, labels, 3).tolist() == expected.tolist()


def test_votes_undo_label_noise() -> None:
    x, true = blobs(1000)
    given = torch.where(torch.rand(1000, generator=torch.Generator().manual_seed(3)) < 0.4, (true + 1) % 4, true)
    matrix = 0.6 * torch.eye(4, dtype=torch.float64) + 0.4 * torch.eye(4, dtype=torch.float64).roll(1, 1)
    counts = votes(nearest(x, given), given, 4)
    probs = true_probabilities(counts, given, matrix)
    assert torch.allclose(probs.sum(1), torch.ones(1000), atol=1e-5)
    assert (probs.argmax(1) == true).double().mean() > (counts.argmax(1) == true).double().mean()


def test_features_that_say_nothing_give_the_shares_of_the_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(2000, generator=generator) < 0.3).long()
    counts = votes(nearest(torch.randn(2000, 5, generator=generator), labels), labels, 2)
    probs = true_probabilities(counts, labels, torch.eye(2, dtype=torch.float64))
    assert probs.std(0).max() < 0.05
    assert abs(float(probs[:, 1].mean()) - 0.3) < 0.03


def test_weights_are_chosen_by_the_rows_out_of_sample() -> None:
    x, true = blobs(1000)
    labels, _ = flipped(true, 4, 0.3)
    matrix = 0.7 * torch.eye(4, dtype=torch.float64) + 0.1 * (1 - torch.eye(4, dtype=torch.float64))
    good = true_probabilities(votes(nearest(x, labels), labels, 4), labels, matrix)
    useless = torch.rand(1000, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    everywhere, nowhere = torch.ones(1000, dtype=torch.bool), torch.zeros(1000, dtype=torch.bool)
    assert best_weights(useless, good, labels, matrix, everywhere).votes >= 1
    sure = torch.nn.functional.one_hot(torch.randint(4, (1000,)), 4).float() * 0.98 + 0.005
    assert best_weights(good, sure, labels, matrix, everywhere).votes == min(neighbours.VOTES)
    assert best_weights(sure, good, labels, matrix, everywhere).certainty == neighbours.LESS_CERTAIN
    few = torch.arange(1000) < neighbours.ENOUGH_ROWS - 1
    assert best_weights(sure, good, labels, matrix, few).certainty == 1
    assert best_weights(useless, good, labels, matrix, nowhere) == neighbours.USUAL_WEIGHTS


def test_combined_opinions_are_weighted_products() -> None:
    first, second = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.2, 0.6]])
    product = first * second.square()
    assert torch.allclose(combined(first, second, Weights(2.0, 1.0)), product / product.sum())
    root = product.sqrt()
    assert torch.allclose(combined(first, second, Weights(2.0, 0.5)), root / root.sum())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, float("nan")]], "must be finite"),
        (np.array([[1.0, np.inf]]), "must be finite"),
        ([["a", "b"]], "must be numbers of shape"),
        (torch.zeros(1), "must be numbers of shape"),
        (torch.zeros(2, 3), "must have 1 rows"),
        ("text", "must be an array of numbers"),
        (np.array([[1e300, 0.0]]), "must be finite"),
    ],
)
def test_what_is_not_features_is_refused(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"`features` {message}"):
        as_features(values, 1)


@pytest.mark.parametrize(
    "values",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]], dtype=">i2"),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16),
        pd.DataFrame({"a": [1, 3], "b": [2.0, 4.0]}, index=[9, 9]),
        np.array([[[1], [2]], [[3], [4]]]),
    ],
)
def test_features_of_any_container_are_read(values: object) -> None:
    assert as_features(values, 2).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def trained(labels: Tensor, x: Tensor, features: Tensor | None, epochs: int = 4) -> LossBufferCallback:
    """A callback that watched a training."""
    torch.manual_seed(0)
    network = torch.nn.Linear(x.shape[1], 4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    callback = LossBufferCallback(labels, 4, mode="filter", epochs=epochs, features=features)
    callback.attach(network, optimizer)
    for _ in range(epochs):
        one_epoch(callback, network, optimizer, x, labels)
    return callback


def one_epoch(
    callback: LossBufferCallback, network: torch.nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor
) -> None:
    """A pass over the data."""
    for rows in torch.arange(len(x)).split(20):
        loss = callback.loss(network(x[rows]), labels[rows], rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    callback.end_epoch()


@pytest.mark.filterwarnings("ignore::lossbuf.errors.LossBufferWarning")
def test_features_of_the_callback_help_a_network_that_has_seen_little() -> None:
    x, true = blobs(400, dimensions=20)
    labels, wrong = flipped(true, 4, 0.3)
    suspicions = [trained(labels, 0.02 * x, features).verdict().suspicion for features in (None, x)]
    count = int(wrong.sum())
    missed = [count - int(wrong[torch.from_numpy(each).argsort(descending=True)[:count]].sum()) for each in suspicions]
    assert missed[1] < missed[0]


def test_a_callback_with_features_goes_on_from_its_state_with_the_same_bits() -> None:
    x, true = blobs(300, dimensions=20)
    labels, _ = flipped(true, 4, 0.3)
    whole = trained(labels, x, x, epochs=6)
    other = LossBufferCallback(labels, 4, mode="filter", epochs=6, features=x)
    other.load_state_dict(whole.state_dict())
    assert np.array_equal(whole.verdict().suspicion, other.verdict().suspicion)
    assert other.posterior is not None
    assert whole.posterior is not None
    assert other.posterior.weights == whole.posterior.weights


def test_a_state_with_neighbours_is_refused_without_features() -> None:
    x, labels = blobs(40)
    with_features = LossBufferCallback(labels, 4, features=x)
    with pytest.raises(ValueError, match="must have neighbours False"):
        LossBufferCallback(labels, 4).load_state_dict(with_features.state_dict())


def test_features_need_the_posterior_and_a_row_per_label() -> None:
    x, labels = blobs(40)
    with pytest.raises(ValueError, match="`features` must be left out unless `rank_by` is 'posterior'"):
        LossBufferCallback(labels, 4, features=x, rank_by="aum")
    with pytest.raises(ValueError, match="`features` must have 40 rows, one per label, got 39"):
        LossBufferCallback(labels, 4, features=x[:-1])


def test_planted_labels_are_judged_with_neighbours_too() -> None:
    x, true = blobs(600, dimensions=10)
    labels, _ = flipped(true, 4, 0.2)
    selector = LossBufferSelector(epochs=10, planted=0.05, random_state=0).fit(x.numpy(), labels.numpy())
    assert selector.planted_found_ is not None
    assert selector.planted_found_ > 0.8
    assert abs(selector.noise_rate_ - 0.2) < 0.06


@pytest.mark.filterwarnings("ignore::lossbuf.errors.LossBufferWarning")
def test_a_selector_takes_neighbours_from_its_features_alone() -> None:
    x, labels = blobs(64)
    by_features = LossBufferSelector(epochs=4, random_state=0).fit(x.numpy(), labels.numpy())
    assert by_features.callback_.posterior.nearest is not None
    images = torch.rand(64, 1, 8, 8).numpy()
    by_images = LossBufferSelector(epochs=4, random_state=0).fit(images, labels.numpy())
    assert by_images.callback_.posterior.nearest is None


def test_only_vectors_that_float32_can_hold_are_features_for_neighbours() -> None:
    vectors = np.ones((3, 2))
    assert neighbours.features_of(vectors) is vectors
    assert neighbours.features_of(np.ones((3, 1, 4, 4))) is None
    assert neighbours.features_of(np.full((3, 2), 1e300)) is None
