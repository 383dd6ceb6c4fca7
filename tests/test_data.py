"""Tests of lossbuf.data."""

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from lossbuf.data import IndexedDataset, SizedDataset

LABELS = [2, 0, 1, 1, 0, 2, 2, 0, 1, 0, 2]


class Plain(Dataset):
    """Holds no labels: they must be read. A sample says its own row."""

    reads = 0

    def __init__(self, labels=LABELS):
        self.told = labels

    def __len__(self):
        return len(self.told)

    def __getitem__(self, row):
        type(self).reads += 1
        return torch.tensor([float(row), 0.5]), self.told[row]


class WithTargets(Plain):
    """As torchvision's."""

    def __init__(self, labels=LABELS, target_transform=None):
        super().__init__(labels)
        self.targets, self.target_transform = labels, target_transform

    def __getitem__(self, row):
        x, y = super().__getitem__(row)
        return x, y if self.target_transform is None else self.target_transform(y)


class WithLabels(Plain):
    """As torchvision's SVHN."""

    def __init__(self, labels=LABELS):
        super().__init__(labels)
        self.labels = np.array(labels)


def tensors(labels=LABELS):
    x = torch.stack((torch.arange(len(labels)).float(), torch.ones(len(labels))), 1)
    return TensorDataset(x, torch.tensor(labels, dtype=torch.int64))


MAKERS = {"tensors": tensors, "targets": WithTargets, "labels": WithLabels, "read": Plain}
ROWS = {"list": [7, 2, 2, 10, 0], "tensor": torch.tensor([1, 3, 5]), "array": np.array([9, 8]), "range": range(3, 8)}


def assert_rows_match(indexed, rows, labels=LABELS):
    """The x of every sample says the row below; labels and row numbers go with it."""
    assert isinstance(indexed.dataset, SizedDataset)
    assert len(indexed) == len(rows)
    assert indexed.labels.dtype == torch.int64
    assert indexed.labels.tolist() == [labels[below] for below in rows]
    for row, below in enumerate(rows):
        x, y, number = indexed[row]
        assert (x[0], int(y), number) == (below, labels[below], row)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_rows_of_a_data_set(maker):
    indexed = IndexedDataset(maker())
    assert_rows_match(indexed, range(11))
    assert indexed.num_classes == 3


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_rows_of_a_subset(maker, rows):
    assert_rows_match(IndexedDataset(Subset(maker(), rows)), [int(row) for row in rows])
    below = Subset(Subset(maker(), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]), rows)
    assert_rows_match(IndexedDataset(below), [10 - int(row) for row in rows])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("maker", [tensors, Plain, lambda: Subset(WithTargets(), [10, 4, 3, 8, 1, 1, 0])])
def test_rows_match_samples_in_a_loader(maker, workers, generator):
    indexed = IndexedDataset(maker())
    loader = DataLoader(indexed, 4, shuffle=True, num_workers=workers, generator=generator)
    seen = []
    for _ in range(2):
        batches = list(loader)
        assert [len(rows) for _, _, rows in batches] == [4] * (len(indexed) // 4) + [3]
        for x, labels, rows in batches:
            assert rows.dtype == torch.int64
            for number, sample, label in zip(rows.tolist(), x, labels.tolist(), strict=True):
                expected = indexed.dataset[number]
                assert torch.equal(sample, expected[0])
                assert label == int(expected[1]) == int(indexed.labels[number])
        seen.append(torch.cat([rows for _, _, rows in batches]).tolist())
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(len(indexed)))
    assert seen[0] != seen[1]


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array, lambda y: np.array(y, dtype=np.uint8)])
def test_labels_may_be_given(kind):
    Plain.reads = 0
    indexed = IndexedDataset(Plain(), kind(LABELS))
    assert Plain.reads == 0
    assert_rows_match(indexed, range(11))


def test_labels_with_a_target_transform_are_read():
    data = WithTargets(target_transform=lambda label: 2 - label)
    assert_rows_match(IndexedDataset(data), range(11), [2 - label for label in LABELS])


def test_held_labels_are_not_read():
    WithTargets.reads = 0
    IndexedDataset(WithTargets())
    assert WithTargets.reads == 0


def test_the_number_of_classes_may_be_given():
    assert IndexedDataset(tensors(), num_classes=7).num_classes == 7
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 2\), got 2 at row 0"):
        IndexedDataset(tensors(), num_classes=2)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_numbers_from_the_end_and_beyond_it(maker):
    indexed = IndexedDataset(maker())
    x, y, row = indexed[-2]
    assert (x[0], int(y), row) == (9, LABELS[9], 9)
    assert indexed[-11][2] == 0
    for beyond in (11, -12, 1000):
        with pytest.raises(IndexError):
            indexed[beyond]
    assert [row for *_, row in indexed] == list(range(11))  # ends, as iteration by numbers needs


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_an_empty_data_set_is_refused(maker):
    for empty in (maker([]), Subset(maker(), [])):
        with pytest.raises(ValueError, match="`labels` must hold at least one label"):
            IndexedDataset(empty)


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        ([0, -1, 1], "must lie in .*, got -1 at row 1"),
        (torch.tensor([0.0, 1.0, 1.0]), "must be integers, got dtype torch.float32"),
        (torch.tensor([[0], [1], [1]]), "must have shape"),
        (["cat", "dog", "cat"], "must be integers, got list with 'cat' at row 0. Encode other labels first"),
        ([0, 1], "must be 3, one a row, got 2"),
        ([0, 1, 1, 0], "must be 3, one a row, got 4"),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_bad_labels(labels, rule):
    with pytest.raises(ValueError, match=f"`labels` {rule}"):
        IndexedDataset(tensors([0, 1, 1]), labels)


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize(
    "held",
    [
        {0: "cat", 1: "dog", 2: "eel"},
        {"a.png": 2, "b.png": 0},
        ["cat", "dog", "eel"],
        ["cat"] * 11,
        [2, 0, 1],  # of a set of fewer rows
        torch.zeros(11),
        np.eye(11),
        None,
        "train",
        lambda: LABELS,
        [[1, 2], [3]],
    ],
)
def test_what_is_not_the_labels_is_passed_over(name, held):
    data = Plain()
    setattr(data, name, held)
    assert IndexedDataset(data).labels.tolist() == LABELS


@pytest.mark.parametrize("held", [np.array(LABELS, ">i2"), np.array(LABELS, "u8")[::-1].copy()[::-1], tuple(LABELS)])
def test_labels_are_held_in_any_form(held):
    data = WithTargets()
    data.targets = held
    WithTargets.reads = 0
    assert_rows_match(IndexedDataset(Subset(data, [3, 1, 0])), [3, 1, 0])
    assert IndexedDataset(ConcatDataset([data, tensors([1, 0])])).labels.tolist() == [*LABELS, 1, 0]


@pytest.mark.parametrize("label", [np.int64(1), np.array([1]), torch.tensor(1), torch.tensor([1]), 1.0, True])
def test_a_sample_may_tell_its_label_in_any_form(label):
    assert IndexedDataset(Plain([0, label])).labels.tolist() == [0, 1]


@pytest.mark.parametrize("label", ["cat", 0.5, None, torch.tensor([0.0, 1.0]), {"class": 1}])
def test_a_label_that_is_not_a_class_is_told_with_its_place(label):
    with pytest.raises(ValueError, match=r"`dataset` must have samples whose second part.*got .* in sample 1"):
        IndexedDataset(Plain([0, label]))


@pytest.mark.usefixtures("no_shape_checks")
def test_a_data_set_without_a_length_is_told():
    class Stream(IterableDataset):
        def __iter__(self):
            yield 0, 0

    with pytest.raises(ValueError, match=r"`dataset` must have a length.*got Stream\. For a stream.*LossBufferStream"):
        IndexedDataset(Stream())
    with pytest.raises(ValueError, match="`dataset` must hold samples and labels, got one tensor"):
        IndexedDataset(TensorDataset(torch.zeros(3)))


def test_bad_labels_found_by_reading():
    with pytest.raises(ValueError, match=r"`labels` must lie in .*, got -3 at row 1"):
        IndexedDataset(Plain([0, -3]))


def test_other_parts_of_a_sample_stay():
    data = TensorDataset(torch.zeros(2, 1), torch.tensor([1, 0]), torch.tensor([7.0, 8.0]))
    _, label, extra, row = IndexedDataset(data)[1]
    assert (int(label), float(extra), row) == (0, 8.0, 1)


class Dictionaries(torch.utils.data.Dataset):
    """Samples that are no tuples."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"x": torch.zeros(2), "y": index}


def test_samples_that_are_no_tuples():
    with pytest.raises(ValueError, match=r"`dataset` must have samples \(x, label, \.\.\.\), got dict"):
        IndexedDataset(Dictionaries())
    wrapped = IndexedDataset(Dictionaries(), labels=[0, 1, 2])
    with pytest.raises(ValueError, match="got dict"):
        wrapped[0]
