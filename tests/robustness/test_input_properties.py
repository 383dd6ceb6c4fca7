"""Estimators, evaluation and Arrow files, whatever holds the values: the same result, or an error that names the fault.

Every change below leaves the values what they are, so that the result must be that of the plain arrays; every spoiled
input has a value that means nothing, which must be refused by name. Warnings of other libraries are errors here.
"""

import array
import datetime
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather
from scipy import sparse

from condensation.coresets import Craig, Herding, KCenter, KMeans, Random
from condensation.evaluate import EvalSettings, evaluate
from lossbuf import LossBufferSelector
from lossbuf.inputs import InputError, read_labelled

RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def protected(values):
    values = values.copy()
    values.setflags(write=False)
    return values


def every_second(values):
    return np.repeat(values, 2, axis=0)[::2]


def objects(values):
    found = np.empty(values.shape, dtype=object)
    found[...] = values.tolist()
    return found


def shuffled(frame):
    """The same rows, under an index that tells another order."""
    return frame.set_axis(np.random.default_rng(0).permutation(len(frame)))


SAMPLES = {
    "plain": lambda x: x,
    "by column": np.asfortranarray,
    "backward": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "every second": every_second,
    "big-endian": lambda x: x.astype(">f8"),
    "float16": lambda x: x.astype(np.float16),
    "int8": lambda x: x.astype(np.int8),
    "read-only": protected,
    "objects": objects,
    "fractions": lambda x: objects(x) * Fraction(1),
    "decimals": lambda x: pd.DataFrame(
        {f"c{c}": [Decimal(int(value)) for value in x[:, c]] for c in range(x.shape[1])}
    ),
    "list": lambda x: x.tolist(),
    "tuples": lambda x: tuple(map(tuple, x.tolist())),
    "rows of tensors": lambda x: [torch.tensor(row) for row in x],
    "memory": lambda x: memoryview(np.ascontiguousarray(x)),
    "frame": lambda x: shuffled(pd.DataFrame(x, columns=list("abc"))),
    "nullable": lambda x: pd.DataFrame(x.astype(int)).astype("Int64").rename(columns=str),
    "sparse frame": lambda x: pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(x)).rename(columns=str),
    "csr": sparse.csr_matrix,
    "coo": sparse.coo_array,
    "tensor": torch.tensor,
    "bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "with gradient": lambda x: torch.tensor(x, requires_grad=True),
    "masked": lambda x: np.ma.masked_array(x, mask=False),
}
LABELS = {
    "plain": lambda y: y,
    "list": lambda y: y.tolist(),
    "unsigned": lambda y: y.astype(np.uint8),
    "big-endian": lambda y: protected(y.astype(">i2")),
    "backward": lambda y: np.ascontiguousarray(y[::-1])[::-1],
    "objects": objects,
    "series": lambda y: shuffled(pd.Series(y)),
    "nullable": lambda y: pd.Series(y, dtype="Int64"),
    "categories": lambda y: pd.Series(pd.Categorical(y)),
    "index": pd.Index,
    "tensor": torch.tensor,
    "tensors": lambda y: [torch.tensor(label) for label in y],
    "array": lambda y: array.array("q", y.tolist()),
    "one-hot": lambda y: np.eye(y.max() + 1, dtype=int)[y],
    "masked": lambda y: np.ma.masked_array(y, mask=False),
    "names": lambda y: np.array(["a", "b", "c"])[y],
    "bytes": lambda y: np.array([b"a", b"b", b"c"])[y],
    "series of names": lambda y: shuffled(pd.Series(np.array(["a", "b", "c"])[y], dtype="string")),
}
"""All name the classes in the order of their numbers."""

ESTIMATORS = {
    "random": lambda: Random(ipc=2, random_state=0),
    "herding": lambda: Herding(ipc=2),
    "k-center": lambda: KCenter(ipc=2),
    "k-means": lambda: KMeans(ipc=2, random_state=0),
    "craig": lambda: Craig(ipc=2, random_state=0),
    "loss buffers": lambda: LossBufferSelector(epochs=2, batch_size=8, device="cpu", random_state=0),
}


@st.composite
def rows(draw):
    """Samples of whole numbers, exact in every type, and labels of two or three classes."""
    size, classes = draw(st.integers(9, 24)), draw(st.integers(2, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random.integers(-9, 10, (size, 3)).astype(float), np.arange(size) % classes


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
@RELAXED
@given(rows(), st.sampled_from(sorted(SAMPLES)), st.sampled_from(sorted(LABELS)))
@pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning")
@pytest.mark.usefixtures("no_shape_checks")
def test_estimators_take_values_from_anything(make, drawn, samples, labels):
    x, y = drawn
    expected = [make().fit(x.astype(kind), y).sample_indices_.tolist() for kind in ("f8", "f4", "f2")]
    given_x, given_y = SAMPLES[samples](x), LABELS[labels](y)
    found = make()
    small_x, small_y = found.fit_resample(given_x, given_y)
    assert found.sample_indices_.tolist() in expected  # sums are rounded as the type of the samples has it
    assert (small_x.shape[0] if hasattr(small_x, "shape") else len(small_x)) == len(small_y) == len(expected[0])
    assert len(found.classes_) == y.max() + 1


def with_one(value):
    """Rows with another value in the middle."""

    def spoil(x):
        changed = objects(x)
        changed[len(x) // 2, 1] = value
        return changed

    return spoil


def label_with_one(value):
    def spoil(y):
        changed = y.tolist()
        changed[len(y) // 2] = value
        return changed

    return spoil


SPOILED_SAMPLES = {
    "missing": (with_one(None), "NaN"),
    "nan": (with_one(float("nan")), "NaN"),
    "infinite": (with_one(float("inf")), "infinity"),
    "date": (with_one(datetime.date(2020, 1, 1)), "`X` .* dates in the columns 1, such as 2020-01-01"),
    "moment": (with_one(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)), "`X` .* dates in the columns 1"),
    "duration": (with_one(datetime.timedelta(3)), "`X` .* dates in the columns 1"),
    "text": (with_one("five"), "`X` .* texts in the columns 1, such as 'five'"),
    "list of texts": (lambda x: with_one("five")(x).tolist(), "`X` .* texts|Convert your data"),
    "masked": (lambda x: np.ma.masked_array(x, mask=x == x.max()), "`X` .* masked values"),
    "dates": (lambda x: pd.DataFrame({"a": x[:, 0], "when": pd.date_range("2020", periods=len(x))}), "`X` .* when"),
    "months": (lambda x: pd.DataFrame({"when": pd.period_range("2020", periods=len(x), freq="M")}), "`X` .* when"),
    "categories": (
        lambda x: pd.DataFrame({"kind": pd.Categorical(["u"] * len(x))}),
        "`X` .* texts in the columns kind",
    ),
    "nullable": (lambda x: pd.DataFrame({"a": pd.array([None] * len(x), dtype="Int64")}), "NaN"),
    "dict": (lambda x: {"a": x[:, 0]}, "`X` must be an array, a data frame or a list, got dict"),
    "generator": (lambda x: (row for row in x), "`X` .* got generator"),
    "one axis": (lambda x: x[:, 0], "Expected 2D array"),
    "ragged": (lambda x: [*x[1:].tolist(), [1.0]], "inhomogeneous|`X`"),
    "complex": (lambda x: x * 1j, "Complex data not supported"),
    "too few": (lambda x: x[:-1], "inconsistent numbers of samples"),
}
SPOILED_LABELS = {
    "missing": (label_with_one(None), "`y` must hold a label in every row, got None at row"),
    "missing name": (lambda y: ["a", None, *["b"] * (len(y) - 2)], "`y` .* got None at row 1"),
    "missing text": (lambda y: pd.Series(["a", pd.NA, *["b"] * (len(y) - 2)], dtype="string"), "`y` .* at row 1"),
    "nan": (label_with_one(float("nan")), "`y` .* nan at row|y contains NaN"),
    "several kinds": (label_with_one("dog"), "`y` must hold labels of one kind"),
    "fractions": (label_with_one(0.5), "continuous|`y`"),
    "masked": (lambda y: np.ma.masked_array(y, mask=np.arange(len(y)) == 2), "`y` .* got None at row 2"),
    "probabilities": (lambda y: np.full((len(y), 2), 0.5), "`y` must be a label a row, or one-hot"),
    "several": (lambda y: np.ones((len(y), 3), int), "`y` must be a label a row, or one-hot"),
    "dict": (lambda y: dict(enumerate(y)), "`y` must be an array, a series or a list of labels, got dict"),
    "generator": (lambda y: (label for label in y), "`y` .* got generator"),
    "set": (lambda y: set(y.tolist()), "`y` .* got set"),
    "text": (lambda y: "a" * len(y), "`y` .* got str"),
    "date": (lambda y: [datetime.date(2020, 1, 1 + label) for label in y], "`y` must hold texts or integers"),
    "too few": (lambda y: y[:-1], "inconsistent numbers of samples"),
    "none": (lambda y: None, "y"),
}


@RELAXED
@given(rows(), st.sampled_from(sorted(SPOILED_SAMPLES)), st.sampled_from(["herding", "k-means", "loss buffers"]))
@pytest.mark.usefixtures("no_shape_checks")
def test_estimators_name_samples_that_mean_nothing(drawn, spoiled, estimator):
    spoil, message = SPOILED_SAMPLES[spoiled]
    with pytest.raises(ValueError, match=message):
        ESTIMATORS[estimator]().fit(spoil(drawn[0]), drawn[1])


@RELAXED
@given(rows(), st.sampled_from(sorted(SPOILED_LABELS)), st.sampled_from(sorted(ESTIMATORS)))
@pytest.mark.usefixtures("no_shape_checks")
def test_estimators_name_labels_that_mean_nothing(drawn, spoiled, estimator):
    spoil, message = SPOILED_LABELS[spoiled]
    with pytest.raises(ValueError, match=message):
        ESTIMATORS[estimator]().fit(drawn[0], spoil(drawn[1]))


QUICK = EvalSettings(networks=1, epochs=1, batch_size=8, device="cpu")
NOT_FOR_EVALUATION = {"csr", "coo", "int8", "rows of tensors", "list", "tuples", "decimals", "nullable", "sparse frame"}
"""Sparse samples, and integers, which must be standardised first."""


@settings(RELAXED, max_examples=30)
@given(rows(), st.sampled_from(sorted(SAMPLES.keys() - NOT_FOR_EVALUATION)), st.sampled_from(sorted(LABELS)))
@pytest.mark.usefixtures("no_shape_checks")
def test_evaluation_takes_values_from_anything(drawn, samples, labels):
    x, y = drawn
    x = x.astype(np.float32)
    weights = np.arange(1, len(x) + 1)
    if labels == "one-hot":  # of a test set there are classes only
        with pytest.raises(ValueError, match=r"labels` .*argmax"):
            evaluate(x, LABELS[labels](y), x, LABELS[labels](y), settings=QUICK)
        return
    series = pd.Series((weights / 2).tolist(), index=weights[::-1])
    found = evaluate(SAMPLES[samples](x), LABELS[labels](y), x, LABELS[labels](y), settings=QUICK, weights=series)
    expected = [
        evaluate(x.astype(kind), y, x, y, settings=QUICK, weights=weights / 2).accuracies for kind in ("f4", "f8")
    ]
    assert found.accuracies in expected  # objects and big-endian numbers are of eight bytes


@RELAXED
@given(rows(), st.sampled_from(sorted(SPOILED_LABELS.keys() - {"probabilities", "several", "none", "fractions"})))
@pytest.mark.usefixtures("no_shape_checks")
def test_evaluation_names_labels_that_mean_nothing(drawn, spoiled):
    x, y = drawn[0].astype(np.float32), drawn[1]
    with pytest.raises(ValueError, match=r"`(test_)?labels` must"):
        evaluate(x, SPOILED_LABELS[spoiled][0](y), x, y, settings=QUICK)


CELLS = {
    "whole": (st.integers(-(2**62), 2**62), pa.int64()),
    "small": (st.integers(0, 255), pa.uint8()),
    "real": (st.floats(), pa.float64()),
    "half": (st.floats(width=16, allow_nan=False), pa.float16()),
    "truth": (st.booleans(), pa.bool_()),
    "text": (st.text(max_size=3), pa.string()),
    "long text": (st.sampled_from(["cat", "dog", "Cat ", "1", "1.0"]), pa.large_string()),
    "view": (st.sampled_from(["cat", "dog"]), pa.string_view()),
    "bytes": (st.binary(max_size=3), pa.binary()),
    "day": (st.dates(), pa.date32()),
    "moment": (st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2100, 1, 1)), pa.timestamp("ms")),
    "zoned": (st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2100, 1, 1)), pa.timestamp("us", "UTC")),
    "time": (st.times(), pa.time64("us")),
    "duration": (st.timedeltas(datetime.timedelta(-9999), datetime.timedelta(9999)), pa.duration("us")),
    "decimal": (st.decimals(-100, 100, places=2), pa.decimal128(10, 2)),
    "pair": (st.lists(st.floats(-9, 9), min_size=2, max_size=2), pa.list_(pa.float32(), 2)),
    "list": (st.lists(st.integers(0, 9), max_size=3), pa.list_(pa.int32())),
    "long list": (st.lists(st.integers(0, 9), min_size=2, max_size=2), pa.large_list(pa.int32())),
    "struct": (st.fixed_dictionaries({"a": st.integers(0, 3)}), pa.struct({"a": pa.int8()})),
    "image": (
        st.fixed_dictionaries({"bytes": st.binary(max_size=3), "path": st.none()}),
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    ),
    "map": (st.just([("a", 1)]), pa.map_(pa.string(), pa.int8())),
    "category": (st.sampled_from(["cat", "dog", "eel"]), pa.dictionary(pa.int8(), pa.string())),
    "nothing": (st.none(), pa.null()),
}
COLUMN_NAMES = ["label", "y", "id", "image", "a", "b", "Unnamed: 0", "species", "é"]


@st.composite
def tables(draw):
    """A column of labels and one of numbers, mostly, beside columns of anything."""
    size = draw(st.integers(1, 16))
    columns = {}
    if draw(st.integers(0, 5)):
        kind = draw(st.sampled_from([pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.large_string()]))
        columns["label"] = pa.array(["cat", "dog"] * (size // 2) + ["cat"] * (size % 2), kind)
    if draw(st.integers(0, 5)):
        columns["size"] = pa.array(range(size), pa.float32())
    names = COLUMN_NAMES if draw(st.booleans()) else ["a", "b", "species", "é"]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True)):
        cells, kind = CELLS[draw(st.sampled_from(sorted(CELLS)))]
        missing = st.none() if draw(st.booleans()) else st.nothing()
        columns[name] = pa.array(draw(st.lists(missing | cells, min_size=size, max_size=size)), kind)
    return pa.table(columns)


def write_stream(table, path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_file(table, path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


WRITERS = {
    "stream.arrow": write_stream,
    "file.arrow": write_file,
    "plain.feather": lambda table, path: feather.write_feather(table, str(path), compression="uncompressed"),
    "packed.feather": lambda table, path: feather.write_feather(table, str(path), compression="zstd"),
}


def outcome(path):
    """What was read, or why not, without the name of the file."""
    try:
        data = read_labelled(path)
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert str(path) in refusal
        assert "\n" not in refusal
        return refusal.replace(str(path), "FILE")
    notes = [note.replace(str(path), "FILE") for note in data.notes]
    return data.x.tolist(), data.labels.tolist(), data.ids, data.class_names, list(data.skipped), notes


@settings(RELAXED, max_examples=150)
@given(tables())
def test_arrow_files_in_every_form_say_the_same(table):
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, write in WRITERS.items():
            write(table, Path(folder) / name)
            found[name] = outcome(Path(folder) / name)
        first = found["file.arrow"]
        assert all(other == first for other in found.values()), found
        if not isinstance(first, str):
            x, labels, _, _, skipped, notes = first
            assert len(x) == len(labels) > 0
            assert len(x) + len(skipped) == table.num_rows
            assert np.isfinite(x).all()
            for field in table.schema:  # no feature can be made of these
                if pa.types.is_map(field.type) or pa.types.is_null(field.type) or field.type == pa.binary():
                    assert any(repr(field.name) in note for note in notes), (field, notes)


@RELAXED
@given(st.binary(max_size=60), st.sampled_from(["a.arrow", "a.feather"]), st.booleans(), st.integers(0, 400))
def test_damaged_arrow_files_are_refused(noise, name, front, place):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_file(pa.table({"a": range(20), "label": ["x", "y"] * 10}), path)
        content = path.read_bytes()
        path.write_bytes(noise + content[place:] if front else content[: max(0, len(content) - place)] + noise)
        outcome(path)
