"""Callbacks and augmentations of one's own, and what makes a checkpoint another run's."""

import pytest
import torch
import torch.nn.functional as F

from lossbuf import LossBufferCallback
from lossbuf.training import build, train
from tests.training.test_training import SETTINGS, StopError, dropout_net


@pytest.fixture
def data(generator):
    """25 samples of 3 classes that can be told apart: three batches of 8 and one of 1."""
    labels = torch.arange(25) % 3
    return torch.randn(25, 6, generator=generator) * 0.3 + F.one_hot(labels, 6).float() * 2, labels


class CountingCallback:
    """Anything with a loss and an end of the epoch will do."""

    def __init__(self):
        self.rows, self.epochs = [], 0

    def loss(self, logits, labels, indices):
        self.rows += indices.tolist()
        return F.cross_entropy(logits, labels)

    def end_epoch(self):
        self.epochs += 1


def test_a_callback_of_ones_own(data, tmp_path):
    callback = CountingCallback()
    network = build(dropout_net, SETTINGS)
    history = train(network, *data, SETTINGS, callback=callback)
    assert callback.epochs == SETTINGS.epochs
    assert sorted(callback.rows) == sorted(SETTINGS.epochs * list(range(len(data[0]))))
    assert history.loss == train(build(dropout_net, SETTINGS), *data, SETTINGS).loss
    with pytest.raises(
        ValueError, match="`callback` must have state_dict and load_state_dict where there is a checkpoint, got Count"
    ):
        train(network, *data, SETTINGS, callback=callback, checkpoint=tmp_path / "run")


def _stopped_after_one_epoch(data, path, **settings):
    def after_epoch(network, calls=[]):  # noqa: B006
        calls.append(network)
        if len(calls) == 2:
            raise StopError

    with pytest.raises(StopError):
        train(build(dropout_net, SETTINGS), *data, SETTINGS, checkpoint=path, after_epoch=after_epoch, **settings)


def test_an_augmentation_without_a_name_resumes(data, tmp_path):
    _stopped_after_one_epoch(data, tmp_path / "run", augment=lambda x: x + 0)
    alone = train(build(dropout_net, SETTINGS), *data, SETTINGS, augment=lambda x: x + 0)
    resumed = train(build(dropout_net, SETTINGS), *data, SETTINGS, augment=lambda x: x + 0, checkpoint=tmp_path / "run")
    assert len(resumed.loss) == len(alone.loss)


def test_another_cut_is_another_run(data, tmp_path):
    labels = data[1]
    _stopped_after_one_epoch(data, tmp_path / "run", callback=LossBufferCallback(labels, noise_rate=0.1))
    with pytest.raises(ValueError, match=r"with the same network.*KnownRate\(noise_rate=0\.1\)"):
        train(
            build(dropout_net, SETTINGS),
            *data,
            SETTINGS,
            callback=LossBufferCallback(labels, noise_rate=0.9),
            checkpoint=tmp_path / "run",
        )
