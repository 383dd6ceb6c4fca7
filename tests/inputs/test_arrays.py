"""Archives of arrays."""

import zipfile

import numpy as np
import pytest

from lossbuf.inputs import InputError, ReadSettings, read_labelled


def archive(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((4, 3), (4, 3)),
        ((4, 8, 9), (4, 1, 8, 9)),
        ((4, 3, 8, 8), (4, 3, 8, 8)),
        ((4, 8, 8, 3), (4, 3, 8, 8)),
        ((4, 8, 8, 1), (4, 1, 8, 8)),
        ((4, 2, 2, 2, 2), (4, 16)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "float64", "float16", "int32", "bool"])
def test_shapes_and_dtypes(tmp_path, shape, found, dtype):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    data = read_labelled(archive(tmp_path, x=x, y=LABELS))
    assert data.x.shape == found
    assert data.x.dtype == (np.uint8 if dtype == "uint8" and len(found) == 4 else np.float32)
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.ids == ("0", "1", "2", "3")


def test_the_channels_are_moved(tmp_path):
    x = np.random.RandomState(0).randint(255, size=(4, 8, 9, 3), dtype=np.uint8)
    assert (read_labelled(archive(tmp_path, images=x, labels=LABELS)).x == x.transpose(0, 3, 1, 2)).all()


def test_names_of_rows_and_classes(tmp_path):
    path = archive(
        tmp_path, X=np.eye(4), target=np.array([2, 0, 2, 0]), ids=np.array(list("pqrs")), class_names=["u", "v", "w"]
    )
    data = read_labelled(path)
    assert data.class_names == ("u", "w")  # none is of class v
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert data.ids == ("p", "q", "r", "s")


def test_arrays_can_be_named(tmp_path):
    path = archive(tmp_path, x=np.eye(4), kind=np.array(list("abab")), name=np.array(list("pqrs")))
    data = read_labelled(path, ReadSettings(label="kind", row_id="name"))
    assert data.class_names == ("a", "b")
    assert data.ids == ("p", "q", "r", "s")


def test_rows_that_are_no_numbers_are_listed(tmp_path):
    x = np.eye(7)
    x[1, 2], x[2, 0] = np.nan, np.inf
    data = read_labelled(archive(tmp_path, x=x, y=np.array([0, 1, 0, 1, 0, np.nan, 1])))
    assert data.skipped == (("1", "NaN or infinite values"), ("2", "NaN or infinite values"), ("5", "no label"))
    assert data.ids == ("0", "3", "4", "6")
    assert data.class_names == ("0", "1")


def test_pictures_of_floats_run_from_black_to_white(tmp_path):
    x = np.zeros((4, 1, 4, 4))
    x[0, 0, 0] = [-1, 0, 1, 1]
    data = read_labelled(archive(tmp_path, x=x, y=LABELS))
    assert data.picture(0)[0, 0].tolist() == [0, 128, 255, 255]
    assert data.picture(1).max() == 128  # the same grey in every image


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": LABELS}, "must have an array of samples, one of x, X"),
        ({"x": np.eye(4)}, "must have an array of labels, one of y"),
        ({"x": np.eye(4), "y": LABELS[:3]}, "y must be 4, one a sample, got 3"),
        ({"x": np.eye(4), "y": LABELS, "ids": LABELS[:3]}, "ids must be 4, one a sample, got 3"),
        ({"x": np.eye(4), "y": np.eye(4) / 2}, "y must be a class a row, got probabilities or several labels a row"),
        ({"x": np.eye(4), "y": np.ones((4, 2))}, r"save y\.argmax\(1\)"),
        ({"x": np.eye(4), "y": LABELS + 0.5}, "must have whole numbers or texts as labels"),
        ({"x": np.array(list("abcd")), "y": LABELS}, "samples must be numbers"),
        ({"x": np.zeros((4, 0)), "y": LABELS}, "samples must be numbers of at least two axes"),
        ({"x": np.full((4, 2), np.nan), "y": LABELS}, "got NaN or infinity in every row"),
        ({"x": np.eye(4), "y": LABELS, "ids": np.array(list("ppqr"))}, "got 'p' more than once"),
        ({"x": np.eye(4), "y": LABELS, "class_names": np.array(["a"])}, r"labels in \[0, 1\).*got label 1"),
        ({"x": np.eye(4), "y": LABELS, "class_names": np.array(["a", "a"])}, "a class name twice"),
        ({"x": np.eye(4), "y": LABELS, "class_names": np.array(2)}, r"class_names must have one axis, got shape \(\)"),
        ({"x": np.eye(4), "y": LABELS, "ids": np.array(2)}, r"ids must have one axis, got shape \(\)"),
        ({"x": np.eye(4), "y": np.array([0, 1, 0, np.inf])}, "must have whole numbers or texts as labels, got inf"),
    ],
)
def test_bad_archives_are_refused(tmp_path, arrays, said):
    with pytest.raises(InputError, match=said):
        read_labelled(archive(tmp_path, **arrays))


def test_names_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must have an array 'no', got x, y\. Name another one: `--id NAME`"):
        read_labelled(archive(tmp_path, x=np.eye(4), y=LABELS), ReadSettings(row_id="no"))


def test_an_array_that_is_no_archive_is_refused(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.eye(4))
    with pytest.raises(InputError, match="must hold arrays"):
        read_labelled(tmp_path / "a.npz")


def test_members_that_are_no_arrays_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x", "text")
        file.writestr("y.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': nothing}")
    with pytest.raises(InputError, match=r"must hold arrays|must be an array"):
        read_labelled(tmp_path / "a.npz")


def test_archives_with_objects_run_no_code(tmp_path):
    class Bad:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "a.npz", x=np.eye(4), y=np.array([Bad()] * 4, dtype=object))
    with pytest.raises(InputError, match="must hold arrays of numbers and texts"):
        read_labelled(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"nothing"])
def test_damaged_archives_are_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="must hold arrays"):
        read_labelled(tmp_path / "a.npz")
