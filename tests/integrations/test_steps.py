"""What the adapters share, and that none is imported unasked."""

import subprocess
import sys

import pytest
import torch

from lossbuf.integrations.steps import close, is_open, keeps_loss, labels_and_rows, of_training
from tests.integrations.plain import callback, digits


def test_no_framework_is_imported_unasked():
    code = (
        "import sys, lossbuf, lossbuf.integrations, lossbuf.integrations.steps;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    brought = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "lossbuf" in brought
    assert not set(brought) & {"lightning", "transformers", "accelerate", "skorch", "ignite", "sklearn"}


def test_labels_and_rows_of_a_batch():
    x, labels, rows = torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([5, 6])
    for batch in ((x, labels, rows), [x, labels, "more", rows], {"x": x, "rows": rows, "labels": labels}):
        found = labels_and_rows(batch)
        assert found[0] is labels
        assert found[1] is rows


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            (1, 2),
            r"`batch` must be \(x, labels, rows\), got 2 parts, no rows\. Wrap the training data: lossbuf\.Indexed",
        ),
        ({"labels": 1}, r"`batch` must hold \"labels\" and \"rows\", got the keys \['labels'\]"),
        (torch.zeros(4), r"`batch` must be \(x, labels, rows\), got Tensor"),
        ("abc", r"`batch` must be \(x, labels, rows\), got str"),
    ],
)
def test_other_batches_are_told(batch, message):
    with pytest.raises(ValueError, match=message):
        labels_and_rows(batch)


def test_logits_of_a_training():
    logits = torch.zeros(2, 3, requires_grad=True)
    assert of_training(logits) is logits
    with pytest.raises(ValueError, match="`logits` must be those of a training step, got some without gradient"):
        of_training(logits.detach())
    with pytest.raises(ValueError, match="`logits` must be a tensor, got tuple"):
        of_training((logits,))


@pytest.mark.parametrize("settings", [{}, {"planted": 0.05}])
def test_an_epoch_is_ended_once(settings):
    from lossbuf import LossBufferCallback

    labels = digits()[1]
    mine = LossBufferCallback(labels, **settings)
    assert keeps_loss(mine) == (not settings)
    assert not is_open(mine)
    close(mine)
    assert mine.epoch == 0
    rows = torch.arange(8)
    mine.update(torch.randn(8, 10), labels[rows], rows)
    assert is_open(mine)
    mine.flush()
    assert is_open(mine)  # digested, but not ended
    close(mine)
    close(mine)
    assert mine.epoch == 1
    assert not is_open(mine)


def test_weights_keep_no_loss():
    assert not keeps_loss(callback("filter"))
    assert not keeps_loss(callback("reweight"))
