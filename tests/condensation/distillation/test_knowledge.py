"""Knowledge distillation against slow references, on every kind of base, and the temperature in the evaluation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from condensation.artifact import CondensedSet
from condensation.artifact.provenance import Provenance
from condensation.augmentation.siamese import SiameseAugmentation
from condensation.coresets import Craig, FreshNetwork, Herding, Random
from condensation.distillation import DatasetDistillation, KnowledgeDistillation, distillation_loss, soft_labels
from condensation.evaluate import EvalSettings, evaluate
from condensation.matching import DistributionMatching
from condensation.subspace import PCAImages
from lossbuf.data import standardised
from lossbuf.errors import LossBufferWarning
from lossbuf.networks import ConvNet
from lossbuf.networks.architectures import mlp
from lossbuf.training import TrainSettings
from tests.reference import knowledge as reference

TEACHER = FreshNetwork(mlp, TrainSettings(epochs=3, device="cpu"))


def digits(rows=300):
    x, y = load_digits(return_X_y=True)
    return x[:rows].reshape(-1, 1, 8, 8), y[:rows]


def narrow(shape, classes):
    return ConvNet(shape[0], classes, shape[1:], width=4, depth=2)


def learner(**settings):
    usual = {"ipc": 2, "network": narrow, "iterations": 3, "batch_size": 32, "augment": None, "device": "cpu"}
    return DistributionMatching(**(usual | settings))


BASES = {
    "random": Random(ipc=3),
    "herding": Herding(ipc=2),
    "weights": Craig(ipc=2, features=load_digits().data[:300]),
    "learned": learner(),
    "subspace": PCAImages(2),
}


@pytest.fixture(params=BASES)
def base(request):
    return clone(BASES[request.param])


# ---- functions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_soft_labels_match_the_loop(temperature, scale):
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * scale
    logits[1] = logits[1, 0]
    found = soft_labels(nn.Identity(), logits, temperature)
    assert found.dtype == torch.float32
    expected = [reference.softmax(row, temperature) for row in logits.double().tolist()]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(1).numpy(), 1, atol=1e-6)


def test_soft_labels_are_those_of_evaluation_and_leave_the_network_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 3))
    network[2].eval()
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = soft_labels(network, x)
    assert [module.training for module in network] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(soft_labels(network, x), found)
    torch.testing.assert_close(found, network.eval()(x).softmax(1).detach())
    assert not found.requires_grad


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_loss_matches_the_loop_and_finite_differences(temperature, alpha, batch, device):
    generator = torch.Generator().manual_seed(0)
    logits, taught = (torch.randn(batch, 4, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
    labels = (torch.arange(batch) % 4).to(device)
    settings = {"temperature": temperature, "alpha": alpha}
    found = distillation_loss(logits, taught, labels, **settings)
    expected = reference.distillation_loss(logits.tolist(), taught.tolist(), labels.tolist(), temperature, alpha)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    logits.requires_grad_()
    taught.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: distillation_loss(values, taught, labels, **settings), (logits,))
    distillation_loss(logits, taught, labels, **settings).backward()
    assert taught.grad is None
    if alpha == 1:
        assert torch.equal(distillation_loss(logits, taught, temperature=temperature), found)


def test_the_loss_is_finite_for_large_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = distillation_loss(logits, -logits.detach(), torch.tensor([1]), temperature=1.0, alpha=0.5)
    loss.backward()
    assert loss.detach().item() == pytest.approx(2e4)
    assert torch.isfinite(logits.grad).all()
    same = distillation_loss(logits, logits.detach())
    assert same.detach().item() == 0


def test_the_temperature_keeps_the_length_of_the_gradient():
    logits, taught = (torch.randn(8, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))

    def slope(temperature):
        given = logits.clone().requires_grad_()
        return torch.autograd.grad(distillation_loss(given, taught, temperature=temperature), given)[0]

    # For high temperatures it is the gap of the centred logits.
    gap = (logits - logits.mean(1, keepdim=True)) - (taught - taught.mean(1, keepdim=True))
    torch.testing.assert_close(slope(1000.0), gap / 5 / 8, atol=1e-4, rtol=1e-2)


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_arguments():
    logits = torch.zeros(2, 3)
    for settings, name in (
        ({"temperature": 0.0}, "temperature"),
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": 0.5}, "labels"),
    ):
        with pytest.raises(ValueError, match=f"`{name}`"):
            distillation_loss(logits, logits, **settings)
    with pytest.raises(ValueError, match="`temperature`"):
        soft_labels(nn.Identity(), logits, -1.0)
    with pytest.raises(ValueError, match=r"`teacher` must give finite logits.*NaN"):
        soft_labels(nn.Identity(), logits + torch.inf)
    with pytest.raises(ValueError, match=r"`teacher` must give finite logits.*shape"):
        soft_labels(nn.Flatten(0), logits)


# ---- the estimator ---------------------------------------------------------------------------------------------------


def test_labels_are_those_of_the_teacher_for_the_images_of_the_base(base):
    x, y = digits()
    found = KnowledgeDistillation(base, teacher=TEACHER, temperature=3.0, random_state=0)
    images, labels = found.fit_resample(x, y)
    own = clone(base)
    if "random_state" in own.get_params():
        own.set_params(random_state=found.base_.random_state)
    own.fit(x, y)
    rows = getattr(own, "sample_indices_", None)
    if rows is None:
        np.testing.assert_allclose(images, own.images_, atol=1e-4)
        np.testing.assert_array_equal(found.hard_labels_, own.labels_)
        assert not hasattr(found, "sample_indices_")
    else:
        np.testing.assert_array_equal(found.sample_indices_, rows)
        np.testing.assert_array_equal(images, x[rows].astype(np.float32))
        np.testing.assert_array_equal(found.hard_labels_, y[rows])
    assert hasattr(found, "sample_weight_") == isinstance(base, Craig)
    if isinstance(base, Craig):
        np.testing.assert_array_equal(found.sample_weight_, own.sample_weight_)
    assert not hasattr(base, "classes_")  # a clone was fitted
    # The teacher sees the images standardised as those it was trained on.
    logits = found.teacher_(standardised(x, images.astype(np.float64))[1]).double().tolist()
    np.testing.assert_allclose(labels, [reference.softmax(row, 3.0) for row in logits], atol=1e-5)
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    assert (labels.argmax(1) == found.hard_labels_).mean() > 0.3


def test_the_same_seed_gives_the_same_bits(base):
    x, y = digits()

    def run(seed):
        found = KnowledgeDistillation(clone(base), teacher=TEACHER, random_state=seed).fit(x, y)
        return found.images_, found.labels_

    first, again, other = run(0), run(0), run(1)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])
    if isinstance(base, Random | DistributionMatching):
        assert not np.array_equal(first[0], other[0])
    if "random_state" in base.get_params():
        fixed = clone(base).set_params(random_state=5)
        assert KnowledgeDistillation(fixed, teacher=TEACHER, random_state=0).fit(x, y).base_.random_state == 5


def test_a_base_that_learns_goes_on_from_its_checkpoint(tmp_path):
    x, y = digits()
    whole = KnowledgeDistillation(learner(), teacher=TEACHER, random_state=0).fit(x, y)
    told = []

    def stop(progress):
        told.append(progress.iteration)
        return progress.iteration == 2

    path = tmp_path / "run.pt"
    KnowledgeDistillation(learner(), teacher=TEACHER, random_state=0).fit(x, y, checkpoint=path, callback=stop)
    assert told == [1, 2]
    resumed = KnowledgeDistillation(learner(), teacher=TEACHER, random_state=0)
    resumed.fit(x, y, checkpoint=path, callback=stop)
    assert told == [1, 2, 3]
    np.testing.assert_array_equal(resumed.images_, whole.images_)
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    np.testing.assert_array_equal(resumed.losses_, whole.losses_)
    assert len(whole.losses_) == 3


def test_a_teacher_that_is_trained_already():
    x, y = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = mlp((1, 8, 8), 10)
    before = [value.clone() for value in network.parameters()]
    for standardise in (True, False):
        found = KnowledgeDistillation(Herding(ipc=1), teacher=network, standardise=standardise, temperature=2.0)
        found.fit(x, y)
        assert found.teacher_ is network
        rows = found.sample_indices_
        seen = torch.from_numpy((x - x.mean()) / x.std() if standardise else x)[rows].float()
        np.testing.assert_allclose(found.labels_, (network(seen) / 2).softmax(1).detach(), atol=1e-5)
    assert all(torch.equal(one, two) for one, two in zip(network.parameters(), before, strict=True))


def test_names_weights_and_small_classes():
    x, y = digits(60)
    names = np.array(["even", "odd", "unused"])[np.where(np.arange(60) < 20, y % 2, 2)]
    names[:3] = "rare"
    weights = np.where(names == "unused", 0.0, 1.0)
    weights[3:8] = 2.0
    with pytest.warns(LossBufferWarning, match="2 has 3 of 5"):
        found = KnowledgeDistillation(Random(ipc=5), teacher=TEACHER, random_state=0).fit(
            x, names, sample_weight=weights
        )
    assert found.classes_.tolist() == ["even", "odd", "rare"]
    assert found.hard_labels_.tolist() == ["even"] * 5 + ["odd"] * 5 + ["rare"] * 3
    assert found.labels_.shape == (13, 3)
    np.testing.assert_array_equal(names[found.sample_indices_], found.hard_labels_)
    np.testing.assert_array_equal(found.images_, x[found.sample_indices_].astype(np.float32))
    small = found.condensed_set()
    assert small.class_names == ("even", "odd", "rare")
    assert small.provenance.rows.tolist() == found.sample_indices_.tolist()
    assert small.provenance.n_samples == 60


def test_the_teacher_is_trained_with_the_weights():
    x, y = digits(200)
    seen = []

    class Recorder(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(10))

        def forward(self, x):
            return self.scale.expand(len(x), -1)

    # A teacher of no inputs learns the share of every class, by weight.
    weights = np.where(y == 3, 5.0, 1.0)
    fresh = FreshNetwork(
        lambda *_: Recorder(), TrainSettings(epochs=60, weight_decay=0.0, batch_size=200, device="cpu")
    )
    for given in (None, weights):
        found = KnowledgeDistillation(Herding(ipc=1), teacher=fresh, temperature=1.0, random_state=0)
        seen.append(found.fit(x, y, sample_weight=given).labels_[0])
    for given, share in zip((np.ones(200), weights), seen, strict=True):
        expected = np.bincount(y, weights=given) / given.sum()
        np.testing.assert_allclose(share, expected, atol=0.02)


def test_a_base_that_learns_is_given_the_weights():
    x, y = digits(100)
    weights = np.random.default_rng(0).uniform(0, 3, 100) * (np.arange(100) > 5)
    found = KnowledgeDistillation(PCAImages(2), teacher=TEACHER).fit(x, y, sample_weight=weights)
    own, plain = PCAImages(2).fit(x, y, sample_weight=weights), PCAImages(2).fit(x, y)
    np.testing.assert_allclose(found.images_, own.images_, atol=1e-3)
    assert not np.allclose(found.images_, plain.images_, atol=0.1)


def test_the_condensed_set_tells_the_temperature(base, tmp_path):
    x, y = digits()
    found = KnowledgeDistillation(base, teacher=TEACHER, temperature=5.0, random_state=3).fit(x, y)
    found.condensed_set(provenance=Provenance(n_samples=300)).save(tmp_path / "set.npz")
    small = CondensedSet.load(tmp_path / "set.npz")
    assert small.schedule["temperature"] == 5.0
    assert small.schedule["epochs"] == 300
    assert small.method == "KnowledgeDistillation"
    assert small.seed == 3
    assert small.settings["base"]["type"] == type(base).__name__
    np.testing.assert_array_equal(small.labels.numpy(), found.labels_)
    assert small.synthetic == (not hasattr(found, "sample_indices_"))
    assert (small.weights is None) == (not hasattr(found, "sample_weight_"))
    np.testing.assert_allclose(small.x.numpy(), (found.images_ - x.mean()) / x.std(), atol=1e-4)


def test_the_set_keeps_the_augmentation_of_the_base_and_not_the_steps_of_a_distilled_one():
    x, y = digits(100)
    base = learner(augment=SiameseAugmentation(("crop",)), iterations=1)
    small = KnowledgeDistillation(base, teacher=TEACHER).fit(x, y).condensed_set()
    assert small.augmentation["type"] == "SiameseAugmentation"
    assert small.schedule["epochs"] == 1000
    base = DatasetDistillation(1, iterations=1, device="cpu")
    small = KnowledgeDistillation(base, teacher=TEACHER).fit(x, y).condensed_set()
    assert small.steps is None
    assert small.schedule["temperature"] == 4.0


def test_students_learn_more_from_soft_labels():
    x, y = digits(1797)
    test = standardised(x[:1400], x[1400:])[1]
    teacher = FreshNetwork(mlp, TrainSettings(epochs=10, device="cpu"))
    found = KnowledgeDistillation(Random(ipc=10), teacher=teacher, random_state=0).fit(x[:1400], y[:1400])
    small = found.condensed_set()
    hard = torch.from_numpy(found.hard_labels_)

    def accuracy(labels, temperature):
        settings = EvalSettings(epochs=100, networks=3, temperature=temperature, device="cpu")
        return evaluate(small.x, labels, test, y[1400:], network=mlp, settings=settings).mean

    assert accuracy(small.labels, 4.0) > accuracy(hard, 1.0) + 0.01


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_settings_and_input():
    x, y = digits(60)
    nothing = KnowledgeDistillation(Random(ipc=1), teacher=TEACHER)
    for settings, message in (
        ({"temperature": 0.0}, "`temperature` must"),
        ({"temperature": float("nan")}, "`temperature` must"),
        ({"base": "random"}, "`base` must be a coreset estimator .*got str"),
        ({"base": Random}, "`base` must"),
        ({"base": clone(nothing)}, "`base` must .*got KnowledgeDistillation"),
        ({"base": Random(ipc=0)}, "`ipc` must"),
        ({"base": learner(iterations=0)}, "`iterations` must"),
        ({"teacher": "a"}, "`teacher` must be a network or a FreshNetwork, got str"),
        ({"teacher": mlp((1, 8, 8), 11)}, "`teacher` must have an output for each of the 10 classes.*got 11"),
    ):
        with pytest.raises(ValueError, match=message):
            clone(nothing).set_params(**settings).fit(x, y)
    for given, message in (((x, np.zeros(60, int)), "`y`"), ((x.reshape(60, 64), y), "`X`"), ((x * np.nan, y), "NaN")):
        with pytest.raises(ValueError, match=message):
            clone(nothing).fit(*given)


# ---- the temperature in the evaluation -------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_evaluation_trains_by_the_distillation_loss(temperature, generator):
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    taught = torch.randn(12, 3, generator=generator, dtype=torch.float64) * 4
    weights, made = torch.rand(12, generator=generator, dtype=torch.float64) + 0.1, []

    def factory(shape, classes):
        made.append(nn.Linear(shape[0], classes))
        made.append(nn.Linear(shape[0], classes))
        made[1].load_state_dict(made[0].state_dict())
        return made[0]

    settings = EvalSettings(epochs=2, batch_size=12, lr=0.1, momentum=0.0, weight_decay=0.0, networks=1, device="cpu",
                            temperature=temperature)  # fmt: skip
    soft, labels = (taught / temperature).softmax(1), torch.arange(12) % 3
    evaluate(x, soft, x, labels, network=factory, settings=settings, weights=weights)
    student = made[1].double()
    for rate in (0.1, 0.01):
        student.zero_grad()
        loss = sum(
            weight * distillation_loss(student(row[None]), logits[None], temperature=temperature)
            for row, logits, weight in zip(x, taught, weights / weights.mean(), strict=True)
        )
        (loss / 12).backward()
        with torch.no_grad():
            for value in student.parameters():
                value -= rate * value.grad
    torch.testing.assert_close(made[0].weight, student.weight)
    torch.testing.assert_close(made[0].bias, student.bias)


@pytest.mark.usefixtures("no_shape_checks")
def test_a_temperature_needs_soft_labels():
    x, labels = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    with pytest.raises(ValueError, match=r"`temperature` must be 1 where labels are classes.*got 4.0"):
        evaluate(x, labels, x, labels, settings=EvalSettings(epochs=1, temperature=4.0, device="cpu"))
    evaluate(x, F.one_hot(labels).float(), x, labels, settings=EvalSettings(epochs=1, temperature=4.0, device="cpu"))
    with pytest.raises(ValueError, match="`temperature` must"):
        EvalSettings(temperature=0.0)


def test_a_second_fit_forgets_the_rows_and_weights_of_the_first():
    x, y = load_digits(return_X_y=True)
    x, y = x[:100].reshape(-1, 1, 8, 8), y[:100]
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    learner = KnowledgeDistillation(Craig(ipc=1), teacher=teacher, random_state=0).fit(x, y)
    assert len(learner.sample_indices_) == len(learner.sample_weight_) == 10
    learner.set_params(base=PCAImages(1)).fit(x, y)
    assert not hasattr(learner, "sample_indices_")
    assert not hasattr(learner, "sample_weight_")
    assert learner.condensed_set().synthetic
