"""Hugging Face's Trainer, with the adapter's mixin, learns and finds what the plain loop does."""

import os

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from lossbuf import LossBufferCallback, LossBufferWarning
from tests.integrations.plain import (
    BATCH,
    CLASS_WEIGHT,
    EPOCHS,
    MODES,
    ROWS,
    STEPS,
    RowsSeen,
    assert_every_row_came_once_an_epoch,
    assert_same,
    callback,
    digits,
    network,
    plain_loop,
    sgd,
)
from tests.states import assert_same_bits

pytest.importorskip("transformers")

from accelerate.state import AcceleratorState
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, default_data_collator
from transformers.trainer_callback import TrainerCallback

from lossbuf.integrations.huggingface import ROWS as KEY
from lossbuf.integrations.huggingface import LossBufferMixin, LossBufferTrainer, NumberedRows, RowCollator


class Net(nn.Module):
    """A model as Transformers wants them; one that takes ``num_items_in_batch`` is scaled by it."""

    def __init__(self):
        super().__init__()
        self.body = network()
        self.seen = RowsSeen(self.body)

    def forward(self, pixel_values, labels=None):
        logits = self.body(pixel_values)
        return {"loss": F.cross_entropy(logits.float(), labels), "logits": logits}


class Scaled(Net):
    def forward(self, pixel_values, labels=None, **kwargs):  # the signature is looked at
        logits = self.body(pixel_values)
        items = kwargs.get("num_items_in_batch")
        loss = F.cross_entropy(logits, labels, reduction="mean" if items is None else "sum")
        return {"loss": loss if items is None else loss / items, "logits": logits}


def samples(**columns):
    return [
        {"pixel_values": image, "labels": int(label), "noise": "unused"} | {k: v(row) for k, v in columns.items()}
        for row, (image, label) in enumerate(zip(*digits(), strict=True))
    ]


def arguments(folder, **settings):
    fixed = {"per_device_train_batch_size": BATCH, "max_grad_norm": 0.0, "use_cpu": True, "seed": 1}
    quiet = {"report_to": "none", "disable_tqdm": True, "logging_strategy": "no", "dataloader_pin_memory": False}
    settings = {"num_train_epochs": EPOCHS, "save_strategy": "no"} | fixed | quiet | settings
    return TrainingArguments(output_dir=str(folder / "run"), **settings)


def trainer(mine, folder, model=None, train=None, callbacks=(), id_column=None, own=None, **settings):
    model = model or Net()
    optimizer = sgd(model)
    return LossBufferTrainer(
        model=model,
        args=arguments(folder, **settings),
        train_dataset=train or samples(),
        eval_dataset=samples()[:50],
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
        callbacks=list(callbacks),
        loss_buffer=mine,
        id_column=id_column,
        **own or {},
    )


@pytest.fixture(autouse=True)
def _nothing_global():
    """The trainer sets global seeds, and a global precision."""
    with torch.random.fork_rng():
        yield
    AcceleratorState._reset_state()
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_plain_loop(mode, tmp_path):
    mine, plain = callback(mode), callback(mode)
    one = trainer(mine, tmp_path, eval_strategy="epoch")
    one.train()
    assert_every_row_came_once_an_epoch(one.model.seen.batches)
    assert_same(mine, plain, one.model.body, plain_loop(plain, one.model.seen.batches))
    metrics = [log["eval_loss"] for log in one.state.log_history if "eval_loss" in log]
    assert len(metrics) == EPOCHS
    x, labels = (part[:50] for part in digits())
    with torch.no_grad():
        assert metrics[-1] == pytest.approx(float(F.cross_entropy(one.model.body(x), labels)), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_class_weights_count_in_every_mode(mode, tmp_path):
    mine, plain = callback(mode, class_weight=CLASS_WEIGHT), callback(mode, class_weight=CLASS_WEIGHT)
    one = trainer(mine, tmp_path)
    one.train()
    assert_same(mine, plain, one.model.body, plain_loop(plain, one.model.seen.batches))


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_that_is_not_used_is_reported(mode, tmp_path):
    class Weighted(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    class Mine(LossBufferMixin, Weighted):
        pass

    def make():
        return Mine(model=Net(), args=arguments(tmp_path), train_dataset=samples(), loss_buffer=callback(mode))

    if mode == "watch":
        make()
    else:
        with pytest.warns(LossBufferWarning, match=r"Weighted.compute_loss` is not used.*class_weight=") as told:
            make()
        assert len(told) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("model", "divide"), [(Net, "group"), (Scaled, "rows")])
def test_accumulated(mode, model, divide, tmp_path):
    mine, plain = callback(mode), callback(mode)
    one = trainer(mine, tmp_path, model(), gradient_accumulation_steps=4)
    one.train()
    batches = one.model.seen.batches
    other = plain_loop(plain, batches, accumulate=4, divide=divide)
    assert_same(mine, plain, one.model.body, other, exact=False)


def test_in_mixed_precision(tmp_path):
    mine, plain = callback("reweight"), callback("reweight")
    one = trainer(mine, tmp_path, bf16=True)
    one.train()
    assert_same(mine, plain, one.model.body, plain_loop(plain, one.model.seen.batches, bfloat16=True))


@pytest.mark.parametrize("removed", [True, False])
def test_rows_come_through_workers_by_name_whatever_is_removed(removed, tmp_path):
    names = [f"digit-{row}" for row in range(ROWS)]
    mine, plain = callback(ids=names), callback()
    train = samples(file=lambda row: names[row])
    if not removed:
        for sample in train:
            del sample["noise"]
    order = list(range(ROWS))[::-1]
    one = trainer(
        mine,
        tmp_path,
        train=[train[row] for row in order],
        id_column="file",
        remove_unused_columns=removed,
        dataloader_num_workers=2 if removed else 0,
    )
    one.train()
    assert_every_row_came_once_an_epoch(one.model.seen.batches)
    plain_loop(plain, one.model.seen.batches)
    assert_same_bits(dict(mine.named_buffers()), dict(plain.named_buffers()))
    assert set(mine.report().id) == set(names)


def test_names_of_samples_in_the_order_of_the_labels(tmp_path):
    mine, plain = callback(ids=[f"digit-{row}" for row in range(ROWS)]), callback()
    one = trainer(mine, tmp_path)
    one.train()
    plain_loop(plain, one.model.seen.batches)
    assert_same_bits(dict(mine.named_buffers()), dict(plain.named_buffers()))


class Stream(IterableDataset):
    def __iter__(self):
        yield from samples(n=lambda row: row)


def test_a_stream_that_tells_its_rows(tmp_path):
    mine, plain = callback(), callback()
    one = trainer(mine, tmp_path, train=Stream(), id_column="n", max_steps=3 * STEPS)
    one.train()
    other = plain_loop(plain, one.model.seen.batches)
    assert_same(mine, plain, one.model.body, other)
    assert mine.epoch == 3


def test_a_data_set_of_the_datasets_library(tmp_path):
    datasets = pytest.importorskip("datasets")
    x, labels = digits()
    columns = {"pixel_values": x.numpy(), "labels": labels.numpy(), "noise": ["unused"] * ROWS}
    mine, plain = callback(), callback()
    one = trainer(mine, tmp_path, train=datasets.Dataset.from_dict(columns).with_format("torch"))
    one.train()
    assert_every_row_came_once_an_epoch(one.model.seen.batches)
    assert_same(mine, plain, one.model.body, plain_loop(plain, one.model.seen.batches))


class Stop(TrainerCallback):
    """Stops the training like a crash, when the checkpoint is written."""

    def on_save(self, args, state, control, **kwargs):
        raise KeyError("the power is off")


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"save_strategy": "epoch"}, STEPS),
        ({"save_strategy": "steps", "save_steps": 2 * STEPS}, 2 * STEPS),  # before the epoch is ended
        ({"save_strategy": "steps", "save_steps": 2 * STEPS + 4}, 2 * STEPS + 4),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(settings, steps, tmp_path):
    alone, stopped, resumed = callback(), callback(), callback()
    left_alone = trainer(alone, tmp_path)
    left_alone.train()

    with pytest.raises(KeyError, match="the power is off"):
        trainer(stopped, tmp_path, callbacks=[Stop()], **settings).train()
    after = trainer(resumed, tmp_path, **settings)
    after.train(resume_from_checkpoint=True)
    assert after.model.seen.batches == left_alone.model.seen.batches[steps:]
    assert_same(resumed, alone, after.model.body, left_alone.model.body)


def test_the_last_checkpoint_is_that_of_a_finished_run(tmp_path):
    mine, resumed, alone = callback(), callback(), callback()
    settings = {"save_strategy": "steps", "save_steps": EPOCHS * STEPS}
    trainer(mine, tmp_path, **settings).train()
    trainer(resumed, tmp_path, **settings).train(resume_from_checkpoint=True)  # no step is left
    assert_same(resumed, mine)
    alone.load(tmp_path / "run" / f"checkpoint-{EPOCHS * STEPS}" / "lossbuf.pt")
    assert (alone.epoch, mine.epoch) == (EPOCHS - 1, EPOCHS)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    trainer(callback(), tmp_path, num_train_epochs=3, save_strategy="epoch").train()
    with pytest.raises(ValueError, match="`state_dict` must have mode watch, got filter"):
        trainer(callback("watch"), tmp_path).train(resume_from_checkpoint=True)
    folder = tmp_path / "run" / f"checkpoint-{STEPS}"
    (folder / "lossbuf.pt").unlink()
    with pytest.raises(ValueError, match=r"`checkpoint` must hold lossbuf\.pt, got .*checkpoint-11"):
        trainer(callback(), tmp_path).train(resume_from_checkpoint=str(folder))


def test_a_saved_model_is_no_checkpoint(tmp_path):
    trainer(callback(), tmp_path).save_model(str(tmp_path / "model"))
    assert [path.name for path in (tmp_path / "model").iterdir() if path.name == "lossbuf.pt"] == []


def test_a_vision_transformer_and_a_trainer_of_ones_own(tmp_path):
    class Smooth(Trainer):
        calls = 0

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            Smooth.calls += 1
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    class Mine(LossBufferMixin, Smooth):
        pass

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=2,
        num_channels=1,
        num_labels=10,
    )
    mine = LossBufferCallback(digits()[1], rank_by="aum", noise_rate=0.2)
    settings = {"learning_rate": 5e-3, "label_smoothing_factor": 0.1, "eval_strategy": "epoch", "num_train_epochs": 3}
    one = Mine(
        model=ViTForImageClassification(config),
        args=arguments(tmp_path, **settings),
        train_dataset=samples(),
        eval_dataset=samples()[:50],
        loss_buffer=mine,
    )
    one.train()
    assert Smooth.calls == 3 * (STEPS + 7)
    assert mine.statistics().count.tolist() == [3] * ROWS
    losses = mine.statistics().label_loss, mine.statistics().last_label_loss
    assert losses[1].mean() < losses[0].mean() < 2.5


def test_what_is_wrong_is_told(tmp_path):
    smoothed = Net()
    smoothed.config = None  # the trainer looks at it
    with pytest.raises(ValueError, match="`compute_loss_func` must be None in mode 'filter', where the loss is"):
        trainer(callback(), tmp_path, own={"compute_loss_func": lambda *_: None})
    with pytest.raises(ValueError, match=r"`label_smoothing_factor` must be 0 in mode 'filter'.* got 0\.1"):
        trainer(callback(), tmp_path, smoothed, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match=r"`train_dataset` must have 330 samples, one a label, got 100\. Give `id_"):
        trainer(callback(), tmp_path, train=samples()[:100]).train()
    with pytest.raises(ValueError, match="`train_dataset` must hold a column 'file', got the keys "):
        trainer(callback(), tmp_path, id_column="file").train()

    with pytest.raises(ValueError, match=r"`train_dataset` must be map-style, got Stream\. Give `id_column`"):
        trainer(callback(), tmp_path, train=Stream(), max_steps=5).train()


class NoLogits(Net):
    def forward(self, pixel_values, labels=None):
        return {"loss": super().forward(pixel_values, labels)["loss"]}


class Tuple(Net):
    def forward(self, pixel_values, labels=None):
        return tuple(super().forward(pixel_values, labels).values())


def test_what_a_model_returns(tmp_path):
    mine = callback("watch")
    with pytest.raises(ValueError, match='`model` must return "logits", got dict'):
        trainer(mine, tmp_path, NoLogits()).train()
    assert mine.stage.steps == 0
    trainer(mine, tmp_path, Tuple(), num_train_epochs=1).train()
    assert mine.statistics().count.tolist() == [1] * ROWS


def test_loaders_of_ones_own_without_rows_are_told(tmp_path):
    class Own(LossBufferTrainer):
        def get_train_dataloader(self):
            return Trainer.get_train_dataloader(self)

    with pytest.raises(ValueError, match=r"`inputs` must hold 'lossbuf_rows', got the keys .*The rows come from"):
        Own(model=Net(), args=arguments(tmp_path), train_dataset=samples(), loss_buffer=callback()).train()
    unlabelled = [{"pixel_values": image} for image in digits()[0]]
    with pytest.raises(ValueError, match="`inputs` must hold 'labels', got the keys "):
        trainer(callback(), tmp_path, train=unlabelled).train()


def test_the_parts_on_their_own():
    rows = NumberedRows(samples())
    assert len(rows) == ROWS
    assert rows[7][KEY] == 7
    assert [sample[KEY] for sample in rows.__getitems__([3, 1])] == [3, 1]
    assert rows.__getitems__([3])[0]["labels"] == rows[3]["labels"]
    batch = RowCollator(default_data_collator)([{"x": torch.ones(2), KEY: row} for row in (5, torch.tensor(6))])
    assert batch[KEY].tolist() == [5, 6]
    assert batch["x"].shape == (2, 2)
    assert RowCollator(default_data_collator, "id")([{"x": 1, "id": "a"}])[KEY] == ["a"]


def test_warnings_of_an_epoch_are_told(tmp_path):
    train = samples()
    train[0]["labels"] = (train[0]["labels"] + 1) % 10
    with pytest.warns(LossBufferWarning, match="1 samples came with another label"):
        trainer(callback(), tmp_path, train=train, num_train_epochs=3).train()
