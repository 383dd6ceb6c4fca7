"""An image folder is read whole; what cannot be read is listed."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from lossbuf.inputs import InputError, ReadSettings, read_labelled


def save(path, value=0, size=(8, 8), mode="L", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **more)


def two_classes(root):
    for name in ("cat", "dog"):
        for number in range(5):
            save(root / name / f"{number}.png", number)


def test_classes_pictures_and_names(tmp_path):
    two_classes(tmp_path)
    save(tmp_path / "dog" / "deep" / "er.PNG", 9)
    data = read_labelled(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.ids[3:] == ("cat/3.png", "cat/4.png", *(f"dog/{n}.png" for n in range(5)), "dog/deep/er.PNG")
    assert data.labels.tolist() == [0] * 5 + [1] * 6
    assert data.x.shape == (11, 1, 8, 8)
    assert data.x[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 9]
    assert not data.skipped
    assert not data.notes
    assert data.has_images


def test_the_same_bits_twice_and_others_for_other_pictures(tmp_path):
    two_classes(tmp_path)
    first, second = read_labelled(tmp_path), read_labelled(str(tmp_path))
    assert first.fingerprint() == second.fingerprint()
    save(tmp_path / "cat" / "0.png", 5)
    assert read_labelled(tmp_path).fingerprint() != first.fingerprint()


def test_numbered_classes_are_in_the_order_of_numbers(tmp_path):
    for name in ("10", "9", "-1", "x"):
        save(tmp_path / name / "a.png")
        save(tmp_path / name / "b.png")
    assert read_labelled(tmp_path).class_names == ("-1", "9", "10", "x")


def test_damaged_and_lost_pictures_are_listed(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "empty.png").touch()
    (tmp_path / "cat" / "text.jpg").write_text("no picture")
    whole = (tmp_path / "cat" / "0.png").read_bytes()
    (tmp_path / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "alone.png")
    data = read_labelled(tmp_path)
    assert len(data) == 10
    assert dict(data.skipped) == {
        "alone.png": "in no class folder",
        "cat/cut.png": "no image, or a damaged one",
        "cat/empty.png": "no image, or a damaged one",
        "cat/text.jpg": "no image, or a damaged one",
    }


def test_reading_leaves_the_filters_of_warnings_alone(tmp_path):
    for row in range(60):
        save(tmp_path / str(row % 2) / f"{row}.png", row)
    before = list(warnings.filters)
    for _ in range(5):
        read_labelled(tmp_path)
        assert warnings.filters == before


def test_huge_pictures_are_not_decoded(tmp_path, monkeypatch):
    two_classes(tmp_path)
    save(tmp_path / "cat" / "huge.png", size=(100, 50))
    monkeypatch.setattr("lossbuf.inputs.pictures.MOST_PIXELS", 4999)
    assert dict(read_labelled(tmp_path).skipped) == {"cat/huge.png": "more than 4,999 pixels"}


def test_other_and_hidden_files_are_passed_over(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / ".git").mkdir()
    save(tmp_path / ".git" / "a.png")
    save(tmp_path / "cat" / ".hidden.png")
    data = read_labelled(tmp_path)
    assert len(data) == 10
    assert data.notes == ("1 file that is not an image was passed over, such as 'cat/notes.txt'.",)
    assert data.skipped == (("cat/notes.txt", "not an image"), (".git", "hidden"), ("cat/.hidden.png", "hidden"))


@pytest.mark.parametrize("follow", [False, True])
def test_links_out_of_the_folder(tmp_path, follow):
    root = tmp_path / "data"
    two_classes(root)
    save(tmp_path / "outside" / "o.png", 7)
    (root / "cat" / "link.png").symlink_to(tmp_path / "outside" / "o.png")
    (root / "cat" / "folder").symlink_to(tmp_path / "outside")
    (root / "cat" / "inside.png").symlink_to(root / "dog" / "0.png")
    (root / "cat" / "broken.png").symlink_to(root / "nothing")
    (root / "dog" / "round").symlink_to(root)  # would never end
    (root / "dog" / "itself.png").symlink_to(root / "dog" / "itself.png")
    (root / "again").symlink_to(root / "cat")  # no class of its own
    data = read_labelled(root, ReadSettings(follow_links=follow))
    skipped = dict(data.skipped)
    assert skipped.pop("cat/broken.png") == skipped.pop("dog/itself.png") == "a link to nothing"
    assert skipped.pop("cat/inside.png") == "a link to an image that is read already"
    assert skipped.pop("dog/round") == skipped.pop("again") == "a link to a folder that is read already"
    assert data.class_names == ("cat", "dog")
    if follow:
        assert skipped == {"cat/link.png": "a link to an image that is read already"}
        assert "cat/folder/o.png" in data.ids
    else:
        assert skipped == dict.fromkeys(("cat/link.png", "cat/folder"), "a link out of the folder")


def test_modes_and_sizes_become_alike(tmp_path):
    save(tmp_path / "a" / "rgb.png", (255, 0, 0), (20, 10), "RGB")
    save(tmp_path / "a" / "clear.png", (0, 0, 0, 0), (16, 16), "RGBA")
    save(tmp_path / "a" / "palette.gif", 3, (12, 30), "P")
    save(tmp_path / "b" / "deep.png", 65535, (16, 16), "I;16")
    save(tmp_path / "b" / "bit.png", 1, (16, 16), "1")
    save(tmp_path / "b" / "cmyk.jpg", (0, 0, 0, 0), (16, 16), "CMYK")
    data = read_labelled(tmp_path)
    assert data.x.shape == (6, 3, 16, 16)  # the median of the shorter sides, 10 12 16 16 16 16, is 16
    assert data.notes[0].startswith("Images were cropped to squares and brought to 16x16 pixels")


def test_values_of_modes(tmp_path):
    save(tmp_path / "a" / "clear.png", (0, 0, 0, 0), (16, 16), "RGBA")
    save(tmp_path / "a" / "red.png", (255, 0, 0), (16, 16), "RGB")
    save(tmp_path / "b" / "deep.png", 2000, (16, 16), "I;16")
    save(tmp_path / "b" / "deepest.png", 4000, (16, 16), "I;16")  # white is the brightest of all
    save(tmp_path / "b" / "bit.png", 1, (16, 16), "1")
    data = read_labelled(tmp_path)
    found = {name: x[:, 3, 3].tolist() for name, x in zip(data.ids, data.x, strict=True)}
    assert found == {
        "a/clear.png": [255, 255, 255],
        "a/red.png": [255, 0, 0],
        "b/deep.png": [128, 128, 128],
        "b/deepest.png": [255, 255, 255],
        "b/bit.png": [255, 255, 255],
    }


def test_pictures_are_turned_upright(tmp_path):
    image = np.zeros((8, 8), np.uint8)
    image[0] = 255  # white on top, told to be the left side
    for name in ("a", "b"):
        two = Image.fromarray(image)
        exif = two.getexif()
        exif[0x0112] = 6  # turn by 90 degrees clockwise
        (tmp_path / name).mkdir()
        two.save(tmp_path / name / "turned.png", exif=exif)
        two.save(tmp_path / name / "plain.png")
    data = read_labelled(tmp_path)
    found = dict(zip(data.ids, data.x[:, 0], strict=True))
    assert found["a/turned.png"][:, -1].tolist() == [255] * 8
    assert found["a/plain.png"][0].tolist() == [255] * 8


@pytest.mark.parametrize("asked", [4, 11])
def test_a_size_can_be_asked_for(tmp_path, asked):
    two_classes(tmp_path)
    assert read_labelled(tmp_path, ReadSettings(image_size=asked)).x.shape == (10, 1, asked, asked)


def test_large_pictures_are_made_small(tmp_path):
    for name in ("a", "b"):
        for number in range(2):
            save(tmp_path / name / f"{number}.jpg", (9, 9, 9), (300, 200), "RGB")
    assert read_labelled(tmp_path).x.shape == (4, 1, 64, 64)


def test_names_that_are_no_text(tmp_path):
    root = tmp_path / "data"
    two_classes(root)
    odd = os.fsencode(root / "cat") + b"/\xff.png"
    os.rename(root / "cat" / "0.png", odd)
    assert "cat/\\xff.png" in read_labelled(root).ids


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(
        InputError, match="must hold a subfolder a class with images in it, got 0 images elsewhere and 0"
    ):
        read_labelled(tmp_path)
    save(tmp_path / "alone.png")
    with pytest.raises(InputError, match="got 1 images elsewhere"):
        read_labelled(tmp_path)
    save(tmp_path / "cat" / "a.png")
    with pytest.raises(InputError, match="at least two classes, got one, 'cat'"):
        read_labelled(tmp_path)
    save(tmp_path / "dog" / "a.png")
    with pytest.raises(InputError, match="got 2 rows of 2 classes"):
        read_labelled(tmp_path)
    with pytest.raises(InputError, match="there is no such file or folder"):
        read_labelled(tmp_path / "nowhere")
    (tmp_path / "x.bin").touch()
    with pytest.raises(InputError, match="must be a folder of images or a file ending in"):
        read_labelled(tmp_path / "x.bin")


def test_a_folder_of_damaged_pictures_tells_the_first(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").touch()
    with pytest.raises(InputError, match=r"no rows to read\. The first of 1 skipped: cat/a\.png, no image"):
        read_labelled(tmp_path)


@pytest.mark.parametrize("size", [0, 3, -1])
def test_bad_sizes_are_refused(size):
    with pytest.raises(ValueError, match="image_size"):
        ReadSettings(image_size=size)


def test_small_classes_are_noted(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "0.png").unlink()
    assert read_labelled(tmp_path).notes == ("1 classes have fewer than 5 rows ('cat'): of those little can be told.",)
