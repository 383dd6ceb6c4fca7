"""Several processes, in Accelerate and in Lightning, collect what one does on the joined batches, and resume so."""

from pathlib import Path

import pytest
import torch

from lossbuf.recording.losses import weighted_mean_loss
from tests.integrations.plain import BATCH, EPOCHS, ROWS, callback, digits, network, sgd
from tests.integrations.ranks import SAVED_AFTER
from tests.states import assert_same_bits
from tests.torchrun import RANKS, torchrun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed"),
]

STEPS = -(-(ROWS - 1) // (BATCH * RANKS))
"""An epoch, one row short."""


@pytest.fixture(scope="module", params=["accelerate", "lightning"])
def outcome(request, tmp_path_factory):
    """The framework, and for all ranks what the run left alone and the resumed one collected."""
    pytest.importorskip(request.param)
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(Path(__file__).with_name("ranks.py"), request.param, folder)
    return request.param, [torch.load(folder / str(rank), weights_only=True) for rank in range(RANKS)]


def test_all_hold_the_same_and_a_resumed_run_too(outcome):
    framework, (one, *others) = outcome
    assert len(others) == RANKS - 1 > 0
    for place in range(2):
        for other in others:
            assert_same_bits(one[place]["state"], other[place]["state"])
            assert_same_bits(one[place]["model"], other[place]["model"])
        assert one[place]["epoch"] == EPOCHS
    alone, resumed = one
    steps = len(alone["batches"]) - len(resumed["batches"])
    epoch, step = SAVED_AFTER
    assert steps == epoch * STEPS + (step if framework == "accelerate" else STEPS)
    assert alone["batches"][steps:] == resumed["batches"]
    for part in ("state", "model"):
        if RANKS == 2:
            assert_same_bits(alone[part], resumed[part])
        else:  # DistributedDataParallel sums in another order from its second step on
            torch.testing.assert_close(alone[part], resumed[part], rtol=1e-5, atol=1e-5, equal_nan=True)


def test_they_are_one_process_on_the_joined_batches(outcome):
    framework, ranks = outcome
    one = ranks[0]
    plain, model = callback("reweight"), network()
    x, labels = digits()
    optimizer = sgd(model)
    batches = list(zip(*(rank[0]["batches"] for rank in ranks), strict=True))
    assert len(batches) == EPOCHS * STEPS
    for step, shares in enumerate(batches, 1):
        rows = torch.tensor([row for share in shares for row in share])
        logits = model(x[rows])
        weights = plain.update(logits, labels[rows], rows)
        sizes = [len(share) for share in shares]
        parts = zip(logits.split(sizes), labels[rows].split(sizes), weights.split(sizes), strict=True)
        # Each rank takes the weighted mean of its share, and the gradients of all are averaged.
        (sum(weighted_mean_loss(*part) for part in parts) / RANKS).backward()
        optimizer.step()
        optimizer.zero_grad()
        if framework == "accelerate" and step == SAVED_AFTER[0] * STEPS + SAVED_AFTER[1]:
            plain.flush()  # what is in a checkpoint of several processes was digested before
        if step % STEPS == 0:
            plain.end_epoch()
    for name, value in vars(plain.statistics()).items():
        torch.testing.assert_close(one[0]["statistics"][name], value, rtol=1e-5, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(one[0]["state"]["sample_weights"], plain.sample_weights, rtol=0, atol=1e-3)
    assert (plain.sample_weights < 0.5).sum() > 20


def test_rows_that_fill_up_count_once(outcome):
    _, ranks = outcome
    one = ranks[0]
    rows = [row for rank in ranks for share in rank[0]["batches"] for row in share]
    assert len(rows) > EPOCHS * (ROWS - 1)  # some came twice
    assert one[0]["statistics"]["count"].tolist() == [EPOCHS] * (ROWS - 1) + [0]
    assert one[0]["rejected"] == dict.fromkeys(one[0]["rejected"], 0)
