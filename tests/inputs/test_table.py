"""Tables of features and of images."""

import io
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lossbuf.inputs import InputError, ReadSettings, read_labelled


def write(path, text):
    path.write_text(text)
    return path


def rows(header, *lines):
    return "\n".join((header, *lines)) + "\n"


def test_features_and_labels(tmp_path):
    path = write(tmp_path / "t.csv", rows("a,b,label", "1,2,cat", "3,4,dog", "5,6,cat", "7,8,dog"))
    data = read_labelled(path)
    assert data.x.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert data.x.dtype == np.float32
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.ids == ("0", "1", "2", "3")
    assert not data.has_images


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ";"), ("csv", "\t"), ("csv", "|"), ("tsv", "\t")])
def test_separators(tmp_path, suffix, separator):
    text = rows("a,b,label", "1.5,2,x", "3,4,y", "5,6,x", "7,8,y").replace(",", separator)
    assert read_labelled(write(tmp_path / f"t.{suffix}", text)).x.shape == (4, 2)


def test_labels_stay_as_they_are_written(tmp_path):
    path = write(tmp_path / "t.csv", rows("a,label", "1,01", "2,1", "3,01", "4,1", "5,NA", "6,NA"))
    assert set(read_labelled(path).class_names) == {"01", "1", "NA"}


def test_rows_without_a_label_are_listed(tmp_path):
    path = write(tmp_path / "t.csv", rows("a,label", "1,0", "2,", "3,1", "4,0", "5,1"))
    data = read_labelled(path)
    assert data.skipped == (("1", "no label"),)
    assert data.ids == ("0", "2", "3", "4")
    assert data.x.ravel().tolist() == [1, 3, 4, 5]


def test_missing_numbers_are_the_median_and_a_column(tmp_path):
    path = write(tmp_path / "t.csv", rows("a,b,label", "1,1,0", "2,,1", "9,inf,0", "2,3,1"))
    assert read_labelled(path).x.tolist() == [[1, 1, 0], [2, 2, 1], [9, 2, 1], [2, 3, 0]]


def test_texts_become_a_column_each_unless_they_are_many(tmp_path):
    path = write(
        tmp_path / "t.csv",
        rows("a,kind,note,yes,empty,label", "1,u,p,True,,0", "2,v,q,False,,1", "3,u,r,True,,0", "4,v,s,False,,1"),
    )
    data = read_labelled(path)
    assert data.x.tolist() == [[1, 1, 1, 0], [2, 0, 0, 1], [3, 1, 1, 0], [4, 0, 0, 1]]
    assert data.notes[0] == "2 columns are not used as features: 'note' (4 different texts), 'empty' (no values)."


@pytest.mark.parametrize("name", ["label", "Label", "target", "y", " class "])
def test_usual_names_of_labels(tmp_path, name):
    path = write(tmp_path / "t.csv", rows(f"a,{name}", "1,0", "2,1", "3,0", "4,1"))
    assert read_labelled(path).labels.tolist() == [0, 1, 0, 1]


def test_columns_can_be_named(tmp_path):
    path = write(tmp_path / "t.csv", rows("a,kind,name", "1,u,p", "2,v,=q", "3,u,r", "4,v,s"))
    data = read_labelled(path, ReadSettings(label="kind", row_id="name"))
    assert data.x.shape == (4, 1)
    assert data.ids == ("p", "=q", "r", "s")


def images(folder):
    folder.mkdir()
    for number in range(4):
        Image.new("L", (8, 8), number).save(folder / f"{number}.png")


def test_a_table_of_images(tmp_path):
    images(tmp_path / "files")
    lines = [f"files/{n}.png,{n % 2}" for n in range(4)] + ["files/none.png,0", ",1"]
    data = read_labelled(write(tmp_path / "t.csv", rows("path,label", *lines)))
    assert data.x[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    # Without a path in every row the rows go by their numbers.
    assert data.skipped == (("4", "no such file"), ("5", "no image"))
    assert data.ids == ("0", "1", "2", "3")


def test_paths_are_the_names_of_the_rows(tmp_path):
    images(tmp_path / "files")
    path = write(tmp_path / "t.csv", rows("path,label", *(f"files/{n}.png,{n % 2}" for n in range(4))))
    assert read_labelled(path).ids == tuple(f"files/{n}.png" for n in range(4))
    with pytest.raises(InputError, match="columns of features"):
        read_labelled(path, ReadSettings(image="none"))


def test_a_column_called_image_may_be_a_feature(tmp_path):
    path = write(tmp_path / "t.csv", rows("image,label", "1,0", "2,1", "3,0", "4,1"))
    assert read_labelled(path).x.ravel().tolist() == [1, 2, 3, 4]


def test_parquet_with_images_in_it(tmp_path):
    pytest.importorskip("pyarrow")
    contents = []
    for number in range(4):
        file = io.BytesIO()
        Image.new("L", (8, 8), number).save(file, "PNG")
        contents.append({"bytes": file.getvalue(), "path": f"{number}.png"})
    pd.DataFrame({"image": contents, "label": [0, 1, 0, 1]}).to_parquet(tmp_path / "t.parquet")
    data = read_labelled(tmp_path / "t.parquet")
    assert data.x[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert data.ids == ("0.png", "1.png", "2.png", "3.png")


def test_parquet_is_read_as_csv_is(tmp_path):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"a": [1.0, 2, None, 4], "kind": list("uvuv"), "label": [0.0, 1, 0, None]})
    table = pd.concat([table, table.iloc[:3]], ignore_index=True)
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    one, other = read_labelled(tmp_path / "t.parquet"), read_labelled(tmp_path / "t.csv")
    assert one.x.tolist() == other.x.tolist()
    assert one.class_names == ("0", "1")
    assert other.class_names == ("0.0", "1.0")  # a text stays as it is written


def test_an_index_of_pandas_is_a_column(tmp_path):
    """One with a name like any other; one without names the rows, where its values differ, else it is nothing."""
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"a": [1.0, 2, 3, 4], "label": [0, 1, 0, 1]})
    indices = {
        "named": (pd.Index([5, 5, 7, 7], name="b"), 2, ["0", "1", "2", "3"]),
        "id": (pd.Index(list("wxyz"), name="id"), 1, list("wxyz")),
        "unnamed": (pd.Index([7, 3, 9, 1]), 1, ["7", "3", "9", "1"]),
        "unnamed, not unique": (pd.Index([7, 3, 7, 3]), 1, ["0", "1", "2", "3"]),
        "two": (pd.MultiIndex.from_product([[0, 1], ["u", "v"]], names=["b", None]), 2, ["0", "1", "2", "3"]),
        "usual": (pd.RangeIndex(4), 1, ["0", "1", "2", "3"]),
    }
    for kind, (index, features, ids) in indices.items():
        path = tmp_path / f"{kind}.parquet"
        table.set_index(index).to_parquet(path)
        found = read_labelled(path)
        assert (found.x.shape, list(found.ids)) == ((4, features), ids), kind


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_truth_values_with_gaps_are_features(tmp_path, suffix):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"whole": [True, False] * 2, "gaps": [True, False, None, True], "label": [0, 1, 0, 1]})
    path = tmp_path / f"t.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    found = read_labelled(path)
    assert found.x.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]]  # the median, and a column for the gap
    assert not any("no features" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be rows of separated values with a header"),
        ("a,b\n1,2\n3,4\n", "must have a column of labels, named x?.*got a, b. Name it: `--label NAME`"),
        ("label\n0\n1\n0\n1\n", "must have columns of features"),
        ("a,label\n1,0\n2,0\n", "at least two classes, got one, '0'"),
        ("a,label\n1,0.1\n2,0.2\n3,0.3\n", "Are the labels numbers to predict"),
        ("a,label\n", "has no rows"),
        ("a,label\n1,\n2,\n", "has no rows to read. The first of 2 skipped: 0, no label"),
        ('a,label\n1,"0\n2,1\n', "must be rows of separated values|at least two|no rows"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_labelled(write(tmp_path / "t.csv", text))


def test_names_that_come_twice_are_refused(tmp_path):
    path = write(tmp_path / "t.csv", rows("id,a,label", "p,1,0", "p,2,1", "q,3,0", "r,4,1"))
    with pytest.raises(InputError, match="must name every row once, got 'p' more than once"):
        read_labelled(path, ReadSettings(row_id="id"))


@pytest.mark.parametrize("settings", [{"label": "no"}, {"image": "no"}, {"row_id": "no"}])
def test_columns_that_are_not_there_are_refused(tmp_path, settings):
    path = write(tmp_path / "t.csv", rows("a,label", "1,0", "2,1", "3,0", "4,1"))
    with pytest.raises(InputError, match="must have a column 'no', got a, label"):
        read_labelled(path, ReadSettings(**settings))


def test_a_column_of_names_is_no_feature(tmp_path):
    path = write(tmp_path / "t.csv", rows("id,a,label", "5,1,0", "6,2,1", "7,3,0", "8,4,1"))
    data = read_labelled(path)
    assert data.x.shape == (4, 1)
    assert data.ids == ("5", "6", "7", "8")
    assert data.notes[0] == "Column 'id' names the rows, and is no feature (`--id` chooses another)."
    again = write(tmp_path / "t.csv", rows("id,a,label", "5,1,0", "5,2,1", "7,3,0", "8,4,1"))
    assert read_labelled(again).x.shape == (4, 2)


def test_numbers_too_large_for_a_network_are_missing(tmp_path):
    path = write(tmp_path / "t.csv", rows("a,label", "1,0", "1e300,1", "3,0", "2,1"))
    assert read_labelled(path).x.tolist() == [[1, 0], [2, 1], [3, 0], [2, 0]]


def test_labels_of_a_column_in_capitals_stay_as_they_are_written(tmp_path):
    path = write(tmp_path / "t.csv", rows("a, Label ", "1,01", "2,1", "3, 01", "4,1"))
    assert read_labelled(path).class_names == ("01", "1")


def test_columns_that_come_twice_are_refused(tmp_path):
    path = write(tmp_path / "t.csv", rows("a,b,label,label", "1,2,0,0", "3,4,1,1", "1,2,0,0", "3,4,1,1"))
    with pytest.raises(InputError, match="must name every column once, got 'label' more than once"):
        read_labelled(path)


@pytest.mark.parametrize("header", ["label,a,b", "a,b,label"])
def test_rows_longer_than_the_header_are_refused(tmp_path, header):
    path = write(tmp_path / "t.csv", rows(header, *("0,1,0,", "1,0,1,") * 2))
    with pytest.raises(InputError, match="must have no rows longer than its header"):
        read_labelled(path)


def test_what_is_no_file_is_skipped(tmp_path):
    images(tmp_path / "files")
    os.mkfifo(tmp_path / "files" / "pipe.png")
    lines = [f"files/{n}.png,{n % 2}" for n in range(4)] + ["files/pipe.png,0", "files,1"]
    data = read_labelled(write(tmp_path / "t.csv", rows("path,label", *lines)))
    assert dict(data.skipped) == {"files/pipe.png": "no such file", "files": "no such file"}


def test_other_encodings_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a,label\n1,é\n".encode("latin-1"))
    with pytest.raises(InputError, match="must be in UTF-8"):
        read_labelled(path)


def test_a_damaged_parquet_file_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(InputError, match="must be a Parquet file"):
        read_labelled(path)


def test_the_label_once_more_is_no_feature(tmp_path):
    lines = [f"{row},{row % 3},{'abc'[row % 3]},{row % 2}" for row in range(30)]
    data = read_labelled(write(tmp_path / "t.csv", rows("a,label,name,target", *lines)))
    assert data.x.shape == (30, 2)
    assert data.notes == (
        "Column 'name' is the label once more, and no feature.",
        "Column 'target' is taken for a feature: leave it out of the table if it tells the label.",
    )
