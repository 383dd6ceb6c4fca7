"""Decisions are carried out, or refused with the row that is wrong."""

import pandas as pd
import pytest

from lossbuf.files.safe_csv import write_csv
from lossbuf.inputs import InputError
from lossbuf.scan import ScanFolder
from lossbuf.scan.decisions import corrected_labels


@pytest.fixture
def folder(tmp_path):
    """What a scan of six rows leaves, as far as decisions go; one class is named as a formula."""
    folder = ScanFolder(tmp_path / "out")
    issues = {
        "row": [4, 1, 2],
        "id": ["e", "=b", "c"],
        "given_label": ["dog", "cat", "=cow"],
        "suggested_label": ["cat", "=cow", "=cow"],
    }
    write_csv(folder.issues, pd.DataFrame(issues))
    write_csv(folder.clean, pd.DataFrame({"row": [0, 3, 5], "id": list("adf"), "label": ["cat", "dog", "=cow"]}))
    for path in (folder.about, folder.state):
        path.touch()
    folder.summary.write_text('{"n_samples": 6}')
    return folder


def decided(folder, *rows):
    path = folder.path / "decisions.csv"
    write_csv(path, pd.DataFrame(rows, columns=["id", "given_label", "suggested_label", "decision", "label"]))
    return path


def labels(table):
    return dict(zip(table["id"], table["label"], strict=True))


def test_decisions_are_carried_out(folder):
    path = decided(
        folder,
        ("=b", "cat", "=cow", "relabel", "dog"),
        ("e", "dog", "cat", "drop", ""),
        ("c", "=cow", "=cow", "keep", "=cow"),
    )
    table = corrected_labels(folder.path, path)
    assert table["id"].tolist() == ["a", "=b", "c", "d", "f"]
    assert labels(table) == {"a": "cat", "=b": "dog", "c": "=cow", "d": "dog", "f": "=cow"}
    assert table["decision"].tolist() == ["", "relabel", "keep", "", ""]
    assert table["given_label"].tolist() == ["cat", "cat", "=cow", "dog", "=cow"]


@pytest.mark.parametrize(
    ("undecided", "found"),
    [
        ("keep", {"=b": "cat", "c": "=cow", "e": "cat"}),
        ("relabel", {"=b": "=cow", "c": "=cow", "e": "cat"}),
        ("drop", {"e": "cat"}),
    ],
)
def test_suspects_without_a_decision(folder, undecided, found):
    path = decided(folder, ("e", "dog", "cat", "relabel", "cat"))
    table = labels(corrected_labels(folder.path, path, undecided=undecided))
    assert table == {"a": "cat", "d": "dog", "f": "=cow"} | found


def test_without_decisions(folder):
    assert len(corrected_labels(folder.path)) == 6
    assert len(corrected_labels(folder.path, undecided="drop")) == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("a", "cat", "cat", "keep", ""), "row 1: `id` must be of a suspect of the scan, got 'a'"),
        (("e", "cat", "cat", "keep", ""), "row 1: `given_label` must be 'dog' as in the scan, got 'cat'"),
        (("e", "dog", "cat", "yes", ""), "row 1: `decision` must be one of relabel, keep, drop, got 'yes'"),
        (("e", "dog", "cat", "relabel", "pig"), "row 1: `label` must be a class of the scan, got 'pig'"),
        (("e", "dog", "cat", "relabel", ""), "row 1: `label` must be a class of the scan, got ''"),
    ],
)
def test_wrong_decisions_are_refused(folder, row, said):
    with pytest.raises(InputError, match=said):
        corrected_labels(folder.path, decided(folder, row))


def test_two_decisions_on_a_row_are_refused(folder):
    row = ("e", "dog", "cat", "keep", "")
    with pytest.raises(InputError, match="row 2: `id` must come once, got 'e' again"):
        corrected_labels(folder.path, decided(folder, row, row))


def test_other_files_are_refused(folder, tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="must have columns id, given_label, decision, label, got none named 'id'"):
        corrected_labels(folder.path, tmp_path / "x.csv")
    with pytest.raises(InputError, match="must be there, got no such file"):
        corrected_labels(folder.path, tmp_path / "nothing.csv")
    folder.summary.unlink()
    with pytest.raises(InputError, match="must hold a finished scan"):
        corrected_labels(folder.path)


def test_results_that_are_not_whole_are_refused(folder):
    text = folder.clean.read_text()
    folder.clean.write_text(text + "4,e,dog\n")  # a suspect as well
    with pytest.raises(InputError, match="must hold each of 6 rows once"):
        corrected_labels(folder.path)
    folder.clean.write_text(text.replace(",", ";"))
    with pytest.raises(InputError, match=r"columns row, id, label, got none named 'row'\. Save it with commas"):
        corrected_labels(folder.path)
    folder.clean.write_text(text)
    folder.summary.write_text("{")
    with pytest.raises(InputError, match="must hold what `lossbuf scan` wrote"):
        corrected_labels(folder.path)


def test_an_unknown_rule_is_refused(folder):
    with pytest.raises(ValueError, match="`undecided` must be one of 'relabel', 'keep', 'drop', got 'maybe'"):
        corrected_labels(folder.path, undecided="maybe")
