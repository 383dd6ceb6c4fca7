"""A loop that Accelerate runs, with the adapter, learns and finds what the plain loop does."""

import pytest
import torch
from torch.utils.data import DataLoader

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
    network,
    plain_loop,
    sgd,
)
from tests.states import assert_same_bits

pytest.importorskip("accelerate")

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from lossbuf.integrations.accelerate import AcceleratedLossBuffer


@pytest.fixture(autouse=True)
def _an_accelerator_each():
    """Its settings are global."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


class Run:
    """A network and a loop."""

    def __init__(self, mine, train=None, **settings):
        self.accelerator = Accelerator(cpu=True, **settings)
        self.model = network()
        self.seen = RowsSeen(self.model)
        with torch.random.fork_rng():
            torch.manual_seed(1)  # what a sampler that shuffles is seeded by
            self.prepared, self.optimizer, self.loader = self.accelerator.prepare(
                self.model, sgd(self.model), train or loader(shuffle=True)
            )
        self.buffers = AcceleratedLossBuffer(mine, self.accelerator)

    def train(self, epochs=range(EPOCHS), stop_after=None, skip=0):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            for epoch in epochs:
                self.loader.set_epoch(epoch)
                batches = self.accelerator.skip_first_batches(self.loader, skip) if skip else self.loader
                self._epoch(batches, None if stop_after is None else stop_after - epoch * STEPS)
                self.buffers.end_epoch()
                skip = 0
        return self

    def _epoch(self, batches, steps_left):
        for step, (x, labels, rows) in enumerate(batches, 1):
            with self.accelerator.accumulate(self.prepared):
                self.accelerator.backward(self.buffers.loss(self.prepared(x), labels, rows))
                self.optimizer.step()
                self.optimizer.zero_grad()
            if step == steps_left:
                raise KeyError("the power is off")


def loader(samples=None, **settings):
    return DataLoader(samples or dataset(), batch_size=BATCH, **settings)


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
        ({"gradient_accumulation_steps": 4}, {"accumulate": 4}),
        ({"mixed_precision": "bf16"}, {"bfloat16": True}),
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
    run = Run(mine, loader(samples, shuffle=True, num_workers=2)).train()
    assert_every_row_came_once_an_epoch(run.seen.batches)
    plain_loop(plain, run.seen.batches)
    assert_same_bits(dict(mine.named_buffers()), dict(plain.named_buffers()))
    assert set(mine.report().id) == set(names)


@pytest.mark.parametrize("steps", [3 * STEPS, 2 * STEPS + 4])
def test_a_resumed_run_ends_with_the_same_bits(steps, tmp_path):
    alone, stopped, resumed = callback(), callback(), callback()
    left_alone = Run(alone, loader(sampler=EpochOrder())).train()

    run = Run(stopped, loader(sampler=EpochOrder()))
    if steps % STEPS:
        with pytest.raises(KeyError, match="the power is off"):
            run.train(stop_after=steps)
    else:
        run.train(range(steps // STEPS))
    run.accelerator.save_state(str(tmp_path))
    assert (tmp_path / "lossbuf.pt").exists()

    after = Run(resumed, loader(sampler=EpochOrder()))
    after.accelerator.load_state(str(tmp_path))
    after.train(range(steps // STEPS, EPOCHS), skip=steps % STEPS)
    assert after.seen.batches == left_alone.seen.batches[steps:]
    assert_same(resumed, alone, after.model, left_alone.model)


def test_the_file_in_a_checkpoint_can_be_read_alone(tmp_path):
    mine, other = callback(), callback()
    run = Run(mine).train()
    run.accelerator.save_state(str(tmp_path))
    other.load(tmp_path / "lossbuf.pt")
    assert_same(mine, other)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    run = Run(callback())
    run.accelerator.save_state(str(tmp_path))
    other = Run(callback("watch"))
    with pytest.raises(ValueError, match="`state_dict` must have mode watch, got filter"):
        other.accelerator.load_state(str(tmp_path))
    (tmp_path / "lossbuf.pt").unlink()
    with pytest.raises(ValueError, match=r"`checkpoint` must hold lossbuf\.pt, got .* without the loss buffers"):
        run.accelerator.load_state(str(tmp_path))


def test_an_evaluation_is_refused():
    mine = callback()
    run = Run(mine)
    x, labels, rows = next(iter(run.loader))
    with torch.no_grad():
        logits = run.prepared(x)
    for method in (run.buffers.loss, run.buffers.update):
        with pytest.raises(ValueError, match="`logits` must be those of a training step, got some without gradient"):
            method(logits, labels, rows)
    assert mine.stage.steps == 0


def test_weights_for_a_loss_of_ones_own():
    mine = callback()
    run = Run(mine).train()
    x, labels, rows = next(iter(run.loader))
    weights = run.buffers.update(run.prepared(x), labels, rows)
    assert torch.equal(weights, mine.sample_weights[rows])
    assert 0 < weights.sum() < len(rows)


def test_ranks_that_make_different_numbers_of_steps_are_refused(monkeypatch):
    accelerator = Accelerator(cpu=True)
    accelerator.even_batches = False
    AcceleratedLossBuffer(callback(), accelerator)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(ValueError, match="`even_batches` must be True with several processes, got False"):
        AcceleratedLossBuffer(callback(), accelerator)
