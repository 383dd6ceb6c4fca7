"""Lightning's Trainer, with the callback's adapter, learns and finds what the plain loop does."""

import warnings

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
    state_of,
)
from tests.states import assert_same_bits

pl = pytest.importorskip("lightning")

from lightning.pytorch.callbacks import Callback, ModelCheckpoint  # noqa: E402

from lossbuf.integrations.lightning import LightningLossBuffer  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),  # Lightning's own
]


class Digits(pl.LightningModule):
    """A module that returns its logits."""

    def __init__(self, **own):
        super().__init__()
        self.network, self.own = network(), own
        self.seen = RowsSeen(self.network)

    def training_step(self, batch, batch_idx):
        return {"logits": self.network(batch[0])} | {name: value(batch) for name, value in self.own.items()}

    def validation_step(self, batch, batch_idx):
        self.log("loss", torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self):
        return sgd(self.network)


def trainer(folder, *callbacks, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    settings = {"max_epochs": EPOCHS, "enable_checkpointing": False} | quiet | settings
    return pl.Trainer(callbacks=list(callbacks), default_root_dir=folder, num_sanity_val_steps=2, **settings)


def loader(workers=0, **settings):
    return DataLoader(dataset(), batch_size=BATCH, num_workers=workers, **settings)


def fitted(mine, folder, module=None, train=None, **settings):
    module = module or Digits()
    validation = loader() if settings.pop("validate", False) else None
    with torch.random.fork_rng():
        torch.manual_seed(1)
        trainer(folder, LightningLossBuffer(mine), **settings).fit(module, train or loader(shuffle=True), validation)
    return module


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_plain_loop(mode, tmp_path):
    mine, plain = callback(mode), callback(mode)
    module = fitted(mine, tmp_path, validate=True)
    assert_every_row_came_once_an_epoch(module.seen.batches)
    assert_same(mine, plain, module.network, plain_loop(plain, module.seen.batches))


@pytest.mark.parametrize("mode", MODES)
def test_class_weights_count_in_every_mode(mode, tmp_path):
    mine, plain = callback(mode, class_weight=CLASS_WEIGHT), callback(mode, class_weight=CLASS_WEIGHT)
    module = fitted(mine, tmp_path)
    assert_same(mine, plain, module.network, plain_loop(plain, module.seen.batches))


@pytest.mark.parametrize(
    ("settings", "loop"),
    [
        ({"accumulate_grad_batches": 4}, {"accumulate": 4}),
        ({"precision": "bf16-mixed"}, {"bfloat16": True}),
    ],
)
def test_accumulated_and_in_mixed_precision(settings, loop, tmp_path):
    mine, plain = callback("reweight"), callback("reweight")
    module = fitted(mine, tmp_path, **settings)
    assert_same(mine, plain, module.network, plain_loop(plain, module.seen.batches, **loop))


def test_rows_come_through_workers_and_by_name(tmp_path):
    ids = [f"digit-{row}" for row in range(len(dataset()))]
    mine, plain = callback(ids=ids), callback(ids=ids)
    named = [(x, label, ids[row]) for x, label, row in dataset()]
    train = DataLoader(named, batch_size=BATCH, shuffle=True, num_workers=2)
    module = fitted(mine, tmp_path, train=train)
    batches = module.seen.batches
    assert_every_row_came_once_an_epoch(batches)

    mine_by_number = callback()
    other = plain_loop(mine_by_number, batches)
    plain.load_state_dict(state_of(mine_by_number) | {"_extra_state": state_of(mine)["_extra_state"]})
    assert_same(mine, plain, module.network, other)
    assert set(mine.report().id) == set(ids)


class Keeper(Callback):
    """Saves where it is told to, and stops the training like a crash."""

    def __init__(self, path, hook, epoch, batch=None):
        self.path, self.at = path, (hook, epoch, batch)

    def _reached(self, trainer, hook, batch=None):
        if (hook, trainer.current_epoch, batch) == self.at:
            trainer.save_checkpoint(self.path)
            raise KeyError("the power is off")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._reached(trainer, "batch", batch_idx)

    def on_validation_end(self, trainer, pl_module):
        self._reached(trainer, "validation")

    def on_train_epoch_end(self, trainer, pl_module):
        self._reached(trainer, "epoch")


@pytest.mark.parametrize(
    ("hook", "batch", "first"),
    [
        ("epoch", None, False),
        ("epoch", None, True),  # before the epoch is ended here
        ("validation", None, False),
        ("batch", STEPS - 1, False),
    ],
)
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_resumed_run_ends_with_the_same_bits(hook, batch, first, tmp_path):
    alone, stopped, resumed = callback(), callback(), callback()
    left_alone = fitted(alone, tmp_path, train=loader(sampler=EpochOrder()), validate=True)

    keeper = Keeper(tmp_path / "run.ckpt", hook, 2, batch)
    adapter = LightningLossBuffer(stopped)
    both = (keeper, adapter) if first else (adapter, keeper)
    with pytest.raises(KeyError, match="the power is off"):
        trainer(tmp_path, *both).fit(Digits(), loader(sampler=EpochOrder()), loader())
    assert stopped.epoch == (3 if hook == "epoch" and not first else 2)

    module = Digits()
    trainer(tmp_path, LightningLossBuffer(resumed)).fit(
        module, loader(sampler=EpochOrder()), loader(), ckpt_path=tmp_path / "run.ckpt"
    )
    assert module.seen.batches == left_alone.seen.batches[3 * STEPS :]
    assert_same(resumed, alone, module.network, left_alone.network)


def test_the_best_weights_can_be_tested_without_undoing_anything(tmp_path):
    mine = callback()
    keeper = ModelCheckpoint(dirpath=tmp_path, monitor="loss", mode="max")  # the first epoch is the "best"
    module, one = Digits(), trainer(tmp_path, LightningLossBuffer(mine), keeper, enable_checkpointing=True)
    one.fit(module, loader(shuffle=True), loader())
    before = {name: value.clone() for name, value in mine.named_buffers()}
    one.validate(module, loader(), ckpt_path="best", verbose=False)
    assert mine.epoch == EPOCHS
    assert_same_bits(before, dict(mine.named_buffers()))


def test_a_checkpoint_of_other_labels_is_refused(tmp_path):
    one = trainer(tmp_path, LightningLossBuffer(callback()), max_epochs=3)
    one.fit(Digits(), loader())
    one.save_checkpoint(tmp_path / "run.ckpt")
    other = trainer(tmp_path, LightningLossBuffer(callback("watch")))
    with pytest.raises(ValueError, match="`state_dict` must have mode watch, got filter"):
        other.fit(Digits(), loader(), ckpt_path=tmp_path / "run.ckpt")


def test_a_loss_of_ones_own_while_watching(tmp_path):
    def smooth(batch):
        return torch.nn.functional.cross_entropy(module.network(batch[0]), batch[1], label_smoothing=0.1)

    mine, plain = callback("watch"), callback("watch")
    module = Digits(loss=smooth)
    fitted(mine, tmp_path, module, max_epochs=2)
    plain_loop(plain, module.seen.batches[::2])  # of each batch there were two passes
    assert mine.epoch == plain.epoch == 2
    first, other = mine.statistics().label_loss, plain.statistics().label_loss
    assert (first.mean() > other.mean() + 0.01).item()  # another loss was learnt by


class ByHand(Digits):
    """Manual optimisation."""

    def __init__(self, mine):
        super().__init__()
        self.mine, self.automatic_optimization = [mine], False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        x, labels, rows = batch
        for mine in self.mine:
            self.manual_backward(mine.loss(self.network(x), labels, rows))
            optimizer.step()
            optimizer.zero_grad()


def test_steps_of_ones_own(tmp_path):
    mine, plain = callback(), callback()
    module = ByHand(mine)
    trainer(tmp_path, LightningLossBuffer(mine, own_steps=True)).fit(module, loader(shuffle=True))
    assert_same(mine, plain, module.network, plain_loop(plain, module.seen.batches))


def test_the_module_gets_its_step_back(tmp_path):
    module = fitted(callback(), tmp_path, max_epochs=3)
    assert "training_step" not in vars(module)
    wrong = Digits(logits=lambda batch: None)
    with pytest.raises(ValueError, match="logits"):
        fitted(callback(), tmp_path, wrong)
    assert "training_step" not in vars(wrong)
    own = module.training_step = lambda batch, batch_idx: {"logits": module.network(batch[0])}
    fitted(callback(), tmp_path, module, max_epochs=3)
    assert vars(module)["training_step"] is own


def test_a_step_that_gives_none_is_skipped(tmp_path):
    class Skipping(Digits):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 0 else super().training_step(batch, batch_idx)

    mine = callback()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`training_step` returned `None`")
        fitted(mine, tmp_path, Skipping(), train=loader(), max_epochs=3)
    assert mine.statistics().count.tolist() == [0] * BATCH + [3] * (len(dataset()) - BATCH)


MISUSES = {
    "no dict": (
        lambda module, batch: module.network(batch[0]).sum(),
        '`training_step` must return a dict with "logits", got Tensor.',
    ),
    "no logits": (
        lambda module, batch: {"loss": module.network(batch[0]).sum()},
        "got the keys \\['loss'\\]. Return .\"logits\": logits.",
    ),
    "a loss": (
        lambda module, batch: {"logits": module.network(batch[0]), "loss": 0},
        '`training_step` must return no "loss" where samples are weighted or labels planted, got one. Leave it out',
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_what_is_wrong_is_told(misuse, tmp_path):
    step, message = MISUSES[misuse]

    class Wrong(Digits):
        def training_step(self, batch, batch_idx):
            return step(self, batch)

    mine = callback()
    with pytest.raises(ValueError, match=message):
        fitted(mine, tmp_path, Wrong())
    assert mine.stage.steps == 0


def test_batches_without_rows_are_told(tmp_path):
    x, labels = digits()
    pairs = DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=BATCH)
    with pytest.raises(
        ValueError, match=r"`batch` must be \(x, labels, rows\), got 2 parts, no rows. Wrap the training"
    ):
        fitted(callback(), tmp_path, train=pairs)


def test_manual_optimisation_is_told_what_to_do(tmp_path):
    module = ByHand(callback())
    with pytest.raises(ValueError, match=r"`automatic_optimization` must be True, got False.*own_steps=True"):
        fitted(callback(), tmp_path, module)
    module.mine = []
    with pytest.raises(ValueError, match=r"`training_step` must feed the callback, got an epoch without rows"):
        trainer(tmp_path, LightningLossBuffer(callback(), own_steps=True)).fit(module, loader())


def test_labels_and_rows_may_be_returned(tmp_path):
    x, labels = digits()
    train = DataLoader([{"image": image, "n": row} for row, image in enumerate(x)], batch_size=BATCH)

    class Returning(Digits):
        def training_step(self, batch, batch_idx):
            return {"logits": self.network(batch["image"]), "labels": labels[batch["n"]], "rows": batch["n"]}

    mine, plain = callback(), callback()
    module = fitted(mine, tmp_path, Returning(), train=train)
    assert_same(mine, plain, module.network, plain_loop(plain, module.seen.batches))


def test_warnings_of_an_epoch_are_told(tmp_path):
    x, labels = digits()
    others = [(image, int(label) if row else (int(label) + 1) % 10, row) for row, (image, label) in
              enumerate(zip(x, labels, strict=True))]  # fmt: skip
    with pytest.warns(LossBufferWarning, match="1 samples came with another label"):
        fitted(callback(), tmp_path, train=DataLoader(others, batch_size=BATCH), max_epochs=3)
