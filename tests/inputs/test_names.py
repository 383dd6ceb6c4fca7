"""Columns and arrays are found by the names that other tools give them; else the two best guesses are told."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lossbuf.inputs import InputError, ReadSettings, read_labelled

N = 12
LABELS = np.array(["cat", "dog"])[np.arange(N) % 2]


def table(folder, **columns):
    pd.DataFrame(columns).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


@pytest.mark.parametrize(
    "name",
    [
        "given_label", "given label", "noisy_labels", "Fine-Label", "label_name", "ClassName", "classLabel", "class_id",
        "Category", "diagnosis", "Species", "variety", "breed", "dx", "coarse_label", "Labels", "TARGET",
        "train_labels",
    ],
)  # fmt: skip
def test_columns_of_labels(tmp_path, name):
    data = read_labelled(table(tmp_path, a=range(N), b=range(N), **{name: LABELS}))
    assert data.class_names == ("cat", "dog")
    assert data.x.shape == (N, 2)


def test_a_less_usual_name_is_told(tmp_path):
    data = read_labelled(table(tmp_path, a=range(N), species=LABELS))
    assert data.notes == ("Labels are taken from column 'species' (`--label` chooses another).",)
    both = read_labelled(table(tmp_path, species=np.arange(N) % 4, label=LABELS))
    assert both.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("fname", "{}.png"), ("img", "{}.png"), ("Image Path", "{}.png"), ("img_name", "{}.png"),
        ("File-Name", "{}.png"),
        ("picture", "{}.png"), ("image_id", "{}.png"), ("id_code", "{}.png"), ("name", "{}.png"), ("foto", "{}.png"),
        ("x", "deep\\{}.png"), ("filename", "deep/{}.png"),
    ],
)  # fmt: skip
def test_columns_of_images(tmp_path, name, files):
    for row in range(N):
        path = tmp_path / files.format(row).replace("\\", "/")
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), row).save(path)
    data = read_labelled(table(tmp_path, **{name: [files.format(row) for row in range(N)], "label": LABELS}))
    assert data.has_images
    assert data.x[:, 0, 0, 0].tolist() == list(range(N))


@pytest.mark.parametrize("name", ["ImageId", "image_id", "Id", "id_code", "UUID", "Row-ID", "sample_id", "Index"])
def test_columns_that_name_the_rows(tmp_path, name):
    ids = [f"row {row}" for row in range(N)]
    data = read_labelled(table(tmp_path, **{name: ids, "a": range(N), "label": LABELS}))
    assert data.ids == tuple(ids)
    assert data.x.shape == (N, 1)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("train_images", "train_labels"), ("x_train", "y_train"), ("X_train", "y_train"), ("data", "target"),
        ("images", "labels"), ("arr_0", "arr_1"), ("pixel_values", "label"), ("data", "fine_labels"), ("img", "label"),
        ("features", "given_label"), ("embeddings", "labels"), ("Images", "Targets"), ("train-data", "train_labels"),
    ],
)  # fmt: skip
def test_arrays(tmp_path, x, y):
    np.savez(tmp_path / "a.npz", **{x: np.eye(N), y: np.arange(N)[:, None] % 2})
    data = read_labelled(tmp_path / "a.npz")
    assert data.x.shape == (N, N)
    assert data.labels.tolist() == [0, 1] * (N // 2)


def test_rows_of_other_parts_are_told(tmp_path):
    arrays = {f"{part}_{what}": np.eye(N) if what == "images" else np.arange(N)[:, None] % 2
              for part in ("train", "val", "test") for what in ("images", "labels")}  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    data = read_labelled(tmp_path / "a.npz")
    assert len(data) == N
    (note,) = data.notes
    assert note.startswith("The rows of 'train_images' are read, and not those of 'val_images', 'val_labels', ")


@pytest.mark.parametrize(
    ("columns", "guesses"),
    [
        ({"a": range(N), "kind": LABELS, "b": range(N)}, "'kind'"),
        ({"a": range(N), "sort": LABELS, "colour": ["red"] * 6 + ["blue"] * 6}, "'colour' or 'sort'"),
        ({"lable": LABELS, "a": range(N)}, "'lable'"),
        ({"my_labels": LABELS, "a": range(N), "b": LABELS}, "'my_labels' or 'b'"),
        ({"a": np.arange(N) % 3, "b": np.arange(N) / 7}, "'a'"),
    ],
)
def test_the_best_guesses(tmp_path, columns, guesses):
    with pytest.raises(InputError, match=r"Name it: `--label NAME`\. The best guess is ") as caught:
        read_labelled(table(tmp_path, **columns))
    assert str(caught.value).endswith(f"The best guess is {guesses}.")


def test_the_best_guesses_of_an_archive(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(N), kinds=np.arange(N) % 2, more=np.eye(N))
    with pytest.raises(InputError, match=r"got x, kinds, more\. Name it: `--label NAME`\. The best guess is 'kinds'"):
        read_labelled(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", pixels=np.eye(N), y=np.arange(N) % 2)
    with pytest.raises(InputError, match=r"Save it under the name x\. The best guess is 'pixels'"):
        read_labelled(tmp_path / "a.npz")


@pytest.mark.parametrize(("asked", "meant"), [("lable", "label"), ("Label", "label"), ("a b", "a_b")])
def test_a_name_that_is_misspelled(tmp_path, asked, meant):
    with pytest.raises(InputError, match=f"must have a column '{asked}', got .*Did you mean '{meant}'"):
        read_labelled(table(tmp_path, a_b=range(N), label=LABELS), ReadSettings(label=asked))


def test_one_hot_labels_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(N), y=np.eye(2)[np.arange(N) % 2])
    data = read_labelled(tmp_path / "a.npz")
    assert data.labels.tolist() == [0, 1] * (N // 2)
    assert data.notes == ("'y' holds one-hot labels, which are read as the place of the 1.",)
