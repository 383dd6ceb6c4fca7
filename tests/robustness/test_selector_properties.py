"""Estimators that choose rows, for whatever names the labels have and whatever holds the rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from condensation.coresets import Herding, KCenter, KMeans, Random
from lossbuf import LossBufferSelector

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAMES = st.one_of(
    st.lists(TEXT, min_size=2, max_size=4, unique=True),
    st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=4, unique=True),
    st.just([False, True]),
    st.just([0.0, 1.0, 7.0]),
)


def linear(shape, num_classes):
    return nn.Linear(shape[0], num_classes)


def selector(**changes):
    usual = {"module": linear, "epochs": 2, "batch_size": 16, "random_state": 0, "device": "cpu", "rank_by": "aum"}
    return LossBufferSelector(**{**usual, "noise_rate": 0.2, **changes})


CHOOSERS = {
    "loss buffer": selector,
    "posterior": lambda: selector(rank_by="posterior", noise_rate=None, max_fdr=0.4),
    "random": lambda: Random(ipc=2, random_state=0),
    "herding": lambda: Herding(ipc=2),
    "k-center": lambda: KCenter(ipc=2),
    "k-means": lambda: KMeans(ipc=2, random_state=0),
}


@st.composite
def rows(draw):
    """Samples that all differ, and labels with two rows of each class at least."""
    names = draw(NAMES)
    size = draw(st.integers(2 * len(names), 30))
    more = st.lists(st.sampled_from(range(len(names))), min_size=size, max_size=size)
    codes = np.array(draw(more))
    codes[: 2 * len(names)] = np.repeat(np.arange(len(names)), 2)
    x = np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal((size, 3))
    # Of the names' own order, so that the estimator numbers the classes as the codes do.
    return x, codes, np.array(sorted(names), dtype=object if isinstance(names[0], str) else None)


def assert_whole(estimator, x, labels, names):
    """What holds of every estimator that chooses rows."""
    x_small, labels_small = estimator.fit_resample(x, labels)
    chosen = estimator.sample_indices_
    assert len(set(chosen.tolist())) == len(chosen)
    assert np.array_equal(x_small, x[chosen])
    assert list(labels_small) == [labels[row] for row in chosen]
    assert estimator.classes_.tolist() == names.tolist()
    assert set(np.flatnonzero(estimator.get_support())) == set(chosen.tolist())
    return chosen


@pytest.mark.parametrize("make", CHOOSERS.values(), ids=CHOOSERS)
@settings(max_examples=15)
@given(rows())
@pytest.mark.filterwarnings("ignore::lossbuf.errors.LossBufferWarning")
def test_labels_of_any_kind(make, drawn):
    x, codes, names = drawn
    estimator = make()
    chosen = assert_whole(estimator, x, names[codes], names)
    by_number = make().fit(x, codes)
    assert by_number.sample_indices_.tolist() == chosen.tolist()  # names do not matter, nor does a second fit
    assert make().fit(x, codes).transform(x).tolist() == x[chosen].tolist()
    if isinstance(estimator, LossBufferSelector):
        assert np.all(np.diff(chosen) > 0)
        assert set(estimator.suggested_labels_.tolist()) <= set(names.tolist())
        assert ((estimator.sample_weight_ >= 0) & (estimator.sample_weight_ <= 1)).all()
        assert 0 <= estimator.noise_rate_ <= 1
    else:
        assert np.bincount(codes[chosen], minlength=len(names)).tolist() == [2] * len(names)


@settings(max_examples=12)
@given(rows(), st.randoms(use_true_random=False))
def test_containers_go_by_position(drawn, random):
    x, codes, names = drawn
    index = [f"row {row}" for row in range(len(x))]
    random.shuffle(index)
    expected = selector().fit(x, codes).sample_indices_
    frame, series = pd.DataFrame(x, index=index, columns=["a", "b", "c"]), pd.Series(names[codes], index=index)
    x_small, labels_small = selector().fit_resample(frame, series)
    assert x_small.index.tolist() == labels_small.index.tolist() == [index[row] for row in expected]
    x_small, labels_small = selector().fit_resample(torch.from_numpy(x), torch.from_numpy(codes))
    assert torch.equal(x_small, torch.from_numpy(x[expected]))
    assert labels_small.tolist() == codes[expected].tolist()
    x_small, labels_small = selector().fit_resample(x.tolist(), names[codes].tolist())
    assert x_small == x[expected].tolist()
    assert labels_small == names[codes][expected].tolist()


@pytest.mark.parametrize("make", [CHOOSERS["herding"], CHOOSERS["k-center"]], ids=["herding", "k-center"])
@settings(max_examples=40)
@given(rows(), st.randoms(use_true_random=False))
def test_what_draws_nothing_does_not_look_at_the_order_of_rows(make, drawn, random):
    x, codes, _ = drawn
    order = list(range(len(x)))
    random.shuffle(order)
    assume(len(np.unique(x, axis=0)) == len(x))
    chosen = make().fit(x, codes).sample_indices_
    permuted = make().fit(x[order], codes[order]).sample_indices_
    assert {order[row] for row in permuted} == set(chosen.tolist())


@settings(max_examples=12)
@given(rows(), st.sampled_from([0.0, 0.25, 1.0]))
def test_a_known_rate_drops_that_share(drawn, rate):
    x, codes, _ = drawn
    fitted = selector(noise_rate=rate).fit(x, codes)
    assert len(x) - len(fitted.sample_indices_) == round(rate * len(x))
    again = selector(noise_rate=rate).fit(x, codes)
    assert fitted.scores_.tobytes() == again.scores_.tobytes()
