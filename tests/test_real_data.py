"""Wrong labels are found in real images; needs the files under LOSSBUF_DATA."""

import os

import numpy as np
import pytest
import torch

from benchmarks.common import data, metrics
from benchmarks.common.labels import noisy_labels
from lossbuf import LossBufferCallback
from lossbuf.detection.thresholds import KnownRate
from lossbuf.networks import ConvNet
from lossbuf.training import TrainSettings, build, train

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("LOSSBUF_DATA" not in os.environ, reason="LOSSBUF_DATA is not set"),
]

SIZES = {"mnist": (60_000, 10_000), "fashion-mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}


@pytest.mark.parametrize("name", SIZES)
def test_loads_whole_and_standardised(name):
    loaded = data.load(name)
    assert (len(loaded.x), len(loaded.test_x)) == SIZES[name]
    assert loaded.num_classes == 10
    assert loaded.x.mean().abs() < 1e-3
    assert (loaded.x.std() - 1).abs() < 1e-2
    counts = torch.bincount(loaded.labels)
    assert counts.min() > 4_900


@pytest.mark.parametrize(("name", "pure_rate"), [("mnist", 0.93), ("fashion-mnist", 0.85), ("cifar10", 0.68)])
def test_kept_rows_are_purer_than_given(name, pure_rate):
    loaded = data.load(name, subset=4_000)
    noisy = noisy_labels(loaded, "symmetric", 0.4, None, seed=0)
    labels = torch.from_numpy(noisy.labels)
    settings = TrainSettings(epochs=5, batch_size=64, seed=0, device="cpu")
    channels, height, width = loaded.x.shape[1:]
    callback = LossBufferCallback(labels, 10)
    network = build(lambda: ConvNet(channels, 10, (height, width), width=16, norm="batch"), settings)
    train(network, loaded.x, labels, settings, callback=callback)
    statistics = callback.statistics()
    wrong = noisy.noise_mask
    cut = KnownRate(float(wrong.mean()))(statistics.suspicion("score2").numpy(), statistics.label_loss.numpy())
    assert metrics.kept(cut.suspect_mask, wrong)["pure_rate"] > pure_rate
    assert np.mean(~wrong) < 0.62
