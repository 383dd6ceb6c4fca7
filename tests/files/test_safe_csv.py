"""Cells are text for a spreadsheet, and come back as they were."""

import pandas as pd
import pytest

from lossbuf.files.safe_csv import escaped, read_csv, unescaped, write_csv

WIDE = "\uff1d1"  # a full-width =
TEXTS = [
    "",
    "a",
    "=1+1",
    "+1",
    "-2.5e3",
    "-a",
    "@x",
    "'",
    "''",
    "'=",
    "'a",
    "\tx",
    "\r",
    "\nx",
    WIDE,
    "a,b",
    'a"b',
    "a\nb",
]
TEXTS += [
    "a",
    " a ",
    "NA",
    "null",
    "1",
    "é",
    "-",
    "+",
    "=",
    "@SUM(A1)",
    "-1+1",
    "1e5",
    ".5",
    "-.5",
    "=cmd|' /C calc'!A0",
]


@pytest.mark.parametrize("text", TEXTS)
def test_escaped_text_comes_back(text):
    assert unescaped(escaped(text)) == text


def test_no_two_texts_become_one():
    assert len({escaped(text) for text in TEXTS}) == len(set(TEXTS))


@pytest.mark.parametrize("text", ["=1+1", "@x", "-1+1", "+a", "\tx", "\rx", WIDE, "-", "=HYPERLINK(1)"])
def test_formulas_are_no_formulas(text):
    assert escaped(text)[0] == "'"


@pytest.mark.parametrize("text", ["-1", "+2.5", "-.5e-3", "1", "a=b", ""])
def test_numbers_and_plain_text_stay(text):
    assert escaped(text) == text


def test_a_table_comes_back(tmp_path):
    table = pd.DataFrame({"=name": TEXTS, "n": range(len(TEXTS)), "share": [0.5] * len(TEXTS)})
    write_csv(tmp_path / "t.csv", table)
    found = read_csv(tmp_path / "t.csv")
    assert found.columns.tolist() == ["=name", "n", "share"]
    # A carriage return alone is a line end to some readers, so it must have been quoted.
    assert found["=name"].tolist() == TEXTS
    assert found["n"].tolist() == [str(n) for n in range(len(TEXTS))]
    assert not [line for line in (tmp_path / "t.csv").read_text().splitlines() if line.startswith(("=", "@"))]


def test_names_that_are_no_text_are_shown(tmp_path):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"id": pd.Series(["a\udcff"], dtype=object)}))
    assert read_csv(tmp_path / "t.csv")["id"].tolist() == ["a\\udcff"]


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n4,5,6,7\n", b"\xff\xfe\x00"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="`path` must be a CSV file in UTF-8"):
        read_csv(path)
