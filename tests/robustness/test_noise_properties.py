"""Label noise for whatever labels and matrices Hypothesis thinks of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossbuf import noise
from tests.reference import noise as reference

CLASSES = st.integers(1, 6)
RATE = st.floats(0, 1)
SEED = st.integers(0, 2**32)


@st.composite
def matrices(draw):
    """Rows of shares, some of them 0."""
    size = draw(CLASSES)
    rows = st.lists(st.integers(0, 8), min_size=size, max_size=size).filter(any)
    counts = np.array(draw(st.lists(rows, min_size=size, max_size=size)), dtype=np.float64)
    return counts / counts.sum(1, keepdims=True)


@st.composite
def labelled(draw, of=matrices()):  # noqa: B008
    matrix = draw(of)
    labels = draw(st.lists(st.integers(0, len(matrix) - 1), min_size=1, max_size=50))
    return np.array(labels), matrix, draw(SEED)


def made(num_classes, rate, kind, confusions):
    if kind == "class-dependent":
        known = {true % num_classes: given_class % num_classes for true, given_class in confusions.items()}
        return noise.class_dependent(num_classes, rate, known)
    return noise.symmetric(num_classes, rate) if kind == "symmetric" else noise.pair_flip(num_classes, rate)


MADE = st.builds(
    made,
    CLASSES,
    RATE,
    st.sampled_from(["symmetric", "pair-flip", "class-dependent"]),
    st.dictionaries(st.integers(0, 5), st.integers(0, 5)),
)


@given(CLASSES, RATE, st.dictionaries(st.integers(0, 5), st.integers(0, 5)))
def test_matrices_are_stochastic_and_of_the_rate(num_classes, rate, confusions):
    known = {true: to for true, to in confusions.items() if max(true, to) < num_classes}
    symmetric, pair = noise.symmetric(num_classes, rate), noise.pair_flip(num_classes, rate)
    dependent = noise.class_dependent(num_classes, rate, known)
    for matrix in (symmetric, pair, dependent):
        assert matrix.shape == (num_classes, num_classes)
        assert matrix.min() >= 0
        np.testing.assert_allclose(matrix.sum(1), 1)
    kept = 1 - rate if num_classes > 1 else 1
    for true in range(num_classes):
        assert symmetric[true, true] == pair[true, true] == pytest.approx(kept)
        assert dependent[true, true] == pytest.approx(1 - rate if known.get(true, true) != true else 1)
        for given_class in range(num_classes):
            if given_class not in (true, known.get(true)):
                assert dependent[true, given_class] == 0


@given(labelled() | labelled(MADE))
def test_labels_are_drawn_from_their_row(drawn):
    labels, matrix, seed = drawn
    found = noise.corrupt(labels, matrix, seed)
    draws = np.random.default_rng(seed).random(len(labels))
    expected = [reference.drawn(matrix[true], draw) for true, draw in zip(labels, draws, strict=True)]
    assert found.labels.tolist() == expected
    assert found.noise_mask.tolist() == (found.labels != labels).tolist()
    np.testing.assert_allclose(found.transition, reference.realised(labels.tolist(), expected, len(matrix)))
    assert (matrix[labels, found.labels] > 0).all()  # what cannot be does not happen


@given(labelled())
def test_the_same_seed_gives_the_same_labels(drawn):
    labels, matrix, seed = drawn
    one, again = noise.corrupt(labels, matrix, seed), noise.corrupt(labels, matrix, np.random.default_rng(seed))
    assert one.labels.tobytes() == again.labels.tobytes()
    assert labels.tobytes() == drawn[0].tobytes()
    assert noise.compared(labels, one.labels, len(matrix)).noise_mask.tolist() == one.noise_mask.tolist()


@given(labelled(MADE), st.randoms(use_true_random=False))
def test_other_rows_do_not_change_a_draw(drawn, random):
    labels, matrix, seed = drawn
    whole = noise.corrupt(labels, matrix, seed).labels
    first = random.randint(1, len(labels))
    assert noise.corrupt(labels[:first], matrix, seed).labels.tolist() == whole[:first].tolist()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(-8, 8), min_size=3, max_size=3)), min_size=1),
    RATE | st.sampled_from([0.0, 1.0]),
    SEED,
)
def test_noise_that_depends_on_the_sample(rows, rate, seed):
    labels, x = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=np.float32)
    found, again = (noise.instance_dependent(x, labels, rate, 4, seed) for _ in range(2))
    assert found.labels.tobytes() == again.labels.tobytes()
    assert ((found.labels >= 0) & (found.labels < 4)).all()
    assert found.noise_mask.tolist() == (found.labels != labels).tolist()
    np.testing.assert_allclose(found.transition, reference.realised(labels.tolist(), found.labels.tolist(), 4))
    if rate in (0, 1):
        assert found.noise_mask.all() if rate else not found.noise_mask.any()


@given(st.lists(st.integers(-3, 8), min_size=1, max_size=10), CLASSES)
def test_labels_out_of_range_are_refused(labels, num_classes):
    if min(labels) >= 0 and max(labels) < num_classes:
        assert noise.corrupt(labels, np.eye(num_classes), 0).labels.tolist() == labels
    else:
        with pytest.raises(ValueError, match="`true_labels` must lie in"):
            noise.corrupt(labels, np.eye(num_classes), 0)


@given(st.lists(st.lists(st.floats(-1, 2), min_size=2, max_size=2), min_size=2, max_size=2))
def test_what_is_no_matrix_of_shares_is_refused(rows):
    matrix = np.array(rows)
    if matrix.min() >= 0 and np.allclose(matrix.sum(1), 1):
        assert len(noise.corrupt([0, 1], matrix, 0).labels) == 2
    else:
        with pytest.raises(ValueError, match="`transition` must have rows of shares that sum to 1"):
            noise.corrupt([0, 1], matrix, 0)
