"""Tests of condensation.coresets.sizes."""

import math
import re

import numpy as np
import pytest

from condensation.coresets.sizes import rows_asked
from tests.reference import coresets as reference


@pytest.mark.usefixtures("no_shape_checks")  # numpy's numbers will do
@pytest.mark.parametrize("sizes", [[1], [5], [5, 5], [7, 1, 30, 2], list(range(1, 12))])
@pytest.mark.parametrize("balanced", [True, False])
def test_sizes_are_those_dealt_out_one_by_one(sizes, balanced):
    total = sum(sizes)
    asked = [{"ipc": ipc} for ipc in (1, min(2, total), total)] if balanced else []
    least = len(sizes) if balanced else 1
    counts = [count for count in (1, 2, len(sizes), total - 1, total) if least <= count <= total]
    asked += [{"size": size} for size in (*counts, 0.001, 0.1, 0.25, 0.5, 0.9, 1.0)]
    for how in asked:
        expected = reference.rows_asked(sizes, how.get("ipc"), how.get("size"), balanced)
        assert rows_asked(sizes, **how, balanced=balanced) == expected
        same = {name: np.float32(value) if value == 0.25 else np.array([value])[0] for name, value in how.items()}
        assert rows_asked(sizes, **same, balanced=balanced) == expected


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "`ipc` or `size` must be given, and not both, got neither"),
        ({"ipc": 1, "size": 2}, "`ipc` or `size` must be given, and not both, got ipc=1 and size=2"),
        ({"ipc": 1, "balanced": False}, "`ipc` must be None where `balanced` is False, got 1. Give `size`."),
        ({"ipc": 0}, "`ipc` must be an integer of at least 1, got 0"),
        ({"ipc": -2}, "`ipc` must be an integer of at least 1, got -2"),
        ({"ipc": True}, "`ipc` must be an integer of at least 1, got True"),
        ({"ipc": 2.0}, "`ipc` must be an integer of at least 1, got 2.0"),
        ({"ipc": "2"}, "`ipc` must be an integer of at least 1, got '2'"),
        ({"ipc": 9}, "`ipc` must be at most 8, the number of rows, got 9"),
        ({"size": 9}, "`size` must be at most 8, the number of rows, got 9"),
        ({"size": 9, "balanced": False}, "`size` must be at most 8, the number of rows, got 9"),
        ({"size": 0}, "`size` must be an integer of at least 1, got 0"),
        ({"size": "half"}, "`size` must be an integer of at least 1, got 'half'"),
        ({"size": False}, "`size` must be an integer of at least 1, got False"),
        ({"size": 0.0}, "`size` must be a share in (0, 1] where it is no integer, got 0.0"),
        ({"size": 1.5}, "`size` must be a share in (0, 1] where it is no integer, got 1.5"),
        ({"size": math.nan}, "`size` must be a share in (0, 1] where it is no integer, got nan"),
        ({"size": 1}, "`size` must be at least 2, a row a class, got 1. Or choose over all rows"),
    ],
)
def test_sizes_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        rows_asked([3, 5], **settings)
