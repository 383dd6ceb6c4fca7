"""lossbuf.export: the verdict in the columns that other tools know."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import make_blobs

from lossbuf import LossBufferCallback, LossBufferSelector, LossBufferWarning, label_issues, noise
from lossbuf.detection.issue_table import issue_table, label_quality_of
from lossbuf.detection.thresholds import Cut
from lossbuf.detection.verdict import Verdict

SIZE, NUM_CLASSES = 300, 3
NAMES = ["cat", "dog", "=1+1"]
FIRST = [
    "id",
    "given_label",
    "predicted_label",
    "suggested_label",
    "is_label_issue",
    "label_quality",
    "suspicion",
]


def trained(seen=SIZE, **settings):
    """A callback that saw three epochs of the first ``seen`` rows, the true labels, and which labels are wrong."""
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(SIZE) % NUM_CLASSES
    noisy = noise.corrupt(true.numpy(), noise.symmetric(NUM_CLASSES, 0.2), 0)
    labels = torch.from_numpy(noisy.labels)
    callback = LossBufferCallback(labels, NUM_CLASSES, warmup=2, **settings)
    for _ in range(3):
        logits = 3 * F.one_hot(true, NUM_CLASSES) + torch.randn(SIZE, NUM_CLASSES, generator=generator)
        rows = torch.randperm(seen, generator=generator)
        names = rows if callback.ids is None else [callback.ids[row] for row in rows.tolist()]
        callback.update(logits[rows], labels[rows], names)
        callback.end_epoch()
    return callback, true.numpy(), noisy.noise_mask


def test_columns_and_order():
    callback, _, _ = trained()
    table, report = label_issues(callback), callback.report().sort_index()
    assert list(table.columns[:7]) == FIRST
    statistics = [name for name in report.columns if name not in (*FIRST, "is_suspect")]
    assert list(table.columns[7:]) == statistics
    assert list(table.index) == table["id"].tolist() == list(range(SIZE))
    pd.testing.assert_frame_equal(table[statistics], report[statistics])
    assert table["is_label_issue"].tolist() == report["is_suspect"].tolist()
    for name in ("given_label", "suggested_label"):
        assert table[name].tolist() == report[name].tolist()
        assert table[name].dtype == np.int64


def test_values_with_the_posterior():
    callback, true, wrong = trained()
    table = label_issues(callback)
    np.testing.assert_allclose(table["label_quality"], 1 - table["wrong_probability"].astype(float), atol=1e-6)
    np.testing.assert_array_equal(table["suspicion"], callback.verdict().suspicion)
    assert table["label_quality"].between(0, 1).all()
    assert table["label_quality"][wrong].mean() < 0.2 < 0.8 < table["label_quality"][~wrong].mean()
    assert (table["predicted_label"] == true).mean() > 0.95
    changed = table["predicted_label"] != table["given_label"]
    assert changed.tolist() == (table["wrong_probability"] > 0.5).tolist()


def test_suspects_by_a_known_rate_need_not_be_predicted_otherwise():
    table = label_issues(trained(noise_rate=0.5)[0])
    assert table["is_label_issue"].sum() == SIZE // 2
    doubtful = table["is_label_issue"] & (table["wrong_probability"] < 0.5)
    assert doubtful.any()
    assert (table["predicted_label"] == table["given_label"])[doubtful].all()


def test_without_the_posterior_quality_is_the_place_in_the_ranking():
    callback, true, _ = trained(rank_by="wrong_count")
    table = label_issues(callback)
    assert "wrong_probability" not in table
    assert (table["predicted_label"] == table["suggested_label"]).all()
    assert (table["predicted_label"] == true)[table["is_label_issue"]].mean() > 0.9
    by_quality = table.sort_values("label_quality")["suspicion"].to_numpy()
    assert (np.diff(by_quality) <= 0).all()
    assert table["label_quality"].nunique() == table["wrong_count"].nunique() > 1
    assert table["label_quality"].mean() == pytest.approx(0.5)
    assert table["label_quality"].between(0, 1, inclusive="neither").all()


def test_quality_counts_the_rows_that_are_more_suspect():
    def quality(*suspicion):
        values = np.array(suspicion, dtype=np.float32)
        cut = Cut(np.inf, 0.0, np.zeros(len(values), dtype=bool))
        return label_quality_of(Verdict(values, values, cut, np.zeros(len(values), dtype=np.int64))).tolist()

    nan = float("nan")
    assert quality(3.0, 1.0, 2.0, 0.0) == [1 / 8, 5 / 8, 3 / 8, 7 / 8]
    assert quality(1.0, 1.0) == [0.5, 0.5]
    assert quality(5.0) == [0.5]
    assert quality(2.0, nan, 1.0)[::2] == [0.25, 0.75]
    assert np.isnan(quality(2.0, nan, 1.0)[1])
    assert np.isnan(quality(nan, nan)).all()


@pytest.mark.parametrize("rank_by", ["posterior", "aum"])
def test_rows_never_seen_are_no_issue(rank_by):
    table = label_issues(trained(seen=280, rank_by=rank_by)[0])
    unseen = table.iloc[280:]
    assert unseen["label_quality"].isna().all()
    assert not unseen["is_label_issue"].any()
    assert (unseen["predicted_label"] == unseen["given_label"]).all()
    assert (unseen["suggested_label"] == unseen["given_label"]).all()
    assert table["label_quality"].iloc[:280].notna().all()
    assert table["is_label_issue"].any()


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda names: np.array(names, dtype=object)])
def test_names_of_classes(form):
    callback, _, _ = trained()
    numbers, names = label_issues(callback), label_issues(callback, form(NAMES))
    for column in ("given_label", "predicted_label", "suggested_label"):
        assert names[column].tolist() == [NAMES[label] for label in numbers[column]]
    pd.testing.assert_frame_equal(
        names.drop(columns=["given_label", "predicted_label", "suggested_label"]),
        numbers.drop(columns=["given_label", "predicted_label", "suggested_label"]),
    )


def test_as_many_names_as_classes():
    with pytest.raises(ValueError, match="`class_names` must be 3, one a class, got 2"):
        label_issues(trained()[0], NAMES[:2])


def test_ids_of_rows():
    ids = [f"{row}.png" for row in range(SIZE)]
    table = label_issues(trained(ids=ids)[0])
    assert table["id"].tolist() == ids
    assert list(table.index) == list(range(SIZE))


def test_a_selectors_callback_with_its_classes():
    x, y = make_blobs(120, centers=3, random_state=0, cluster_std=0.6)
    selector = LossBufferSelector(epochs=6, random_state=0).fit(x, y + 5)
    table = label_issues(selector.callback_, selector.classes_)
    assert table["given_label"].tolist() == (y + 5).tolist()
    assert table["given_label"].dtype == np.int64
    assert table["suggested_label"].tolist() == selector.suggested_labels_.tolist()
    assert np.flatnonzero(~table["is_label_issue"]).tolist() == selector.sample_indices_.tolist()


def test_doubts_are_told_once():
    callback, _, _ = trained(mode="filter")
    callback.posterior.settled_rate.fill_(0.9)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        label_issues(callback)
    assert [record.category for record in told] == [LossBufferWarning]


def test_the_report_stays_as_it_was():
    callback, _, _ = trained()
    before = callback.report()
    label_issues(callback, NAMES)
    pd.testing.assert_frame_equal(callback.report(), before)
    assert list(before.columns[:5]) == ["id", "given_label", "suggested_label", "is_suspect", "wrong_probability"]


def test_suspects_that_are_likelier_right_are_suggested_nothing():
    values = np.array([-1.0, 2.0], dtype=np.float32)
    cut = Cut(-1.0, 0.5, np.array([True, True]))
    verdict = Verdict(values, values, cut, np.array([1, 0]), transition=np.eye(2), bounded=True)
    table = issue_table(verdict, np.array([0, 1]))
    assert table["suggested_label"].tolist() == table["predicted_label"].tolist() == [0, 0]
    assert table["is_label_issue"].all()
