"""Tables, archives and folders made at random are read, or refused in one line that names the source."""

import csv
import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from lossbuf.inputs import InputError, LabelledData, ReadSettings, read_labelled

RELAXED = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = st.sampled_from(
    ["label", "Labels", "y", "id", "image", "path", "a", "b", "Unnamed: 0", "species", "name", "", "é"]
)
CELLS = st.one_of(
    st.sampled_from(
        ["1", "2.5", "3,5", "1.000,5", "-", "n/a", "#REF!", "5 cm", "7%", "true", "FALSE", "Dog", "dog ", "2020-01-01"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.integers(-5, 5).map(str),
    st.floats().map(str),
)


def check(path, read=None):
    """The data, where they could be read; all of it is as it says of itself."""
    try:
        data = read_labelled(path, read)
    except InputError as error:
        _check_message(path, str(error))
        return None
    assert isinstance(data, LabelledData)
    assert len(data.x) == len(data.labels) == len(data.ids) > 0
    assert len(set(data.ids)) == len(data)
    assert len(set(data.class_names)) == len(data.class_names) >= 2
    assert np.isfinite(data.x).all()
    assert data.x.ndim in (2, 4)
    assert all(reason for _, reason in data.skipped)
    if data.has_images:
        assert data.picture(0).shape[0] in (1, 3)
    return data


def _check_message(path, text):
    assert str(path) in text
    assert "\n" not in text


@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@RELAXED
@given(
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    st.lists(st.lists(CELLS, min_size=4, max_size=4), max_size=12),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([None, "merge", "keep"]),
)
def test_any_separated_values(place, names, rows, separator, alike):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator)
    writer.writerows([names, *(row[: len(names)] for row in rows)])
    path = place / "table.csv"
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    data = check(path, ReadSettings(alike=alike))
    if data is not None:
        assert len(data) + len(data.skipped) <= len(rows)


COLUMNS = st.sampled_from(
    [
        st.integers(-(2**62), 2**62),
        st.floats(),
        st.text(max_size=3),
        st.booleans(),
        st.dates(),
        st.binary(max_size=3),
        st.lists(st.floats(allow_nan=False), min_size=2, max_size=2),
        st.lists(st.integers(0, 9), max_size=3),
        st.fixed_dictionaries({"bytes": st.binary(max_size=3), "path": st.none()}),
        st.decimals(-100, 100, places=2),
        st.timedeltas(),
        st.datetimes(),
        st.sampled_from(["Dog", "dog", "eel"]),
        st.fixed_dictionaries({"a": st.integers(0, 3)}),
    ]
)


@RELAXED
@given(st.data())
def test_any_parquet_table(place, data):
    rows = data.draw(st.integers(1, 12))
    names = data.draw(st.lists(NAMES.filter(bool), min_size=1, max_size=3, unique=True))
    table = {}
    for name in names:
        cells = data.draw(COLUMNS)
        table[name] = pd.Series(data.draw(st.lists(st.none() | cells, min_size=rows, max_size=rows)), dtype=object)
    path = place / "table.parquet"
    try:
        pd.DataFrame(table).to_parquet(path)
    except (OverflowError, ValueError):  # no such table can be in a file
        return
    check(path)


@RELAXED
@given(
    arrays.arrays(
        arrays.integer_dtypes()
        | arrays.unsigned_integer_dtypes()
        | arrays.floating_dtypes()
        | arrays.boolean_dtypes()
        | arrays.complex_number_dtypes()
        | arrays.datetime64_dtypes()
        | arrays.unicode_string_dtypes(max_len=2),
        arrays.array_shapes(min_dims=1, max_dims=5, max_side=6),
    ),
    arrays.arrays(
        st.sampled_from(["i1", "u2", ">i4", "u8", "f4", ">f8", "b1", "U2", "S2"]),
        arrays.array_shapes(max_dims=2, max_side=6),
        elements=None,
    ),
    st.sampled_from([None, "first", "last"]),
    st.booleans(),
)
def test_any_archive(place, x, y, channels, named):
    content = {"x": x, "y": y} | ({"class_names": np.array(["a", "b", "A"])} if named else {})
    np.savez(place / "archive.npz", **content)
    data = check(place / "archive.npz", ReadSettings(channels=channels))
    if data is not None:
        assert len(data) + len(data.skipped) == len(x)


FILES = st.sampled_from(
    [
        b"",
        b"text",
        b"GIF89a",
        b"%!PS",
        b"PK\x03\x04",
        *(
            (lambda file: (Image.new(mode, (6, 5)).save(file, kind), file.getvalue())[1])(io.BytesIO())
            for mode, kind in (
                ("L", "PNG"),
                ("RGB", "JPEG"),
                ("P", "GIF"),
                ("I;16", "PNG"),
                ("RGBA", "WEBP"),
                ("1", "BMP"),
            )
        ),
    ]
)
PARTS = st.sampled_from(
    ["cat", "Cat", "dog", "train", "test", "@eaDir", ".git", "a.png", "b.txt", "c", "d.jpg", "x y", "é", "\udcff"]
)


@RELAXED
@given(st.dictionaries(st.lists(PARTS, min_size=1, max_size=3).map(tuple), FILES, max_size=12))
def test_any_folder(place, tree):
    root = place / "folder"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    made = 0
    for parts, content in tree.items():
        path = root.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(content)
                made += 1
        except OSError:  # a file has the name of a folder, or the file system does not take the name
            continue
    data = check(root)
    if data is not None:
        found = sum(len(files) for _, _, files in os.walk(root))
        listed = len(data) + len(data.skipped)
        assert found == made
        assert listed <= found  # a folder that is passed over is listed once
        assert listed == found or any(part in ("@eaDir", ".git") for parts in tree for part in parts)
