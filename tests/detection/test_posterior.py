"""``LabelPosterior``: when the matrix settles, when dropping begins, what is read before and after."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from lossbuf import KnownRate, LossBufferCallback, LossBufferWarning, noise
from lossbuf.detection import transition
from lossbuf.detection.posterior import PURITY, LabelPosterior
from tests.states import assert_same_bits, kept, reloaded

SIZE, NUM_CLASSES = 600, 4


class Simulation:
    """Outputs of a network that learns noisy labels, or, of rows that are dropped, the true ones."""

    def __init__(self, generator, *, matrix=None, clarity=4.0, warmup=2, drops=True, device="cpu"):
        self.generator, self.clarity, self.device, self.epoch = generator, clarity, device, 0
        self.true = torch.arange(SIZE) % NUM_CLASSES
        self.matrix = noise.pair_flip(NUM_CLASSES, 0.3) if matrix is None else matrix
        self.noisy = noise.corrupt(self.true.numpy(), self.matrix, 0)
        self.labels = torch.from_numpy(self.noisy.labels).to(device)
        self.posterior = LabelPosterior(SIZE, NUM_CLASSES, warmup=warmup, drops=drops).to(device)

    def run(self, epochs=1, noise_rate=None):
        for _ in range(epochs):
            draws = torch.randn(SIZE, NUM_CLASSES, generator=self.generator)
            probs = (self.clarity * F.one_hot(self.true, NUM_CLASSES) + draws).softmax(1)
            if not self.posterior.dropping:
                probs = probs @ torch.from_numpy(self.matrix).float()
            rows = torch.arange(SIZE, device=self.device)
            self.posterior.record(rows, rows >= 0, probs.log().to(self.device), self.epoch)
            self.epoch += 1
            dropping = self.posterior.end_epoch(self.epoch, self.labels, noise_rate)
        return dropping


def test_drops_from_the_end_of_the_warm_up(device, generator):
    run = Simulation(generator, warmup=3, device=device)
    assert [run.run() for _ in range(5)] == [False, False, True, True, True]


@pytest.mark.parametrize("drops", [True, False])
def test_the_first_epochs_of_a_record_count_less(drops, device, generator):
    run, totals = Simulation(generator, warmup=3, drops=drops, device=device), []
    for _ in range(7):
        run.run()
        totals.append(run.posterior.outputs.total[0].item())
    assert totals == ([1, 3, 0, 1, 3, 6, 9] if drops else [1, 3, 6, 9, 12, 15, 18])


def test_the_reading_goes_on_from_before_where_nothing_is_recorded_yet(device, generator):
    run = Simulation(generator, device=device)
    run.run()
    run.posterior.record(  # as at the end of the second epoch, before it is ended
        torch.arange(SIZE, device=device),
        torch.ones(SIZE, dtype=torch.bool, device=device),
        torch.zeros(SIZE, NUM_CLASSES, device=device).log_softmax(1),
        1,
    )
    before = run.posterior.read(run.labels)
    run.epoch += 1
    assert run.posterior.end_epoch(2, run.labels)
    after = run.posterior.read(run.labels, refine=False)
    assert_same_bits(after.log_odds, before.log_odds)
    assert_same_bits(after.noise_rate, before.noise_rate)
    assert not run.posterior.outputs.seen.any()


@pytest.mark.parametrize("drops", [True, False])
def test_finds_the_wrong_labels(drops, device, generator):
    run = Simulation(generator, drops=drops, device=device)
    run.run(5)
    reading = run.posterior.read(run.labels)
    found = (reading.log_odds > 0).cpu().numpy()
    assert (found == run.noisy.noise_mask).mean() > 0.98
    assert reading.noise_rate.item() == pytest.approx(run.noisy.noise_mask.mean(), abs=0.03)
    assert (reading.transition.cpu() - torch.from_numpy(run.noisy.transition)).abs().mean() < 0.03
    wrong = torch.from_numpy(run.noisy.noise_mask)
    assert (reading.likely.cpu() == run.true)[wrong].float().mean() > 0.98
    assert not reading.hidden.any()


def test_without_purity_nothing_is_dropped(generator):
    # Outputs that know next to nothing: the rows kept would not be pure.
    run = Simulation(generator, matrix=noise.symmetric(NUM_CLASSES, 0.6), clarity=0.3)
    states = []
    for _ in range(5):
        assert not run.run()
        states.append(run.posterior.settled)
    assert states == [False, True, True, True, True]
    settled = run.posterior.settled_transition.clone()
    run.run()
    assert_same_bits(run.posterior.read(run.labels).transition, settled)


def test_a_known_rate_decides_what_would_be_kept(generator):
    # Of half of the rows, the surest, purity is high; of nearly all it is not.
    high = Simulation(torch.Generator().manual_seed(0), matrix=noise.symmetric(NUM_CLASSES, 0.45), clarity=1.5)
    low = Simulation(torch.Generator().manual_seed(0), matrix=noise.symmetric(NUM_CLASSES, 0.45), clarity=1.5)
    assert high.run(2, noise_rate=0.9)
    assert not low.run(2, noise_rate=0.01)
    right = torch.sigmoid(-low.posterior.read(low.labels).log_odds)
    assert right.mean() < PURITY


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_saved_one_goes_on_with_the_same_bits(epochs, device):
    alone = Simulation(torch.Generator().manual_seed(1), device=device)
    stopped = Simulation(torch.Generator().manual_seed(1), device=device)
    alone.run(5)
    stopped.run(epochs)
    stopped.posterior = reloaded(stopped.posterior, LabelPosterior(SIZE, NUM_CLASSES, warmup=2, drops=True).to(device))
    stopped.run(5 - epochs)
    assert_same_bits(kept(stopped.posterior), kept(alone.posterior))
    assert_same_bits(stopped.posterior.read(stopped.labels)._asdict(), alone.posterior.read(alone.labels)._asdict())


def test_rows_never_seen_have_no_log_odds(generator):
    posterior = LabelPosterior(3, 2, warmup=1, drops=True)
    labels = torch.tensor([0, 1, 0])
    rows = torch.tensor([0, 1])
    posterior.record(rows, rows >= 0, torch.tensor([[-0.1, -2.4], [-2.4, -0.1]]), 0)
    assert posterior.read(labels).log_odds.isnan().tolist() == [False, False, True]
    posterior.end_epoch(1, labels)
    assert posterior.read(labels).log_odds.isnan().tolist() == [False, False, True]


def test_nothing_seen_at_all():
    posterior = LabelPosterior(3, 2, warmup=1, drops=True)
    assert not posterior.end_epoch(1, torch.tensor([0, 1, 0]))
    assert posterior.read(torch.tensor([0, 1, 0])).log_odds.isnan().all()


# ---- through the callback --------------------------------------------------------------------------------------------


def _trained(mode, generator, matrix, clarity=4.0, epochs=4, **settings):
    true = torch.arange(SIZE) % NUM_CLASSES
    noisy = noise.corrupt(true.numpy(), matrix, 0)
    labels = torch.from_numpy(noisy.labels)
    callback = LossBufferCallback(labels, NUM_CLASSES, mode=mode, warmup=2, **settings)
    for _ in range(epochs):
        logits = clarity * F.one_hot(true, NUM_CLASSES) + torch.randn(SIZE, NUM_CLASSES, generator=generator)
        if not (callback.posterior.dropping and mode != "watch"):
            logits = (logits.softmax(1) @ torch.from_numpy(matrix).float()).log()
        for rows in torch.randperm(SIZE, generator=generator).split(64):
            callback.update(logits[rows], labels[rows], rows)
        callback.end_epoch()
    return callback, noisy, true


@pytest.mark.parametrize("mode", ["watch", "filter", "reweight"])
def test_the_callback_finds_them(mode, generator):
    callback, noisy, true = _trained(mode, generator, noise.pair_flip(NUM_CLASSES, 0.3))
    table = callback.report()
    assert (table.sort_index()["is_suspect"].to_numpy() == noisy.noise_mask).mean() > 0.97
    assert table["wrong_probability"].is_monotonic_decreasing
    wrong = table.sort_index()[noisy.noise_mask].query("is_suspect")
    assert (wrong["suggested_label"] == true.numpy()[wrong.index]).mean() > 0.97
    assert callback.find_cut().noise_rate == pytest.approx(noisy.noise_mask.mean(), abs=0.03)
    weights = callback.sample_weights.numpy()
    if mode == "watch":
        assert (weights == 1).all()
    elif mode == "filter":
        assert set(weights) == {0.0, 1.0}
        assert weights[noisy.noise_mask].mean() < 0.1
    else:
        assert weights[noisy.noise_mask].mean() < 0.2 < 0.8 < weights[~noisy.noise_mask].mean()


@pytest.mark.filterwarnings("ignore:The two estimates of the noise rate disagree")
def test_max_fdr_flags_fewer(generator):
    suspects = [
        set(
            np.setdiff1d(
                np.arange(SIZE), _trained("filter", torch.Generator().manual_seed(0), MATRIX, 2.0, **one)[0].select()
            )
        )
        for one in ({"max_fdr": 0.1}, {"max_fdr": 0.2}, {"max_fdr": 0.5})
    ]
    assert suspects[0] < suspects[1] < suspects[2]


MATRIX = noise.symmetric(NUM_CLASSES, 0.3)


def test_every_class_keeps_some_rows(generator):
    # Every row of class 1 looks like one of class 0.
    labels = torch.arange(200) % 2
    callback = LossBufferCallback(labels, mode="filter", warmup=1, noise_rate=None)
    for _ in range(3):
        callback.update(torch.tensor([4.0, 0.0]).repeat(200, 1), labels, torch.arange(200))
        callback.end_epoch()
    with pytest.warns(LossBufferWarning, match="class 1 95% are suspect, where 50% were to be expected"):
        kept_labels = labels[callback.select()]
    assert (kept_labels == 1).sum() >= 5
    assert (callback.sample_weights[labels == 1] > 0).sum() >= 5


def test_a_class_with_most_labels_wrong_is_told(generator):
    matrix = noise.class_dependent(NUM_CLASSES, 0.8, {0: 1})
    callback, _, _ = _trained("watch", generator, matrix)
    with pytest.warns(LossBufferWarning, match="More than half of the labels of true class 0 seem wrong"):
        verdict = callback.verdict()
    assert verdict.hidden.tolist() == [0]
    assert transition.noise_rate(torch.from_numpy(verdict.transition), callback.dynamics.labels) > 0.1


def test_other_rankings_keep_no_outputs():
    callback = LossBufferCallback([0, 1], rank_by="aum")
    assert callback.posterior is None
    with pytest.warns(LossBufferWarning, match="No sample was seen yet"):
        assert callback.verdict().transition is None
    assert "posterior.outputs.sums" not in callback.state_dict()


def test_the_interval_holds_both_estimates(generator):
    callback, noisy, _ = _trained("filter", generator, MATRIX)
    verdict = callback.verdict()
    low, high = verdict.noise_rate_interval
    assert 0 <= low < min(verdict.noise_rates) <= max(verdict.noise_rates) < high <= 1
    assert low < noisy.noise_mask.mean() < high
    assert low <= verdict.cut.noise_rate <= high


def test_error_of_the_rate_is_that_of_counting():
    # Of 75 anchors a class, drawn many times: the deviation of the rate.
    draws, true = np.random.default_rng(0), noise.symmetric(3, 0.4)
    labels = torch.arange(300) % 3
    drawn = [np.stack([draws.multinomial(75, row) / 75 for row in true]) for _ in range(2000)]
    deviation = np.std([1 - np.diag(one).mean() for one in drawn])
    anchored = transition.Anchored(
        torch.from_numpy(true), torch.full((3,), 75.0, dtype=torch.float64), torch.zeros(3, dtype=torch.bool)
    )
    assert anchored.rate_error(labels).item() == pytest.approx(deviation, rel=0.1)


def test_estimates_that_disagree_are_told(generator):
    callback, _, _ = _trained("filter", generator, MATRIX)
    callback.posterior.settled_rate.fill_(0.9)
    with pytest.warns(LossBufferWarning, match=r"disagree: 0\.90 by the most confident rows, 0\.\d\d by all"):
        callback.verdict()


def test_a_large_record_is_told(monkeypatch):
    monkeypatch.setattr("lossbuf.detection.posterior.LARGE", 5)
    with pytest.warns(LossBufferWarning, match="The outputs of 3 rows and 2 classes take"):
        LossBufferCallback([0, 1, 0])
    LossBufferCallback([0, 1, 0], rank_by="aum")


# ---- what reviewers broke --------------------------------------------------------------------------------------------


def test_rows_not_seen_since_dropping_began_keep_what_was_read_before(generator):
    callback, noisy, true = _trained("filter", generator, MATRIX, epochs=2)
    assert callback.posterior.dropping
    verdict = callback.verdict()
    assert (verdict.likely == true.numpy())[noisy.noise_mask].mean() > 0.95
    half = torch.arange(SIZE // 2)
    logits = 4 * F.one_hot(true[half], NUM_CLASSES) + torch.randn(len(half), NUM_CLASSES, generator=generator)
    callback.update(logits, callback.dynamics.labels[half], half)
    assert (callback.verdict().likely == true.numpy())[noisy.noise_mask].mean() > 0.95


def test_classes_never_seen_do_not_dilute_the_rate(generator):
    run = Simulation(generator)
    run.run(2)
    more = torch.cat((run.labels, torch.full((SIZE,), 3)))
    wider = LabelPosterior(2 * SIZE, NUM_CLASSES, warmup=2, drops=False)
    rows = torch.arange(SIZE)
    wider.record(rows, rows >= 0, run.posterior.outputs.probabilities().log(), 0)
    narrow = LabelPosterior(SIZE, NUM_CLASSES, warmup=2, drops=False)
    narrow.record(rows, rows >= 0, run.posterior.outputs.probabilities().log(), 0)
    assert wider.read(more).noise_rate.item() == pytest.approx(narrow.read(run.labels).noise_rate.item(), abs=1e-9)


@pytest.mark.parametrize("num_classes", [10, 100])
def test_clean_labels_of_many_classes(num_classes):
    labels = torch.arange(10 * num_classes) % num_classes
    callback = LossBufferCallback(labels, num_classes, mode="filter", warmup=1)
    for _ in range(3):
        callback.update(8.0 * F.one_hot(labels, num_classes), labels, torch.arange(len(labels)))
        callback.end_epoch()
    verdict = callback.verdict()
    low, high = verdict.noise_rate_interval
    assert low <= verdict.noise_rate <= high
    assert verdict.noise_rate < 0.02
    assert verdict.suspect_mask.mean() < 0.02


def test_a_state_of_another_mode_is_refused(generator):
    state = kept(_trained("filter", generator, MATRIX)[0])
    labels = _trained("watch", generator, MATRIX)[0].dynamics.labels
    for settings, name in (({"mode": "watch"}, "mode"), ({"mode": "filter", "warmup": 3}, "warmup")):
        with pytest.raises(ValueError, match=f"`state_dict` must have {name}"):
            LossBufferCallback(labels, NUM_CLASSES, **{"warmup": 2, **settings}).load_state_dict(state)
    with pytest.raises(ValueError, match="`state_dict` must have rank_by aum, got posterior"):
        LossBufferCallback(labels, NUM_CLASSES, mode="filter", warmup=2, rank_by="aum").load_state_dict(state)


@pytest.mark.filterwarnings("ignore:More than half of the labels")
def test_nothing_dropped_is_told(generator):
    callback, _, _ = _trained("filter", generator, MATRIX, epochs=1)
    with pytest.warns(LossBufferWarning, match="Nothing was dropped yet: the warm-up takes up to 2 epochs, 1 have"):
        callback.report()
    callback, _, _ = _trained("filter", generator, noise.symmetric(NUM_CLASSES, 0.6), clarity=0.3)
    with pytest.warns(LossBufferWarning, match="Nothing was dropped: the rows to keep were expected to be only"):
        callback.select()


def test_epochs_that_do_not_end_are_told(generator):
    callback = LossBufferCallback([0, 1, 0, 1])
    for _ in range(3):
        callback.update(torch.randn(4, 2, generator=generator), torch.tensor([0, 1, 0, 1]), torch.arange(4))
    with pytest.warns(LossBufferWarning, match="12 rows came since the last `end_epoch`, where there are 4"):
        callback.find_cut()


def test_labels_by_position_whatever_the_index():
    labels = pd.Series([0, 1, 2], index=[5, 6, 7])
    assert LossBufferCallback(labels).dynamics.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("cut", ["mixture", KnownRate])
def test_a_cut_that_is_no_rule(cut, no_shape_checks):
    with pytest.raises(ValueError, match="`cut` must be a rule, such as Otsu"):
        LossBufferCallback([0, 1], cut=cut)


def test_max_fdr_suggests_only_what_is_more_likely(generator):
    callback, _, _ = _trained("filter", generator, MATRIX, max_fdr=0.5)
    table = callback.report()
    doubtful = table[table["is_suspect"] & (table["wrong_probability"] < 0.5)]
    assert len(doubtful)
    assert (doubtful["suggested_label"] == doubtful["given_label"]).all()


def test_more_outputs_than_classes_names_the_mend():
    with pytest.raises(ValueError, match=r"must have shape \(batch, 2\), got shape \(1, 5\)\. .*`num_classes=5`"):
        LossBufferCallback([0, 1]).update(torch.zeros(1, 5), torch.tensor([0]), torch.tensor([0]))


def test_default_dtype_does_not_matter():
    torch.set_default_dtype(torch.float64)
    try:
        callback = LossBufferCallback([0, 1])
        callback.update(torch.randn(2, 2), torch.tensor([0, 1]), torch.tensor([0, 1]))
        callback.end_epoch()
        assert callback.dynamics.sums.dtype == torch.float32
        assert len(callback.report()) == 2
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_verdict_shares_no_memory_with_the_state(generator):
    callback, _, _ = _trained("watch", generator, MATRIX)
    before = kept(callback)
    callback.verdict().transition[:] = 9.0
    assert_same_bits(kept(callback), before)
