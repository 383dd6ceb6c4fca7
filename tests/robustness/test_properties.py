"""Buffers, dynamics and the callback against their slow references, on whatever steps Hypothesis thinks of."""

import io
import math
import warnings

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbuf import LossBufferCallback
from lossbuf.recording.buffers import ClassLossBuffer, LossBuffers
from lossbuf.recording.dynamics import SampleDynamics
from lossbuf.recording.losses import SampleLosses, sample_losses
from tests.reference import buffers as slow_buffers
from tests.reference import callback as slow_callback
from tests.reference import dynamics as slow_dynamics
from tests.reference import losses as slow_losses
from tests.states import assert_same_bits, kept, reloaded

ANY_LOSS = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 3.4e38, 1e-45])
USUAL_LOSS = st.floats(0, 1e4, width=32) | st.just(math.nan)
LOGIT = st.integers(-160, 160).map(lambda eighths: eighths / 8)
ODD_LOGIT = LOGIT | st.sampled_from([math.nan, math.inf, -math.inf])
EXACT = {"count", "wrong_count", "forgetting_events", "most_frequent", "other_class", "last_predicted"}


def assert_rings(buffer, deques):
    for label, row in enumerate(deques.rows):
        assert_same_bits(buffer.values(label).tolist(), list(row))
    assert buffer.seen[:-1].tolist() == deques.seen
    assert buffer.rejected.item() == deques.rejected


def assert_means(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5, equal_nan=True)


def assert_statistics(found, slow):
    found, expected, exact = vars(found), slow.statistics(), torch.tensor(slow.tracked())
    assert found.keys() == expected.keys()
    for name, value in found.items():
        wanted = torch.tensor(expected[name])
        if name in ("most_frequent", "other_class"):
            value, wanted = value[exact], wanted[exact]
        if name in EXACT:
            assert value.tolist() == wanted.tolist(), name
        else:
            torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-3, equal_nan=True, msg=name)


# ---- rings -----------------------------------------------------------------------------------------------------------


@st.composite
def batches_of_losses(draw, loss):
    num_classes, window = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    label = st.integers(-2, num_classes + 1) | st.sampled_from([2**40, -(2**63), 2**63 - 1])
    batch = st.lists(st.tuples(loss, label), max_size=20)
    return num_classes, window, draw(st.lists(st.none() | batch, max_size=8))  # None: a save and a load


def follow(num_classes, window, steps):
    """A ring that was saved and loaded on the way, and deques."""
    buffer, deques = ClassLossBuffer(num_classes, window), slow_buffers.ClassLossBuffer(num_classes, window)
    straight = ClassLossBuffer(num_classes, window)
    for step in steps:
        if step is None:
            buffer = reloaded(buffer, ClassLossBuffer(num_classes, window))
            continue
        losses = torch.tensor([loss for loss, _ in step], dtype=torch.float32)
        labels = torch.tensor([label for _, label in step], dtype=torch.int64)
        for one in (buffer, straight):
            one.update(losses, labels)
        deques.update(losses.tolist(), labels.tolist())
    assert_same_bits(kept(buffer), kept(straight))
    return buffer, deques


@given(batches_of_losses(ANY_LOSS))
def test_rings_hold_what_deques_hold(drawn):
    assert_rings(*follow(*drawn))


@given(batches_of_losses(USUAL_LOSS))
def test_means_of_rings(drawn):
    buffer, deques = follow(*drawn)
    assert_means(buffer.mean(), deques.mean())


@st.composite
def batches_of_logits(draw):
    num_classes = draw(st.integers(1, 4))
    row = st.lists(LOGIT, min_size=num_classes, max_size=num_classes)
    odd = st.lists(ODD_LOGIT, min_size=num_classes, max_size=num_classes)
    sample = st.tuples(row | odd, st.integers(0, num_classes - 1))
    return num_classes, draw(st.integers(1, 5)), draw(st.lists(st.lists(sample, max_size=12), max_size=6))


@given(batches_of_logits())
def test_the_three_rings_and_their_scores(drawn):
    num_classes, window, steps = drawn
    fast, slow = LossBuffers(num_classes, window), slow_buffers.LossBuffers(num_classes, window)
    for step in steps:
        logits = torch.tensor([row for row, _ in step], dtype=torch.float32).reshape(-1, num_classes)
        labels = torch.tensor([label for _, label in step], dtype=torch.int64)
        losses = sample_losses(logits, labels)
        fast.update(losses, labels)
        for row, label in step:
            slow.append(slow_losses.sample_losses(row, label), label)
        scores = fast.scores(losses, labels)
        usable = losses.label_loss.isfinite()
        assert all(bool((score[usable] >= 0).all()) for score in scores)
    for name in ("label_loss", "predicted_loss", "predicted_class_loss"):
        ring, deques = getattr(fast, name), getattr(slow, name)
        assert ring.seen[:-1].tolist() == deques.seen, name
        assert ring.rejected.item() == deques.rejected, name
        for label, row in enumerate(deques.rows):
            assert_means(ring.values(label), list(row))
    for found, expected in zip(fast.class_means(), slow.class_means(), strict=True):
        assert_means(found, expected)


# ---- dynamics --------------------------------------------------------------------------------------------------------


@st.composite
def histories(draw):
    n_samples, num_classes = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    value, usual = st.integers(0, 64).map(lambda part: part / 16), st.integers(-64, 64).map(lambda part: part / 16)
    row = st.tuples(
        st.integers(0, n_samples - 1), st.booleans(), value, usual, st.integers(0, num_classes - 1), value, value
    )
    steps = st.lists(st.sampled_from(["epoch", "reload"]) | st.lists(row, max_size=8), max_size=16)
    return draw(st.lists(st.integers(0, num_classes - 1), min_size=n_samples, max_size=n_samples)), draw(steps)


@settings(max_examples=150)
@given(histories())
def test_dynamics_are_those_of_the_whole_history(drawn):
    labels, steps = drawn
    fast, slow = SampleDynamics(torch.tensor(labels)), slow_dynamics.SampleDynamics(labels)
    for step in [*steps, "epoch"]:
        if step == "reload":
            fast = reloaded(fast, SampleDynamics(torch.tensor(labels)))
        elif step == "epoch":
            fast.end_epoch()
            slow.end_epoch()
        else:
            _note(fast, slow, step)
    assert_statistics(fast.statistics(), slow)


def _note(fast, slow, step):
    columns = list(zip(*step, strict=True)) or [()] * 7
    rows, usable = torch.tensor(columns[0], dtype=torch.int64), torch.tensor(columns[1], dtype=torch.bool)
    label_loss, margin = (torch.tensor(columns[place], dtype=torch.float32) for place in (2, 3))
    predicted = torch.tensor(columns[4], dtype=torch.int64)
    predicted_loss = (label_loss - (-margin).clamp(min=0)).clamp(min=0)  # as the two imply
    losses = SampleLosses(label_loss, predicted_loss, predicted, margin)
    means = [torch.tensor(columns[place], dtype=torch.float32) for place in (5, 6)]
    fresh = fast.claim(rows, usable)
    fast.record(rows, fresh, losses, *means)
    for place, row in enumerate(rows.tolist()):
        first = bool(usable[place]) and slow.claim(row)
        assert fresh[place].item() == first
        if first:
            values = slow_losses.Losses(*(part[place].item() for part in losses))
            slow.record(row, values, means[0][place].item(), means[1][place].item())


# ---- the callback ----------------------------------------------------------------------------------------------------


@st.composite
def trainings(draw):
    n_samples, num_classes = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    labels = draw(st.lists(st.integers(0, num_classes - 1), min_size=n_samples, max_size=n_samples))
    logits = st.lists(LOGIT, min_size=num_classes, max_size=num_classes)
    broken = st.lists(st.just(math.nan), min_size=num_classes, max_size=num_classes)
    step = st.lists(st.tuples(st.integers(0, n_samples - 1), logits | broken), min_size=1, max_size=10)
    steps = st.lists(st.sampled_from(["epoch", "save and load", "look"]) | step, max_size=14)
    return labels, num_classes, draw(st.integers(1, 5)), draw(st.integers(1, 12)), draw(steps)


@given(trainings())
def test_the_callback_is_its_reference_and_does_not_see_a_save_and_load(drawn):
    labels, num_classes, window, capacity, steps = drawn

    def make():
        made = LossBufferCallback(labels, num_classes, window=window, rank_by="aum")
        made.stage.capacity = capacity
        return made

    fast, straight, slow = make(), make(), slow_callback.Callback(labels, num_classes, window, capacity)
    for step in steps:
        if step == "save and load":
            fast = _through_a_file(fast, make())
        elif step == "epoch":
            for one in (fast, straight, slow):
                _end_epoch(one)
        elif step == "look":
            for one in (fast, straight):
                one.statistics()
            slow.flush()
        else:
            rows = torch.tensor([row for row, _ in step])
            logits = torch.tensor([values for _, values in step], dtype=torch.float32)
            given_labels = torch.tensor(labels)[rows]
            for one in (fast, straight):
                one.update(logits, given_labels, rows)
            slow.update(logits.tolist(), given_labels.tolist(), rows.tolist())
    assert_same_bits(kept(fast), kept(straight))
    _end_epoch(fast)
    _end_epoch(slow)
    assert_statistics(fast.statistics(), slow.dynamics)
    for name in ("label_loss", "predicted_loss", "predicted_class_loss"):
        assert getattr(fast.rings, name).seen[:-1].tolist() == getattr(slow.rings, name).seen, name
    broken = [row for step in steps if isinstance(step, list) for row in step if math.isnan(row[1][0])]
    assert fast.rejected() == {"not_finite": len(broken), "label_out_of_range": 0, "unknown_row": 0, "other_label": 0}


def _through_a_file(callback, fresh):
    file = io.BytesIO()
    torch.save(callback.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def _end_epoch(one):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of logits that are NaN
        one.end_epoch()
