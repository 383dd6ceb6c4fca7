"""What no stream takes: batches that are none, several threads, copies."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

from lossbuf.streams import LossBufferStream
from tests.streams.simulated import rows_of


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("logits", "labels", "ids", "message"),
    [
        (np.zeros((2, 2)), torch.tensor([0, 1]), ["a", "b"], "`logits` must be a tensor, got ndarray"),
        (torch.zeros(2, 2), [0, 1], ["a", "b"], "`labels` must be a tensor, got list"),
        (
            torch.zeros(2, 2, device="meta"),
            torch.tensor([0, 1]),
            ["a", "b"],
            "`logits` must lie where there are values",
        ),
        (torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0, 1], device="meta"), "`ids` must lie on cpu"),
        (torch.zeros(2, 2).to(torch.float8_e5m2), torch.tensor([0, 1]), ["a", "b"], "`logits` must be floating point"),
    ],
)
def test_batches_that_are_none(tmp_path, logits, labels, ids, message):
    with LossBufferStream(2, tmp_path) as stream:
        for method in (stream.update, stream.loss):
            with pytest.raises(ValueError, match=message):
                method(logits, labels, ids)
        stream.update(torch.zeros(2, 2), torch.tensor([0, 1]), ["c", "d"])
    assert rows_of(tmp_path)["id"].tolist() == ["c", "d"]


def test_one_thread_at_a_time(tmp_path, monkeypatch):
    stream, inside, go = LossBufferStream(2, tmp_path), threading.Event(), threading.Event()
    add = stream.stage.add

    def slow(*batch):
        inside.set()
        go.wait(60)
        add(*batch)

    monkeypatch.setattr(stream.stage, "add", slow)
    other = threading.Thread(target=stream.update, args=(torch.zeros(1, 2), torch.tensor([0]), ["a"]))
    other.start()
    inside.wait(60)
    for call in (stream.flush, stream.end_epoch, lambda: stream.update(torch.zeros(1, 2), torch.tensor([0]), ["b"])):
        with pytest.raises(ValueError, match="`stream` must be called by one thread at a time"):
            call()
    go.set()
    other.join()
    stream.update(torch.zeros(1, 2), torch.tensor([0]), ["c"])
    stream.close()
    assert rows_of(tmp_path)["id"].tolist() == ["a", "c"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(tmp_path, copied):
    with LossBufferStream(2, tmp_path) as stream, pytest.raises(TypeError, match="`stream` must not be copied or pick"):
        copied(stream)
