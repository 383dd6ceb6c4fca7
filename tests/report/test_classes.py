"""Tests of lossbuf.report.classes."""

import numpy as np
import pytest

from lossbuf.report.classes import LEVELS, MAX_CLASSES, MAX_FLOWS, class_counts, heat_map, largest_flows


def some_matrix(num_classes, seed=0):
    draws = np.random.default_rng(seed)
    matrix = np.round(draws.dirichlet(np.full(num_classes, 0.3), num_classes), 2)
    np.fill_diagonal(matrix, 0)
    np.fill_diagonal(matrix, 1 - matrix.sum(1))
    return matrix


@pytest.mark.parametrize("num_classes", [1, 2, 5, 12, 13, 30])
def test_heat_map_says_the_matrix(num_classes):
    matrix = some_matrix(num_classes)
    cells = heat_map(matrix)
    off = matrix * (1 - np.eye(num_classes))
    for row in range(num_classes):
        for column in range(num_classes):
            cell = cells[row][column]
            assert cell.diagonal == (row == column)
            said = 0.0 if cell.text == "·" else float(cell.text)
            assert said == pytest.approx(100 * matrix[row, column], abs=0.51 if num_classes > 12 else 0.051)
            assert 0 <= cell.level <= LEVELS
            if row != column and cell.text != "·":
                assert cell.level == pytest.approx(LEVELS * matrix[row, column] / off.max(), abs=0.51)
    if off.any():
        assert max(cell.level for row in cells for cell in row if not cell.diagonal) == LEVELS


@pytest.mark.parametrize("num_classes", [1, 2, 5, 31, 80])
def test_flows_are_the_largest_entries(num_classes):
    matrix = some_matrix(num_classes)
    names = [str(label) for label in range(num_classes)]
    slow = sorted(
        (-matrix[i, j], i, j) for i in range(num_classes) for j in range(num_classes) if i != j and matrix[i, j] > 0
    )[:MAX_FLOWS]
    flows = largest_flows(matrix, names)
    assert [(flow.true, flow.given) for flow in flows] == [(str(i), str(j)) for _, i, j in slow]
    assert [flow.share for flow in flows] == [f"{-100 * value:.1f}\xa0%" for value, _, _ in slow]
    assert [flow.width for flow in flows] == pytest.approx([100 * value / slow[0][0] for value, _, _ in slow], abs=0.01)


def test_no_flow_without_noise():
    assert largest_flows(np.eye(40), [str(label) for label in range(40)]) == []


def test_class_counts():
    given = np.array([0, 0, 0, 0, 2, 2, 2, 0])
    suspects = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool)
    counts, left_out = class_counts(given, suspects, ["a", "b", "c"])
    assert left_out == 0
    assert [(c.name, c.rows, c.suspects, c.share) for c in counts] == [
        ("a", 5, 1, "20.0\xa0%"),
        ("b", 0, 0, "none"),
        ("c", 3, 3, "100.0\xa0%"),
    ]
    assert [(c.kept_width, c.suspect_width) for c in counts] == [(80, 20), (0, 0), (0, 60)]


def test_many_classes_show_those_with_most_suspects():
    given = np.repeat(np.arange(200), 3)
    suspects = np.zeros(600, dtype=bool)
    suspects[[300, 301, 450]] = True  # two of class 100, one of class 150
    counts, left_out = class_counts(given, suspects, [str(label) for label in range(200)])
    assert left_out == 200 - MAX_CLASSES == 200 - len(counts)
    assert [c.name for c in counts[:4]] == ["100", "150", "0", "1"]
