"""What ``LossBufferCallback`` says of bad input, and that what it has collected stays sound."""

import math
import warnings

import numpy as np
import pytest
import torch

from lossbuf import LossBufferCallback, LossBufferWarning
from lossbuf.detection.thresholds import Otsu
from lossbuf.recording.losses import SampleLosses, sample_losses
from lossbuf.recording.process_group import PADDING, Block
from tests.states import assert_same_bits, kept

LABELS = [0, 1, 2, 0, 1, 2]


def _long(*values):
    return torch.tensor(values, dtype=torch.int64)


def _started(device="cpu", **settings):
    """A callback with an epoch behind it and a part-filled block."""
    callback = LossBufferCallback(LABELS, **settings).to(device)
    draw = torch.Generator().manual_seed(0)
    for size in (6, 2):
        rows = range(size) if callback.ids is None else callback.ids[:size]
        logits, labels = torch.randn(size, 3, generator=draw).to(device), _long(*LABELS[:size]).to(device)
        callback.update(logits, labels, list(rows))
        if size == 6:
            callback.end_epoch()
    return callback


# ---- settings ----


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": [0.0, 1.0]}, r"`labels` must be integers, got dtype float64"),
        ({"labels": np.array([0.0, 1.0])}, r"`labels` must be integers, got dtype float64\. Give them as integers"),
        ({"labels": [True, False]}, r"`labels` must be integers, got dtype bool\. Give them as integers"),
        (
            {"labels": ["cat", "dog"]},
            r"`labels` must be integers, got list with 'cat' at row 0\. Encode other labels first",
        ),
        ({"labels": None}, "`labels` must be integers, got NoneType"),
        ({"labels": []}, "`labels` must hold at least one label, got none"),
        ({"labels": [[0], [1]]}, r"`labels` must have shape \(n_samples,\), got shape \(2, 1\)"),
        ({"labels": [0, -1]}, r"`labels` must lie in \[0, num_classes\), got -1 at row 1"),
        ({"num_classes": 2}, r"`labels` must lie in \[0, 2\), got 2 at row 2"),
        ({"num_classes": 0}, "`num_classes` must be an integer of at least 1, got 0"),
        ({"num_classes": 2.0}, r"`num_classes` must be an integer of at least 1, got 2\.0"),
        ({"num_classes": 2**16}, "`num_classes` must be at most 65535, got 65536"),
        ({"window": 0}, "`window` must be an integer of at least 1, got 0"),
        ({"warmup": 0}, "`warmup` must be an integer of at least 1, got 0"),
        ({"mode": "drop"}, "`mode` must be one of 'watch', 'filter', 'reweight', got 'drop'"),
        ({"rank_by": "loss"}, "`rank_by` must be one of 'posterior', 'score', .*, got 'loss'"),
        ({"noise_rate": 1.5}, r"`noise_rate` must lie in \[0, 1\], got 1\.5"),
        ({"noise_rate": math.nan}, r"`noise_rate` must lie in \[0, 1\], got nan"),
        ({"noise_rate": 0.1, "cut": Otsu()}, r"`cut` must be left out where `noise_rate` is given, got Otsu\(\)"),
        ({"noise_rate": 0.1, "max_fdr": 0.1}, "`max_fdr` must be left out where `noise_rate` is given, got 0.1"),
        ({"max_fdr": 1.5}, r"`max_fdr` must lie in \[0, 1\], got 1\.5"),
        ({"max_fdr": 0.1, "rank_by": "aum"}, "`max_fdr` needs `rank_by` to be 'posterior', got 'aum'"),
        ({"ids": list("abcde")}, "`ids` must be 6, one a label, got 5"),
        ({"ids": list("abcdea")}, "`ids` must be unique, got 'a' at rows 0 and 5"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LossBufferCallback(**{"labels": LABELS, **settings})


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda labels: np.array(labels, dtype=np.uint8)])
def test_labels_of_any_kind(kind):
    callback = LossBufferCallback(kind(LABELS))
    assert callback.dynamics.labels.tolist() == LABELS
    assert callback.num_classes == 3


# ---- steps that raise ----


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("method", ["update", "loss", "forward"])
@pytest.mark.parametrize(
    ("logits", "labels", "indices", "message"),
    [
        ((2, 3), _long(0, 3), _long(0, 1), r"`labels` must lie in \[0, 3\), got 3\."),
        ((2, 3), _long(0, -100), _long(0, 1), r"`labels` must lie in \[0, 3\), got -100\."),
        ((2, 3), _long(0, 1), _long(0, 6), r"`indices` must lie in \[0, 6\), got 6\."),
        ((2, 3), _long(0, 1), _long(-1, 1), r"`indices` must lie in \[0, 6\), got -1\."),
        ((2, 3), _long(0, 1), [0, 6], r"`indices` must lie in \[0, 6\), got 6\."),
        ((2, 4), _long(0, 1), _long(0, 1), r"`logits` must have shape \(batch, 3\), got shape \(2, 4\)"),
        ((3,), _long(0), _long(0), r"`logits` must have shape \(batch, 3\), got shape \(3,\)"),
        ((2, 3), _long(0, 1, 2), _long(0, 1), r"`labels` must have shape \(2,\) as `logits` do, got shape \(3,\)"),
        ((2, 3), _long(0, 1)[:, None], _long(0, 1), r"`labels` must have shape \(2,\) as `logits` do"),
        ((2, 3), _long(0, 1), _long(0), r"`indices` must have shape \(2,\) as `logits` do, got shape \(1,\)"),
        ((2, 3), torch.zeros(2), _long(0, 1), r"`labels` must be integers, got dtype torch\.float32"),
        ((2, 3), _long(0, 1), torch.zeros(2), r"`indices` must be integers, got dtype torch\.float32"),
        ((2, 3), _long(0, 1), _long(0, 1).bool(), r"`indices` must be integers, got dtype torch\.bool"),
        ((2, 3), _long(0, 1), ["a", "b"], r"`indices` must be row numbers where there are no `ids`, got \['a', 'b'\]"),
        ((2, 3), _long(0, 1), [0, None], "`indices` must be row numbers where there are no `ids`"),
    ],
)
def test_bad_steps_change_nothing(method, logits, labels, indices, message):
    callback = _started()
    before = kept(callback)
    with pytest.raises(ValueError, match=message):
        getattr(callback, method)(torch.zeros(logits), labels, indices)
    assert_same_bits(kept(callback), before)


def _no_batches():
    good = {"logits": torch.zeros(2, 3), "labels": _long(0, 1), "indices": _long(0, 1)}
    floating = r"`logits` must be floating point, of 16 to 64 bits, got dtype torch\."
    changes = [
        ({"logits": torch.zeros(2, 3, dtype=torch.int64)}, floating + "int64"),
        ({"logits": torch.zeros(2, 3, dtype=torch.complex64)}, floating + "complex64"),
        ({"logits": torch.zeros(2, 3).to(torch.float8_e4m3fn)}, floating + "float8_e4m3fn"),
        ({"logits": torch.zeros(2, 3, device="meta")}, "`logits` must lie where there are values, got the meta device"),
        ({"logits": np.zeros((2, 3))}, "`logits` must be a tensor, got ndarray"),
        ({"labels": np.array([0, 1])}, "`labels` must be a tensor, got ndarray"),
        ({"labels": [0, 1]}, "`labels` must be a tensor, got list"),
        ({"labels": _long(0, 1).to("meta")}, "`labels` must lie on cpu as `logits` do, got meta"),
        ({"indices": 3}, "`indices` must be row numbers where there are no `ids`, got 3"),
    ]
    return [({**good, **change}, message) for change, message in changes]


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(("batch", "message"), _no_batches(), ids=lambda part: part if isinstance(part, str) else "")
@pytest.mark.parametrize("method", ["update", "loss"])
@pytest.mark.parametrize("planted", [0.0, 0.5])
def test_batches_that_are_none(batch, message, method, planted):
    callback = _started(planted=planted)
    before = kept(callback)
    with pytest.raises(ValueError, match=message):
        getattr(callback, method)(*batch.values())
    assert_same_bits(kept(callback), before)


@pytest.mark.parametrize("names", [["a", "z"], ["z", "y"], [0, 1]])
def test_unknown_id(names):
    callback = _started(ids=list("abcdef"))
    before = kept(callback)
    unknown = repr(next(name for name in names if name != "a"))
    with pytest.raises(ValueError, match=f"`indices` must be among `ids`, got {unknown}"):
        callback.update(torch.zeros(2, 3), _long(0, 1), names)
    assert_same_bits(kept(callback), before)


# ---- steps that are counted ----


def _without_bad_rows(bad):
    """Statistics and rings of a run in which the bad rows never came."""
    callback = _started()
    good = [row for row in range(6) if row not in bad]
    _update(callback, torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), good)
    callback.end_epoch()
    return callback


def _update(callback, logits, rows):
    device = callback.sample_weights.device
    indices = _long(*rows).to(device)
    callback.update(logits.to(device)[indices], callback.dynamics.labels[indices], indices)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_logits_that_are_not_finite(value, everywhere, device):
    callback, bad = _started(device), [2, 5]
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    for row in bad:
        logits[row, slice(None) if everywhere else LABELS[row]] = value
    _update(callback, logits, range(6))
    with pytest.warns(LossBufferWarning, match="Epoch 2: 2 samples gave logits or losses that are NaN, inf") as told:
        callback.end_epoch()
    assert len(told) == 1
    assert callback.rejected() == {"not_finite": 2, "label_out_of_range": 0, "unknown_row": 0, "other_label": 0}
    expected = _without_bad_rows(bad)
    _assert_collected_alike(callback, expected)
    callback.end_epoch()  # told once: a second warning would be an error here


def _assert_collected_alike(found, expected):
    for name, value in vars(found.statistics()).items():
        torch.testing.assert_close(value.cpu(), getattr(expected.statistics(), name), equal_nan=True, msg=name)
    for one, other in zip(found.rings.children(), expected.rings.children(), strict=True):
        torch.testing.assert_close(one.entries.cpu(), other.entries)
        assert one.entries.isfinite().all()
        assert torch.equal(one.seen[:-1].cpu(), other.seen[:-1])


def test_half_precision_that_overflowed(device):
    callback = _started(device)
    logits = torch.zeros(6, 3)
    logits[1, 0] = 1e5  # inf in float16
    _update(callback, logits.half(), range(6))
    with pytest.warns(LossBufferWarning, match="1 samples gave logits"):
        callback.end_epoch()
    assert callback.statistics().count.tolist() == [2, 2, 2, 2, 2, 2]  # row 1 came in the block before


def test_a_bad_row_may_come_again_in_the_epoch(device):
    callback = _started(device)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    broken = logits.clone()
    broken[4] = math.nan
    _update(callback, broken, [4])
    _update(callback, logits, range(6))
    with pytest.warns(LossBufferWarning, match="1 samples gave logits"):
        callback.end_epoch()
    _assert_collected_alike(callback, _without_bad_rows([]))


def test_labels_that_differ_from_those_given(device):
    callback = _started(device)
    _update(callback, torch.zeros(6, 3), [2, 3])
    other = _long(1, 1).to(device)  # rows 4 and 5: the second differs
    callback.update(torch.zeros(2, 3, device=device), other, [4, 5])
    with pytest.warns(LossBufferWarning, match="Epoch 2: 1 samples came with another label than `labels` holds"):
        callback.end_epoch()
    assert callback.rejected()["other_label"] == 1
    assert callback.statistics().count.tolist() == [2] * 6


def test_all_that_is_wrong_is_told():
    callback = _started()
    callback.counter += torch.tensor([1, 2, 3, 4])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        callback.end_epoch()
    texts = [str(one.message) for one in told]
    assert [text.split()[2] for text in texts] == ["1", "2", "3", "4"]
    assert "label out of range" in texts[1]
    assert "row number out of range" in texts[2]


def test_out_of_range_is_counted_where_it_cannot_raise(device):
    # On a GPU nothing raises: the block then holds what is out of range, and padding where ranks differ.
    callback, expected = (LossBufferCallback(LABELS).to(device) for _ in range(2))
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(1)).to(device)
    labels = _long(0, 3, 2, -1, 1, 2, 0, PADDING, PADDING).to(device)
    rows = _long(0, 1, 6, 3, -1, 5, 0, PADDING, PADDING).to(device)
    losses = sample_losses(logits, labels.clamp(0, 2))
    losses.label_loss[7] = PADDING
    callback._digest([Block(losses, labels, rows)])
    assert callback.rejected() == {"not_finite": 0, "label_out_of_range": 2, "unknown_row": 2, "other_label": 0}
    sound = _long(0, 5).to(device)
    expected._digest([Block(SampleLosses(*(part[sound] for part in losses)), labels[sound], rows[sound])])
    assert callback.dynamics.statistics().count.tolist() == [1, 0, 0, 0, 0, 1]
    _assert_collected_alike_on_one_device(callback, expected)
    with pytest.warns(LossBufferWarning, match="out of range") as told:
        callback.end_epoch()
    assert [str(one.message).split()[2] for one in told] == ["2", "2"]


def _assert_collected_alike_on_one_device(found, expected):
    assert_same_bits(vars(found.dynamics.statistics()), vars(expected.dynamics.statistics()))
    for one, other in zip(found.rings.children(), expected.rings.children(), strict=True):
        assert_same_bits(one.entries, other.entries)
        assert_same_bits(one.seen[:-1], other.seen[:-1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_out_of_range_on_a_gpu():
    callback = _started("cuda")
    weights = callback.update(torch.zeros(3, 3).cuda(), _long(0, 7, 0).cuda(), _long(3, 4, 99).cuda())
    assert weights.tolist() == [1.0] * 3
    with pytest.warns(LossBufferWarning):
        callback.end_epoch()
    assert callback.rejected() == {"not_finite": 0, "label_out_of_range": 1, "unknown_row": 1, "other_label": 0}
