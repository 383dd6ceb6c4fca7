"""Classes that are one to a reader are merged or kept apart, and a note names them; folders that are no classes."""

import unicodedata
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from lossbuf.cli.commands import app
from lossbuf.inputs import InputError, ReadSettings, read_labelled
from lossbuf.inputs.classes import merged


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [
        ("Great Dane", "great dane", "Great Dane"),
        ("STRASSE", "straße", "STRASSE"),
        ("İstanbul", "i̇stanbul", None),
        ("ice cream", "ice\tcream", "ice cream"),
        ("ice cream", "icecream", "ice cream"),
        ("ice cream", "ice\N{IDEOGRAPHIC SPACE}cream", "ice cream"),
        ("ice cream", "ice\N{ZERO WIDTH SPACE} cream", "ice cream"),
        ("na\N{SOFT HYPHEN}me", "name", "name"),
        ("\N{ZERO WIDTH NO-BREAK SPACE}name", "name", "name"),
        ("e\N{RIGHT-TO-LEFT MARK}lm", "elm", "elm"),
        ("Ångström", unicodedata.normalize("NFD", "Ångström"), "Ångström"),
        ("ﬁsh", "fish", "ﬁsh"),
        ("m²", "m2", "m²"),
        ("\N{FULLWIDTH DIGIT TWO}0", "20", "\N{FULLWIDTH DIGIT TWO}0"),
        ("한글", unicodedata.normalize("NFD", "한글"), "한글"),
        ("3", "3.0", "3"),
        ("3", "3e0", "3"),
        ("+7", "7", "+7"),
        ("-0", "0", "-0"),
        ("1.50", "1.5", "1.50"),
        ("10", "1e1", "10"),
        ("heart ❤", "heart ❤\N{VARIATION SELECTOR-16}", "heart ❤"),
    ],
)
def test_names_that_look_alike_are_merged_with_a_note(tmp_path, one, other, kept):
    found = merged({one: 9, other: 3, "ash": 9})
    assert len(found.notes) == 1
    names = {found.names.get(name, name) for name in (one, other)}
    assert len(names) == 1
    assert kept is None or names == {kept}
    assert "(9 rows)" in found.notes[0]
    assert found.notes[0].isprintable()
    labels = [one] * 9 + [other] * 3 + ["ash"] * 9
    pd.DataFrame({"a": np.arange(21), "label": labels}).to_csv(tmp_path / "t.csv", index=False)
    data = read_labelled(tmp_path / "t.csv")
    assert len(data.class_names) == 2
    assert any("look alike and are read as one" in note for note in data.notes)
    apart = read_labelled(tmp_path / "t.csv", ReadSettings(alike="keep"))
    assert len(apart.class_names) == (2 if one.strip() == other.strip() else 3)


@pytest.mark.parametrize(("one", "other"), [("A", "a"), ("01", "1"), ("007", "7"), ("é", "É"), ("02134", "2134")])
def test_names_that_may_be_different_are_kept_with_a_note(one, other):
    found = merged({one: 9, other: 3})
    assert not found.names
    assert "kept apart (`--alike merge` merges them)" in found.notes[0]
    assert len(merged({one: 9, other: 3}, "merge").names) == 1
    assert not merged({one: 9, other: 3}, "keep").names


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "cats"),
        ("1", "10"),
        ("ash", "ash tree"),
        ("-1", "1"),
        ("1", "True"),
        ("o", "0"),
        ("a-b", "ab"),
        ("", "cat"),
        ("nan", "NaN2"),
        ("1.5", "15"),
        ("é", "e"),
    ],
)
def test_other_names_are_left_alone(names):
    found = merged({**dict.fromkeys(names, 5), "elm": 5, "7": 5})
    assert not found.names
    assert not found.notes


def test_truth_values():
    assert merged({"TRUE": 3, "true": 5, "False": 4, "0": 2, "1": 1}).names == {
        "TRUE": "true",
        "1": "true",
        "0": "False",
    }


def test_the_option(tmp_path):
    pd.DataFrame({"a": np.arange(20), "label": ["Dog", "dog"] * 10}).to_csv(tmp_path / "t.csv", index=False)
    words = ["scan", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out"), "--epochs", "1", "--device", "cpu"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2
    assert "at least two classes, got one, 'Dog'" in ended.stderr
    assert CliRunner().invoke(app, [*words, "--alike", "same"]).exit_code == 2
    kept = CliRunner().invoke(app, [*words, "--alike", "keep"])
    assert kept.exit_code == 0
    assert "'Dog' (10 rows) and 'dog' (10 rows) look alike and are kept apart" in kept.stderr


@given(st.dictionaries(st.text(max_size=4), st.integers(1, 9), max_size=6), st.sampled_from([None, "merge", "keep"]))
def test_any_names(counts, alike):
    found = merged(counts, alike)
    assert set(found.names) <= set(counts)
    assert not set(found.names) & set(found.names.values())
    assert bool(found.names) <= bool(found.notes)
    again = Counter()
    for name, count in counts.items():
        again[found.names.get(name, name)] += count
    assert sum(again.values()) == sum(counts.values())
    assert not merged(again, alike).names


def tree(root, *folders):
    for place, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for row in range(3):
            Image.new("L", (8, 8), 20 * place + row).save(root / folder / f"{row}.png")
    return root


@pytest.mark.parametrize(
    "parts", [("train", "test"), ("Train", "Val", "Test"), ("training", "validation"), ("train",), ("dev", "eval")]
)
def test_parts_of_a_data_set_are_no_classes(tmp_path, parts):
    root = tree(tmp_path, *(f"{part}/{name}" for part in parts for name in ("cat", "dog", "eel")))
    with pytest.raises(
        InputError, match=r"got parts of a data set, .* that hold the classes 'cat', 'dog', 'eel': give"
    ):
        read_labelled(root)
    assert read_labelled(root / parts[0]).class_names == ("cat", "dog", "eel")


def test_repeated_subfolders_are_told(tmp_path):
    root = tree(tmp_path, *(f"{fold}/{name}" for fold in ("site a", "site b") for name in ("cat", "dog")))
    (note,) = [note for note in read_labelled(root).notes if "subfolders" in note]
    assert note.startswith("Each of the folders 'site a', 'site b' holds the subfolders 'cat', 'dog'.")
    same = tree(tmp_path / "in", "cat/images", "dog/images")
    assert not [note for note in read_labelled(same).notes if "subfolders" in note]


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "__MACOSX",
        "$RECYCLE.BIN",
        "#recycle",
        "@Recycle",
        "@__thumb",
        "lost+found",
        "System Volume Information",
        ".Trashes",
        ".ipynb_checkpoints",
        "__pycache__",
        ".thumbnails",
        "Network Trash Folder",
    ],
)
def test_folders_of_systems_are_no_classes(tmp_path, name):
    root = tree(tmp_path, "cat", "dog", name, f"cat/{name}")
    data = read_labelled(root)
    assert data.class_names == ("cat", "dog")
    assert len(data) == 6
    reason = "hidden" if name.startswith(".") else "a folder of the operating system"
    assert dict(data.skipped) == {name: reason, f"cat/{name}": reason}


def test_a_folder_without_images_is_told(tmp_path):
    root = tree(tmp_path, "cat", "dog")
    (root / "eel").mkdir()
    assert read_labelled(root).notes[0] == "Without images that can be read, and so not a class: 'eel'."
