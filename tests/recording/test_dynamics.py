"""``SampleDynamics`` against every sample's whole history."""

import copy

import pytest
import torch

from lossbuf.recording.dynamics import SampleDynamics
from lossbuf.recording.losses import SampleLosses, sample_losses
from lossbuf.recording.sample_statistics import MAX_CLASSES, SUSPICIONS
from tests.reference import dynamics as reference
from tests.reference.losses import Losses
from tests.states import assert_same_bits, kept, reloaded

_EXACT = {"count", "wrong_count", "forgetting_events", "most_frequent", "other_class", "last_predicted"}


class Pair:
    """The routine and its slow twin, given the same steps."""

    def __init__(self, labels, num_classes, device, generator):
        self.fast, self.slow = SampleDynamics(labels).to(device), reference.SampleDynamics(labels.tolist())
        self.labels, self.num_classes, self.device, self.generator = labels, num_classes, device, generator

    def step(self, rows, usable=None):
        """One batch of drawn logits and class means; the rows of no use claim nothing."""
        rows, size, draw = torch.as_tensor(rows), len(rows), self.generator
        usable = torch.ones(size, dtype=torch.bool) if usable is None else usable
        labels = self.labels[rows]
        losses = sample_losses(3 * torch.randn(size, self.num_classes, generator=draw), labels)
        means = [torch.rand(size, generator=draw) for _ in range(2)]
        fresh = self.fast.claim(rows.to(self.device), usable.to(self.device))
        on_device = SampleLosses(*(part.to(self.device) for part in losses))
        self.fast.record(rows.to(self.device), fresh, on_device, *(mean.to(self.device) for mean in means))
        for place, row in enumerate(rows.tolist()):
            first = bool(usable[place]) and self.slow.claim(row)
            assert fresh[place].item() == first
            if first:
                values = Losses(*(part[place].item() for part in losses))
                self.slow.record(row, values, means[0][place].item(), means[1][place].item())

    def end_epoch(self):
        """End it in both."""
        self.fast.end_epoch()
        self.slow.end_epoch()

    def assert_match(self):
        """All statistics agree, those of the tally where it is exact."""
        found, expected = vars(self.fast.statistics()), self.slow.statistics()
        assert found.keys() == expected.keys()
        exact = torch.tensor(self.slow.tracked())
        for name, value in found.items():
            value, wanted = value.cpu(), torch.tensor(expected[name])
            if name in ("most_frequent", "other_class"):
                value, wanted = value[exact], wanted[exact]
            if name in _EXACT:
                assert value.tolist() == wanted.tolist(), name
            else:
                torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5, equal_nan=True, msg=name)


def _labels(size, num_classes, generator):
    return torch.randint(num_classes, (size,), generator=generator)


@pytest.mark.parametrize("num_classes", [1, 2, 4, 10])
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("n_samples", [1, 25])
def test_matches_the_whole_history(num_classes, batch, n_samples, device, generator):
    pair = Pair(_labels(n_samples, num_classes, generator), num_classes, device, generator)
    pair.assert_match()
    for _ in range(6):
        order = torch.randperm(n_samples, generator=generator)
        for start in range(0, n_samples, batch):
            pair.step(order[start : start + batch])
        pair.end_epoch()
        pair.assert_match()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_row_that_comes_twice_counts_the_first_time(batch, device, generator):
    pair = Pair(_labels(25, 3, generator), 3, device, generator)
    for _ in range(4):
        for _ in range(100 // batch):
            pair.step(torch.randint(20, (batch,), generator=generator))  # rows 20 to 24 never come
        pair.end_epoch()
        pair.assert_match()


@pytest.mark.parametrize("batch", [0, 7, 64])
def test_rows_of_no_use_claim_nothing(batch, device, generator):
    pair = Pair(_labels(25, 3, generator), 3, device, generator)
    for _ in range(3):
        for _ in range(3):
            pair.step(torch.randint(25, (batch,), generator=generator), torch.rand(batch, generator=generator) < 0.5)
        pair.end_epoch()
    pair.assert_match()


def test_values_of_stale_rows_go_nowhere(device):
    # A row of no use may hold anything, NaN and huge values too.
    dynamics = SampleDynamics(torch.tensor([0, 1])).to(device)
    rows = torch.tensor([1, 1, 0], device=device)
    fresh = dynamics.claim(rows, torch.tensor([False, True, False], device=device))
    assert fresh.tolist() == [False, True, False]
    values = torch.tensor([float("nan"), 2.0, float("inf")], device=device)
    losses = SampleLosses(values, values, torch.tensor([0, 1, 0], device=device), values)
    dynamics.record(rows, fresh, losses, values, values)
    dynamics.end_epoch()
    found = dynamics.statistics()
    assert found.count.tolist() == [0, 1]
    assert found.label_loss[1].item() == 2.0
    assert found.aum[1].item() == 2.0
    assert found.label_loss[0].isnan()


def test_rows_may_be_missing_in_some_epochs(device, generator):
    pair = Pair(_labels(25, 4, generator), 4, device, generator)
    for _ in range(6):
        pair.step(torch.randperm(25, generator=generator)[:8])
        pair.end_epoch()
    pair.assert_match()


def test_an_epoch_without_steps(device, generator):
    pair = Pair(_labels(5, 2, generator), 2, device, generator)
    for rows in ([0, 1, 2], [], [2, 3, 4]):
        if rows:
            pair.step(rows)
        pair.end_epoch()
        pair.assert_match()
    assert pair.fast.epoch == 3


def test_forgetting_events_skip_epochs_in_which_a_row_is_missing():
    dynamics = SampleDynamics(torch.tensor([0, 0]))
    # Row 0: right, wrong, right, wrong; row 1: right, missing, wrong, wrong.
    for predicted in ([0, 0], [1, None], [0, 1], [1, 1]):
        rows = torch.tensor([row for row in range(2) if predicted[row] is not None])
        logits = torch.tensor([[2.0, 0.0] if predicted[row] == 0 else [0.0, 2.0] for row in rows.tolist()])
        fresh = dynamics.claim(rows, torch.ones(len(rows), dtype=torch.bool))
        one = torch.ones(len(rows))
        dynamics.record(rows, fresh, sample_losses(logits, torch.zeros(len(rows), dtype=torch.int64)), one, one)
        dynamics.end_epoch()
    assert dynamics.statistics().forgetting_events.tolist() == [2, 1]
    assert dynamics.statistics().wrong_count.tolist() == [2, 2]


def _predict(dynamics, predicted, num_classes):
    rows = torch.arange(dynamics.n_samples)
    losses = sample_losses(torch.nn.functional.one_hot(predicted, num_classes).float(), dynamics.labels)
    fresh = dynamics.claim(rows, torch.ones(len(rows), dtype=torch.bool))
    dynamics.record(rows, fresh, losses, torch.ones(len(rows)), torch.ones(len(rows)))
    dynamics.end_epoch()


def test_tally_of_more_classes_keeps_a_majority():
    # Space-Saving: a class predicted more often than in a fourth of the epochs is never lost.
    dynamics = SampleDynamics(torch.tensor([7, 0]))
    for epoch in range(40):
        _predict(dynamics, torch.tensor([3 if epoch % 3 == 0 else epoch % 20, 19 if epoch % 2 else epoch % 7]), 20)
    assert dynamics.statistics().most_frequent.tolist() == [3, 19]
    assert dynamics.statistics().other_class.tolist() == [3, 19]


def test_largest_class_number():
    dynamics = SampleDynamics(torch.tensor([MAX_CLASSES - 1, 0]))
    for predicted in ([MAX_CLASSES - 1, MAX_CLASSES - 1], [0, MAX_CLASSES - 1], [0, 0]):
        _predict(dynamics, torch.tensor(predicted), MAX_CLASSES)
    assert dynamics.statistics().most_frequent.tolist() == [0, MAX_CLASSES - 1]
    assert dynamics.statistics().other_class.tolist() == [0, MAX_CLASSES - 1]


def test_statistics_in_the_middle_of_an_epoch(device, generator):
    pair = Pair(_labels(25, 3, generator), 3, device, generator)
    for _ in range(3):
        pair.step(range(12))
        before = kept(pair.fast)
        pair.assert_match()
        assert_same_bits(kept(pair.fast), before)
        pair.step(range(6, 25))
        pair.assert_match()
        pair.end_epoch()
    pair.assert_match()


def test_rows_are_folded_part_by_part(monkeypatch, generator):
    whole = Pair(_labels(25, 3, generator), 3, torch.device("cpu"), torch.Generator().manual_seed(1))
    parts = Pair(whole.labels, 3, torch.device("cpu"), torch.Generator().manual_seed(1))
    for rows in ([3, 4, 7, 8, 24], range(25), range(20)):
        whole.step(rows)
        parts.step(rows)
        whole.end_epoch()
        with monkeypatch.context() as patch:
            patch.setattr("lossbuf.recording.dynamics._FOLD_ROWS", 4)
            parts.assert_match()
            parts.end_epoch()
    assert_same_bits(kept(parts.fast), kept(whole.fast))


def test_statistics_stay_as_they_were_given(generator):
    pair = Pair(_labels(5, 3, generator), 3, torch.device("cpu"), generator)
    pair.step(range(5))
    pair.end_epoch()
    found = pair.fast.statistics()
    before = copy.deepcopy(vars(found))
    pair.step(range(5))
    pair.end_epoch()
    assert_same_bits(vars(found), before)


@pytest.mark.parametrize("steps_before", [0, 1, 4, 6])
def test_save_and_load_at_any_step(steps_before, device, generator):
    labels = _labels(25, 3, generator)
    batches = [(torch.randint(25, (9,), generator=generator), epoch) for epoch in range(3) for _ in range(3)]
    logits = 3 * torch.randn(len(batches), 9, 3, generator=generator)
    straight, resumed = SampleDynamics(labels).to(device), SampleDynamics(labels).to(device)
    for number, (rows, epoch) in enumerate(batches):
        if number == steps_before:
            resumed = reloaded(resumed, SampleDynamics(labels).to(device))
        for one in (straight, resumed):
            on_device = rows.to(device)
            losses = sample_losses(logits[number].to(device), one.labels[on_device])
            mean = torch.ones(9, device=device)
            one.record(on_device, one.claim(on_device, mean > 0), losses, mean, mean)
            if number + 1 == len(batches) or batches[number + 1][1] != epoch:
                one.end_epoch()
    assert_same_bits(kept(resumed), kept(straight))


def test_state_does_not_grow(generator):
    pair = Pair(_labels(25, 3, generator), 3, torch.device("cpu"), generator)
    sizes = []
    for epoch in range(20):
        pair.step(range(25))
        pair.end_epoch()
        if epoch in (0, 19):
            sizes.append({name: part.shape for name, part in pair.fast.named_buffers()})
    assert sizes[0] == sizes[1]


def test_suspicions_rise_with_suspicion(generator):
    pair = Pair(_labels(25, 3, generator), 3, torch.device("cpu"), generator)
    pair.step(range(20))
    pair.end_epoch()
    found = pair.fast.statistics()
    for name in SUSPICIONS:
        value = found.suspicion(name)
        assert value[20:].isnan().all()
        sign = -1 if name in ("aum", "last_margin") else 1
        assert torch.equal(value[:20], sign * getattr(found, name)[:20].float())
    with pytest.raises(ValueError, match=r"`score` must be one of 'score', .*, got 'loss'"):
        found.suspicion("loss")


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.5]), "must be integers, got dtype"),
        (torch.tensor([[1]]), "must have shape"),
        (torch.tensor([], dtype=torch.int64), "must hold at least one label, got none"),
        (torch.tensor([0, -1]), "got -1 at row 1"),
        (torch.tensor([MAX_CLASSES]), rf"must lie in \[0, {MAX_CLASSES}\)"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(ValueError, match=f"`labels` .*{message}"):
        SampleDynamics(labels)
