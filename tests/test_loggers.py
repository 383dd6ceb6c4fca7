"""lossbuf.loggers: what is told after an epoch, and that it arrives; no network is used."""

import math
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lossbuf import LossBufferCallback, LossBufferWarning
from lossbuf.loggers import FigureLogger, Logger, TensorBoardLogger, WandbLogger, epoch_values, log_epoch


class Kept:
    """A logger that keeps what it is told."""

    def __init__(self):
        self.told = []

    def log(self, values, step):
        self.told.append((step, dict(values)))


def trained(epochs=3, num_classes=3, bad=0, told=None, **settings):
    """A callback after some epochs of simulated outputs, of which the first ``bad`` rows are NaN."""
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(240) % 3
    labels = torch.where(torch.rand(240, generator=generator) < 0.2, (true + 1) % 3, true)
    callback = LossBufferCallback(labels, num_classes, warmup=2, **settings)
    for _ in range(epochs):
        logits = torch.randn(240, num_classes, generator=generator)
        logits[torch.arange(240), true] += 4
        logits[:bad] = float("nan")
        for rows in torch.randperm(240, generator=generator).split(64):
            callback.update(logits[rows], labels[rows], rows)
        callback.end_epoch()
        if told is not None:
            log_epoch(callback, told)
    return callback


def small_figure():
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([0, 1])
    return figure


# ---- values ----------------------------------------------------------------------------------------------------------


def test_values_of_an_epoch():
    callback = trained(mode="filter")
    values, verdict = epoch_values(callback), callback.verdict()
    assert values["lossbuf/noise_rate"] == pytest.approx(verdict.noise_rate)
    assert values["lossbuf/noise_rate"] == pytest.approx(0.2, abs=0.06)
    assert values["lossbuf/suspects"] == verdict.suspect_mask.sum() > 0
    assert values["lossbuf/suspect_share"] == pytest.approx(verdict.suspect_mask.mean())
    assert values["lossbuf/dropped_share"] == pytest.approx((callback.sample_weights == 0).double().mean().item())
    assert values["lossbuf/dropped_share"] > 0.1
    means = callback.rings.label_loss.mean().tolist()
    assert [values[f"lossbuf/label_loss/class_{label}"] for label in range(3)] == pytest.approx(means)
    assert values["lossbuf/label_loss/mean"] == pytest.approx(np.mean(means))
    assert values["lossbuf/label_loss/max"] == pytest.approx(max(means))
    rejected = {name.rpartition("/")[2]: value for name, value in values.items() if "/rejected/" in name}
    assert rejected == dict.fromkeys(callback.rejected(), 0.0)
    assert all(type(value) is float and math.isfinite(value) for value in values.values())


@pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning")
def test_rows_left_out_are_counted():
    assert epoch_values(trained(bad=7, epochs=2))["lossbuf/rejected/not_finite"] == 14


def test_nothing_is_dropped_while_watching():
    assert epoch_values(trained(mode="watch"))["lossbuf/dropped_share"] == 0


def test_reweighting_drops_a_part():
    assert 0.05 < epoch_values(trained(mode="reweight"))["lossbuf/dropped_share"] < 0.5


def test_classes_never_seen_have_no_value():
    values = epoch_values(trained(num_classes=5))
    assert "lossbuf/label_loss/class_2" in values
    assert "lossbuf/label_loss/class_3" not in values
    assert math.isfinite(values["lossbuf/label_loss/mean"])


@pytest.mark.parametrize(("max_classes", "expected"), [(2, 0), (3, 3), (50, 3)])
def test_many_classes_have_no_values_of_their_own(max_classes, expected):
    values = epoch_values(trained(), max_classes=max_classes)
    assert sum("/class_" in name for name in values) == expected
    assert "lossbuf/label_loss/max" in values


def test_before_anything_was_seen():
    values = epoch_values(LossBufferCallback([0, 1]))
    assert values["lossbuf/suspects"] == values["lossbuf/dropped_share"] == 0
    assert not any("label_loss" in name for name in values)


def test_other_rankings_and_prefixes():
    values = epoch_values(trained(rank_by="aum"), prefix="cleaning.")
    assert "cleaning.noise_rate" in values
    assert all(name.startswith("cleaning.") for name in values)


def test_doubts_are_left_to_the_verdict():
    callback = trained(epochs=1, mode="filter")
    epoch_values(callback)  # a warning would be an error
    with pytest.warns(LossBufferWarning, match="Nothing was dropped yet"):
        callback.verdict()


def test_logging_changes_nothing():
    told = Kept()
    logged, silent = trained(told=told, mode="filter"), trained(mode="filter")
    for name, value in silent.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.nan_to_num(nan=-1), logged.state_dict()[name].nan_to_num(nan=-1)), name
    assert [step for step, _ in told.told] == [1, 2, 3]
    assert told.told[-1][1] == epoch_values(silent)
    assert [values["lossbuf/dropped_share"] > 0 for _, values in told.told] == [False, True, True]


def test_what_cannot_log(no_shape_checks):
    with pytest.raises(ValueError, match=r"`logger` must have a method `log\(values, step\)`, got list"):
        log_epoch(trained(), [])
    with pytest.raises(ValueError, match="`max_classes` must be an integer of at least 1, got 0"):
        log_epoch(trained(), Kept(), max_classes=0)


# ---- TensorBoard -----------------------------------------------------------------------------------------------------


def read_back(folder):
    """Scalars by name as ``(step, value)``, and images by name."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    scalars = {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}
    return scalars, {name: events.Images(name) for name in events.Tags()["images"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard")
    kept = Kept()
    with TensorBoardLogger(tmp_path) as logger:
        assert isinstance(logger, Logger)
        assert isinstance(logger, FigureLogger)
        callback = trained(told=kept)
        for step, values in kept.told:
            logger.log(values, step)
        logger.log_figure("scores", small_figure(), 3)
    scalars, images = read_back(tmp_path)
    assert scalars.keys() == epoch_values(callback).keys()
    for name, points in scalars.items():
        assert [step for step, _ in points] == [1, 2, 3]
        assert [value for _, value in points] == pytest.approx([values[name] for _, values in kept.told])
    (image,) = images["scores"]
    assert (image.step, image.width, image.height) == (3, 100, 50)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_writer_of_ones_own_stays_open(tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        with TensorBoardLogger(writer) as logger:
            logger.log({"a": 1.0}, 1)
        writer.add_scalar("b", 2.0, 1)
    assert read_back(tmp_path)[0] == {"a": [(1, 1.0)], "b": [(1, 2.0)]}


def test_no_writer(no_shape_checks):
    with pytest.raises(ValueError, match="`writer` must be a folder or a SummaryWriter, got int"):
        TensorBoardLogger(3)


def test_tensorboard_missing_names_the_mend(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoardLogger(tmp_path)
    assert not list(tmp_path.iterdir())


# ---- Weights & Biases ------------------------------------------------------------------------------------------------


class Run:
    """As much of a run as the adapter uses."""

    def __init__(self):
        self.rows, self.metrics = [], []

    def define_metric(self, name, **settings):
        self.metrics.append((name, settings))

    def log(self, values):
        self.rows.append(values)


def test_wandb_rows_carry_their_step():
    run = Run()
    logger = WandbLogger(run)
    log_epoch(trained(epochs=2), logger)
    assert run.rows == [{**epoch_values(trained(epochs=2)), "lossbuf/step": 2}]
    assert run.metrics == [
        ("lossbuf/step", {"hidden": True}),
        ("lossbuf/*", {"step_metric": "lossbuf/step"}),
    ]
    assert isinstance(logger, Logger)
    assert isinstance(logger, FigureLogger)


def test_no_run(no_shape_checks):
    with pytest.raises(ValueError, match=r"`run` must be a run, as wandb\.init gives it, got NoneType"):
        WandbLogger(None)


def test_a_real_run_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="lossbuf-test", dir=str(tmp_path))
    try:
        logger = WandbLogger(run)
        callback = trained(told=logger)
        logger.log_figure("lossbuf/scores", small_figure(), 3)
        found = dict(run.summary)
        folder = run.dir
    finally:
        run.finish()
    assert run.settings.mode == "offline"
    assert found["lossbuf/step"] == 3
    for name, value in epoch_values(callback).items():
        assert found[name] == pytest.approx(value)
    assert found["lossbuf/scores"]["width"] == 100
    assert folder.startswith(str(tmp_path))
