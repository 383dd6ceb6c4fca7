"""``sample_losses`` against the slow version."""

import math

import pytest
import torch
import torch.nn.functional as F

from lossbuf.recording import losses as module
from lossbuf.recording.losses import sample_losses
from tests.reference import losses as reference


def _assert_match(found, logits, labels):
    rows = zip(logits.float().cpu().tolist(), labels.tolist(), strict=True)
    expected = [reference.sample_losses(row, label) for row, label in rows]
    for name in ("label_loss", "predicted_loss", "margin"):
        value, wanted = getattr(found, name), torch.tensor([getattr(row, name) for row in expected])
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.cpu(), wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert found.predicted.dtype == torch.int64
    sound = [i for i, row in enumerate(expected) if row.predicted >= 0]
    assert found.predicted.cpu()[sound].tolist() == [expected[i].predicted for i in sound]


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("num_classes", [1, 2, 10, 100])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_matches_reference(batch, num_classes, dtype, device, generator):
    logits = (4 * torch.randn(batch, num_classes, generator=generator)).to(device, dtype)
    labels = torch.randint(num_classes, (batch,), generator=generator).to(device)
    before = logits.clone()
    found = sample_losses(logits, labels)
    _assert_match(found, logits, labels)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("num_classes", [1, 2, 10, 100])
def test_label_loss_is_cross_entropy(num_classes, device, generator):
    logits = torch.randn(64, num_classes, generator=generator).to(device)
    labels = torch.randint(num_classes, (64,), generator=generator).to(device)
    found = sample_losses(logits, labels)
    torch.testing.assert_close(found.label_loss, F.cross_entropy(logits, labels, reduction="none"))
    torch.testing.assert_close(found.predicted_loss, F.cross_entropy(logits, found.predicted, reduction="none"))


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_of_equal_logits_the_lowest_class_is_predicted(num_classes, device, generator):
    logits = torch.randint(-1, 2, (64, num_classes), generator=generator).float().to(device)
    labels = torch.randint(num_classes, (64,), generator=generator).to(device)
    found = sample_losses(logits, labels)
    _assert_match(found, logits, labels)
    assert found.predicted.tolist() == [row.index(max(row)) for row in logits.tolist()]


@pytest.mark.parametrize("num_classes", [1, 3, 100])
def test_all_logits_equal(num_classes, device):
    labels = torch.arange(num_classes, device=device)
    found = sample_losses(torch.zeros(num_classes, num_classes, device=device), labels)
    assert found.predicted.tolist() == [0] * num_classes
    assert found.margin.tolist() == [0.0] * num_classes
    torch.testing.assert_close(found.label_loss, torch.full_like(found.label_loss, math.log(num_classes)))


@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite(num_classes, value, device, generator):
    logits = torch.randn(64, num_classes, generator=generator)
    labels = torch.randint(num_classes, (64,), generator=generator)
    # A third at the label, a third at another class, a third in every class.
    for row in range(0, 64, 2):
        column = (labels[row], (labels[row] + 1) % num_classes, slice(None))[row // 2 % 3]
        logits[row, column] = value
    found = sample_losses(logits.to(device), labels.to(device))
    _assert_match(found, logits, labels)
    assert found.label_loss[1::2].isfinite().all()
    assert not found.label_loss[0::6].isfinite().any()


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_difference_of_the_losses_is_the_negative_margin(num_classes, device, generator):
    logits = (8 * torch.randn(64, num_classes, generator=generator)).to(device)
    labels = torch.randint(num_classes, (64,), generator=generator).to(device)
    found = sample_losses(logits, labels)
    right = found.predicted == labels
    torch.testing.assert_close(
        found.label_loss - found.predicted_loss, (-found.margin).clamp(min=0), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(found.label_loss[right], found.predicted_loss[right])
    assert (found.label_loss >= found.predicted_loss).all()
    assert (found.predicted_loss >= 0).all()


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_large_logits_do_not_overflow(scale, device):
    found = sample_losses(scale * torch.eye(3, device=device), torch.tensor([0, 0, 2], device=device))
    assert found.label_loss.tolist() == pytest.approx([0.0, scale, 0.0])
    assert found.predicted_loss.tolist() == [0.0] * 3


def test_narrow_and_wide_agree(device, generator, monkeypatch):
    logits = torch.randint(-9, 9, (64, 70), generator=generator).float().to(device)
    labels = torch.randint(70, (64,), generator=generator).to(device)
    monkeypatch.setattr(module, "NARROW", 71)
    narrow = sample_losses(logits, labels)
    monkeypatch.setattr(module, "NARROW", 70)
    for one, other in zip(narrow, sample_losses(logits, labels), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("num_classes", [5, 100])
def test_memory_layout_does_not_matter(num_classes, device, generator):
    logits = torch.randn(2 * num_classes, 32, generator=generator).to(device).t()[:, ::2]
    labels = torch.randint(num_classes, (32,), generator=generator).to(device)
    before = logits.clone()
    assert not logits.is_contiguous()
    _assert_match(sample_losses(logits, labels), logits, labels)
    _assert_match(sample_losses(logits[:1].expand(32, -1), labels), logits[:1].expand(32, -1), labels)
    assert torch.equal(logits, before)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_integer_labels_of_any_width(dtype, generator):
    logits = torch.randn(8, 5, generator=generator)
    labels = torch.randint(5, (8,), generator=generator)
    for one, other in zip(sample_losses(logits, labels.to(dtype)), sample_losses(logits, labels), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("num_classes", [1, 5, 100])
def test_empty_batch(num_classes, device):
    found = sample_losses(torch.zeros(0, num_classes, device=device), torch.zeros(0, dtype=torch.int64, device=device))
    assert [tuple(part.shape) for part in found] == [(0,)] * 4


def test_no_gradient_is_kept(generator):
    logits = torch.randn(4, 3, generator=generator, requires_grad=True)
    found = sample_losses(logits * 2, torch.arange(4) % 3)
    assert not any(part.requires_grad for part in found)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), r"`logits` must have shape \(batch, num_classes\)"),
        (torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), "`logits` must be floating point"),
        (torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64), r"`labels` must have shape \(4,\)"),
        (torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64), r"`labels` must have shape \(4,\)"),
        (torch.zeros(4, 2), torch.zeros(4), "`labels` must be integers, got dtype"),
    ],
)
def test_bad_shapes_and_dtypes(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        sample_losses(logits, labels)


@pytest.mark.parametrize("num_classes", [1, 2, 10, 100])
def test_log_probabilities_of_all_classes(num_classes, device, generator):
    logits = (5 * torch.randn(9, num_classes, generator=generator)).to(device)
    labels = torch.randint(num_classes, (9,), generator=generator).to(device)
    found, log_probs = module.sample_losses_(logits.clone(), labels, log_probs=True)
    torch.testing.assert_close(log_probs, logits.log_softmax(1), rtol=1e-5, atol=1e-5)
    plain, nothing = module.sample_losses_(logits.clone(), labels)
    assert nothing is None
    for one, other in zip(found, plain, strict=True):
        assert one.tolist() == other.tolist()
