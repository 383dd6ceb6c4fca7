"""Several rankings made one, and where a verdict uses them."""

import numpy as np
import pytest
import torch

from lossbuf import LossBufferCallback, noise
from lossbuf.detection.consensus import BESIDE_POSTERIOR, INSTEAD_OF_POSTERIOR, in_order_of, mean_place
from lossbuf.detection.verdict import by_posterior
from lossbuf.recording.sample_statistics import SUSPICIONS
from lossbuf.recording.scores import suspicion_order
from tests.reference import consensus as reference

NAN = float("nan")


def rankings(size, count, seed=0):
    """With ties, and the same rows never seen in all."""
    draws = np.random.default_rng(seed)
    values = draws.normal(size=(count, size)).round(1).astype(np.float32)
    values[:, draws.random(size) < 0.2] = NAN
    return values


@pytest.mark.parametrize("size", [1, 2, 7, 60])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_mean_places_match_counting(size, count):
    values = rankings(size, count)
    expected = reference.mean_place(values.tolist())
    np.testing.assert_allclose(mean_place(list(values)), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_values_are_dealt_as_by_hand(size):
    values, places, ties = rankings(size, 3)
    ties = np.nan_to_num(ties)
    found = in_order_of(values, places.round(), ties)
    np.testing.assert_array_equal(
        found, np.float32(reference.in_order_of(values.tolist(), places.round().tolist(), ties.tolist()))
    )
    np.testing.assert_array_equal(np.sort(found), np.sort(values))


def test_a_ranking_alone_keeps_its_order():
    values = rankings(50, 1)[0]
    ties = np.zeros(50, dtype=np.float32)
    order = suspicion_order(in_order_of(values, mean_place([values]), ties), ties)
    assert order.tolist() == suspicion_order(values, ties).tolist()


@pytest.mark.parametrize(("bad", "got"), [([], "none"), ([[1.0], [1.0, 2.0]], r"\(1,\), \(2,\)"), ([[[1.0]]], "")])
def test_other_shapes_are_refused(bad, got):
    with pytest.raises(ValueError, match=rf"`rankings` must be of one shape \(n_samples,\), got {got}"):
        mean_place(bad)


def trained(matrix, mode, epochs=6, size=600):
    """A callback that saw a network learn labels of that noise, with outputs from a random draw."""
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(size) % len(matrix)
    labels = torch.from_numpy(noise.corrupt(true.numpy(), matrix, 0).labels)
    callback = LossBufferCallback(labels, len(matrix), mode=mode, warmup=3)
    rows = torch.arange(size)
    for _ in range(epochs):
        clear = 4.0 * torch.nn.functional.one_hot(true, len(matrix)) + torch.randn(
            size, len(matrix), generator=generator
        )
        if not callback.posterior.dropping:
            clear = (clear.softmax(1) @ torch.from_numpy(matrix).float()).log()
        callback.update(clear, labels, rows)
        callback.end_epoch()
    return callback


@pytest.mark.parametrize(
    ("matrix", "mode", "beside"),
    [
        (noise.symmetric(4, 0.2), "filter", ("own", "own", *BESIDE_POSTERIOR)),
        (noise.symmetric(4, 0.2), "watch", INSTEAD_OF_POSTERIOR),
        (noise.pair_flip(4, 0.2), "filter", ("own",)),
        (noise.pair_flip(4, 0.2), "watch", ("own",)),
    ],
)
def test_even_noise_is_ranked_by_several_statistics(matrix, mode, beside):
    callback = trained(matrix, mode)
    assert callback.posterior.dropping == (mode == "filter")
    log_odds = callback.posterior.read(callback.dynamics.labels).log_odds.numpy()
    statistics = callback.statistics()
    assert set(beside) - {"own"} <= set(SUSPICIONS)
    parts = [log_odds if name == "own" else statistics.suspicion(name).numpy() for name in beside]
    expected = reference.in_order_of(
        log_odds.tolist(), reference.mean_place([part.tolist() for part in parts]), statistics.label_loss.tolist()
    )
    verdict = callback.verdict()
    np.testing.assert_array_equal(verdict.suspicion, np.float32(expected) if len(beside) > 1 else log_odds)
    assert (verdict.suspicion == log_odds).all() == (len(beside) == 1)


def test_what_is_dropped_while_training_hangs_on_the_posterior_alone():
    callback = trained(noise.symmetric(4, 0.2), "filter")
    reading = callback.posterior.read(callback.dynamics.labels, refine=False)
    training = by_posterior(callback.dynamics, callback.posterior, None, training=True)
    np.testing.assert_array_equal(training.suspicion, reading.log_odds.numpy())
