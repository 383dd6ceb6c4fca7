"""Ignite's engine, with the adapter's loss and handlers, learns and finds what the plain loop does."""

import pytest
import torch
from torch.utils.data import DataLoader

from lossbuf import LossBufferWarning
from tests.integrations.plain import (
    BATCH,
    CLASS_WEIGHT,
    EPOCHS,
    MODES,
    STEPS,
    EpochOrder,
    RowsSeen,
    assert_every_row_came_once_an_epoch,
    assert_same,
    callback,
    dataset,
    digits,
    network,
    plain_loop,
    sgd,
)
from tests.states import assert_same_bits

pytest.importorskip("ignite")

from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Loss

from lossbuf.integrations.ignite import IgniteLossBuffer


class Run:
    """A network, its trainer, and the adapter, attached."""

    def __init__(self, mine, **settings):
        self.model = network()
        self.seen = RowsSeen(self.model)
        self.buffers = IgniteLossBuffer(mine)
        optimizer = sgd(self.model)
        settings = {"prepare_batch": self.buffers.prepare_batch} | settings
        self.trainer = create_supervised_trainer(self.model, optimizer, self.buffers, **settings)
        self.buffers.attach(self.trainer)
        self.parts = {"model": self.model, "optimizer": optimizer, "trainer": self.trainer, "buffers": self.buffers}

    def train(self, train=None, epochs=EPOCHS):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.trainer.run(train or loader(shuffle=True), max_epochs=epochs)
        return self


def loader(samples=None, **settings):
    return DataLoader(samples or dataset(), batch_size=BATCH, **settings)


def ordered(run):
    """Batches in an order of the epoch."""
    order = EpochOrder()
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: order.set_epoch(engine.state.epoch))
    return loader(sampler=order)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_plain_loop(mode):
    mine, plain = callback(mode), callback(mode)
    run = Run(mine).train()
    assert_every_row_came_once_an_epoch(run.seen.batches)
    assert_same(mine, plain, run.model, plain_loop(plain, run.seen.batches))


@pytest.mark.parametrize("mode", MODES)
def test_class_weights_count_in_every_mode(mode):
    mine, plain = callback(mode, class_weight=CLASS_WEIGHT), callback(mode, class_weight=CLASS_WEIGHT)
    run = Run(mine).train()
    assert_same(mine, plain, run.model, plain_loop(plain, run.seen.batches))


@pytest.mark.parametrize(
    ("settings", "loop"),
    [
        ({"gradient_accumulation_steps": STEPS}, {"accumulate": STEPS}),
        ({"model_fn": torch.autocast("cpu", torch.bfloat16)(lambda model, x: model(x).float())}, {"bfloat16": True}),
    ],
)
def test_accumulated_and_in_mixed_precision(settings, loop):
    mine, plain = callback("reweight"), callback("reweight")
    run = Run(mine, **settings).train()
    assert_same(mine, plain, run.model, plain_loop(plain, run.seen.batches, **loop))


def test_rows_come_through_workers_and_by_name():
    names = [f"digit-{row}" for row in range(len(dataset()))]
    mine, plain = callback(ids=names), callback()
    samples = [(x, label, names[row]) for x, label, row in dataset()]
    run = Run(mine).train(loader(samples, shuffle=True, num_workers=2))
    assert_every_row_came_once_an_epoch(run.seen.batches)
    plain_loop(plain, run.seen.batches)
    assert_same_bits(dict(mine.named_buffers()), dict(plain.named_buffers()))
    assert set(mine.report().id) == set(names)


def test_batches_that_are_dicts():
    samples = [{"x": x, "labels": label, "rows": row} for x, label, row in dataset()]
    mine, plain = callback(), callback()
    run = Run(mine, model_fn=lambda model, x: model(x["x"])).train(loader(samples, shuffle=True))
    assert_same(mine, plain, run.model, plain_loop(plain, run.seen.batches))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("event", [Events.EPOCH_COMPLETED(once=3), Events.ITERATION_COMPLETED(once=3 * STEPS)])
def test_a_resumed_run_ends_with_the_same_bits(event, first, tmp_path):
    def stop(engine):
        raise KeyError("the power is off")

    alone, stopped, resumed = callback(), callback(), callback()
    left_alone = Run(alone)
    left_alone.train(ordered(left_alone))

    run = Run(stopped)
    keeper = Checkpoint(run.parts, DiskSaver(tmp_path, create_dir=True), filename_pattern="{name}.pt")
    run.trainer.add_event_handler(event, keeper)
    if first:  # the checkpoint is written before the epoch is ended
        handlers = run.trainer._event_handlers[Events.EPOCH_COMPLETED]
        handlers.reverse()
    run.trainer.add_event_handler(event, stop)
    with pytest.raises(KeyError, match="the power is off"):
        run.train(ordered(run))

    after = Run(resumed)
    Checkpoint.load_objects(after.parts, tmp_path / "checkpoint.pt")
    assert resumed.epoch in (2, 3)
    after.train(ordered(after))
    assert after.seen.batches == left_alone.seen.batches[3 * STEPS :]
    assert_same(resumed, alone, after.model, left_alone.model)


def test_a_run_resumed_within_an_epoch_goes_on_with_it():
    """Ignite starts the data anew and makes the steps that were missing."""
    mine = callback("watch")
    run = Run(mine)
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=STEPS + 4), lambda engine: engine.terminate())
    run.train()
    assert mine.epoch == 1

    resumed = callback("watch")
    after = Run(resumed)
    Checkpoint.load_objects(after.parts, {name: part.state_dict() for name, part in run.parts.items()})
    after.train(loader(shuffle=True))
    assert resumed.epoch == EPOCHS
    assert len(after.seen.batches) == (EPOCHS - 1) * STEPS - 4
    batches = run.seen.batches + after.seen.batches
    came = [{row for rows in batches[start : start + STEPS] for row in rows} for start in range(0, len(batches), STEPS)]
    assert resumed.statistics().count.tolist() == [sum(row in rows for rows in came) for row in range(len(dataset()))]


def test_a_run_started_again_begins_an_epoch():
    mine = callback("watch")
    run = Run(mine)
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=STEPS + 4), lambda engine: engine.terminate())
    run.train()
    assert mine.epoch == 1
    run.train()  # Ignite leaves the second epoch as it is, and begins the third
    assert mine.epoch == EPOCHS
    assert len(run.seen.batches) == (EPOCHS - 1) * STEPS + 4
    counts = mine.statistics().count.tolist()
    assert counts == [
        EPOCHS - 1 + any(row in rows for rows in run.seen.batches[STEPS : STEPS + 4]) for row in range(330)
    ]


def test_a_state_of_other_labels_is_refused():
    with pytest.raises(ValueError, match="`state_dict` must have mode watch, got filter"):
        IgniteLossBuffer(callback("watch")).load_state_dict(IgniteLossBuffer(callback()).state_dict())


@pytest.mark.usefixtures("no_shape_checks")
def test_what_is_wrong_is_told():
    mine = callback()
    pairs = torch.utils.data.TensorDataset(*digits())
    with pytest.raises(ValueError, match=r"`batch` must be \(x, labels, rows\), got 2 parts, no rows. Wrap the"):
        Run(mine).train(loader(pairs))
    with pytest.raises(ValueError, match=r"`batch` must hold .labels. and .rows., got the keys \['x', 'y'\]"):
        Run(mine).train(loader([{"x": x, "y": y} for x, y in pairs]))
    with pytest.raises(ValueError, match=r"`target` must be \(labels, rows\), got Tensor. Give `prepare_batch="):
        Run(mine, prepare_batch=lambda batch, **_: (batch[0], batch[1])).train()
    run = Run(mine)
    evaluator = create_supervised_evaluator(
        run.model, {"loss": Loss(run.buffers, batch_size=len)}, prepare_batch=run.buffers.prepare_batch
    )
    with pytest.raises(ValueError, match="`logits` must be those of a training step, got some without gradient"):
        evaluator.run(loader())
    assert mine.stage.steps == 0
    assert mine.epoch == 0


def test_warnings_of_an_epoch_are_told():
    x, labels = digits()
    labels[0] = (labels[0] + 1) % 10
    with pytest.warns(LossBufferWarning, match="1 samples came with another label"):
        Run(callback()).train(loader(torch.utils.data.TensorDataset(x, labels, torch.arange(len(x)))), epochs=1)
