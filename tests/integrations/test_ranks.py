"""Two processes, in Accelerate and in Lightning, collect what one does on the joined batches, and resume so."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lossbuf
from lossbuf.losses import weighted_mean_loss
from tests.integrations.plain import EPOCHS, ROWS, callback, digits, network, sgd
from tests.integrations.ranks import SAVED_AFTER
from tests.states import assert_same_bits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed"),
]

STEPS = 6
"""An epoch of 329 rows in batches of 32 for each of two ranks."""


@pytest.fixture(scope="module", params=["accelerate", "lightning"])
def outcome(request, tmp_path_factory):
    """The framework, and for both ranks what the run left alone and the resumed one collected."""
    pytest.importorskip(request.param)
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = os.environ | {"PYTHONPATH": str(Path(lossbuf.__file__).parents[1])}
    script = Path(__file__).with_name("ranks.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", script, request.param, str(rank), port, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=here,
        )
        for rank in range(2)
    ]
    try:
        told = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(told)
    return request.param, [torch.load(folder / str(rank), weights_only=True) for rank in range(2)]


def _without_padding(state):
    """A rank also counts, in the rings' last slot, the rows that only fill up its block."""
    return {name: value[:-1] if name.endswith(".seen") else value for name, value in state.items()}


def test_both_hold_the_same_and_a_resumed_run_too(outcome):
    framework, (one, other) = outcome
    for place in range(2):
        assert_same_bits(one[place]["state"], other[place]["state"])
        assert_same_bits(one[place]["model"], other[place]["model"])
        assert one[place]["epoch"] == EPOCHS
    alone, resumed = one
    steps = len(alone["batches"]) - len(resumed["batches"])
    epoch, step = SAVED_AFTER
    assert steps == epoch * STEPS + (step if framework == "accelerate" else STEPS)
    assert alone["batches"][steps:] == resumed["batches"]
    assert_same_bits(alone["state"], resumed["state"])
    assert_same_bits(alone["model"], resumed["model"])


def test_they_are_one_process_on_the_joined_batches(outcome):
    framework, (one, other) = outcome
    plain, model = callback("reweight"), network()
    x, labels = digits()
    optimizer = sgd(model)
    batches = list(zip(one[0]["batches"], other[0]["batches"], strict=True))
    assert len(batches) == EPOCHS * STEPS
    for step, pair in enumerate(batches, 1):
        rows = torch.tensor([row for share in pair for row in share])
        logits = model(x[rows])
        weights = plain.update(logits, labels[rows], rows)
        sizes = [len(share) for share in pair]
        parts = zip(logits.split(sizes), labels[rows].split(sizes), weights.split(sizes), strict=True)
        # Each rank takes the weighted mean of its share, and the gradients of both are averaged.
        (sum(weighted_mean_loss(*part) for part in parts) / 2).backward()
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
    _, (one, other) = outcome
    batches = zip(one[0]["batches"], other[0]["batches"], strict=True)
    rows = [row for pair in batches for share in pair for row in share]
    assert len(rows) > EPOCHS * (ROWS - 1)  # some came twice
    assert one[0]["statistics"]["count"].tolist() == [EPOCHS] * (ROWS - 1) + [0]
    assert one[0]["rejected"] == dict.fromkeys(one[0]["rejected"], 0)
