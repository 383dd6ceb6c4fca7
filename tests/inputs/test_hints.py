"""What a user can do about a source that cannot be used as it is stands in the error, in one line."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from lossbuf.inputs import InputError, read_labelled
from lossbuf.inputs.hints import looks_like_data
from lossbuf.inputs.labelled import ReadSettings

LABELS = [("cat", "dog", "eel")[row % 3] for row in range(30)]


def pictures(folder, ending=".png"):
    folder.mkdir(parents=True)
    for row in range(30):
        Image.new("L", (8, 8), row).save(folder / f"{row}{ending}")


def table_of(folder, images, name="t.csv", **more):
    pd.DataFrame({"image": images, "label": LABELS, **more}).to_csv(folder / name, index=False)
    return folder / name


def base64_of(row):
    file = io.BytesIO()
    Image.new("L", (8, 8), row).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def one_hot(folder):
    columns = {f" {name}": [int(label == name) for label in LABELS] for name in ("cat", "dog", "eel")}
    pd.DataFrame({"filename": [f"{row}.jpg" for row in range(30)], **columns}).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def headless(folder):
    pd.DataFrame(np.arange(60).reshape(30, 2) / 7).assign(y=LABELS).to_csv(folder / "t.csv", header=False, index=False)
    return folder / "t.csv"


def trailing(folder):
    (folder / "t.csv").write_text("a,label\n" + "".join(f"{row},{label},\n" for row, label in enumerate(LABELS)))
    return folder / "t.csv"


def hugging_face(folder):
    table = pa.table({"a": range(30), "label": LABELS})
    (folder / "set").mkdir()
    path = str(folder / "set" / "data-00000-of-00001.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (folder / "set" / "dataset_info.json").write_text("{}")
    return folder / "set"


def fifty_one(folder):
    pictures(folder / "set" / "data")
    (folder / "set" / "labels.json").write_text(json.dumps({"classes": ["a"], "labels": {}}))
    return folder / "set"


def named(folder, name):
    (folder / name).write_text("a,label\n1,2\n")
    return folder / name


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (headless, "The first line looks like data: put a line with the names of the columns before it"),
        (trailing, "Is there a separator at the end of every row?"),
        (one_hot, r"The columns ' cat', ' dog', ' eel' are one label per row in one-hot form.*idxmax"),
        (lambda f: table_of(f, [f"https://example.com/{row}.jpg" for row in range(30)]), "download the images"),
        (lambda f: table_of(f, [f"s3://bucket/{row}.jpg" for row in range(30)]), "These are addresses"),
        (lambda f: table_of(f, [f"/kaggle/input/{row}.jpg" for row in range(30)]), "of another computer or folder"),
        (lambda f: table_of(f, [f"C:\\data\\{row}.jpg" for row in range(30)]), "of another computer or folder"),
        (lambda f: table_of(f, [f"images/{row}.jpg" for row in range(30)]), "looked up in the folder of the table"),
        (lambda f: table_of(f, [base64_of(row) for row in range(30)]), "images in base64: decode them"),
        (lambda f: table_of(f, [f"data:image/png;base64,{base64_of(row)}" for row in range(30)]), "images in base64"),
        (hugging_face, r"Do the labels stand in .*data-00000-of-00001\.arrow\? Then give that file"),
        (fifty_one, r"got one, 'data'\. Do the labels stand in .*labels\.json\? Then give that file"),
        (lambda f: named(f, "t.jsonl"), r"read_json\(path, lines=True\)"),
        (lambda f: named(f, "iris.data"), r"let its name end in \.csv or \.tsv"),
        (lambda f: named(f, "t.csv.gz"), "Unpack it first"),
    ],
)
def test_the_error_says_what_to_do(tmp_path, make, hint):
    path = make(tmp_path)
    with pytest.raises(InputError, match=hint) as error:
        read_labelled(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".JPG", ".jpeg", ".tif"])
def test_ids_of_images_need_no_ending(tmp_path, ending):
    pictures(tmp_path / "train", ending)
    path = table_of(tmp_path, [f"train/{row}" for row in range(30)])
    assert read_labelled(path).x.shape == (30, 1, 8, 8)
    (tmp_path / "train" / "own.csv").write_text("id,breed\n" + "".join(f"{row},{LABELS[row]}\n" for row in range(30)))
    read = ReadSettings(label="breed", image="id")
    with pytest.raises(InputError, match="`--image id`"):
        read_labelled(tmp_path / "train" / "own.csv", ReadSettings(label="breed", image="none"))
    if ending != ".tif":
        assert len(read_labelled(tmp_path / "train" / "own.csv", read)) == 30


def test_a_part_of_a_set_is_told_as_such(tmp_path):
    pd.DataFrame({"a": range(30), "label": LABELS}).to_parquet(tmp_path / "train-00000-of-00004.parquet")
    pd.DataFrame({"a": range(30), "label": LABELS}).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    assert any("one of 4 parts" in note for note in read_labelled(tmp_path / "train-00000-of-00004.parquet").notes)
    assert not read_labelled(tmp_path / "train-00000-of-00001.parquet").notes


def test_a_first_line_of_data_is_told_where_the_label_is_named(tmp_path):
    path = headless(tmp_path)
    assert any("looks like data" in note for note in read_labelled(path, ReadSettings(label="cat")).notes)


@pytest.mark.parametrize(
    ("columns", "data"),
    [
        (["5.1", "3.5", "setosa"], True), (["1", "2", "3"], False), (["0", "1", "label"], False),
        (["7", "9", "x"], True),
        (["a", "b"], False), (["2019", "2020", "2021", "y"], False), (["1.5", "a", "b", "c"], False), (["5"], False),
        (["-1", "1", "1e3"], True), (["nan", "1.0", "y"], True), ([], False), (["0.5", "1.5", "y"], True),
    ],
)  # fmt: skip
def test_headers_that_look_like_data(columns, data):
    assert looks_like_data(columns) == data


def test_paths_of_the_place_itself_are_no_hint(tmp_path):
    pictures(tmp_path / "images")
    path = table_of(tmp_path, [str(Path("images") / f"{row}.png") for row in range(30)])
    assert len(read_labelled(path)) == 30
