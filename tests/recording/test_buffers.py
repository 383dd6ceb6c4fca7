"""The rings against deques."""

import math

import pytest
import torch

from lossbuf.recording import buffers as module
from lossbuf.recording.buffers import ClassLossBuffer, LossBuffers
from lossbuf.recording.losses import sample_losses
from tests.reference import buffers as reference
from tests.reference import losses as reference_losses
from tests.reference import scores as reference_scores
from tests.states import assert_same_bits, kept, reloaded


def _draw(batch, num_classes, generator, bad=0.1):
    """Losses and labels, a share ``bad`` of each of no use."""
    losses = torch.rand(batch, generator=generator)
    odd = torch.tensor([math.nan, math.inf, -math.inf])[torch.randint(3, (batch,), generator=generator)]
    losses = torch.where(torch.rand(batch, generator=generator) < bad, odd, losses)
    labels = torch.randint(num_classes, (batch,), generator=generator)
    out = torch.tensor([-1, num_classes, -(2**40), 2**40])[torch.randint(4, (batch,), generator=generator)]
    return losses, torch.where(torch.rand(batch, generator=generator) < bad, out, labels)


def _assert_rows(buffer, deques):
    for label, row in enumerate(deques.rows):
        assert buffer.values(label).tolist() == list(row)
    assert buffer.seen[:-1].tolist() == deques.seen
    assert buffer.rejected.item() == deques.rejected
    torch.testing.assert_close(buffer.mean().cpu(), torch.tensor(deques.mean()), equal_nan=True)


@pytest.mark.parametrize("batch", [0, 1, 7, 64, 110, 300])
@pytest.mark.parametrize("window", [1, 4, 100])
@pytest.mark.parametrize("num_classes", [1, 3, 70, 130])
@pytest.mark.parametrize("resume_at", [0, 3])
def test_rows_match_deques(batch, window, num_classes, resume_at, device, generator):
    buffer, straight = (ClassLossBuffer(num_classes, window).to(device) for _ in range(2))
    deques = reference.ClassLossBuffer(num_classes, window)
    for step in range(5):
        losses, labels = _draw(batch, num_classes, generator)
        if step == resume_at:
            buffer = reloaded(buffer, ClassLossBuffer(num_classes, window).to(device))
        for one in (buffer, straight):
            one.update(losses.to(device), labels.to(device))
        deques.update(losses.tolist(), labels.tolist())
    _assert_rows(buffer, deques)
    assert_same_bits(kept(buffer), kept(straight))


@pytest.mark.parametrize(
    ("batch", "num_classes", "window", "parts", "slot_by_slot"),
    [
        (4, 1, 4, 1, True),
        (5, 1, 4, 1, False),
        (64, 3, 100, 1, True),
        (300, 3, 100, 1, False),
        (110, 70, 100, 2, True),
        (7, 130, 4, 2, True),
    ],
)
def test_every_way_of_writing_is_taken(batch, num_classes, window, parts, slot_by_slot):
    # Guards the grid of test_rows_match_deques: it must hold a batch for each way.
    buffer = ClassLossBuffer(num_classes, window)
    first, *more = buffer.parts(batch)
    assert 1 + len(more) == parts
    labels = torch.zeros(batch, dtype=torch.int64)[first]
    assert (buffer.place(labels, labels == 0).slots is not None) == slot_by_slot


def test_batches_of_changing_size(device, generator):
    buffer, deques = ClassLossBuffer(70, 100).to(device), reference.ClassLossBuffer(70, 100)
    for batch in (300, 1, 110, 0, 64, 101, 100, 99, 500):
        losses, labels = _draw(batch, 70, generator)
        buffer.update(losses.to(device), labels.to(device))
        deques.update(losses.tolist(), labels.tolist())
        _assert_rows(buffer, deques)


def test_one_class_alone_fills_its_ring(device, generator):
    buffer, deques = ClassLossBuffer(3, 5).to(device), reference.ClassLossBuffer(3, 5)
    for batch in (4, 4, 12):
        losses = torch.rand(batch, generator=generator)
        buffer.update(losses.to(device), torch.ones(batch, dtype=torch.int64, device=device))
        deques.update(losses.tolist(), [1] * batch)
    _assert_rows(buffer, deques)
    assert buffer.mean().isnan().tolist() == [True, False, True]


def test_both_sorts_agree(generator, monkeypatch):
    one, other = ClassLossBuffer(5, 4), ClassLossBuffer(5, 4)
    losses, labels = _draw(40, 5, generator)
    one.update(losses, labels)
    monkeypatch.setattr(module, "_INT16_KEYS", 0)
    other.update(losses, labels)
    assert_same_bits(kept(one), kept(other))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_losses_of_any_precision(dtype, generator):
    buffer, deques = ClassLossBuffer(2, 4), reference.ClassLossBuffer(2, 4)
    losses = torch.rand(6, generator=generator).to(dtype)
    buffer.update(losses, torch.arange(6) % 2)
    deques.update(losses.float().tolist(), [0, 1] * 3)
    _assert_rows(buffer, deques)


def test_a_loss_too_large_for_float32_is_rejected():
    buffer = ClassLossBuffer(1, 2)
    buffer.update(torch.tensor([1e300, 1.0], dtype=torch.float64), torch.tensor([0, 0]))
    assert buffer.values(0).tolist() == [1.0]
    assert buffer.rejected.item() == 1


def test_arguments_are_left_alone(generator):
    losses, labels = _draw(300, 3, generator)
    losses_before, labels_before = losses.clone(), labels.clone()
    ClassLossBuffer(3, 4).update(losses, labels)
    torch.testing.assert_close(losses, losses_before, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(labels, labels_before)


def test_values_are_a_copy():
    buffer = ClassLossBuffer(1, 4)
    for expected in ([1.0], [1.0] * 4):
        buffer.update(torch.ones(len(expected)), torch.zeros(len(expected), dtype=torch.int64))
        buffer.values(0).fill_(7)
        assert buffer.values(0)[: len(expected)].tolist() == expected


@pytest.mark.parametrize("batch", [0, 1, 7, 64, 300])
@pytest.mark.parametrize("window", [1, 4, 100])
@pytest.mark.parametrize("num_classes", [1, 3, 70])
@pytest.mark.parametrize("resume_at", [0, 2])
def test_three_rings_match_deques(batch, window, num_classes, resume_at, device, generator):
    buffers, straight = (LossBuffers(num_classes, window).to(device) for _ in range(2))
    deques = reference.LossBuffers(num_classes, window)
    for step in range(3):
        logits = 3 * torch.randn(batch, num_classes, generator=generator)
        logits[::9] = math.nan
        labels = torch.randint(num_classes, (batch,), generator=generator)
        losses = sample_losses(logits.to(device), labels.to(device))
        labels[1::10] += num_classes  # out of range only after the losses are known
        if step == resume_at:
            buffers = reloaded(buffers, LossBuffers(num_classes, window).to(device))
        for one in (buffers, straight):
            one.update(losses, labels.to(device))
        for *values, label in zip(*(part.tolist() for part in losses), labels.tolist(), strict=True):
            deques.append(reference_losses.Losses(*values), label)
    for name in ("label_loss", "predicted_loss", "predicted_class_loss"):
        _assert_rows(getattr(buffers, name), getattr(deques, name))
    for found, expected in zip(buffers.class_means(), deques.class_means(), strict=True):
        torch.testing.assert_close(found.cpu(), torch.tensor(expected), equal_nan=True, atol=1e-6, rtol=1e-5)
    assert_same_bits(kept(buffers), kept(straight))


def test_rows_without_use_are_rejected(device, generator):
    labels = torch.tensor([0, 1, 2, 0, 1, 2], device=device)
    losses = sample_losses(torch.randn(6, 3, generator=generator).to(device), labels)
    usable = torch.tensor([True, False, True, False, True, True], device=device)
    buffers, expected = LossBuffers(3, 2).to(device), LossBuffers(3, 2).to(device)
    buffers.update(losses, labels, usable)
    expected.update(type(losses)(*(part[usable] for part in losses)), labels[usable])
    assert buffers.label_loss.rejected.item() == 2
    for one, other in zip(buffers.children(), expected.children(), strict=True):
        assert torch.equal(one.entries, other.entries)
        assert torch.equal(one.seen[:-1], other.seen[:-1])


def test_scores_of_a_batch(device, generator):
    buffers, deques = LossBuffers(3, 4).to(device), reference.LossBuffers(3, 4)
    logits = 3 * torch.randn(20, 3, generator=generator)
    labels = torch.randint(2, (20,), generator=generator)  # class 2 stays empty
    losses = sample_losses(logits.to(device), labels.to(device))
    buffers.update(losses, labels.to(device))
    rows = [reference_losses.sample_losses(row, label) for row, label in zip(logits.tolist(), labels, strict=True)]
    for row, label in zip(rows, labels.tolist(), strict=True):
        deques.append(row, label)
    mean, gap = deques.class_means()
    labels[:5] = 2
    found = buffers.scores(losses, labels.to(device))
    for row, label, *three in zip(rows, labels.tolist(), *(part.tolist() for part in found), strict=True):
        assert three == pytest.approx(
            [
                reference_scores.score(row.label_loss, mean[label]),
                reference_scores.score2(row.margin, mean[label]),
                reference_scores.score3(row.margin, gap[label]),
            ],
            rel=1e-4,
            abs=1e-6,
        )


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_settings_must_be_positive_integers(value):
    with pytest.raises(ValueError, match=r"`num_classes` must be an integer of at least 1, got"):
        ClassLossBuffer(value)
    with pytest.raises(ValueError, match=r"`window` must be an integer of at least 1, got"):
        LossBuffers(2, value)


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_batches_change_nothing():
    buffer = ClassLossBuffer(2, 2)
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"`losses` must have shape \(batch,\), got shape \(3, 1\)"):
        buffer.update(torch.zeros(3, 1), labels)
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2,\)"):
        buffer.update(torch.zeros(2), labels)
    with pytest.raises(ValueError, match="`labels` must be integers, got dtype"):
        buffer.update(torch.zeros(3), labels.float())
    assert not buffer.seen.any()


@pytest.mark.parametrize("label", [-1, 2])
def test_values_of_no_class(label):
    with pytest.raises(ValueError, match=rf"`label` must lie in \[0, 2\), got {label}"):
        ClassLossBuffer(2, 2).values(label)
