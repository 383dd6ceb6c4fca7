"""Tests of lossbuf.training."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossbuf.callback import LossBufferCallback
from lossbuf.networks import MLP, ConvNet
from lossbuf.training import TrainSettings, accuracy, build, predict, train

SETTINGS = TrainSettings(epochs=3, batch_size=8, lr=0.1, seed=5, device="cpu")


@pytest.fixture
def data(generator):
    """25 samples of 3 classes that can be told apart: three batches of 8 and one of 1."""
    labels = torch.arange(25) % 3
    return torch.randn(25, 6, generator=generator) * 0.3 + F.one_hot(labels, 6).float() * 2, labels


def dropout_net():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def conv_net():
    # Batch norm has state that is no parameter; build() lays the weights out with the channels last.
    return nn.Sequential(nn.Unflatten(1, (1, 2, 3)), ConvNet(1, 3, (2, 3), width=4, norm="batch"), nn.Dropout(0.2))


def bits(state):
    """Everything in a nested state, as bytes that can be compared; NaN equals NaN."""
    if isinstance(state, torch.Tensor):
        return state.dtype, state.shape, state.detach().cpu().contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return {name: bits(value) for name, value in state.items()}
    return [bits(value) for value in state] if isinstance(state, list | tuple) else state


class Spy(LossBufferCallback):
    """Remembers the rows of every step."""

    def loss(self, logits, labels, indices):
        self.seen = [*getattr(self, "seen", []), indices.clone()]
        assert torch.equal(labels, self.dynamics.labels[indices])
        return super().loss(logits, labels, indices)


# ---- against a plain loop --------------------------------------------------------------------------------------------


def plainly_trained(network, x, labels, settings, rows):
    order = torch.Generator().manual_seed(settings.seed)
    weights = list(network.parameters())
    moments = [torch.zeros_like(weight) for weight in weights]
    steps = math.ceil(len(rows) / settings.batch_size)
    total, step, losses = settings.epochs * steps, 0, []
    network.train()
    for _ in range(settings.epochs):
        shuffled, sum_of_losses = rows[torch.randperm(len(rows), generator=order)], 0.0
        for batch in shuffled.split(settings.batch_size):
            rate = settings.lr * min(1, (step + 1) / max(1, total // 20)) * (1 + math.cos(math.pi * step / total)) / 2
            loss = F.cross_entropy(network(x[batch]), labels[batch])
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for weight, moment, gradient in zip(weights, moments, gradients, strict=True):
                    gradient = gradient + settings.weight_decay * weight
                    moment.mul_(settings.momentum).add_(gradient)
                    weight -= rate * (gradient + settings.momentum * moment)
            sum_of_losses += loss.item()
            step += 1
        losses.append(sum_of_losses / steps)
    return losses


@pytest.mark.parametrize("batch_size", [1, 8, 25, 100])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("subset", [False, True])
def test_training_matches_a_plain_loop(data, batch_size, momentum, subset):
    x, labels = data
    settings = replace(SETTINGS, batch_size=batch_size, momentum=momentum, epochs=8, lr=0.02, weight_decay=0.01)
    rows = torch.tensor([3, 1, 24, 8, 8, 9]) if subset else None
    network, twin = (build(lambda: MLP(6, 3, (5,)), settings) for _ in range(2))
    history = train(network, x, labels, settings, rows=rows)
    losses = plainly_trained(twin, x, labels, settings, torch.arange(25) if rows is None else rows)
    torch.testing.assert_close(history.loss, losses, rtol=1e-4, atol=1e-5)
    for weight, expected in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-5)
    assert not network.training


# ---- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [dropout_net, conv_net])
def test_same_seed_same_bits(data, factory, device):
    def run(seed):
        settings = replace(SETTINGS, seed=seed, device=str(device))
        network = build(factory, settings)
        start = bits(network.state_dict())
        history = train(network, *data, settings)
        return start, bits(network.state_dict()), history

    first, again, other = run(5), run(5), run(6)
    assert first == again
    assert first[0] != other[0]
    assert first[2] != other[2]
    assert first[0] != first[1]


def test_the_seed_orders_the_rows_too(data):
    orders = []
    for seed in (5, 5, 6):
        callback = Spy(data[1])
        train(build(dropout_net, SETTINGS), *data, replace(SETTINGS, seed=seed), callback=callback)
        orders.append(torch.cat(callback.seen).tolist())
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:25] != orders[0][25:50]


@pytest.mark.usefixtures("no_shape_checks")  # beartype draws from the module random
def test_global_generators_are_untouched(data):
    def states():
        return bits([torch.get_rng_state()]), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002

    before = states()
    train(build(dropout_net, SETTINGS), *data, SETTINGS, after_epoch=lambda _: torch.rand(1))
    assert states() == before
    network = build(dropout_net, SETTINGS)
    torch.manual_seed(0)
    expected = build(dropout_net, SETTINGS).state_dict()
    assert bits(network.state_dict()) == bits(expected)


# ---- rows, callback, history -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, [4, 0, 19, 7, 23, 11, 2, 3, 5], [6]])
@pytest.mark.parametrize("batch_size", [1, 4, 8, 30])
def test_the_callback_sees_every_row_once_an_epoch(data, rows, batch_size):
    callback, settings = Spy(data[1]), replace(SETTINGS, batch_size=batch_size)
    subset = None if rows is None else torch.tensor(rows)
    train(build(dropout_net, settings), *data, settings, rows=subset, callback=callback)
    wanted = sorted(range(25) if rows is None else rows)
    steps = math.ceil(len(wanted) / batch_size)
    assert len(callback.seen) == 3 * steps
    for epoch in range(3):
        assert sorted(torch.cat(callback.seen[epoch * steps : (epoch + 1) * steps]).tolist()) == wanted
    assert callback.epoch == 3
    assert np.flatnonzero(callback.statistics().count == 3).tolist() == wanted
    assert sum(callback.rejected().values()) == 0


def test_watching_changes_nothing(data):
    watched, alone = build(dropout_net, SETTINGS), build(dropout_net, SETTINGS)
    histories = [train(watched, *data, SETTINGS, callback=LossBufferCallback(data[1])), train(alone, *data, SETTINGS)]
    assert histories[0] == histories[1]
    assert bits(watched.state_dict()) == bits(alone.state_dict())


@pytest.mark.parametrize("mode", ["filter", "reweight"])
def test_modes_change_training_after_the_warm_up(mode, generator):
    settings, labels = replace(SETTINGS, epochs=6, lr=0.05), torch.arange(50) % 3
    x = torch.randn(50, 6, generator=generator) * 0.3 + F.one_hot(labels, 6) * 3.0
    labels[:4] = (labels[:4] + 1) % 3
    callback = LossBufferCallback(labels, mode=mode, warmup=3, rank_by="score2", noise_rate=4 / 50)
    history = train(build(dropout_net, settings), x, labels, settings, callback=callback).loss
    watched = train(build(dropout_net, settings), x, labels, settings).loss
    assert history[:3] == pytest.approx(watched[:3], rel=1e-5)
    assert all(now < then for now, then in zip(history[3:], watched[3:], strict=True))  # the wrong rows weigh less
    weights = callback.sample_weights
    if mode == "filter":
        assert np.flatnonzero(weights == 0).tolist() == [0, 1, 2, 3]
        assert weights.sum() == 46
    else:
        assert weights[:4].max() <= 0.5 <= weights[4:].min()


def test_after_epoch(data):
    calls = []

    def note(network):
        assert not network.training
        calls.append(accuracy(network, *data))
        return calls[-1]

    network = build(dropout_net, SETTINGS)
    history = train(network, *data, SETTINGS, after_epoch=note)
    assert history.after_epoch == calls
    assert len(calls) == len(history.loss) == 3
    plain = build(dropout_net, SETTINGS)
    assert train(plain, *data, SETTINGS).loss == history.loss  # looking on changes nothing
    assert bits(plain.state_dict()) == bits(network.state_dict())


def test_the_data_stay_as_they_are(data):
    before = bits(list(data))
    train(build(conv_net, SETTINGS), *data, SETTINGS)
    assert bits(list(data)) == before


# ---- going on --------------------------------------------------------------------------------------------------------


class StopError(Exception):
    """Ends a run from within."""


@pytest.mark.parametrize("factory", [dropout_net, conv_net])
@pytest.mark.parametrize("mode", [None, "filter", "reweight"])
@pytest.mark.parametrize("checkpoint_steps", [None, 3])
def test_a_stopped_run_goes_on_with_the_same_bits(data, factory, mode, checkpoint_steps, tmp_path, device):
    settings, path = replace(SETTINGS, device=str(device)), tmp_path / "deep" / "run.pt"

    def run(checkpoint, stop_at=None):
        network, steps = build(factory, settings), 0

        def count(*_):
            nonlocal steps
            steps += 1
            if steps == stop_at:
                raise StopError

        callback = None if mode is None else LossBufferCallback(data[1], mode=mode, warmup=1, noise_rate=0.2)
        network.register_forward_pre_hook(lambda net, _: count() if net.training else None)
        history = train(
            network, *data, settings, callback=callback, checkpoint=checkpoint, checkpoint_steps=checkpoint_steps,
            after_epoch=lambda net: accuracy(net, *data),
        )  # fmt: skip
        return bits([network.state_dict(), None if callback is None else callback.state_dict()]), history, steps

    expected = run(None)
    assert expected[2] == 12
    for stop_at in (2, 5, 4, 3):  # 12 steps of 4 an epoch: stopped in step 2, and on from what was saved
        with pytest.raises(StopError):
            run(path, stop_at)
    found = run(path)
    assert found[:2] == expected[:2]
    assert 0 < found[2] < 12
    done = run(path)
    assert done[:2] == expected[:2]
    assert done[2] == 0 if checkpoint_steps is None else done[2] <= 3


CHANGES = {
    "epochs": lambda run: {"settings": replace(run["settings"], epochs=4)},
    "batch_size": lambda run: {"settings": replace(run["settings"], batch_size=9)},
    "seed": lambda run: {"settings": replace(run["settings"], seed=6)},
    "lr": lambda run: {"settings": replace(run["settings"], lr=0.2)},
    "rows": lambda run: {"rows": torch.arange(10) + 1},
    "labels": lambda run: {"labels": run["labels"].flip(0)},
    "x": lambda run: {"x": run["x"].unsqueeze(2), "network": nn.Sequential(nn.Flatten(), dropout_net())},
    "network": lambda run: {"network": nn.Sequential(nn.Linear(6, 17), nn.ReLU(), nn.Dropout(0.3), nn.Linear(17, 3))},
    "callback": lambda run: {"callback": LossBufferCallback(run["labels"], mode="filter")},
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_checkpoint_of_another_run_is_refused(data, name, tmp_path):
    run = {"network": build(dropout_net, SETTINGS), "x": data[0], "labels": data[1], "settings": SETTINGS}
    run |= {"rows": torch.arange(10), "callback": LossBufferCallback(data[1])}
    train(**run, checkpoint=tmp_path / "run.pt")
    other = run | CHANGES[name](run)
    before = bits(other["network"].state_dict())
    message = f"`checkpoint` must be of a run with the same .*got .*'{name}'.*Remove .*run.pt to start anew"
    with pytest.raises(ValueError, match=message):
        train(**other, checkpoint=tmp_path / "run.pt")
    assert bits(other["network"].state_dict()) == before


@pytest.mark.parametrize("damage", ["empty", "half", "text", "pickle", "other kind", "a tensor"])
def test_a_damaged_checkpoint_is_refused(data, damage, tmp_path):
    path = tmp_path / "run.pt"
    train(build(dropout_net, SETTINGS), *data, SETTINGS, checkpoint=path)
    content = path.read_bytes()
    if damage == "other kind":
        LossBufferCallback(data[1]).save(path)
    elif damage in ("pickle", "a tensor"):
        torch.save({"kind": "lossbuf.training", "run": SETTINGS} if damage == "pickle" else torch.zeros(2), path)
    else:
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "text": b"no checkpoint"}[damage])
    with pytest.raises(ValueError, match=r"`path` must be a .*run\.pt"):
        train(build(dropout_net, SETTINGS), *data, SETTINGS, checkpoint=path)


@pytest.mark.parametrize("value", [np.float64(0.5), np.arange(2), [{"a": np.float32(1)}], object()])
def test_what_a_checkpoint_cannot_hold_is_told_at_once(data, value, tmp_path):
    with pytest.raises(ValueError, match=r"after_epoch'\]\[0\].* must be a tensor or a plain value to be saved"):
        train(build(dropout_net, SETTINGS), *data, SETTINGS, checkpoint=tmp_path / "run", after_epoch=lambda _: value)
    assert list(tmp_path.iterdir()) == []
    assert len(train(build(dropout_net, SETTINGS), *data, SETTINGS, after_epoch=lambda _: value).after_epoch) == 3


def test_what_a_checkpoint_can_hold(data, tmp_path):
    value = {"accuracy": 0.5, "matrix": torch.eye(2), "names": ["a", None], "sizes": (1, True)}
    for _ in range(2):
        network = build(dropout_net, SETTINGS)
        history = train(network, *data, SETTINGS, checkpoint=tmp_path / "run", after_epoch=lambda _: value)
        assert bits(history.after_epoch) == bits([value] * 3)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("batch_size", 1.5), ("lr", 0.0), ("lr", math.inf), ("lr", math.nan),
     ("momentum", 1.1), ("weight_decay", -1.0), ("seed", -1)],
)  # fmt: skip
@pytest.mark.usefixtures("no_shape_checks")
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must"):
        TrainSettings(**{name: value})


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_arguments(data):
    x, labels = data
    with pytest.raises(ValueError, match="`x` must have 25 rows, as many as labels, got 24"):
        train(dropout_net(), x[1:], labels, SETTINGS)
    with pytest.raises(ValueError, match="`rows` must hold at least one row"):
        train(dropout_net(), x, labels, SETTINGS, rows=torch.arange(0))
    for steps in (0, -1):
        with pytest.raises(ValueError, match="`checkpoint_steps` must be an integer of at least 1"):
            train(dropout_net(), x, labels, SETTINGS, checkpoint_steps=steps)


# ---- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.uint8])
def test_rows_as_a_mask_or_as_other_integers(data, kind):
    mask = torch.arange(25) % 2 == 0
    rows = mask if kind == torch.bool else mask.nonzero().flatten().to(kind)
    spies, networks = [Spy(data[1]) for _ in range(2)], [build(dropout_net, SETTINGS) for _ in range(2)]
    for network, spy, given in zip(networks, spies, [rows, mask.nonzero().flatten()], strict=True):
        train(network, *data, SETTINGS, rows=given, callback=spy)
    assert set(torch.cat(spies[0].seen).tolist()) == set(mask.nonzero().flatten().tolist())
    assert bits(networks[0].state_dict()) == bits(networks[1].state_dict())


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([0, -1]), r"`rows` must lie in \[0, 25\), got -1"),
        (torch.tensor([0, 25]), r"`rows` must lie in \[0, 25\), got 25"),
        (torch.ones(24, dtype=torch.bool), "`rows` must have 25 values where it is a mask, got 24"),
        (torch.zeros(25, dtype=torch.bool), "`rows` must hold at least one row"),
        (torch.tensor([0.0, 1.0]), "`rows` must be row numbers"),
        (torch.tensor([[0, 1]]), "`rows` must be row numbers"),
    ],
)
def test_rows_that_there_are_not(data, rows, message):
    with pytest.raises(ValueError, match=message):
        train(dropout_net(), *data, SETTINGS, rows=rows)


@pytest.mark.usefixtures("no_shape_checks")
def test_labels_that_are_no_classes(data):
    x, labels = data
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, num_classes\), got -100 at row 3"):
        train(dropout_net(), x, labels.where(torch.arange(25) != 3, -100), SETTINGS)
    only = torch.arange(25) != 3  # what is not trained on may be anything
    train(dropout_net(), x, labels.where(only, -100), SETTINGS, rows=only)
    with pytest.raises(ValueError, match="`labels` must be integers"):
        train(dropout_net(), x, labels.float(), SETTINGS)


def test_where_gradients_are_off(data):
    for off in (torch.no_grad, torch.inference_mode):
        with off(), pytest.raises(RuntimeError, match=rf"call it outside of torch\.{off.__name__}\(\)"):
            train(dropout_net(), *data, SETTINGS)


def test_another_default_type_changes_nothing(data):
    networks = [build(dropout_net, SETTINGS)]
    train(networks[0], *data, SETTINGS)
    torch.set_default_dtype(torch.float64)
    try:
        networks.append(build(dropout_net, SETTINGS))
        train(networks[1], *data, SETTINGS)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert bits(networks[0].state_dict()) == bits(networks[1].state_dict())


def test_a_checkpoint_of_other_samples_is_refused(data, tmp_path):
    x, labels = data
    path = tmp_path / "run.pt"
    train(build(dropout_net, SETTINGS), x, labels, SETTINGS, checkpoint=path)
    with pytest.raises(ValueError, match="`checkpoint` must be of a run with the same network, data"):
        train(build(dropout_net, SETTINGS), x * 3 + 1, labels, SETTINGS, checkpoint=path)


@pytest.mark.parametrize("batch_size", [1, 7, 25, 1024])
def test_predict(data, batch_size, device):
    network = build(dropout_net, replace(SETTINGS, device=str(device)))
    logits = predict(network, data[0], batch_size)
    assert logits.device.type == "cpu"
    assert not logits.requires_grad
    torch.testing.assert_close(logits, network.cpu().eval()(data[0]).detach(), rtol=1e-4, atol=1e-5)


def test_accuracy():
    assert accuracy(nn.Identity(), torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


def test_training_learns(data):
    network = build(lambda: MLP(6, 3, (16,)), SETTINGS)
    history = train(network, *data, replace(SETTINGS, epochs=20))
    assert accuracy(network, *data) == 1
    assert history.loss[-1] < 0.1 < history.loss[0]
