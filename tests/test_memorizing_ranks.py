"""Several processes end their warm-up, start anew and judge as one process does."""

from pathlib import Path

import pytest
import torch

from tests.states import assert_same_bits
from tests.torchrun import RANKS, torchrun

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")


def test_ranks_start_anew_together(tmp_path):
    torchrun(Path(__file__).with_name("memorizing_ranks.py"), tmp_path)
    *ranks, alone = (torch.load(tmp_path / name, weights_only=True) for name in (*map(str, range(RANKS)), "alone"))
    assert alone["restored"]
    assert alone["warm_up"]["memorized"]
    for rank in ranks:
        assert rank["restored"]
        for part in ("warm_up", "suspicion", "kept", "weights"):
            assert_same_bits(rank[part], alone[part], part)
