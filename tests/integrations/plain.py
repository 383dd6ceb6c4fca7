"""The plain loop that every framework is compared with, and what both train."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Sampler, TensorDataset

from lossbuf import IndexedDataset, LossBufferCallback
from lossbuf.noise import corrupt, symmetric
from tests.states import assert_same_bits

EPOCHS, BATCH, ROWS = 4, 32, 330
"""Eleven batches an epoch, the last of ten rows."""

STEPS = -(-ROWS // BATCH)
MODES = ("watch", "filter", "reweight")
CLASS_WEIGHT = (1.0, 5.0, 0.2, 1.0, 3.0, 1.0, 0.5, 1.0, 2.0, 1.0)


def digits() -> tuple[Tensor, Tensor]:
    """Images of shape (330, 1, 8, 8), and labels of which a fifth is wrong."""
    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x[:ROWS] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return images, torch.as_tensor(corrupt(y[:ROWS], symmetric(10, 0.2), 0).labels, dtype=torch.int64)


def dataset() -> IndexedDataset:
    """(image, label, row)."""
    return IndexedDataset(TensorDataset(*digits()))


def callback(mode: str = "filter", **settings: Any) -> LossBufferCallback:
    """One that surely drops or weighs something from the third epoch on."""
    return LossBufferCallback(digits()[1], 10, mode=mode, warmup=2, noise_rate=0.2, rank_by="aum", **settings)


def network() -> nn.Sequential:
    """Always the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
        )


def sgd(model: nn.Module) -> torch.optim.SGD:
    """The optimiser of all."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


class EpochOrder(Sampler[int]):
    """An order that depends on the epoch only, so that a resumed run draws that of one left alone."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return ROWS

    def __iter__(self):
        yield from torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch)).tolist()


class RowsSeen:
    """Tells by the images themselves which rows a network was trained on: knows nothing of any row number."""

    def __init__(self, model: nn.Module) -> None:
        self.batches: list[list[int]] = []
        self._row_of = {image.numpy().tobytes(): row for row, image in enumerate(digits()[0])}
        assert len(self._row_of) == ROWS
        model.register_forward_pre_hook(self._look)

    def _look(self, model: nn.Module, inputs: tuple[Tensor]) -> None:
        if model.training:
            self.batches.append([self._row_of[image.numpy().tobytes()] for image in inputs[0].float()])


def plain_loop(
    mine: LossBufferCallback,
    batches: Sequence[Sequence[int]],
    *,
    steps_an_epoch: int = STEPS,
    accumulate: int = 1,
    divide: str = "steps",
    bfloat16: bool = False,
) -> nn.Sequential:
    """Train on the batches given, in that order.

    Args:
        mine: Sees every step.
        batches: Rows of each step, of all epochs.
        steps_an_epoch: An epoch ends with each so many.
        accumulate: Steps of which the gradients are added up; the last ones of an epoch may be fewer.
        divide: Their losses are divided by ``"steps"``, the full number of them, or ``"group"``, that of those there
            are, or by the share of ``"rows"``.
        bfloat16: The network runs under autocast.
    """
    x, labels = digits()
    model = network()
    optimizer = sgd(model)
    for start in range(0, len(batches), steps_an_epoch):
        epoch = batches[start : start + steps_an_epoch]
        for place in range(0, len(epoch), accumulate):
            group = epoch[place : place + accumulate]
            for rows in map(torch.tensor, group):
                with torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext():
                    logits = model(x[rows])
                loss = mine.loss(logits.float(), labels[rows], rows)
                if divide == "rows":
                    (loss * (len(rows) / sum(map(len, group)))).backward()
                else:
                    (loss / (accumulate if divide == "steps" else len(group))).backward()
            optimizer.step()
            optimizer.zero_grad()
        mine.end_epoch()
    return model


def state_of(mine: LossBufferCallback) -> dict[str, Any]:
    """All that a callback holds."""
    return dict(mine.state_dict())


def assert_same(mine: LossBufferCallback, other: LossBufferCallback, *models: nn.Module, exact: bool = True) -> None:
    """Reports, selection and weights of two callbacks, and the weights of two networks."""
    assert mine.epoch == other.epoch > 0
    assert mine.rejected() == other.rejected() == dict.fromkeys(mine.rejected(), 0)
    if exact:
        assert_same_bits(state_of(mine), state_of(other))
    reports = [one.report().sort_index() for one in (mine, other)]
    pd.testing.assert_frame_equal(*reports, check_exact=exact, rtol=1e-5, atol=1e-5)
    assert np.array_equal(mine.select(), other.select())
    torch.testing.assert_close(mine.sample_weights, other.sample_weights, rtol=0, atol=0 if exact else 1e-4)
    assert mine.weighted == (mine.mode != "watch")
    if mine.mode != "watch":
        assert (mine.sample_weights < 0.5).sum() > 20  # suspects were dropped
    if models:
        for one, two in zip(*(model.state_dict().values() for model in models), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0 if exact else 1e-5)


def assert_every_row_came_once_an_epoch(batches: Sequence[Sequence[int]], epochs: int = EPOCHS) -> None:
    """The oracle saw what it should have, shuffled, in different orders."""
    flat = [row for rows in batches for row in rows]
    assert len(flat) == epochs * ROWS
    orders = [tuple(flat[start : start + ROWS]) for start in range(0, len(flat), ROWS)]
    assert all(sorted(order) == list(range(ROWS)) for order in orders)
    assert len(set(orders)) == epochs
