"""Planted labels against slow references, and in a training."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lossbuf import LossBufferCallback, LossBufferSelector
from lossbuf.detection import planted
from lossbuf.detection.planted import PlantedLabels
from lossbuf.networks import MLP
from lossbuf.noise import corrupt, pair_flip
from lossbuf.recording.mean_outputs import MeanOutputs
from lossbuf.training import TrainSettings, build, train
from tests.reference import planted as reference

NAN = float("nan")


def recorded(probs, usable=None):
    outputs = MeanOutputs(*probs.shape)
    seen = torch.ones(len(probs), dtype=torch.bool) if usable is None else usable
    outputs.record(torch.arange(len(probs)), seen, probs.log())
    return outputs


def sown(n_samples=600, share=0.1, seed=0, classes=4, noise_rate=0.0):
    """Planted labels on confident outputs, with the labels' noise of one's own choice."""
    true = torch.arange(n_samples) % classes
    labels = torch.from_numpy(corrupt(true.numpy(), pair_flip(classes, noise_rate), random_state=0).labels)
    outputs = torch.full((n_samples, classes), 0.02).scatter_(1, true.unsqueeze(1), 1 - 0.02 * (classes - 1))
    plants = PlantedLabels(n_samples, share, after=1, seed=seed)
    plants.sow(recorded(outputs), labels)
    return plants, labels, true


@pytest.mark.parametrize("size", [1, 2, 30])
@pytest.mark.parametrize("levels", [2, 1000])
def test_readings_match_the_slow_ones(size, levels):
    rng = np.random.default_rng(size * levels)
    suspicion = rng.integers(levels, size=size).astype(float)
    suspicion[rng.random(size) < 0.2] = NAN
    plants = rng.integers(levels, size=max(1, size // 3)).astype(float) + 1
    for rate in (0.0, 0.3, 1.0):
        found = planted.false_discovery(suspicion, plants, rate)
        expected = reference.false_discovery(suspicion, plants, rate)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    expected = reference.noise_rate(suspicion, plants, planted.LEAST_FOUND)
    np.testing.assert_allclose(planted.noise_rate(suspicion, plants), expected, rtol=1e-12)


def test_the_rate_of_a_clear_ranking_is_found():
    rng = np.random.default_rng(0)
    suspicion = np.concatenate([rng.normal(3, 1, 3000), rng.normal(-3, 1, 7000)])
    assert abs(planted.noise_rate(suspicion, rng.normal(3, 1, 1000)) - 0.3) < 0.02


def test_rows_and_labels_are_drawn_as_wrong_labels_come():
    plants, labels, true = sown(noise_rate=0.3)
    assert len(plants.rows) == 60
    assert len(plants.rows.unique()) == 60
    assert torch.equal(plants.own, labels[plants.rows])
    assert bool((plants.labels != plants.own).all())
    right_before = plants.own == true[plants.rows]
    nxt = (true[plants.rows] + 1) % 4
    assert (plants.labels == nxt)[right_before].float().mean() > 0.9


def test_a_seed_decides_the_draw():
    first, again, other = sown(seed=1)[0], sown(seed=1)[0], sown(seed=2)[0]
    assert torch.equal(first.rows, again.rows)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.rows, other.rows)


def test_rows_not_seen_are_not_planted_on():
    plants = PlantedLabels(40, 0.25, after=1, seed=0)
    usable = torch.arange(40) < 12
    labels = torch.arange(40) % 3
    plants.sow(recorded(F.one_hot(labels, 3).float() * 0.85 + 0.05, usable), labels)
    assert int(plants.rows.max()) < 12
    assert plants.sown


@pytest.mark.parametrize(("seen", "classes"), [(9, 3), (40, 2)])
def test_nothing_is_planted_where_it_cannot_be(seen, classes):
    plants = PlantedLabels(40, 0.25, after=1, seed=0)
    labels = torch.arange(40) % classes
    plants.sow(recorded(F.one_hot(labels, classes).float() * 0.7 + 0.1, torch.arange(40) < seen), labels)
    assert not plants.sown
    assert torch.equal(plants.trained_on(labels, torch.arange(40)), labels)
    assert torch.equal(plants.all_labels(labels), labels)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_the_labels_of_a_batch(dtype):
    plants, labels, _ = sown()
    expected = labels.clone()
    expected[plants.rows] = plants.labels
    assert torch.equal(plants.all_labels(labels), expected)
    rows = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    batch = plants.trained_on(labels[rows].to(dtype), rows)
    assert batch.dtype == dtype
    assert torch.equal(batch.long(), expected[rows])
    assert plants.trained_on(labels[:1], torch.tensor([-1])).shape == (1,)  # counted as a fault later, not lost here


def test_what_was_planted_is_taken_out_of_the_matrix():
    plants, labels, true = sown(n_samples=4000, share=0.05, noise_rate=0.3)
    trained = plants.all_labels(labels)
    counted = torch.zeros(4, 4, dtype=torch.float64)
    counted.index_put_((true, trained), torch.ones(4000, dtype=torch.float64), accumulate=True)
    with_planted = counted / counted.sum(1, keepdim=True)
    plain = torch.zeros(4, 4, dtype=torch.float64)
    plain.index_put_((true, labels), torch.ones(4000, dtype=torch.float64), accumulate=True)
    plain = plain / plain.sum(1, keepdim=True)
    before, after = (with_planted - plain).abs().max(), (plants.removed(with_planted, labels) - plain).abs().max()
    assert before > 0.03
    assert after < before / 2
    assert plants.rate_without(0.05 + 0.95 * 0.2) == pytest.approx(0.2)
    assert plants.rate_without(0.01) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"planted": 1.0}, "`planted`"),
        ({"planted": -0.1}, "`planted`"),
        ({"planted": 0.001}, "at least one"),
        ({"planted": 0.1, "rank_by": "aum"}, "rank_by"),
        ({"planted": 0.1, "warmup": 1}, "warmup"),
        ({"planted": 0.1, "planted_seed": -1}, "planted_seed"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LossBufferCallback(torch.arange(30) % 3, **settings)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(("plants", "rate", "name"), [([], 0.1, "planted"), ([1.0], 2.0, "noise_rate")])
def test_bad_values(plants, rate, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        planted.false_discovery([1.0], plants, rate)


def blobs(n_samples=900, classes=3):
    rng = np.random.default_rng(0)
    true = np.arange(n_samples) % classes
    x = rng.normal(0, 0.6, (n_samples, classes)) + 2 * np.eye(classes)[true]
    labels = corrupt(true, pair_flip(classes, 0.2), random_state=0).labels
    return torch.from_numpy(x).float(), torch.from_numpy(labels), true


def trained(callback, x, labels, epochs=8, **more):
    settings = TrainSettings(epochs=epochs, batch_size=64, lr=0.05, seed=0, device="cpu")
    network = build(lambda: MLP(x.shape[1], 3, (32,)), settings)
    train(network, x, labels, settings, callback=callback, **more)
    return network


def test_a_training_trains_on_the_planted_labels_and_gives_them_back():
    x, labels, true = blobs()
    callback = LossBufferCallback(labels, mode="filter", warmup=4, planted=0.1)
    trained(callback, x, labels)
    plants = callback.planted
    assert plants is not None
    assert plants.sown
    rows = plants.rows
    logits = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(0))
    weights = callback.sample_weights[rows]
    expected = (F.cross_entropy(logits, plants.labels, reduction="none") * weights).sum() / weights.sum().clamp(min=1)
    torch.testing.assert_close(callback.loss(logits, labels[rows], rows), expected)
    assert callback.rejected()["other_label"] == 0

    verdict = callback.verdict()
    check = verdict.planted
    assert check is not None
    assert check.found > 0.8
    assert 0 < check.found_error < 0.1
    np.testing.assert_array_equal(check.rows, rows.numpy())
    np.testing.assert_allclose(check.found, (check.suspicion >= verdict.cut.threshold).mean())
    wrong = labels.numpy() != true
    own = wrong[rows.numpy()]
    suspicion = verdict.suspicion[rows.numpy()]
    assert suspicion[own].min() > np.quantile(suspicion[~own], 0.9)  # judged by their own labels
    assert abs(verdict.noise_rate - wrong.mean()) < 0.03
    assert verdict.noise_rates is not None
    first, second, by_planting = verdict.noise_rates
    assert abs(by_planting - wrong.mean()) < 0.06
    assert verdict.noise_rate == pytest.approx(((first + second) / 2 + by_planting) / 2, abs=0.01)
    right = verdict.suggested(labels.numpy())[wrong & verdict.suspect_mask] == true[wrong & verdict.suspect_mask]
    assert right.mean() > 0.9


def test_nothing_planted_changes_nothing():
    x, labels, _ = blobs()
    plain, empty = LossBufferCallback(labels, mode="filter"), LossBufferCallback(labels, mode="filter", planted=0.0)
    networks = [trained(callback, x, labels) for callback in (plain, empty)]
    assert empty.planted is None
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert plain.verdict().planted is None


def test_a_saved_state_goes_on(tmp_path):
    x, labels, _ = blobs()
    whole = LossBufferCallback(labels, mode="filter", warmup=4, planted=0.1)
    network = trained(whole, x, labels)

    def stop(_):
        raise KeyboardInterrupt

    def at(epoch):
        calls = []
        return lambda net: calls.append(0) or (stop(net) if len(calls) > epoch else None)

    halves = LossBufferCallback(labels, mode="filter", warmup=4, planted=0.1)
    with pytest.raises(KeyboardInterrupt):
        trained(halves, x, labels, checkpoint=tmp_path / "run.pt", after_epoch=at(3))
    again = LossBufferCallback(labels, mode="filter", warmup=4, planted=0.1)
    resumed = trained(again, x, labels, checkpoint=tmp_path / "run.pt")
    for one, other in zip(network.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    np.testing.assert_array_equal(whole.verdict().suspicion, again.verdict().suspicion)

    for other in ({"planted": 0.2}, {"planted": 0.1, "planted_seed": 1}, {}):
        callback = LossBufferCallback(labels, mode="filter", warmup=4, **other)
        with pytest.raises(ValueError, match="planted"):
            callback.load_state_dict(whole.state_dict())
        with pytest.raises(ValueError, match="planted"):
            trained(callback, x, labels, checkpoint=tmp_path / "run.pt")


def test_ids_and_a_process_of_strings():
    x, labels, _ = blobs(n_samples=300)
    names = [f"row {row}" for row in range(300)]
    by_name = LossBufferCallback(labels, ids=names, warmup=2, planted=0.1)
    by_row = LossBufferCallback(labels, warmup=2, planted=0.1)
    network = MLP(3, 3, (8,))
    for _ in range(3):
        for start in range(0, 300, 64):
            rows = list(range(start, min(start + 64, 300)))
            logits = network(x[rows])
            first = by_name.loss(logits, labels[rows], [names[row] for row in rows])
            second = by_row.loss(logits, labels[rows], torch.tensor(rows))
            assert torch.equal(first, second)
        by_name.end_epoch()
        by_row.end_epoch()
    assert by_row.planted is not None
    assert by_row.planted.sown


@pytest.mark.parametrize(("planted_share", "count"), [(0.05, 45), (0.0, 0)])
def test_the_selector_hands_it_on(planted_share, count):
    x, labels, _ = blobs()
    selector = LossBufferSelector(epochs=6, random_state=0, device="cpu", planted=planted_share)
    selector.fit(x.numpy(), labels.numpy())
    plants = selector.callback_.planted
    assert (0 if plants is None else len(plants.rows)) == count
    assert (selector.planted_found_ is None) == (count == 0)
    assert selector.planted_found_ is None or selector.planted_found_ > 0.7


def test_where_planting_tells_no_rate_the_posteriors_is_without_what_was_planted(monkeypatch):
    x, labels, true = blobs()
    callback = LossBufferCallback(labels, mode="filter", warmup=4, planted=0.1)
    trained(callback, x, labels)
    monkeypatch.setattr("lossbuf.detection.verdict.rate_by_planting", lambda *_: NAN)
    verdict = callback.verdict()
    assert verdict.noise_rates is not None
    assert len(verdict.noise_rates) == 2
    assert verdict.noise_rate == pytest.approx((verdict.suspicion > 0).mean(), abs=1e-9)
    assert abs(verdict.noise_rate - sum(verdict.noise_rates) / 2) < 0.02
    assert abs(verdict.noise_rate - (labels.numpy() != true).mean()) < 0.05
