"""Training on a coreset that is chosen anew."""

import copy
import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from condensation.coresets import craig, crust
from condensation.coresets.base import Chosen
from condensation.coresets.repicking import Repicking
from lossbuf.callback import LossBufferCallback
from lossbuf.errors import LossBufferWarning
from lossbuf.networks import MLP
from lossbuf.noise import corrupt, symmetric
from lossbuf.training import TrainSettings, accuracy, build, train
from tests.states import assert_same_bits

PICKS = {
    "crust": crust.pick,
    "crust, centrality": partial(crust.pick, mode="centrality"),
    "craig": craig.pick,
}


def blobs(n_samples=600, noise_rate=0.0):
    rng = np.random.default_rng(0)
    true = np.arange(n_samples) % 3
    x = rng.normal(0, 0.5, (n_samples, 3)) + 1.5 * np.eye(3)[true]
    labels = corrupt(true, symmetric(3, noise_rate), random_state=0).labels
    return torch.from_numpy(x).float(), torch.from_numpy(labels), torch.from_numpy(true)


def logits_of(n_samples, seed=0):
    return torch.randn(n_samples, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
@pytest.mark.parametrize("with_layer", [False, True])
def test_the_choice_is_that_of_the_gradients_of_the_steps(pick, with_layer, device):
    labels = torch.arange(30) % 3
    layer = nn.Linear(5, 3, device=device) if with_layer else None
    repicking = Repicking(labels, pick=pick, share=0.3, start=2, last_layer=layer)
    for epoch in range(2):
        logits = logits_of(30, epoch)
        for rows in torch.arange(30).split(7):
            loss = repicking.loss(logits[rows].to(device), labels[rows].to(device), rows.to(device))
            torch.testing.assert_close(loss.cpu(), F.cross_entropy(logits[rows], labels[rows]))
        assert repicking.chosen is None
        repicking.end_epoch()
    gradients = logits.softmax(1) - F.one_hot(labels, 3)
    if layer is not None:
        gradients = gradients @ layer.weight.detach().cpu()
    expected = pick(gradients, labels, [3, 3, 3])
    chosen = repicking.chosen
    assert chosen is not None
    assert torch.equal(chosen.indices, expected.indices)
    torch.testing.assert_close(chosen.weights, expected.weights, check_dtype=False)

    weights = torch.zeros(30)
    weights[expected.indices] = (expected.weights / expected.weights.mean()).float()
    torch.testing.assert_close(repicking.sample_weights.cpu(), weights)
    logits = logits_of(30, 9)
    losses = F.cross_entropy(logits, labels, reduction="none")
    found = repicking.loss(logits.to(device), labels.to(device), torch.arange(30, device=device))
    torch.testing.assert_close(found.cpu(), (weights * losses).sum() / (weights > 0).sum())


def test_rows_that_do_not_count_do_not_move_the_network():
    labels = torch.arange(12) % 3
    repicking = Repicking(labels, pick=craig.pick, start=1)
    repicking.loss(logits_of(12), labels, torch.arange(12))
    repicking.end_epoch()
    out = repicking.sample_weights == 0
    assert 0 < int(out.sum()) < 12
    logits = logits_of(12, 1)
    logits[out] = torch.inf
    logits.requires_grad_()
    loss = repicking.loss(logits, labels, torch.arange(12))
    assert bool(loss.isfinite())
    gone = Repicking(labels, pick=craig.pick, start=1)
    gone.sample_weights.zero_()
    assert float(gone.loss(logits_of(12), labels, torch.arange(12))) == 0


@pytest.mark.parametrize(("start", "every", "epochs"), [(1, 1, [1, 2, 3, 4]), (2, 2, [2, 4]), (3, 5, [3])])
def test_when_it_chooses(start, every, epochs):
    labels = torch.arange(9) % 3
    times = []

    def pick(gradients, groups, counts):
        times.append(repicking.epoch)
        return craig.pick(gradients, groups, counts)

    repicking = Repicking(labels, pick=pick, start=start, every=every)
    for _ in range(4):
        repicking.loss(logits_of(9), labels, torch.arange(9))
        repicking.end_epoch()
    assert times == epochs


def test_rows_not_seen_are_not_chosen_and_no_rows_at_all_change_nothing():
    labels = torch.arange(12) % 3
    repicking = Repicking(labels, pick=craig.pick, start=1, share=1.0)
    repicking.end_epoch()
    assert repicking.chosen is None
    repicking.loss(logits_of(6), labels[:6], torch.arange(6))
    repicking.end_epoch()
    assert repicking.chosen is not None
    assert sorted(repicking.chosen.indices.tolist()) == list(range(6))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_keep_their_gradient_and_are_told(value):
    labels = torch.arange(20) % 2
    logits = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    repicking = Repicking(labels, pick=crust.pick, start=1)
    rows = torch.arange(20)
    repicking.loss(logits[:19], labels[:19], rows[:19])
    repicking.end_epoch()
    bad = logits.clone()
    bad[[3, 19]] = value
    before = repicking.gradients.clone()
    repicking.loss(bad, labels, rows)
    assert_same_bits(repicking.gradients, before)
    assert repicking.seen.tolist() == [True] * 19 + [False]  # the last has never had a gradient
    with pytest.warns(LossBufferWarning, match="Epoch 2: the gradients of 2 samples are NaN or infinite"):
        repicking.end_epoch()
    assert 19 not in repicking.chosen.indices.tolist()
    repicking.loss(logits, labels, rows)
    repicking.end_epoch()  # nothing more to tell
    assert repicking.epoch == 3


@pytest.mark.usefixtures("no_shape_checks")
def test_a_pick_that_gives_something_else():
    repicking = Repicking(torch.tensor([0, 1]), pick=lambda *_: None, start=1)
    repicking.loss(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="`pick` must give a Chosen, rows and weights, got None"):
        repicking.end_epoch()


def test_partners_are_of_the_same_class_and_of_the_coreset():
    labels = torch.arange(40) % 4
    repicking = Repicking(labels, pick=craig.pick, start=1)
    x = torch.arange(40.0).unsqueeze(1)
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:33]
    assert torch.equal(repicking.mix(x[rows], labels[rows], rows), x[rows])
    repicking.loss(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), labels, torch.arange(40))
    repicking.end_epoch()
    counts = repicking.sample_weights[rows] > 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixed = repicking.mix(x[rows], labels[rows], rows, alpha=1.0, beta=1000.0)  # hardly any of the row itself
        again = repicking.mix(x[rows], labels[rows], rows, alpha=1.0, beta=1000.0)
    assert torch.equal(mixed[~counts], x[rows][~counts])
    partners = mixed[counts].round().long().flatten()
    assert torch.equal(labels[partners], labels[rows][counts])
    assert bool((repicking.sample_weights[partners] > 0).all())
    assert len(partners.unique()) == len(partners)  # everyone is somebody's partner
    assert not torch.equal(mixed, again)


def test_shares_are_beta():
    labels = torch.zeros(4000, dtype=torch.int64)
    repicking = Repicking(labels, pick=craig.pick, share=1.0)
    repicking.chosen = Chosen(torch.arange(4000))
    x = torch.eye(2)[torch.arange(4000) % 2]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixed = repicking.mix(x, labels, torch.arange(4000))
    own = (mixed * x).sum(1)
    other = own < 1  # the partner is of the other kind in half of the cases
    assert 0.4 < other.float().mean() < 0.6
    assert 0.87 < (own[other].sum() + other.sum()) / (2 * other.sum()) + 0.05 < 1.02
    assert abs(own[other].mean() - 10 / 11) < 0.02


@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
def test_it_trains_and_the_same_seed_gives_the_same_bits(pick):
    x, labels, true = blobs(noise_rate=0.3)
    settings = TrainSettings(epochs=10, batch_size=64, lr=0.05, seed=0, device="cpu")
    states, purities = [], []
    for _ in range(2):
        network = build(lambda: MLP(3, 3, (32,)), settings)
        repicking = Repicking(labels, pick=pick, start=4, last_layer=network.classifier)
        train(network, x, labels, settings, callback=repicking, mix=repicking.mix)
        assert repicking.chosen is not None
        purities.append(float((labels == true)[repicking.chosen.indices].double().mean()))
        states.append([value.clone() for value in network.parameters()])
        assert accuracy(network, x, true) > 0.85
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))
    assert torch.bincount(labels[repicking.chosen.indices]).tolist() == repicking.counts
    if pick is PICKS["crust, centrality"]:  # medoids serve the wrong labels too
        assert purities[0] > float((labels == true).double().mean()) + 0.1


def test_with_cleaning():
    x, labels, true = blobs(noise_rate=0.3)
    settings = TrainSettings(epochs=10, batch_size=64, lr=0.05, seed=0, device="cpu")
    network = build(lambda: MLP(3, 3, (32,)), settings)
    cleaning = LossBufferCallback(labels, mode="filter", warmup=4)
    repicking = Repicking(labels, pick=crust.pick, start=5, last_layer=network.classifier, cleaning=cleaning)
    train(network, x, labels, settings, callback=repicking, mix=repicking.mix)
    assert cleaning.epoch == 10
    assert repicking.chosen is not None
    assert bool((cleaning.sample_weights[repicking.chosen.indices] > 0).all())
    assert float((labels == true)[repicking.chosen.indices].double().mean()) > 0.9


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.0}, "`share`"),
        ({"share": 1.5}, "`share`"),
        ({"start": 0}, "`start`"),
        ({"every": 0}, "`every`"),
        ({"num_classes": 2}, "`labels`"),
        ({"num_classes": 2.0}, "`num_classes`"),
        ({"num_classes": "a"}, "`num_classes`"),
        ({"pick": None}, "`pick` must be a function that chooses rows, got None"),
        ({"cleaning": LossBufferCallback([0, 1])}, "`cleaning`"),
        ({"cleaning": LossBufferCallback([0] * 9, 5)}, "`cleaning` must be of 9 rows and 3 classes, as labels are"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Repicking(torch.arange(9) % 3, **({"pick": craig.pick} | settings))


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("logits", "labels", "rows", "name"),
    [
        (torch.zeros(2, 4), [0, 1], [0, 1], "logits"),
        (torch.zeros(2, 3), [0, 3], [0, 1], "labels"),
        (torch.zeros(2, 3), [0, 1], [0, 9], "indices"),
        (torch.zeros(2, 3), [0], [0, 1], "labels"),
        (torch.zeros(2, 3), [0, 1], [0], "indices"),
    ],
)
def test_bad_batches_leave_what_was_taken_down(logits, labels, rows, name):
    repicking = Repicking(torch.arange(9) % 3, pick=craig.pick)
    with pytest.raises(ValueError, match=f"`{name}`"):
        repicking.loss(logits, torch.tensor(labels), torch.tensor(rows))
    assert not bool(repicking.seen.any())


# ---- killed and resumed ----------------------------------------------------------------------------------------------


class KilledError(Exception):
    """The end of a process, as far as a test in the same one can tell."""


def trained(checkpoint=None, dies_at=None, *, pick=crust.pick, cleans=True, epochs=8, steps=3):
    """A training, its network and its callback; it may be killed in a forward pass."""
    x, labels, _ = blobs(200, noise_rate=0.3)
    settings = TrainSettings(epochs=epochs, batch_size=32, lr=0.05, seed=0, device="cpu")
    network = build(lambda: MLP(3, 3, (16,)), settings)
    cleaning = LossBufferCallback(labels, mode="filter", warmup=3) if cleans else None
    repicking = Repicking(labels, pick=pick, start=3, last_layer=network.classifier, cleaning=cleaning)
    passes = 0

    def count(*_):
        nonlocal passes
        passes += 1
        if passes == dies_at:
            raise KilledError

    network.register_forward_hook(count)
    train(
        network, x, labels, settings,
        callback=repicking, mix=repicking.mix, checkpoint=checkpoint, checkpoint_steps=steps,
    )  # fmt: skip
    return network, repicking


def bits(network, repicking):
    return copy.deepcopy({"network": dict(network.state_dict()), "repicking": repicking.state_dict()})


@pytest.mark.parametrize("cleans", [False, True])
@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
def test_a_killed_training_resumed_has_the_same_bits(pick, cleans, tmp_path):
    expected = bits(*trained(pick=pick, cleans=cleans))
    assert expected["repicking"]["epoch"] == 8
    assert expected["repicking"]["chosen"] is not None
    # Before the first checkpoint, before the first choice, in mid-epoch and right after an epoch's end (7 steps).
    for dies_at in (2, 9, 11, 4, 15):
        with pytest.raises(KilledError):
            trained(tmp_path / "run.pt", dies_at, pick=pick, cleans=cleans)
    found = bits(*trained(tmp_path / "run.pt", pick=pick, cleans=cleans))
    assert_same_bits(found, expected)


def test_a_resumed_training_rests_on_all_of_the_state(tmp_path):
    expected = bits(*trained())["network"]
    for name in ("epoch", "sample_weights", "gradients"):
        path = tmp_path / f"{name}.pt"
        with pytest.raises(KilledError):
            trained(path, 34)
        content = torch.load(path, weights_only=True)
        content["callback"][name] = content["callback"][name] * 0
        torch.save(content, path)
        found = bits(*trained(path))["network"]
        assert any(not torch.equal(value, found[key]) for key, value in expected.items()), name


@pytest.mark.slow
def test_sigkill_in_another_process(tmp_path):
    path = Path(__file__)
    states = []
    for dies_at in (40, 0):
        code = f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(dies_at)],
            capture_output=True,
            text=True,
            check=False,
            cwd=path.parents[3],
        )
        assert done.returncode == (-signal.SIGKILL if dies_at else 0), done.stderr
        states.append((tmp_path / "state.pt").exists())
    assert states == [False, True]
    assert_same_bits(torch.load(tmp_path / "state.pt", weights_only=True), bits(*trained()))


@pytest.mark.usefixtures("no_shape_checks")
def test_states_of_others_are_refused_and_leave_what_is_there():
    labels = torch.arange(9) % 3
    state = Repicking(labels, pick=craig.pick).state_dict()
    repicking = Repicking(labels, pick=craig.pick, start=1)
    repicking.loss(logits_of(9), labels, torch.arange(9))
    repicking.end_epoch()
    before = copy.deepcopy(repicking.state_dict())
    others = [
        {}, None, {**before, "of": None}, {**before, "more": 1}, state,
        Repicking(labels.flip(0), pick=craig.pick, start=1).state_dict(),
        Repicking(labels, pick=craig.pick, start=1, share=0.9).state_dict(),
        Repicking(labels, pick=craig.pick, start=1, every=2).state_dict(),
        Repicking(labels, pick=craig.pick, start=1, last_layer=nn.Linear(2, 3)).state_dict(),
        Repicking(labels, pick=craig.pick, start=1, cleaning=LossBufferCallback(labels)).state_dict(),
        {**before, "epoch": -1}, {**before, "gradients": before["gradients"].double()}, {**before, "seen": None},
        {**before, "chosen": {"indices": torch.tensor([99]), "weights": torch.ones(1).double()}},
        {**before, "chosen": {"indices": torch.tensor([1])}}, {**before, "chosen": [1]},
        {**before, "sample_weights": before["sample_weights"][:3]},
    ]  # fmt: skip
    for other in others:
        with pytest.raises(ValueError, match=r"`(state_dict|epoch)` must"):
            repicking.load_state_dict(other)
        assert_same_bits(repicking.state_dict(), before)
    one, other = (
        Repicking(labels, pick=craig.pick, cleaning=LossBufferCallback(labels, warmup=warmup)) for warmup in (2, 3)
    )
    with pytest.raises(ValueError, match="`state_dict` must have warmup"):
        one.load_state_dict(other.state_dict())


def test_a_loaded_state_is_a_copy():
    labels = torch.arange(9) % 3
    one, other = (Repicking(labels, pick=craig.pick, start=1) for _ in range(2))
    one.loss(logits_of(9), labels, torch.arange(9))
    other.load_state_dict(one.state_dict())
    before = other.gradients.clone()
    one.loss(logits_of(9, 1), labels, torch.arange(9))
    assert torch.equal(other.gradients, before)


if __name__ == "__main__":  # the process that test_sigkill_in_another_process starts
    folder, when = Path(sys.argv[1]), int(sys.argv[2])
    try:
        result = trained(folder / "run.pt", when)
    except KilledError:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.save(bits(*result), folder / "state.pt")
