"""Tests of lossbuf.detection.verdict."""

import numpy as np
import torch

from lossbuf.detection.verdict import CLASS_FLOOR, CLASS_MARGIN, _expected_to_be_right

ROWS = 10_000


def test_no_more_of_a_class_is_dropped_from_training_than_the_matrix_expects_to_be_wrong():
    """30 % of the first class carry the second label, so that 3 of 13 of the second labels are wrong."""
    labels = torch.tensor([0] * 3500 + [1] * 6500)
    matrix = np.array([[0.7, 0.3], [0.0, 1.0]])
    floor = _expected_to_be_right(labels, matrix)
    margin = CLASS_MARGIN / np.sqrt([3500, 6500])
    assert np.allclose(floor, np.array([1.0, 10 / 13]) - margin, atol=1e-3)


def test_some_of_every_class_stays_in_training():
    labels = torch.tensor([0] * 9990 + [1] * 10)
    matrix = np.array([[0.999, 0.001], [0.0, 1.0]])
    assert _expected_to_be_right(labels, matrix)[1] == CLASS_FLOOR
