"""skorch's net, with the adapter's classifier, learns and finds what the plain loop does."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.utils.data import DataLoader, Subset

from lossbuf import LossBufferWarning
from tests.integrations.plain import (
    BATCH,
    CLASS_WEIGHT,
    EPOCHS,
    MODES,
    ROWS,
    STEPS,
    EpochOrder,
    RowsSeen,
    assert_every_row_came_once_an_epoch,
    assert_same,
    callback,
    digits,
    network,
    plain_loop,
    state_of,
)
from tests.states import assert_same_bits

pytest.importorskip("skorch")

from skorch.callbacks import Checkpoint, EpochScoring, LoadInitState
from skorch.dataset import Dataset, ValidSplit

from lossbuf.integrations.skorch import LossBufferClassifier, LossBufferLoss

X, Y = (part.numpy() for part in digits())


class Orders(EpochOrder):
    """An order for each pass."""

    def __iter__(self):
        yield from super().__iter__()
        self.epoch += 1


def classifier(mine, module=None, **settings):
    settings = {"max_epochs": EPOCHS, "train_split": None, "iterator_train__shuffle": True, "verbose": 0} | settings
    fixed = {"lr": 0.1, "optimizer__momentum": 0.9, "batch_size": BATCH}
    return LossBufferClassifier(module or network(), criterion=LossBufferLoss(mine), **fixed, **settings)


def fitted(mine, **settings):
    """The fitted net, and the rows its module saw."""
    module = network()
    seen = RowsSeen(module)
    net = classifier(mine, module, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net.fit(X, Y)
    return net, seen.batches


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_plain_loop(mode):
    mine, plain = callback(mode), callback(mode)
    net, batches = fitted(mine)
    assert_every_row_came_once_an_epoch(batches)
    assert_same(mine, plain, net.module_, plain_loop(plain, batches))
    assert net.history[:, "train_loss"][-1] < net.history[:, "train_loss"][0]


@pytest.mark.parametrize("mode", MODES)
def test_class_weights_count_in_every_mode(mode):
    mine, plain = callback(mode, class_weight=CLASS_WEIGHT), callback(mode, class_weight=CLASS_WEIGHT)
    net, batches = fitted(mine)
    assert_same(mine, plain, net.module_, plain_loop(plain, batches))
    net.criterion_.eval()
    logits, labels = torch.randn(6, 10), torch.arange(6)
    weighted = nn.functional.cross_entropy(logits, labels, torch.tensor(CLASS_WEIGHT))
    torch.testing.assert_close(net.criterion_(logits, labels), weighted)


def test_validation_is_never_fed():
    mine, plain = callback("watch"), callback("watch")
    scoring = EpochScoring("accuracy", on_train=True, name="train_acc", lower_is_better=False)
    net, batches = fitted(mine, train_split=ValidSplit(3, stratified=True), callbacks=[scoring])
    trained = {row for rows in batches for row in rows}
    assert len(trained) == 220
    steps = len(batches) // EPOCHS
    other = plain_loop(plain, batches, steps_an_epoch=steps)
    assert_same(mine, plain, net.module_, other)
    assert set(np.flatnonzero(mine.statistics().count.numpy())) == trained
    assert min(net.history[-1, ("train_acc", "valid_acc")]) > 0.4

    left_out = torch.tensor(sorted(set(range(ROWS)) - trained))
    logits = net.module_(torch.from_numpy(X)[left_out])
    plain_loss = nn.functional.cross_entropy(logits, torch.from_numpy(Y)[left_out])
    assert net.history[-1, "valid_loss"] == pytest.approx(float(plain_loss.detach()), rel=1e-5)


def test_rows_come_through_workers_by_name_and_ones_own_collate():
    def collate(samples):
        return torch.stack([torch.as_tensor(x) for x, _ in samples]), torch.tensor([int(y) for _, y in samples])

    names = [f"digit-{row}" for row in range(ROWS)]
    mine, plain = callback(ids=names), callback()
    net, batches = fitted(mine, iterator_train__num_workers=2, iterator_train__collate_fn=collate)
    assert_every_row_came_once_an_epoch(batches)
    other = plain_loop(plain, batches)
    assert_same_bits(dict(mine.named_buffers()), dict(plain.named_buffers()))
    assert_same_bits(dict(net.module_.state_dict()), dict(other.state_dict()))
    assert set(mine.report().id) == set(names)


def test_a_data_set_of_ones_own_and_a_subset_are_numbered_as_given():
    labels, order = torch.from_numpy(Y), np.arange(ROWS)[::-1].copy()
    mine, plain = callback(), callback()
    net = classifier(mine, module := network())
    seen = RowsSeen(module)
    net.fit(Subset(Dataset(X[order], Y[order]), order.tolist()), None)  # twice reversed
    assert_same(mine, plain, module, plain_loop(plain, seen.batches))
    assert torch.equal(mine.dynamics.labels, labels)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    def run(mine, epochs, first):
        keeper = Checkpoint(monitor=None, dirname=str(tmp_path / "run"))
        order = {"iterator_train__shuffle": False, "iterator_train__sampler": Orders(first)}
        callbacks = [keeper, LoadInitState(keeper)]
        return fitted(mine, max_epochs=epochs, callbacks=callbacks, **order)

    alone, stopped, resumed = callback(), callback(), callback()
    left_alone, batches = run(alone, EPOCHS, 0)
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    run(stopped, 3, 0)
    net, rest = run(resumed, EPOCHS - 3, 3)
    assert rest == batches[3 * STEPS :]
    assert_same(resumed, alone, net.module_, left_alone.module_)


def test_a_checkpoint_of_other_labels_is_refused(tmp_path):
    net, _ = fitted(callback(), max_epochs=1)
    net.save_params(f_criterion=tmp_path / "criterion.pt")
    other = classifier(callback("watch")).initialize()
    with pytest.raises(ValueError, match="`state_dict` must have mode watch, got filter"):
        other.load_params(f_criterion=tmp_path / "criterion.pt")


def test_an_epoch_cut_short_counts_as_one():
    class Stopping(EpochScoring):
        steps = 0

        def on_batch_end(self, net, batch, training=False, **kwargs):
            self.steps += training
            if self.steps == STEPS + 3:
                raise KeyboardInterrupt  # as a user does; skorch ends the fit

    mine = callback("watch")
    net, _ = fitted(mine, callbacks=[("stop", Stopping("accuracy"))])
    assert mine.epoch == 1
    net.set_params(max_epochs=1)
    net.partial_fit(X, Y)
    assert mine.epoch == 3
    assert sorted(set(mine.statistics().count.tolist())) == [2, 3]


def test_the_net_is_one_of_scikit_learn():
    mine = callback()
    net, _ = fitted(mine)
    assert net.predict_proba(X).sum(1) == pytest.approx(np.ones(ROWS), abs=1e-5)
    assert (net.predict(X) == load_true()).mean() > 0.8
    again = pickle.loads(pickle.dumps(net))
    assert_same_bits(state_of(again.criterion_.callback), state_of(mine))
    other = clone(net)
    other.fit(X, Y)
    assert mine.epoch == EPOCHS
    assert other.criterion_.callback is not mine
    assert other.criterion_.callback.epoch == 2 * EPOCHS  # a copy, with what was collected


def load_true():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)[1][:ROWS]


def test_what_is_wrong_is_told():
    mine = callback()
    with pytest.raises(ValueError, match="`criterion` must be a LossBufferLoss, got CrossEntropyLoss"):
        LossBufferClassifier(network(), criterion=nn.CrossEntropyLoss, verbose=0).fit(X, Y)
    with pytest.raises(ValueError, match="`X` must have 330 rows, one a label, got 100"):
        classifier(mine).fit(X[:100], Y[:100])
    with pytest.raises(ValueError, match="`iterator_train` must give a DataLoader, got list"):
        classifier(mine, iterator_train=lambda dataset, **_: list(DataLoader(dataset))).fit(X, Y)
    with pytest.raises(ValueError, match="`criterion` must be that of a LossBufferClassifier, which tells the rows"):
        LossBufferLoss(mine)(torch.zeros(2, 10, requires_grad=True), torch.zeros(2, dtype=torch.int64))
    assert mine.stage.steps == 0
    assert mine.epoch == 0


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda logits: (logits, logits), "`logits` must be a tensor, got tuple"),
        (lambda logits: logits.detach(), "`logits` must be those of a training step, got some without gradient"),
        (lambda logits: logits[:, :9], r"`logits` must have shape \(batch, 10\), got shape \(32, 9\)"),
    ],
)
def test_a_module_that_gives_no_logits_is_told(output, message):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def forward(self, x):
            return output(self.body(x))

    mine = callback()
    with pytest.raises(ValueError, match=message):
        classifier(mine, Other()).fit(X, Y)
    assert mine.stage.steps == 0


@pytest.mark.usefixtures("no_shape_checks")
def test_warnings_of_an_epoch_are_told():
    y = Y.copy()
    y[0] = (y[0] + 1) % 10
    with pytest.warns(LossBufferWarning, match="1 samples came with another label"):
        classifier(callback(), max_epochs=1).fit(X, y)
