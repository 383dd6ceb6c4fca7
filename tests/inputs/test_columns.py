"""Cells of any type become features, or their column is passed over by name with the reason."""

import datetime
import decimal
import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import feather, parquet

from lossbuf.inputs import InputError, ReadSettings, read_labelled
from lossbuf.inputs.columns import read_column

N = 24
LABELS = [f"class {row % 3}" for row in range(N)]
UTC = datetime.UTC


def png(value):
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


def read(folder, cells, suffix="parquet", kind=None, name="odd"):
    table = pa.table({"a": np.arange(N, dtype=float), name: pa.array(cells, type=kind), "label": LABELS})
    path = folder / f"t.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path)
    elif suffix == "feather":
        feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    return read_labelled(path)


DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(days=row) for row in range(N)]
TIMES = [datetime.datetime(2020, 1, 1, 12, tzinfo=UTC) + datetime.timedelta(hours=12 * row) for row in range(N)]
FEATURES = {
    # cells, type, features beside the first column, part of a note
    "lists of float32": ([[1.0, float(row)] for row in range(N)], pa.list_(pa.float32()), 2, "read as 2 features"),
    "lists of a fixed size": ([[1, row, 3] for row in range(N)], pa.list_(pa.int16(), 3), 3, "read as 3 features"),
    "large lists": ([[row, 2] for row in range(N)], pa.large_list(pa.int64()), 2, "read as 2 features"),
    "lists of lists": ([[[row, 2], [3, 4]] for row in range(N)], pa.list_(pa.list_(pa.int8())), 4, "as 4 features"),
    "lists and gaps": ([None if row == 3 else [1.0, 2.0] for row in range(N)], None, 4, "read as 2 features"),
    "decimals": ([decimal.Decimal(row) / 4 for row in range(N)], pa.decimal128(10, 2), 1, ""),
    "decimals and gaps": ([None, *map(decimal.Decimal, range(N - 1))], pa.decimal128(10, 0), 2, ""),
    "dates": (DAYS, pa.date32(), 1, "days since the earliest"),
    "dates of milliseconds": (DAYS, pa.date64(), 1, "days since the earliest"),
    "moments": (TIMES, pa.timestamp("us", tz="Europe/Berlin"), 1, "days since the earliest"),
    "moments of nanoseconds": ([time.replace(tzinfo=None) for time in TIMES], pa.timestamp("ns"), 1, "days since"),
    "far dates": ([datetime.date(1, 1, 1), *DAYS[1:]], pa.date32(), 1, "days since the earliest"),
    "times": ([datetime.time(row % 24, 30) for row in range(N)], pa.time64("us"), 1, "seconds of the day"),
    "durations": ([datetime.timedelta(hours=row) for row in range(N)], pa.duration("ms"), 1, "read as seconds"),
    "categories": (list("uv" * (N // 2)), pa.dictionary(pa.int8(), pa.string()), 2, ""),
    "categories of numbers": ([row % 5 for row in range(N)], pa.dictionary(pa.int8(), pa.int64()), 1, ""),
    "half precision": (np.arange(N, dtype=np.float16), pa.float16(), 1, ""),
    "truth values": ([row % 2 == 0 for row in range(N)], pa.bool_(), 1, ""),
    "large texts": (list("uv" * (N // 2)), pa.large_string(), 2, ""),
    "unsigned": (np.arange(N, dtype=np.uint64) + 2**63, pa.uint64(), 1, ""),
}
PASSED_OVER = {
    "lists of other lengths": ([[0] * (row % 3 + 1) for row in range(N)], None, "lists of different lengths, such as"),
    "empty lists": ([[]] * N, pa.list_(pa.float32()), "empty lists"),
    "lists of texts": ([["wet", "dry"]] * N, None, "lists of texts"),
    "lists of structs": ([[{"a": 1}]] * N, None, "lists of other things than numbers"),
    "ragged lists of lists": ([[[1], [1, 2]]] * N, None, "lists of lists of different lengths"),
    "structs": ([{"by": "k", "n": row} for row in range(N)], None, "structs of by, n"),
    "maps": ([[("k", row)] for row in range(N)], pa.map_(pa.string(), pa.int64()), "lists of"),
    "bytes": ([b"\x00\x01" + bytes([row]) for row in range(N)], pa.binary(), "bytes that are not images"),
    "bytes of a fixed size": ([bytes([row]) * 4 for row in range(N)], pa.binary(4), "bytes that are not images"),
    "nothing": ([None] * N, pa.null(), "no values"),
    "many texts": ([f"text {row} of many" for row in range(N)], pa.string(), "24 different texts"),
    "infinities": ([float("inf")] * N, None, "no finite values"),
}


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow"])
@pytest.mark.parametrize("kind", FEATURES)
def test_cells_are_features(tmp_path, kind, suffix):
    cells, arrow, features, said = FEATURES[kind]
    data = read(tmp_path, cells, suffix, arrow)
    assert data.x.shape == (N, 1 + features)
    assert np.isfinite(data.x).all()
    notes = [note for note in data.notes if "'odd'" in note]
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", PASSED_OVER)
def test_other_cells_are_passed_over_by_name(tmp_path, kind, suffix):
    cells, arrow, said = PASSED_OVER[kind]
    data = read(tmp_path, cells, suffix, arrow)
    assert data.x.shape == (N, 1)
    (note,) = [note for note in data.notes if "'odd'" in note]
    assert note.startswith("1 column is not used as features: 'odd' (")
    assert said in note


def test_values_of_dates_and_durations(tmp_path):
    assert read(tmp_path, TIMES, kind=pa.timestamp("us", tz="UTC")).x[:4, 1].tolist() == [0.0, 0.5, 1.0, 1.5]
    spans = [datetime.timedelta(minutes=row) for row in range(N)]
    assert read(tmp_path, spans, kind=pa.duration("us")).x[:3, 1].tolist() == [0, 60, 120]
    assert read(tmp_path, [[row, -row] for row in range(N)]).x[5].tolist() == [5, 5, -5]


@pytest.mark.parametrize("name", ["image", "odd", "scan of the plate"])
@pytest.mark.parametrize("kind", ["struct", "bytes", "other order"])
def test_images_in_bytes_are_images_whatever_the_column_is_called(tmp_path, name, kind):
    cells = [png(row) for row in range(N)]
    if kind == "struct":
        cells = [{"bytes": cell, "path": f"{row}.png"} for row, cell in enumerate(cells)]
    elif kind == "other order":
        cells = [{"path": None, "bytes": cell} for cell in cells]
    data = read(tmp_path, cells, name=name)
    assert data.has_images
    assert data.x[:, 0, 0, 0].tolist() == list(range(N))


def test_a_struct_of_other_things_called_image_is_no_image(tmp_path):
    data = read(tmp_path, [{"width": row, "height": 2} for row in range(N)], name="image")
    assert not data.has_images
    assert "'image' (structs of width, height)" in data.notes[0]


@pytest.mark.parametrize(
    ("cells", "said"), [([[1, 0]] * N, "got a list in row 0"), ([{"class": 1}] * N, "got a struct in row 0")]
)
def test_labels_that_are_no_class_are_refused_by_name(tmp_path, cells, said):
    parquet.write_table(pa.table({"a": np.arange(N), "label": pa.array(cells)}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=f"must have a class a row in column 'label', {said}"):
        read_labelled(tmp_path / "t.parquet")


def test_labels_of_any_plain_type(tmp_path):
    for labels in (
        [bytes(f"{row % 3}", "ascii") for row in range(N)],
        pa.array([str(row % 3) for row in range(N)]).dictionary_encode(),
        [decimal.Decimal(row % 3) for row in range(N)],
        [float(row % 3) for row in range(N)],
    ):
        parquet.write_table(pa.table({"a": np.arange(N), "label": labels}), tmp_path / "t.parquet")
        assert read_labelled(tmp_path / "t.parquet").class_names == ("0", "1", "2")


def test_class_names_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"a": datasets.Value("float32"), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"a": list(range(N)), "label": [row % 2 if row else -1 for row in range(N)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")
    data = read_labelled(tmp_path / "t.parquet")
    assert data.class_names == ("cat", "dog")
    assert data.skipped == (("0", "no label"),)


LISTS = st.lists(st.floats() | st.none() | st.text(max_size=1), max_size=2)
CELLS = [
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3), st.binary(max_size=3),
    st.dates(), st.datetimes(), st.times(), st.timedeltas(), st.decimals(), st.complex_numbers(), LISTS,
    st.lists(st.floats(), max_size=2), st.dictionaries(st.text(max_size=1), st.none(), max_size=1),
]  # fmt: skip
COLUMNS = st.sampled_from(CELLS).flatmap(lambda cells: st.lists(cells | st.none(), min_size=1, max_size=6))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(COLUMNS | st.lists(st.one_of(CELLS), min_size=1, max_size=6))
def test_no_cell_gives_a_traceback(cells):
    found = read_column(pd.Series(cells, dtype=object))
    given_features = (found.numbers is not None) + (found.categories is not None)
    assert given_features == (not found.reason)
    if found.numbers is not None:
        assert found.numbers.shape[0] == len(cells)
        assert not np.isinf(found.numbers).any()


def test_the_label_may_not_be_the_id_or_the_image(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,label\n" + "".join(f"{row},{row % 2}\n" for row in range(8)))
    for option, settings_of in (("--id", {"row_id": "label"}), ("--image", {"image": "label"})):
        with pytest.raises(InputError, match=f"`{option}` must be another column than that of the labels, got 'label'"):
            read_labelled(path, ReadSettings(**settings_of))


@pytest.mark.parametrize(
    ("texts", "days"),
    [
        ([f"{day:02d}.03.2021" for day in range(1, 13)], range(12)),
        ([f"{day}.3.2021 12:00" for day in range(1, 13)], range(12)),
        ([f"{day:02d}/03/2021" for day in range(10, 22)], range(12)),
        ([f"03/{day:02d}/2021" for day in range(10, 22)], range(12)),
        ([f"{day}-3-2021 00:00:00" for day in range(10, 22)], range(12)),
    ],
)
def test_dates_as_people_write_them(texts, days):
    found = read_column(pd.Series(texts))
    assert found.numbers is not None
    assert found.numbers[:, 0].tolist() == list(days)
    assert "days since the earliest" in found.note


def test_dates_that_can_be_read_in_two_ways_are_not_guessed():
    found = read_column(pd.Series([f"03/{day:02d}/2021" for day in range(1, 12)]))
    assert found.reason == "dates whose day and month cannot be told apart: write them as 2021-03-31"


@pytest.mark.parametrize(
    ("encoding", "start", "separator"),
    [
        ("utf-16", "", "\t"),
        ("utf-16", "", ","),
        ("utf-8-sig", "sep=;\n", ";"),
        ("utf-8", "SEP=|\r\n", "|"),
        ("utf-16", "sep=;\n", ";"),
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path, encoding, start, separator):
    rows = ["a;b;label", *(f"{row};{row / 2};{'größe' if row % 2 else 'öl'}" for row in range(N))]
    text = start + "\n".join(rows).replace(";", separator) + "\n"
    path = tmp_path / "t.csv"
    path.write_text(text, encoding=encoding, newline="")
    data = read_labelled(path)
    assert data.x.shape == (N, 2)
    assert data.class_names == ("größe", "öl")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t.xlsx", "Save the sheet as CSV"),
        ("t.csv.gz", "Unpack it first"),
        ("t.npy", "numpy.savez"),
        ("t.jsonl", "read_json"),
        ("t.pt", "numpy.savez"),
        ("t.h5", "numpy.savez"),
    ],
)
def test_other_files_are_refused_with_a_way(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match="must be a folder of images or a file ending in") as caught:
        read_labelled(tmp_path / name)
    assert said in str(caught.value)


def test_labels_of_minus_one_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(12), y=np.arange(12) % 3 - 1)
    assert read_labelled(tmp_path / "a.npz").notes[0].startswith("Class '-1' is taken for a class like any other")
