"""``LossBufferCallback`` from end to end against the composed slow versions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lossbuf import Cut, LossBufferCallback, LossBufferWarning
from lossbuf.recording.sample_statistics import SUSPICIONS
from tests.reference.callback import Callback as Reference
from tests.reference.scores import suspicion_order
from tests.states import assert_same_bits, kept

N_SAMPLES = 40


class Run:
    """A callback and its slow twin, given the same steps."""

    def __init__(self, num_classes, device, generator, *, n_samples=N_SAMPLES, window=10, capacity=12, **settings):
        self.labels = torch.randint(num_classes, (n_samples,), generator=generator)
        self.fast = LossBufferCallback(self.labels, num_classes, window=window, **settings).to(device)
        self.fast.stage.capacity = capacity
        self.slow = Reference(self.labels.tolist(), num_classes, window, capacity)
        self.num_classes, self.device, self.generator = num_classes, device, generator

    def step(self, rows, method="update"):
        """One batch of drawn logits, most of them right."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        labels = self.labels[rows]
        logits = 2 * torch.randn(len(rows), self.num_classes, generator=self.generator)
        logits += F.one_hot(labels, self.num_classes)
        self.slow.update(logits.tolist(), labels.tolist(), rows.tolist())
        names = rows.to(self.device) if self.fast.ids is None else [self.fast.ids[row] for row in rows.tolist()]
        return getattr(self.fast, method)(logits.to(self.device), labels.to(self.device), names)

    def epochs(self, number, batch):
        """Passes over all rows in a drawn order."""
        size = len(self.labels)
        for _ in range(number):
            order = torch.randperm(size, generator=self.generator)
            for start in range(0, size, batch):
                self.step(order[start : start + batch])
            self.end_epoch()

    def end_epoch(self):
        """End it in both."""
        self.fast.end_epoch()
        self.slow.end_epoch()

    def assert_match(self):
        """Rings and statistics agree."""
        found, expected = vars(self.fast.statistics()), self.slow.dynamics.statistics()
        for name in ("label_loss", "predicted_loss", "predicted_class_loss"):
            ring, deques = getattr(self.fast.rings, name), getattr(self.slow.rings, name)
            assert ring.seen[:-1].tolist() == deques.seen
            for label, row in enumerate(deques.rows):
                assert ring.values(label).tolist() == pytest.approx(list(row), rel=1e-5, abs=1e-5)
        exact = torch.tensor(self.slow.dynamics.tracked())
        for name, value in found.items():
            value, wanted = value.cpu(), torch.tensor(expected[name])
            if name in ("most_frequent", "other_class"):
                value, wanted = value[exact], wanted[exact]
            if value.is_floating_point():
                torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)
            else:
                assert value.tolist() == wanted.tolist(), name


@pytest.mark.parametrize("batch", [1, 5, 12, 30, 40])
@pytest.mark.parametrize("window", [1, 4, 100])
@pytest.mark.parametrize("num_classes", [1, 2, 70])
def test_matches_the_slow_versions(batch, window, num_classes, device, generator):
    run = Run(num_classes, device, generator, window=window)
    run.epochs(3, batch)
    run.assert_match()


def test_block_of_its_own_size(device, generator):
    run = Run(3, device, generator, capacity=16384)
    assert run.fast.stage.capacity == LossBufferCallback([0], 3).stage.capacity
    run.epochs(2, 7)
    run.assert_match()


@pytest.mark.parametrize("n_samples", [1, 2])
def test_hardly_any_samples(n_samples, device, generator):
    run = Run(2, device, generator, n_samples=n_samples)
    run.epochs(3, 1)
    run.assert_match()
    assert len(run.fast.report()) == n_samples
    assert run.fast.weights().shape == (n_samples,)


def test_steps_of_changing_size(device, generator):
    run = Run(3, device, generator)
    for _ in range(2):
        for size in (0, 1, 13, 4, 4, 4, 0, 4, 12, 29, 3):
            run.step(torch.randint(N_SAMPLES, (size,), generator=generator))
        run.end_epoch()
    run.assert_match()


def test_only_empty_batches(device, generator):
    run = Run(3, device, generator)
    assert run.step([]).shape == (0,)
    run.end_epoch()
    run.assert_match()
    assert run.fast.epoch == 1
    with pytest.warns(LossBufferWarning, match="No sample was seen yet, so nothing is known"):
        assert run.fast.select().tolist() == list(range(N_SAMPLES))


def test_class_without_samples(device, generator):
    run = Run(4, device, generator)
    keep = run.labels != 2
    run.labels = run.labels[keep]
    run.fast = LossBufferCallback(run.labels, 4, window=10).to(device)
    run.slow = Reference(run.labels.tolist(), 4, 10, run.fast.stage.capacity)
    run.epochs(2, 9)
    run.assert_match()
    assert run.fast.rings.label_loss.mean().isnan().tolist() == [False, False, True, False]


def test_statistics_in_the_middle_of_an_epoch(device, generator):
    run = Run(3, device, generator)
    run.epochs(1, 10)
    run.step(range(7))
    run.slow.flush()  # to read is to digest what there is
    run.assert_match()
    run.step(range(5, 30))
    run.end_epoch()
    run.assert_match()


# ---- loss and weights -----------------------------------------------------------------------------------------------


def _batch(callback, generator, size=6):
    rows = torch.randperm(callback.n_samples, generator=generator)[:size]
    logits = torch.randn(size, callback.num_classes, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, callback.dynamics.labels.cpu()[rows], rows


def _by_hand(logits, labels, weights):
    """Weighted mean cross-entropy and its gradient, in loops."""
    total, loss, gradient = max(sum(weights), 1e-6), 0.0, []
    for row, label, weight in zip(logits.tolist(), labels.tolist(), weights, strict=True):
        scale = math.fsum(math.exp(value) for value in row)
        loss += weight * (math.log(scale) - row[label]) / total
        gradient.append([weight * (math.exp(v) / scale - (one == label)) / total for one, v in enumerate(row)])
    return loss, gradient


@pytest.mark.parametrize("mode", ["watch", "filter", "reweight"])
@pytest.mark.parametrize("epochs", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 6, 30])
def test_loss_and_gradient_by_hand(mode, epochs, size, generator):
    run = Run(3, "cpu", generator, mode=mode, warmup=2, rank_by="score2", noise_rate=0.3)
    run.epochs(epochs, 8)
    logits, labels, rows = _batch(run.fast, generator, size)
    weights = run.fast.sample_weights[rows].tolist()
    if mode == "watch" or epochs < 2:
        assert weights == [1.0] * size
    elif size == 30:
        assert min(weights) < 0.5
    loss = run.fast.loss(logits, labels, rows)
    loss.backward()
    expected, gradient = _by_hand(logits, labels, weights)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(logits.grad, torch.tensor(gradient, dtype=torch.float64), rtol=1e-5, atol=1e-7)


def test_forward_is_loss(device, generator):
    run = Run(3, device, generator)
    logits, labels, rows = (part.detach().to(device) for part in _batch(run.fast, generator))
    assert run.fast(logits, labels, rows).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    assert run.fast.stage.filled == 6


@pytest.mark.parametrize("mode", ["watch", "filter"])
def test_loss_of_an_empty_batch(mode, device):
    callback = LossBufferCallback([0, 1], mode=mode).to(device)
    logits = torch.zeros(0, 2, device=device, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64, device=device)
    loss = callback.loss(logits, nothing, nothing)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.shape == (0, 2)


def test_loss_where_all_weights_are_gone(device, generator):
    run = Run(3, device, generator, mode="filter", warmup=1, rank_by="score2", noise_rate=1.0)
    run.epochs(1, 8)
    logits, labels, rows = (part.detach().to(device) for part in _batch(run.fast, generator))
    loss = run.fast.loss(logits.requires_grad_(), labels, rows)
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()


@pytest.mark.parametrize("warmup", [1, 3])
def test_filter_gives_suspects_weight_zero_after_the_warm_up(warmup, device, generator):
    run = Run(3, device, generator, mode="filter", warmup=warmup, rank_by="score2", noise_rate=0.25)
    for epoch in range(1, 5):
        run.epochs(1, 8)
        weights = run.step(range(N_SAMPLES)).cpu()
        run.fast.stage.take()  # as if the step had not been made
        run.slow.block = []
        if epoch < warmup:
            assert weights.tolist() == [1.0] * N_SAMPLES
        else:
            expected = np.ones(N_SAMPLES)
            expected[_suspects(run, 0.25)] = 0.0
            assert weights.tolist() == expected.tolist()


def test_reweight_gives_soft_weights(device, generator):
    run = Run(3, device, generator, mode="reweight", warmup=1, rank_by="score2", noise_rate=0.25)
    run.epochs(2, 8)
    weights = run.fast.update(
        torch.zeros(N_SAMPLES, 3, device=device), run.labels.to(device), torch.arange(N_SAMPLES, device=device)
    )
    run.fast.stage.take()
    assert weights.cpu().tolist() == pytest.approx(_soft_weights(run, 0.25), abs=1e-3)
    assert weights.cpu().tolist() == run.fast.weights().tolist()


def _suspects(run, rate):
    """The rows that the slow version would cut off."""
    found = run.slow.dynamics.statistics()
    return suspicion_order(found["score2"], found["label_loss"])[: round(rate * len(run.labels))]


def _soft_weights(run, rate):
    suspicion, chosen = run.slow.dynamics.statistics()["score2"], set(_suspects(run, rate))
    suspects = [suspicion[row] for row in chosen]
    others = [value for row, value in enumerate(suspicion) if row not in chosen]
    width = (np.median(suspects) - np.median(others)) / 8
    return [1 / (1 + math.exp((value - min(suspects)) / width)) for value in suspicion]


# ---- results --------------------------------------------------------------------------------------------------------

_FIRST = ["id", "given_label", "suggested_label", "is_suspect"]
_STATISTICS = [name for name in vars(LossBufferCallback([0]).statistics()) if name != "other_class"]


@pytest.mark.parametrize("ids", [None, [f"image-{row}" for row in range(N_SAMPLES)]])
def test_report(ids, device, generator):
    run = Run(3, device, generator, ids=ids, rank_by="score2", noise_rate=0.25)
    for _ in range(3):
        for start in range(0, N_SAMPLES - 3, 8):  # the last three are never seen
            run.step(range(start, min(start + 8, N_SAMPLES - 3)))
        run.end_epoch()
    run.assert_match()
    table, found = run.fast.report(), run.slow.dynamics.statistics()
    assert list(table.columns) == _FIRST + _STATISTICS
    order = suspicion_order(found["score2"], found["label_loss"])
    assert table.index.tolist() == order
    assert table.index[-3:].tolist() == [N_SAMPLES - 3, N_SAMPLES - 2, N_SAMPLES - 1]
    assert table["id"].tolist() == [row if ids is None else ids[row] for row in order]
    assert table["given_label"].tolist() == [run.labels[row].item() for row in order]
    suspects = order[: round(0.25 * (N_SAMPLES - 3))]
    assert table["is_suspect"].tolist() == [row in suspects for row in order]
    for row, suggested in table["suggested_label"].items():
        other = found["other_class"][row] if row in suspects else -1
        assert suggested == (other if other >= 0 else run.labels[row].item())
    for name in _STATISTICS:
        expected = [found[name][row] for row in order]
        np.testing.assert_allclose(table[name].to_numpy(dtype=float), expected, rtol=1e-4, atol=1e-4)
    assert run.fast.select().tolist() == [row for row in range(N_SAMPLES) if row not in suspects]


def test_report_changes_nothing_between_epochs(generator):
    run = Run(3, "cpu", generator)
    run.epochs(2, 8)
    before = kept(run.fast)
    assert run.fast.report().equals(run.fast.report())
    run.fast.weights()
    assert_same_bits(kept(run.fast), before)


@pytest.mark.parametrize("score", SUSPICIONS)
def test_every_score_ranks_the_report(score, generator):
    run = Run(3, "cpu", generator, rank_by=score, noise_rate=0.2)
    run.epochs(3, 8)
    table = run.fast.report()
    ranked = -table[score] if score in ("aum", "last_margin") else table[score]
    assert ranked.is_monotonic_decreasing
    assert table["is_suspect"].tolist() == [True] * 8 + [False] * (N_SAMPLES - 8)


def test_suspects_that_were_predicted_as_labelled_keep_their_label():
    callback = LossBufferCallback([0, 1], rank_by="label_loss", noise_rate=1.0)
    callback.update(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    callback.end_epoch()
    table = callback.report().sort_index()
    assert table["is_suspect"].tolist() == [True, True]
    assert table["suggested_label"].tolist() == [0, 0]


@pytest.mark.parametrize("rank_by", ["posterior", "score2"])
def test_wrong_labels_are_found(rank_by, device, generator):
    # The network is sure of the true class; a tenth of the labels is wrong.
    true = torch.arange(500) % 5
    labels = true.clone()
    labels[::10] = (true[::10] + 1) % 5
    callback = LossBufferCallback(labels, rank_by=rank_by).to(device)
    for _ in range(3):
        logits = 5 * F.one_hot(true, 5) + torch.randn(500, 5, generator=generator)
        callback.update(logits.to(device), labels.to(device), torch.arange(500, device=device))
        callback.end_epoch()
    assert callback.find_cut().noise_rate == pytest.approx(0.1, abs=0.05)  # of some 50 anchors a class
    table, wrong = callback.report(), list(range(0, 500, 10))
    assert set(table.index[:50]) == set(wrong)
    suspects = table.query("is_suspect")
    assert 25 <= len(suspects) <= 75
    found = suspects.loc[suspects.index.isin(wrong), "suggested_label"]
    assert found.tolist() == true[found.index.tolist()].tolist()


def test_a_cut_of_ones_own(generator):
    def cut(suspicion, tie_break=None):
        return Cut(0.0, 1.0, np.arange(len(suspicion)) < 3)

    run = Run(3, "cpu", generator, cut=cut)
    run.epochs(1, 8)
    assert run.fast.select().tolist() == list(range(3, N_SAMPLES))


# ---- what a step takes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_any_precision(dtype, device, generator):
    logits = torch.randn(6, 3, generator=generator).to(device, dtype)
    labels, rows = torch.arange(6, device=device) % 3, torch.arange(6, device=device)
    found, expected = (LossBufferCallback(labels.cpu()).to(device) for _ in range(2))
    found.update(logits, labels.int(), rows.int())
    expected.update(logits.float(), labels, rows)
    assert_same_bits(vars(found.statistics()), vars(expected.statistics()))


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("make", [list, tuple, np.asarray, torch.as_tensor])
def test_row_numbers_of_any_kind(make, generator):
    callback = LossBufferCallback([0, 1, 0])
    callback.update(torch.zeros(2, 2), torch.tensor([0, 1]), make([2, 1]))
    callback.update(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), [])
    assert callback.statistics().count.tolist() == [0, 1, 1]


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("ids", "given"),
    [
        (["a", "b", "c"], ["c", "a"]),
        ([10, 20, 30], torch.tensor([30, 10])),
        ([10, 20, 30], np.array([30, 10])),
        ([("a", 0), ("a", 1), ("b", 0)], [("b", 0), ("a", 0)]),
    ],
)
def test_ids_of_any_kind(ids, given):
    callback = LossBufferCallback([0, 1, 0], ids=ids)
    callback.update(torch.zeros(2, 2), torch.tensor([0, 0]), given)
    assert callback.statistics().count.tolist() == [1, 0, 1]
    assert callback.report()["id"].tolist() == [ids[row] for row in callback.report().index]


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1], [2]], r"`ids` must be hashable, such as text or numbers, got \[1\]"),
        ("ab", "`ids` must be a sequence of names, one a row, got 'ab'"),
        (5, "`ids` must be a sequence of names"),
    ],
)
def test_ids_that_are_none(ids, message):
    with pytest.raises(ValueError, match=message):
        LossBufferCallback([0, 1], ids=ids)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("given", [[["a"], ["b"]], None, 5, "ab", ["a", "c"]])
def test_steps_with_other_ids_note_nothing(given):
    callback = LossBufferCallback([0, 1], ids=["a", "b"])
    with pytest.raises(ValueError, match="`indices` must be"):
        callback.update(torch.zeros(2, 2), torch.tensor([0, 1]), given)
    assert callback.statistics().count.tolist() == [0, 0]


@pytest.mark.parametrize("rank_by", ["score2", "aum", "posterior"])
def test_large_finite_logits_are_left_out_like_infinite_ones(rank_by, generator):
    labels, rows = torch.arange(200) % 2, torch.arange(200)
    callback = LossBufferCallback(labels, 2, rank_by=rank_by)
    for epoch in range(3):
        logits = torch.randn(200, 2, generator=generator) * 0.01
        logits[rows, labels] += 9
        if epoch == 0:
            logits[0] = torch.tensor([-5e36, 5e36])
        callback.update(logits, labels, rows)
        if epoch == 0:
            with pytest.warns(LossBufferWarning, match="Epoch 1: 1 samples gave logits or losses that are NaN, inf"):
                callback.end_epoch()
        else:
            callback.end_epoch()
    assert callback.rejected()["not_finite"] == 1
    assert np.isfinite(callback.verdict().suspicion).all()


def test_the_step_keeps_no_graph_and_no_reference(generator):
    callback = LossBufferCallback([0, 1])
    logits = torch.randn(2, 2, generator=generator, requires_grad=True)
    before = logits.detach().clone()
    assert not callback.update(logits * 1, torch.tensor([0, 1]), torch.tensor([0, 1])).requires_grad
    staged = callback.stage.state()["logits"]
    with torch.no_grad():
        logits.fill_(9)
    assert torch.equal(callback.stage.state()["logits"], staged)
    assert torch.equal(staged, before)
    assert not staged.requires_grad


def test_state_does_not_grow(generator):
    run = Run(3, "cpu", generator)
    sizes = []
    for _ in range(20):
        run.epochs(1, 9)
        state = kept(run.fast)
        sizes.append({name: part.shape for name, part in state.items() if isinstance(part, torch.Tensor)})
        sizes[-1] |= {name: part.shape for name, part in state["_extra_state"]["stage"].items() if name == "logits"}
    assert sizes[0] == sizes[-1]
