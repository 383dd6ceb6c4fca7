"""From any container to labels, by position: the same numbers, or an error that says what was found and where."""

import array
from collections import UserList

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lossbuf import LossBufferCallback, find_label_issues
from lossbuf.arrays.conversion import as_array
from lossbuf.checks import class_labels
from lossbuf.noise import corrupt, symmetric

LABELS = [2, 0, 1, 1, 0, 2, 2, 0]
ROWS = np.array(LABELS)


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


class Column:
    """As a series of Polars: it has no index and no ``__array__``."""

    def to_numpy(self):
        return read_only(ROWS)


CONTAINERS = {
    "negative stride": ROWS[::-1].copy()[::-1],
    "every second": np.repeat(ROWS, 2)[::2],
    "a column": np.asfortranarray(np.stack([ROWS, ROWS]))[1],
    "read-only": read_only(ROWS),
    "big-endian": ROWS.astype(">i8"),
    "little-endian": ROWS.astype("<i2"),
    **{f"{kind}": ROWS.astype(kind) for kind in ("i1", "i2", "i4", "u1", "u2", "u4", "u8", ">u2", ">u4", ">u8")},
    "objects": ROWS.astype(object),
    "objects of NumPy": np.array([np.int8(label) for label in LABELS], dtype=object),
    "memory view": np.asarray(memoryview(ROWS)),
    "masked, nothing hidden": np.ma.masked_array(ROWS, mask=False),
    "array module": array.array("H", LABELS),
    "tuple": tuple(LABELS),
    "sequence": UserList(LABELS),
    "range of them": [np.uint16(label) for label in LABELS],
    "list of tensors": [torch.tensor(label) for label in LABELS],
    "tensor of 16 bits": torch.tensor(LABELS, dtype=torch.int16),
    "tensor of uint16": torch.tensor(LABELS, dtype=torch.uint16),
    "tensor of uint64": torch.tensor(LABELS, dtype=torch.uint64),
    "series with another index": pd.Series(LABELS, index=range(8, 0, -1)),
    "series with an index of texts": pd.Series(LABELS, index=list("hgfedcba")),
    "series with gaps in its type": pd.Series(LABELS, dtype="Int64"),
    "series of categories": pd.Series(LABELS, dtype="category"),
    "a column of a table": pd.DataFrame({"y": LABELS, "x": 0.5})["y"].sample(frac=1, random_state=0).sort_index(),
    "index": pd.Index(LABELS),
    "pyarrow": pd.Series(LABELS, dtype="int64[pyarrow]"),
    "another library": Column(),
}


@pytest.mark.parametrize("labels", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.usefixtures("no_shape_checks")
def test_the_same_labels_from_every_container(labels):
    found = class_labels("labels", labels, 3)
    assert found.dtype == torch.int64
    assert found.tolist() == LABELS
    probs = np.full((8, 3), 0.05)
    probs[range(8), LABELS] = 0.9
    assert not find_label_issues(labels, probs).any()
    assert LossBufferCallback(labels).dynamics.labels.tolist() == LABELS
    assert corrupt(labels, symmetric(3, 0.0), 0).labels.tolist() == LABELS


def test_what_is_given_is_not_changed_and_not_shared():
    for values in (ROWS, ROWS.astype(object), torch.tensor(LABELS), pd.Series(LABELS)):
        found = as_array(values)
        found[:] = 7
        assert list(values) == LABELS


@pytest.mark.parametrize("dtype", [">f4", "f2", ">f8", object])
def test_probabilities_from_every_container(dtype):
    probs = np.full((8, 3), 0.25)
    probs[range(8), LABELS] = 0.5
    for given_probs in (probs.astype(dtype), read_only(probs.astype(dtype))[::-1].copy()[::-1], pd.DataFrame(probs)):
        assert not find_label_issues(LABELS, given_probs).any()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"a": 1}, "must be integers, got dict"),
        ({1, 2}, "must be integers, got set"),
        ("cat", "must be integers, got str"),
        (b"\x00\x01", "must be integers, got bytes"),
        (None, "must be integers, got NoneType"),
        (iter([0, 1]), "must be integers, got list_iterator"),
        (int, "must be integers, got type"),
        ([0, "1", 1], "got list with '1' at row 1"),
        ([0, None, 1], "got list with None at row 1"),
        ([0, True, 1], "got list with True at row 1"),
        ([[0], [1, 2]], "got list of parts of different lengths"),
        (np.array([0, "cat"], dtype=object), "got ndarray with 'cat' at row 1"),
        (np.array(["0", "1"]), "got ndarray with '0' at row 0"),
        (np.array([0, 1], "datetime64[D]"), "got ndarray with datetime.date"),
        (pd.Series([0, None, 1], dtype="Int64"), "got (Series|dtype float64) with (<NA>|nan) at row 1"),
        (pd.Series([0, None, 1]), r"got dtype float64 with (nan at row 1|0.5 at row 0)\. Encode"),
        (pd.Series([True, False]), r"got dtype bool\. Give them as integers"),
        (np.ma.masked_array([0, 1, 1], mask=[0, 0, 1]), "got MaskedArray with None at row 2"),
        ([0.0, 1.0], r"got dtype float64\. Give them as integers, for example by astype\(int\)"),
        ([0.5, 1.0], r"got dtype float64 with (nan at row 1|0.5 at row 0)\. Encode"),
        (np.eye(3), r"must have shape \(n_samples,\), got shape \(3, 3\), as of one-hot labels.*`?labels.argmax\(1\)"),
        (torch.eye(3), r"as of one-hot labels or probabilities"),
        (np.array([[0], [1]]), r"must have shape \(n_samples,\), got shape \(2, 1\)"),
        (np.array([1, 2**64 - 1], "u8"), "must lie below 2.*got 18446744073709551615 at row 1"),
        ([1, 2**70], "got list with|must"),
        (np.array(3), r"must have shape \(n_samples,\), got shape \(\)"),
        (np.array([], dtype=object), "must hold at least one label"),
        ([0, -1], "must lie in .*got -1 at row 1"),
    ],
)
def test_what_are_no_labels_is_told_with_its_place(labels, said):
    with pytest.raises(ValueError, match=said):
        class_labels("labels", labels)


@given(
    arrays.arrays(
        arrays.integer_dtypes() | arrays.unsigned_integer_dtypes(),
        st.integers(1, 20),
        elements={"min_value": 0, "max_value": 99},
    )
)
def test_any_integers(values):
    assert class_labels("labels", values[::-1]).tolist() == values[::-1].tolist()
    assert class_labels("labels", pd.Series(values, index=range(len(values), 0, -1))).tolist() == values.tolist()


@given(st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2), max_size=5))
def test_any_list_gives_labels_or_an_error_of_ours(values):
    if values and all(type(value) is int and 0 <= value < 2**63 for value in values):
        assert class_labels("labels", values).tolist() == values
    else:
        with pytest.raises(ValueError, match=r"^`labels` must"):
            class_labels("labels", values)
