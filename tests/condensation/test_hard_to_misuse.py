"""Mistakes that once gave a wrong result without a word."""

import numpy as np
import pytest
import torch
from torch import nn

from condensation.coresets import Craig, Forgetting, GradientNorm
from condensation.coresets.base import Chosen
from condensation.coresets.forgetting import statistics_of
from condensation.coresets.repicking import Repicking
from condensation.evaluate import EvalSettings, evaluate
from condensation.evaluate.ensemble import stackable
from condensation.greedy import facility_location
from lossbuf import LossBufferCallback, LossBufferWarning

pytestmark = pytest.mark.usefixtures("no_shape_checks")


def table(rows=40):
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(rows) % 2


def test_one_row_far_out_is_told():
    x = np.random.default_rng(0).normal(size=(400, 4))
    x[-1] = 1e8
    with pytest.warns(LossBufferWarning, match="Row 399 is so much farther out"):
        Craig(ipc=20, features=x).fit(x, np.zeros(400))
    facility_location(torch.from_numpy(x[:-1]), 5)  # and nothing else is
    facility_location(torch.zeros(10, 3), 2)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        (EvalSettings(epochs=30, networks=1, lr=1e10), {}),
        (EvalSettings(epochs=2, networks=1), {"augment": lambda x, _: x * float("nan")}),
    ],
)
def test_a_network_that_diverged_has_no_accuracy(settings, more):
    x, y = table()
    with pytest.raises(ValueError, match=r"`network` must give finite logits"):
        evaluate(x, y, x, y, settings=settings, **more)


def test_what_is_finite_in_float64_only():
    x, y = table()
    with pytest.raises(ValueError, match="`test_x` must be finite"):
        evaluate(x, y, x.double() * 1e60, y, settings=EvalSettings(epochs=1, networks=1))


def test_batch_norm_without_running_statistics():
    def make(shape, classes):
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, classes))

    x, y = table()
    assert not stackable(make(None, 2))
    with pytest.raises(ValueError, match=r"`network`.*running statistics"):
        evaluate(x, y, x, y, network=make, settings=EvalSettings(epochs=1, networks=1))


@pytest.mark.parametrize("together", [1, 2])
def test_a_factory_that_gives_the_same_network_again(together):
    x, y = table()
    network = nn.Linear(6, 2)
    with pytest.raises(ValueError, match=r"`network` must make a new network"):
        evaluate(x, y, x, y, network=lambda *_: network, together=together, settings=EvalSettings(epochs=1, networks=3))


def test_arrays_are_as_good_as_tensors():
    x, y = table()
    settings = EvalSettings(epochs=3, networks=1)
    expected = evaluate(x, y, x, y, weights=torch.ones(40), settings=settings).accuracies
    assert evaluate(x.numpy(), y.numpy(), x.numpy(), y.numpy(), weights=np.ones(40), settings=settings).accuracies == (
        expected
    )


def statistics(seen=6):
    callback = LossBufferCallback(torch.arange(6) % 2, rank_by="aum")
    rows = torch.arange(seen)
    callback.update(torch.randn(seen, 2, generator=torch.Generator().manual_seed(0)), rows % 2, rows)
    callback.end_epoch()
    return callback.statistics()


def test_statistics_of_a_mask_and_of_what_is_none():
    mask = np.array([True, False, False, True, False, True])
    found, expected = statistics_of(statistics(), mask), statistics_of(statistics(), [0, 3, 5])
    assert torch.equal(found.label_loss, expected.label_loss)
    for rows in ([True, False], [0.5, 1.0], [[0, 1]], [-1], [6]):
        with pytest.raises(ValueError, match="`rows`"):
            statistics_of(statistics(), rows)


def test_rows_that_no_training_saw():
    x, y = np.arange(6.0)[:, None], np.arange(6) % 2
    with pytest.warns(LossBufferWarning, match="4 of the 6 rows chosen were never seen"):
        Forgetting(ipc=3, statistics=statistics(seen=2)).fit(x, y)
    with pytest.raises(ValueError, match=r"`statistics`.*saw the rows"):
        Forgetting(ipc=1, statistics=statistics(seen=0)).fit(x, y)
    with pytest.raises(ValueError, match=r"`norms`.*saw the rows"):
        GradientNorm(ipc=1, norms=np.full(6, np.nan)).fit(x, y)
    with pytest.raises(ValueError, match=r"`statistics` must be what"):
        Forgetting(ipc=1, statistics={"count": 3}).fit(x, y)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0]])
def test_a_pick_of_no_weight(weights):
    repicking = Repicking(
        torch.arange(6) % 2, pick=lambda *_: Chosen(torch.tensor([1, 2]), torch.tensor(weights)), start=1
    )
    repicking.loss(torch.zeros(6, 2), torch.arange(6) % 2, torch.arange(6))
    with pytest.raises(ValueError, match="`pick`"):
        repicking.end_epoch()
    assert repicking.chosen is None


def test_shares_are_rounded_as_everywhere():
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] + [3] * 7)
    assert Repicking(labels, pick=lambda *_: Chosen(labels[:1])).counts == [3, 2, 1, 4]
