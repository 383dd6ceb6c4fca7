"""A network that memorizes: it is seen, undone, and not silently believed."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lossbuf import LossBufferCallback, LossBufferSelector, LossBufferWarning
from lossbuf.noise import corrupt, symmetric
from lossbuf.recording.starting_point import StartingPoint
from lossbuf.training import TrainSettings, build, train

CLASSES, EPOCHS = 4, 14
SETTINGS = TrainSettings(epochs=EPOCHS, batch_size=16, lr=0.1, seed=3, device="cpu")


def network():
    return nn.Sequential(nn.Linear(120, 128), nn.ReLU(), nn.Linear(128, CLASSES))


@pytest.fixture(scope="module")
def easy_to_memorize():
    """Features of which most say nothing about the class, but tell every row from every other."""
    draws = np.random.default_rng(0)
    true = np.arange(800) % CLASSES
    x = draws.normal(size=(800, 120)).astype(np.float32)
    x[:, :CLASSES] += 4 * np.eye(CLASSES, dtype=np.float32)[true]
    noisy = corrupt(true, symmetric(CLASSES, 0.4), 0)
    return torch.from_numpy(x), torch.from_numpy(noisy.labels), noisy.noise_mask


def run(x, labels, mode="filter", network_=None, settings=SETTINGS, **options):
    callback = LossBufferCallback(labels, CLASSES, mode=mode, **options)
    trained = network_ or build(network, settings)
    train(trained, x, labels, settings, callback=callback)
    return callback, trained


def plain(x, labels, callback, attaches, epochs=EPOCHS):
    """A loop of one's own, which need not attach anything."""
    torch.manual_seed(0)
    trained = network()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)
    if attaches:
        callback.attach(trained, optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(16):
            loss = callback.loss(trained(x[rows]), labels[rows], rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        callback.end_epoch()
    return callback


def found(callback, wrong):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossBufferWarning)
        verdict = callback.verdict()
    flagged = verdict.suspect_mask
    return verdict.noise_rate, 2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum())


def test_memorized_labels_are_seen_and_the_network_starts_anew(easy_to_memorize):
    x, labels, wrong = easy_to_memorize
    callback, _ = run(x, labels)
    assert callback.warm_up.memorized
    assert callback.warm_up.restarted
    rate, f1 = found(callback, wrong)
    assert rate == pytest.approx(wrong.mean(), abs=0.06)
    fixed, _ = run(x, labels, warmup=6)
    late_rate, late_f1 = found(fixed, wrong)
    assert late_rate < wrong.mean() - 0.1  # what a warm-up that is too long makes of it
    assert f1 > late_f1 + 0.1


def test_the_training_that_follows_never_saw_the_suspects(easy_to_memorize):
    """After the new start the network is one that trained on the rows kept alone."""
    x, labels, _ = easy_to_memorize
    seen = []

    class Watched(LossBufferCallback):
        def end_epoch(self):
            before = self.warm_up.restarted
            super().end_epoch()
            if self.warm_up.restarted and not before:
                seen.append({name: value.clone() for name, value in trained.state_dict().items()})

    trained = build(network, SETTINGS)
    first = {name: value.clone() for name, value in trained.state_dict().items()}
    train(trained, x, labels, SETTINGS, callback=Watched(labels, CLASSES, mode="filter"))
    (started,) = seen
    assert all(torch.equal(started[name], first[name]) for name in first)


def test_without_a_network_to_restart_the_report_says_so(easy_to_memorize):
    x, labels, _ = easy_to_memorize
    callback = plain(x, labels, LossBufferCallback(labels, CLASSES, mode="filter"), attaches=False)
    with pytest.warns(LossBufferWarning, match=r"^The network memorized single labels .* Call `attach\(network, opt"):
        callback.report()
    attached = plain(x, labels, LossBufferCallback(labels, CLASSES, mode="filter"), attaches=True)
    assert attached.warm_up.restarted


def test_watching_changes_nothing_and_says_so(easy_to_memorize):
    x, labels, _ = easy_to_memorize
    callback, watched = run(x, labels, mode="watch")
    alone = build(network, SETTINGS)
    train(alone, x, labels, SETTINGS)
    assert all(torch.equal(*pair) for pair in zip(watched.parameters(), alone.parameters(), strict=True))
    with pytest.warns(LossBufferWarning, match="memorized single labels .* Use `mode='filter'`"):
        callback.verdict()


def test_rows_held_back_teach_nothing_in_the_warm_up(easy_to_memorize):
    x, labels, _ = easy_to_memorize
    callback = LossBufferCallback(labels, CLASSES, mode="filter")
    held = callback.warm_up.held
    logits = torch.randn(len(x), CLASSES, requires_grad=True)
    callback.loss(logits, labels, torch.arange(len(x))).backward()
    assert bool((logits.grad[held] == 0).all())
    assert bool((logits.grad[~held] != 0).any(1).all())
    assert bool(callback.posterior.outputs.seen[held].all()) or callback.stage.steps == 1


def test_the_only_epoch_filters_in_its_second_half(easy_to_memorize):
    x, labels, _ = easy_to_memorize
    callback = LossBufferCallback(labels, CLASSES, mode="filter", epochs=1)
    seen = plain(x, labels, callback, attaches=True, epochs=1)
    assert seen.warm_up.halved
    assert seen.dropped
    assert not seen.warm_up.within_epoch  # outputs decide in that epoch alone
    probe = callback.posterior.keeps(8 * torch.eye(CLASSES), torch.tensor([0, 1, 2, 0]))
    assert probe.tolist() == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("stop", [1, 3, 5, 9])
def test_a_killed_training_starts_anew_with_the_same_bits(easy_to_memorize, stop, tmp_path):
    """Before the warm-up ends, within the audit, and after it."""
    x, labels, _ = easy_to_memorize
    whole, network_ = run(x, labels)

    class StoppedError(Exception):
        pass

    def killed(_):
        if len(epochs) == stop:
            raise StoppedError
        epochs.append(None)
        return 0.0

    epochs = []
    place = tmp_path / "run.pt"
    callback, first = LossBufferCallback(labels, CLASSES, mode="filter"), build(network, SETTINGS)
    with pytest.raises(StoppedError):
        train(first, x, labels, SETTINGS, callback=callback, checkpoint=place, after_epoch=killed)
    resumed, second = LossBufferCallback(labels, CLASSES, mode="filter"), build(network, SETTINGS)
    epochs.clear()
    stop = EPOCHS + 1
    train(second, x, labels, SETTINGS, callback=resumed, checkpoint=place, after_epoch=killed)
    assert resumed.warm_up.restarted
    assert all(torch.equal(*pair) for pair in zip(network_.parameters(), second.parameters(), strict=True))
    assert np.array_equal(whole.verdict().suspicion, resumed.verdict().suspicion)


def test_a_state_loaded_before_attach_keeps_the_first_weights(easy_to_memorize):
    _, labels, _ = easy_to_memorize
    trained = network()
    optimizer = torch.optim.SGD(trained.parameters(), 0.1)
    callback = LossBufferCallback(labels, CLASSES, mode="filter").attach(trained, optimizer)
    first = trained[0].weight.detach().clone()
    with torch.no_grad():
        trained[0].weight.add_(1.0)
    again = LossBufferCallback(labels, CLASSES, mode="filter")
    again.load_state_dict(callback.state_dict())
    again.attach(trained, optimizer)
    again.warm_up.start.restore()
    assert torch.equal(trained[0].weight, first)


@pytest.mark.parametrize(
    "make", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad], ids=lambda make: make.__name__
)
def test_a_starting_point_restores_weights_and_momentum_but_not_the_learning_rate(make):
    torch.manual_seed(0)
    trained = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = make(trained.parameters(), lr=0.5, **({"momentum": 0.9} if make is torch.optim.SGD else {}))
    start = StartingPoint(trained, optimizer)
    x = torch.randn(8, 3)

    def steps():
        for _ in range(3):
            optimizer.zero_grad()
            trained(x).square().sum().backward()
            optimizer.step()
        return [value.clone() for value in trained.state_dict().values()]

    first = steps()
    start.restore()
    again = steps()
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    optimizer.param_groups[0]["lr"] = 0.1
    start.restore()
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.usefixtures("no_shape_checks")
def test_what_cannot_be_attached():
    callback = LossBufferCallback([0, 1, 1, 0], mode="filter")
    trained = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(trained.parameters(), 0.1)
    with pytest.raises(ValueError, match="`network` must be a torch Module, got str"):
        callback.attach("net", optimizer)
    with pytest.raises(ValueError, match="`optimizer` must be a torch Optimizer, got Linear"):
        callback.attach(trained, trained)
    with pytest.raises(ValueError, match="`epochs` must be an integer of at least 1"):
        callback.attach(trained, optimizer, 0)
    other = LossBufferCallback([0, 1, 1, 0], mode="filter").attach(nn.Linear(3, 2), optimizer)
    callback.attach(trained, optimizer)
    with pytest.raises(ValueError, match="`state_dict` must be of a training of the same network"):
        callback.load_state_dict(other.state_dict())


def test_a_selector_on_data_that_are_memorized_at_once(easy_to_memorize):
    x, labels, wrong = easy_to_memorize
    selector = LossBufferSelector(lambda shape, classes: network(), lr=0.1, random_state=0)
    selector.fit(x.numpy(), labels.numpy())
    assert selector.noise_rate_ == pytest.approx(wrong.mean(), abs=0.06)
    assert wrong[selector.sample_indices_].mean() < 0.25


def test_a_callback_that_is_a_module_of_the_network_goes_on(easy_to_memorize):
    x, labels, _ = easy_to_memorize

    class WithCallback(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.callback = network(), LossBufferCallback(labels, CLASSES, mode="filter")

        def forward(self, batch):
            return self.body(batch)

    trained = build(WithCallback, SETTINGS)
    train(trained, x, labels, SETTINGS, callback=trained.callback)
    assert trained.callback.epoch == EPOCHS
    assert trained.callback.warm_up.restarted
    assert trained.callback.posterior.audited


def test_a_callback_that_started_anew_may_see_another_training(easy_to_memorize):
    x, labels, _ = easy_to_memorize
    callback, _ = run(x, labels)
    trained = build(network, SETTINGS)
    short = TrainSettings(epochs=3, batch_size=100, lr=0.1, device="cpu")
    history = train(trained, x, labels, short, callback=callback)
    assert len(history.loss) == 3
    assert np.isfinite(history.loss).all()


def test_another_network_takes_the_place_of_the_first(easy_to_memorize):
    _, labels, _ = easy_to_memorize
    first, second = network(), network()
    callback = LossBufferCallback(labels, CLASSES, mode="filter")
    for trained in (first, second):
        callback.attach(trained, torch.optim.SGD(trained.parameters(), 0.1))
    assert callback.warm_up.start.network is second


def test_a_state_saved_without_its_network_keeps_the_first_weights(easy_to_memorize):
    _, labels, _ = easy_to_memorize
    trained = network()
    optimizer = torch.optim.SGD(trained.parameters(), 0.1)
    first = LossBufferCallback(labels, CLASSES, mode="filter", epochs=20).attach(trained, optimizer)
    between = LossBufferCallback(labels, CLASSES, mode="filter", epochs=20)
    between.load_state_dict(first.state_dict())
    last = LossBufferCallback(labels, CLASSES, mode="filter", epochs=20)
    last.load_state_dict(between.state_dict())
    with torch.no_grad():
        trained[0].weight.zero_()
    last.attach(trained, optimizer).warm_up.start.restore()
    assert bool((trained[0].weight != 0).any())
    assert last.posterior.warmup == last.warm_up.longest


def test_lazy_networks_are_refused_by_name():
    lazy = nn.LazyLinear(2)
    with pytest.raises(ValueError, match="`network` must have all its weights, got lazy modules"):
        LossBufferCallback([0, 1], mode="filter").attach(lazy, torch.optim.SGD([torch.zeros(1)], 0.1))
