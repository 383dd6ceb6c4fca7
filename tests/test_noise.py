"""Tests of lossbuf.noise."""

import random

import numpy as np
import pytest
import torch

from lossbuf import noise
from tests.reference import noise as reference

ROW_STOCHASTIC = np.array([[0.1, 0.0, 0.9, 0.0], [0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def labels_of(num_classes, size=20_000, seed=0):
    return np.random.default_rng(seed).integers(0, num_classes, size)


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        assert first.tobytes() == second.tobytes()


# ---- matrices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 10])
def test_matrices(num_classes, rate):
    symmetric, pair = noise.symmetric(num_classes, rate), noise.pair_flip(num_classes, rate)
    dependent = noise.class_dependent(num_classes, rate, {0: num_classes - 1})
    for matrix in (symmetric, pair, dependent):
        assert matrix.shape == (num_classes, num_classes)
        assert matrix.min() >= 0
        np.testing.assert_allclose(matrix.sum(1), 1)
    if num_classes == 1:
        return
    for true in range(num_classes):
        for given in range(num_classes):
            if true == given:
                expected = (1 - rate, 1 - rate, 1 - rate if true == 0 else 1)
            else:
                follows, last = given == (true + 1) % num_classes, (true, given) == (0, num_classes - 1)
                expected = (rate / (num_classes - 1), rate if follows else 0, rate if last else 0)
            found = (symmetric[true, given], pair[true, given], dependent[true, given])
            assert found == pytest.approx(expected, abs=1e-15)


def test_a_class_confused_with_itself_keeps_its_labels():
    assert np.array_equal(noise.class_dependent(2, 0.5, {1: 1}), np.eye(2))


@pytest.mark.parametrize("make", [noise.symmetric, noise.pair_flip, lambda n, r: noise.class_dependent(n, r, {})])
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rates_out_of_range(make, rate):
    with pytest.raises(ValueError, match="`noise_rate` must lie in"):
        make(3, rate)
    with pytest.raises(ValueError, match="`num_classes` must be an integer of at least 1"):
        make(0, 0.1)


@pytest.mark.parametrize("confusions", [{3: 0}, {0: 3}, {-1: 0}, {0: -1}])
def test_confusions_out_of_range(confusions):
    with pytest.raises(ValueError, match="`confusions` must map classes"):
        noise.class_dependent(3, 0.1, confusions)


def test_standard_confusions():
    named = {CIFAR10[true]: CIFAR10[given] for true, given in noise.CIFAR10_CONFUSIONS.items()}
    assert named == {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
    assert noise.MNIST_CONFUSIONS == {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}
    named = {FASHION[true]: FASHION[given] for true, given in noise.FASHION_MNIST_CONFUSIONS.items()}
    pairs = {"T-shirt": "Shirt", "Shirt": "T-shirt", "Pullover": "Coat", "Coat": "Pullover", "Sandal": "Sneaker"}
    assert named == pairs


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "matrix",
    [
        noise.symmetric(4, 0.0),
        noise.symmetric(4, 0.4),
        noise.pair_flip(4, 0.7),
        noise.symmetric(4, 1.0),
        ROW_STOCHASTIC,
    ],
)
def test_realised_rates_are_within_binomial_bounds(matrix):
    true = labels_of(4)
    realised = noise.corrupt(true, matrix, 0).transition
    for label in range(4):
        for given in range(4):
            low, high = reference.bounds(matrix[label, given], int((true == label).sum()))
            assert low <= realised[label, given] <= high


@pytest.mark.parametrize("matrix", [noise.symmetric(4, 0.4), ROW_STOCHASTIC])
def test_labels_match_the_slow_walk(matrix):
    true, draws = labels_of(4, 500), np.random.default_rng(7).random(500)
    expected = [reference.drawn(matrix[label], draw) for label, draw in zip(true, draws, strict=True)]
    assert noise.corrupt(true, matrix, 7).labels.tolist() == expected


@pytest.mark.parametrize("how", ["corrupt", "instance", "compared"])
def test_mask_and_transition_match_the_slow_count(how):
    true = labels_of(5, 300)
    true[true == 3] = 2  # class 3 is empty
    if how == "corrupt":
        noisy = noise.corrupt(true, noise.symmetric(5, 0.3), 0)
    elif how == "instance":
        noisy = noise.instance_dependent(np.random.default_rng(1).normal(size=(300, 4)), true, 0.3, 5, 0)
    else:
        noisy = noise.compared(true, labels_of(5, 300, seed=1), 5)
    assert noisy.labels.dtype == np.int64
    assert noisy.noise_mask.tolist() == [given != label for given, label in zip(noisy.labels, true, strict=True)]
    np.testing.assert_allclose(noisy.transition, reference.realised(true.tolist(), noisy.labels.tolist(), 5))
    assert noisy.noise_mask.any()


@pytest.mark.parametrize("how", ["corrupt", "instance"])
def test_seeds(how):
    true, x = labels_of(4, 400), np.random.default_rng(1).normal(size=(400, 3))

    def draw(random_state):
        if how == "corrupt":
            return noise.corrupt(true, noise.symmetric(4, 0.5), random_state)
        return noise.instance_dependent(x, true, 0.5, random_state=random_state)

    before = np.random.get_state(), torch.get_rng_state(), random.getstate()  # noqa: NPY002
    assert_same(draw(3), draw(3))
    assert_same(draw(3), draw(np.random.default_rng(3)))
    assert not np.array_equal(draw(3).labels, draw(4).labels)
    generator = np.random.default_rng(3)
    assert not np.array_equal(draw(generator).labels, draw(generator).labels)
    assert not np.array_equal(draw(None).labels, draw(None).labels)
    assert np.array_equal(before[0][1], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())
    assert before[2] == random.getstate()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_none_or_all_are_flipped(rate):
    true, x = labels_of(3, 3000), np.random.default_rng(1).normal(size=(3000, 3))
    assert noise.corrupt(true, noise.symmetric(3, rate), 0).noise_mask.mean() == rate
    assert noise.corrupt(true, noise.pair_flip(3, rate), 0).noise_mask.mean() == rate
    assert noise.instance_dependent(x, true, rate, random_state=0).noise_mask.mean() == rate


def test_true_labels_stay_as_they_are():
    true = labels_of(3, 50)
    copy = true.copy()
    noise.corrupt(true, noise.symmetric(3, 1.0), 0)
    noise.instance_dependent(np.ones((50, 2)), true, 0.5, random_state=0)
    assert np.array_equal(true, copy)


@pytest.mark.parametrize("kind", [list, np.asarray, torch.as_tensor, lambda y: np.asarray(y, dtype=np.uint8)])
def test_labels_come_in_any_container(kind):
    true = [0, 1, 2, 2, 1, 0, 1]
    expected = noise.corrupt(np.array(true), noise.symmetric(3, 0.5), 0)
    assert_same(noise.corrupt(kind(true), noise.symmetric(3, 0.5), 0), expected)


def test_one_class_has_nowhere_to_go():
    zeros = np.zeros(20, dtype=np.int64)
    for noisy in (
        noise.corrupt(zeros, noise.symmetric(1, 0.5), 0),
        noise.instance_dependent(np.arange(20.0), zeros, 0.5, random_state=0),
    ):
        assert not noisy.noise_mask.any()
        assert np.array_equal(noisy.transition, [[1.0]])


@pytest.mark.parametrize(
    ("matrix", "rule"),
    [
        (np.ones(3) / 3, "be square"),
        (np.ones((2, 3)) / 3, "be square"),
        ([[0.5, 0.4], [0.0, 1.0]], "have rows of shares that sum to 1"),
        ([[1.5, -0.5], [0.0, 1.0]], "have rows of shares that sum to 1"),
        ([[float("nan"), 1.0], [0.0, 1.0]], "have rows of shares that sum to 1"),
        ([[float("inf"), 0.0], [0.0, 1.0]], "have rows of shares that sum to 1"),
        (noise.symmetric(3, 0.5).T * [[1.0], [2.0], [0.0]], "have rows of shares that sum to 1"),
    ],
)
def test_bad_matrices(matrix, rule):
    with pytest.raises(ValueError, match=f"`transition` must {rule}"):
        noise.corrupt([0, 1], matrix, 0)


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        ([0, 3], r"must lie in \[0, 3\), got 3 at row 1"),
        ([-1, 0], r"must lie in \[0, 3\), got -1 at row 0"),
        ([0.0, 1.0], "must be integers"),
        (["a", "b"], "must be integers"),
        ([[0, 1]], r"must have shape \(n_samples,\)"),
        ([], "must hold at least one label"),
    ],
)
def test_bad_labels(labels, rule):
    with pytest.raises(ValueError, match=f"`true_labels` {rule}"):
        noise.corrupt(labels, noise.symmetric(3, 0.5), 0)
    with pytest.raises(ValueError, match=f"`true_labels` {rule}"):
        noise.instance_dependent(np.zeros((2, 1)), labels, 0.5, 3, 0)


def test_compared_refuses_other_lengths_and_labels():
    with pytest.raises(ValueError, match="`labels` must be 3, as many as `true_labels`, got 2"):
        noise.compared([0, 1, 0], [0, 1], 2)
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 2\)"):
        noise.compared([0, 1], [0, 2], 2)


# ---- instance-dependent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.2, 0.4, 0.85, 0.99])
def test_instance_dependent_noise_has_the_mean_rate(rate):
    true, x = labels_of(5), np.random.default_rng(1).normal(size=(20_000, 3))
    low, high = reference.bounds(rate, 20_000)
    assert low <= noise.instance_dependent(x, true, rate, random_state=0).noise_mask.mean() <= high


def targets(noisy, rows, num_classes):
    flipped = noisy.labels[rows][noisy.noise_mask[rows]]
    return np.bincount(flipped, minlength=num_classes) / len(flipped)


def test_instance_dependent_noise_depends_on_the_sample_and_its_class():
    points, point = np.random.default_rng(2).normal(size=(4, 6)), labels_of(4, 64_000)
    x, true = points[point], np.zeros(len(point), dtype=np.int64)
    true[len(x) // 2 :] = 5
    noisy = noise.instance_dependent(x, true, 0.5, 6, 0)
    found = {}
    for label in (0, 5):
        for which in range(4):
            rows = np.flatnonzero((true == label) & (point == which))
            first, second = targets(noisy, rows[::2], 6), targets(noisy, rows[1::2], 6)
            assert np.abs(first - second).sum() < 0.12  # the same sample and class: the same distribution
            assert first[label] == second[label] == 0
            low, high = reference.bounds(0.5, len(rows))
            assert low <= noisy.noise_mask[rows].mean() <= high
            found[label, which] = (first + second) / 2
    for which in range(3):  # another sample of the class
        assert np.abs(found[0, which] - found[0, which + 1]).sum() > 0.4
    other_class = [np.abs(found[0, which] - found[5, which])[1:5].sum() for which in range(4)]
    assert np.mean(other_class) > 0.4


def test_instance_dependent_noise_has_no_need_of_a_scale():
    true, x = labels_of(4, 500), np.random.default_rng(1).normal(size=(500, 2, 3)).astype(np.float32)
    expected = noise.instance_dependent(x, true, 0.5, random_state=0)
    assert_same(noise.instance_dependent(x * 1024, true, 0.5, random_state=0), expected)
    assert_same(noise.instance_dependent(x.reshape(500, 6), true, 0.5, random_state=0), expected)


def test_instance_dependent_noise_of_constant_samples():
    noisy = noise.instance_dependent(np.full((3000, 4), 7), labels_of(3, 3000), 0.4, random_state=0)
    low, high = reference.bounds(0.4, 3000)
    assert low <= noisy.noise_mask.mean() <= high


def test_instance_dependent_noise_counts_classes():
    x, true = np.random.default_rng(1).normal(size=(100, 3)), labels_of(3, 100)
    assert noise.instance_dependent(x, true, 0.5, random_state=0).transition.shape == (3, 3)
    noisy = noise.instance_dependent(x, true, 0.5, 7, random_state=0)
    assert noisy.transition.shape == (7, 7)
    assert np.array_equal(noisy.transition[3:], np.eye(7)[3:])
    assert noisy.labels.max() > 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_instance_dependent_noise_refuses_values_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="`x` must be finite"):
        noise.instance_dependent([[0.0], [bad], [1.0]], [0, 1, 0], 0.5)


def test_instance_dependent_noise_refuses_bad_arguments():
    with pytest.raises(ValueError, match="`x` must have 3 rows, as many as labels, got 2"):
        noise.instance_dependent(np.zeros((2, 4)), [0, 1, 0], 0.5)
    for rate in (-0.1, 1.5):
        with pytest.raises(ValueError, match="`noise_rate` must lie in"):
            noise.instance_dependent(np.zeros((2, 4)), [0, 1], rate)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("confusions", [{True: 0}, {0: True}, {0.5: 1}, {0: 1.0}, {"0": 1}])
def test_confusions_of_what_is_no_class(confusions):
    with pytest.raises(ValueError, match=r"`confusions` must map classes in \[0, 3\)"):
        noise.class_dependent(3, 0.4, confusions)


def test_samples_too_large_to_be_told_apart():
    x, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 4
    with pytest.raises(ValueError, match="`x` must have a deviation that is finite in float32"):
        noise.instance_dependent(x * 1e30, labels, 0.4, random_state=0)
    with pytest.raises(ValueError, match="`x` must hold values"):
        noise.instance_dependent(np.empty((40, 0)), labels, 0.4, random_state=0)
