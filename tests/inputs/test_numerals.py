"""Numbers that are not written as Python writes them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbuf.inputs import read_labelled
from lossbuf.inputs.numerals import read_numerals


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1.234,5", "2", "0,25"], [1234.5, 2, 0.25]),
        (["1,234.5", "2", "0.25"], [1234.5, 2, 0.25]),
        (["1 234,5", "2,0"], [1234.5, 2]),
        (["1\N{NARROW NO-BREAK SPACE}234,5", "1\N{NO-BREAK SPACE}000"], [1234.5, 1000]),
        (["1'234.5", "1\N{RIGHT SINGLE QUOTATION MARK}000"], [1234.5, 1000]),
        (["1.234.567", "5"], [1234567, 5]),
        (["12 kg", "7.5 kg", "3kg"], [12, 7.5, 3]),
        (["37,2 °C", "-4 °C"], [37.2, -4]),
        (["90 km/h", "5 km/h"], [90, 5]),
        (["12%", "7.5 %"], [12, 7.5]),
        (["$1,200.50", "-$3"], [1200.5, -3]),
        (["1.200,50 €", "3 €"], [1200.5, 3]),
        (["CHF 3", "CHF 4.50"], [3, 4.5]),
        (["(3)", "4"], [-3, 4]),
        (["\N{MINUS SIGN}5", "6"], [-5, 6]),
        (["#DIV/0!", "#REF!", "#WERT!", "5"], [None, None, None, 5]),
        (["-", "--", "n/a", "NA", ".", " ", "unknown", "5"], [None] * 7 + [5]),
        (["1e3", "2,5E-1"], [1000, 0.25]),
        (["+5", "6."], [5, 6]),
        ([".5", "-.5"], [0.5, -0.5]),
        (["\N{FULLWIDTH DIGIT FIVE}", "6"], [5, 6]),
    ],
)
def test_texts_are_numbers(texts, numbers):
    found = read_numerals(texts)
    assert found.share == 1
    assert [None if math.isnan(value) else value for value in found.values.tolist()] == numbers


@pytest.mark.parametrize(
    "texts",
    [
        ["A12", "B13"], ["2020-01-05", "2020-01-06"], ["10:30", "11:30"], ["192.168.1.1", "10.0.0.1"], ["1/2", "3/4"],
        ["1 2 3", "4 5 6"], ["12,34,56", "1,2,3"], ["red", "blue"], ["3 cm", "3 mm"], ["1-2", "3-4"], ["12%", "0.12"],
        ["1.2.3", "2.0.1"], ["5x3", "6x3"],
    ],
)  # fmt: skip
def test_texts_are_no_numbers(texts):
    assert read_numerals(texts).share < 0.9


def test_commas_that_may_be_either():
    assert read_numerals(["1,234", "5,678"]).values.tolist() == [1234, 5678]
    assert read_numerals(["1,234", "5,678"], decimal_comma=True).values.tolist() == [1.234, 5.678]
    assert read_numerals(["1,234", "5,678"]).ambiguous
    assert not read_numerals(["1,234", "5,67"]).ambiguous


def table(folder, texts, separator=",", name="length"):
    lines = [f'{row}{separator}"{text}"{separator}{"uvw"[row % 3]}' for row, text in enumerate(texts)]
    path = folder / "t.csv"
    path.write_text("\n".join([separator.join(("a", name, "label")), *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("texts", "separator", "said"),
    [
        ([f"{row},5" for row in range(60)], ";", r"'0,5' is read as 0.5"),
        ([f"{row} cm" for row in range(60)], ",", r"'0 cm' is read as 0"),
        ([f"{row}%" for row in range(60)], ",", r"'0%' is read as 0"),
        ([f"1,{row:03d}" for row in range(60)], ",", "write the numbers with a decimal point to be sure"),
        (["-", *(f"{row}.5" for row in range(59))], ",", "has '-' for missing numbers"),
        ([" ", *(f"{row}.5" for row in range(59))], ",", "has ' ' for missing numbers"),
        (["#DIV/0!", *(f"{row}.5" for row in range(59))], ",", "has '#DIV/0!' for missing numbers"),
        (["broken", *(f"{row}.5" for row in range(59))], ",", "texts that are not numbers, such as 'broken'"),
        ([f"2020-01-{row % 28 + 1:02d}" for row in range(60)], ",", "days since the earliest"),
        ([f"2020-01-{row % 28 + 1:02d} 10:00:00+01:00" for row in range(60)], ",", "days since the earliest"),
        ([str(10**400)] * 30 + ["1"] * 30, ",", "too large numbers, which count as missing"),
        (["inf"] * 3 + ["1.5"] * 57, ",", "infinite or too large"),
    ],
)
def test_a_column_is_numbers_and_a_note_says_so(tmp_path, texts, separator, said):
    data = read_labelled(table(tmp_path, texts, separator))
    assert data.x.shape[1] in (2, 3)  # 3: with an indicator of what is missing
    (note,) = [note for note in data.notes if "'length'" in note]
    assert said in note


def test_a_column_that_is_half_numbers_is_named(tmp_path):
    data = read_labelled(table(tmp_path, [f"{row % 9}" if row % 3 else "abc"[row % 2] for row in range(60)]))
    (note,) = [note for note in data.notes if "'length'" in note]
    assert "read as categories: leave out or replace what is not a number" in note


def test_many_notes_are_kept_short(tmp_path):
    lines = [";".join([f"{row},{column}" for column in range(60)] + ["uv"[row % 2]]) for row in range(10)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join([";".join([*(f"c{column}" for column in range(60)), "label"]), *lines]))
    data = read_labelled(path)
    assert data.x.shape == (10, 60)
    assert len(data.notes) <= 21
    assert all(any(f"'c{column}'" in note for note in data.notes) for column in range(60))


@settings(deadline=None)
@given(st.lists(st.text(max_size=6) | st.from_regex(r"[-+(€$]?[0-9., ']{1,8}[%a-z]{0,3}", fullmatch=True), max_size=8))
def test_any_texts(texts):
    found = read_numerals(texts)
    assert found.values.shape == (len(texts),)
    assert 0 <= found.share <= 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.sampled_from(["{:.3f}", "{:,.2f}", "{:e}"]))
def test_what_is_written_is_read(values, form):
    texts = [form.format(value) for value in values]
    expected = [float(text.replace(",", "")) for text in texts]
    assert read_numerals(texts).values.tolist() == expected
    swapped = [text.translate(str.maketrans(".,", ",.")) for text in texts]
    np.testing.assert_array_equal(read_numerals(swapped, decimal_comma=True).values, expected)
