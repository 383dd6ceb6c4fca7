"""Cleaning and condensing in one: the same as by hand, in one training, and told in the provenance."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.feature_selection import VarianceThreshold
from sklearn.frozen import FrozenEstimator
from sklearn.utils.estimator_checks import estimator_checks_generator

from condensation.artifact import CondensedSet
from condensation.artifact.provenance import fingerprint
from condensation.coresets import Forgetting, FreshNetwork, Herding, NetworkFeatures, Random
from condensation.coresets import features as feature_module
from condensation.coresets.features import network_outputs
from condensation.coresets.forgetting import statistics_of
from condensation.distillation import KnowledgeDistillation
from condensation.matching import DistributionMatching
from condensation.pipeline import CleanAndCondense, cleaning_by
from lossbuf import LossBufferSelector
from lossbuf.data import standardised
from lossbuf.networks import ConvNet
from lossbuf.selectors import loss_buffer
from lossbuf.training import TrainSettings

# Few rows and epochs are to be doubted, as the cleaner says.
pytestmark = pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning")


class Without(BaseEstimator):
    """Keeps all rows but some."""

    def __init__(self, rows=()):
        self.rows = rows

    def fit(self, X, y):
        self.mask_ = np.ones(len(X), dtype=bool)
        self.mask_[list(self.rows)] = False
        return self

    def get_support(self):
        return self.mask_


def narrow(shape, classes):
    return ConvNet(shape[0], classes, shape[1:], width=4, depth=2)


def noisy_digits(rows=150):
    x, y = load_digits(return_X_y=True)
    x, y = x[:rows].reshape(-1, 1, 8, 8), y[:rows].copy()
    y[:20] = (y[:20] + 1) % 10
    return x, y


def cleaner(**settings):
    return LossBufferSelector(**{"module": narrow, "epochs": 4, "batch_size": 32, "device": "cpu", **settings})


def learner(**settings):
    usual = {"network": narrow, "iterations": 3, "batch_size": 16, "lr": 0.3, "device": "cpu", "random_state": 0}
    return DistributionMatching(2, **{**usual, **settings})


DROPPED = (0, 3, 7, 20, 149)
KEPT = np.setdiff1d(np.arange(150), DROPPED)


def test_a_coreset_is_that_of_the_rows_kept_and_tells_the_rows_of_the_source():
    x, y = noisy_digits()
    pipeline = CleanAndCondense(cleaner=Without(DROPPED), condenser=Herding(ipc=2))
    images, labels = pipeline.fit_resample(x, y)
    by_hand = Herding(ipc=2).fit(x[KEPT], y[KEPT])
    rows = KEPT[by_hand.sample_indices_]
    assert not np.array_equal(rows, Herding(ipc=2).fit(x, y).sample_indices_)
    np.testing.assert_array_equal(images, x[rows])
    np.testing.assert_array_equal(labels, y[rows])
    np.testing.assert_array_equal(pipeline.kept_indices_, KEPT)
    found = pipeline.condensed_set()
    assert not found.synthetic
    assert found.provenance.rows.tolist() == rows.tolist()
    assert found.provenance.n_samples == 150
    assert found.provenance.fingerprint == fingerprint(x, y)
    cleaning = found.provenance.cleaning
    assert (cleaning.name, cleaning.settings, cleaning.dropped) == ("Without", {"rows": list(DROPPED)}, 5)
    assert cleaning.noise_rate is None
    assert cleaning.pure_rate is None


def test_a_condensed_set_is_that_of_the_rows_kept_and_comes_back_from_its_file(tmp_path):
    x, y = noisy_digits()
    pipeline = CleanAndCondense(cleaner=Without(DROPPED), condenser=learner()).fit(x, y)
    by_hand = learner().fit(x[KEPT], y[KEPT])
    np.testing.assert_array_equal(pipeline.condenser_.images_, by_hand.images_)
    pipeline.condensed_set().save(tmp_path / "small.npz")
    found = CondensedSet.load(tmp_path / "small.npz")
    torch.testing.assert_close(found.x, by_hand.condensed_set().x)
    assert found.synthetic
    assert found.provenance.rows.tolist() == KEPT.tolist()
    assert (found.provenance.n_samples, found.provenance.fingerprint) == (150, fingerprint(x, y))
    assert found.provenance.cleaning.dropped == 5


def test_without_a_cleaner_it_is_the_condenser_alone():
    x, y = noisy_digits()
    for condenser in (learner(), Random(ipc=2, random_state=1)):
        pipeline = CleanAndCondense(cleaner=None, condenser=condenser)
        images, labels = pipeline.fit_resample(x, y)
        expected = clone(condenser).fit_resample(x, y)
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(labels, expected[1])
        provenance = pipeline.condensed_set().provenance
        assert provenance.cleaning is None
        assert provenance.n_samples == 150
        assert pipeline.cleaner_ is None
    assert provenance.rows.tolist() == Random(ipc=2, random_state=1).fit(x, y).sample_indices_.tolist()


def test_what_the_loss_buffers_found_is_told():
    x, y = noisy_digits()
    pipeline = CleanAndCondense(cleaner=cleaner(random_state=3), condenser=Random(ipc=1), random_state=0).fit(x, y)
    alone = cleaner(random_state=3).fit(x, y)
    np.testing.assert_array_equal(pipeline.kept_indices_, alone.sample_indices_)
    cleaning = pipeline.condensed_set().provenance.cleaning
    assert cleaning.name == "LossBufferSelector"
    assert cleaning.settings["epochs"] == 4
    assert cleaning.settings["random_state"] == 3
    assert cleaning.settings["module"] == {"type": "narrow"}
    assert cleaning.dropped == 150 - len(alone.sample_indices_)
    assert cleaning.noise_rate == alone.noise_rate_
    assert cleaning.pure_rate == pytest.approx(1 - expit(alone.scores_[alone.get_support()]).mean())


def test_purity_is_what_the_planted_labels_say_where_there_are_any():
    found = LossBufferSelector(rank_by="aum")
    found.noise_rate_, found.planted_found_ = 0.3, None
    mask = np.arange(100) < 80
    assert cleaning_by(found, mask).pure_rate is None
    found.planted_found_ = 0.9  # of 30 wrong rows 3 are still among the 80
    assert cleaning_by(found, mask).pure_rate == pytest.approx(1 - 3 / 80)
    found.noise_rate_, found.planted_found_ = 1.0, 0.0
    assert cleaning_by(found, mask).pure_rate == 0


def test_one_training_serves_the_coresets_and_the_teacher(monkeypatch):
    x, y = noisy_digits()
    fitted = cleaner(random_state=0).fit(x, y)
    kept = fitted.sample_indices_
    trainings = []
    train = loss_buffer.train
    monkeypatch.setattr(loss_buffer, "train", lambda *given, **more: trainings.append(0) or train(*given, **more))
    monkeypatch.setattr(feature_module, "train", lambda *_, **__: pytest.fail("trained once more"))

    pipeline = CleanAndCondense(cleaner=cleaner(random_state=0), condenser=Forgetting(ipc=2)).fit(x, y)
    statistics = statistics_of(fitted.callback_.statistics(), kept)
    by_hand = Forgetting(ipc=2, statistics=statistics).fit(x[kept], y[kept])
    np.testing.assert_array_equal(pipeline.condenser_.sample_indices_, by_hand.sample_indices_)

    wanted = Herding(ipc=2, features=NetworkFeatures())
    pipeline = CleanAndCondense(cleaner=cleaner(random_state=0), condenser=wanted).fit(x, y)
    seen = network_outputs(fitted.module_, standardised(x)[0]).features[torch.from_numpy(kept)]
    by_hand = Herding(ipc=2, features=seen).fit(x[kept], y[kept])
    np.testing.assert_array_equal(pipeline.condenser_.sample_indices_, by_hand.sample_indices_)
    assert not np.array_equal(Herding(ipc=2).fit(x[kept], y[kept]).sample_indices_, by_hand.sample_indices_)

    wanted = KnowledgeDistillation(Random(ipc=1))
    pipeline = CleanAndCondense(cleaner=cleaner(random_state=0), condenser=wanted, random_state=0).fit(x, y)
    assert pipeline.condenser_.teacher_ is pipeline.cleaner_.module_
    assert pipeline.condensed_set().labels.shape == (10, 10)
    assert len(trainings) == 3


@pytest.mark.parametrize(
    "condenser",
    [
        Forgetting(ipc=1, network=FreshNetwork(settings=TrainSettings(epochs=1, device="cpu"))),
        Herding(ipc=1, features=NetworkFeatures(FreshNetwork(settings=TrainSettings(epochs=1, device="cpu")))),
        KnowledgeDistillation(Random(ipc=1), teacher=FreshNetwork(settings=TrainSettings(epochs=1, device="cpu"))),
    ],
    ids=lambda condenser: type(condenser).__name__,
)
def test_a_network_that_was_asked_for_is_trained(condenser, monkeypatch):
    trainings, train = [], feature_module.train
    monkeypatch.setattr(feature_module, "train", lambda *given, **more: trainings.append(0) or train(*given, **more))
    CleanAndCondense(cleaner=cleaner(epochs=1), condenser=condenser, random_state=0).fit(*noisy_digits())
    assert len(trainings) == 1


def test_a_frozen_cleaner_serves_several_and_knows_its_rows(monkeypatch):
    x, y = noisy_digits()
    fitted = cleaner(random_state=0).fit(x, y)
    monkeypatch.setattr(loss_buffer, "train", lambda *_, **__: pytest.fail("trained once more"))
    for condenser in (learner(), Forgetting(ipc=1)):
        pipeline = clone(CleanAndCondense(cleaner=FrozenEstimator(fitted), condenser=condenser, random_state=0))
        np.testing.assert_array_equal(pipeline.fit(x, y).kept_indices_, fitted.sample_indices_)
        cleaning = pipeline.condensed_set().provenance.cleaning
        assert (cleaning.name, cleaning.noise_rate) == ("LossBufferSelector", fitted.noise_rate_)
    with pytest.raises(ValueError, match="`X` must be the X"):
        pipeline.fit(x + 1, y)
    with pytest.raises(ValueError, match="`y` must be the labels that the frozen cleaner was fitted on"):
        pipeline.fit(x, np.roll(y, 1))
    with pytest.raises(ValueError, match=r"mask of the 100 rows .* shape \(150,\)"):
        pipeline.fit(x[:100], y[:100])


def test_one_seed_serves_both_and_those_of_their_own_stay():
    x, y = noisy_digits()

    def fitted(condenser, by=None, seed=0):
        return CleanAndCondense(cleaner=by or Random(size=0.9), condenser=condenser, random_state=seed).fit(x, y)

    first, again, other = (fitted(learner(random_state=None), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.condenser_.images_, again.condenser_.images_)
    np.testing.assert_array_equal(first.kept_indices_, again.kept_indices_)
    assert not np.array_equal(first.kept_indices_, other.kept_indices_)
    assert first.condensed_set().seed == first.condenser_.random_state == again.condenser_.random_state
    assert first.cleaner_.random_state != first.condenser_.random_state
    # What cleans has no part in the condenser's draws.
    none = CleanAndCondense(cleaner=None, condenser=Random(ipc=1), random_state=0).fit(x, y)
    assert none.condenser_.random_state == first.condenser_.random_state
    own = fitted(learner(random_state=5), by=Random(size=0.9, random_state=6))
    assert (own.cleaner_.random_state, own.condenser_.random_state) == (6, 5)
    assert fitted(Random(ipc=1), seed=None).condenser_.random_state is None
    assert first.condenser.random_state is None


def test_parameters_are_nested_and_cloned():
    pipeline = CleanAndCondense(cleaner=cleaner(), condenser=learner(), random_state=0)
    copy = clone(pipeline).set_params(cleaner__epochs=2, condenser__ipc=1)
    assert (copy.cleaner.epochs, copy.condenser.ipc) == (2, 1)
    assert (pipeline.cleaner.epochs, pipeline.condenser.ipc) == (4, 2)
    copy.fit(*noisy_digits())
    assert not hasattr(copy.cleaner, "module_")
    assert len(copy.condensed_set()) == 10


def test_a_checkpoint_passes_through_and_a_callback_sees_every_iteration(tmp_path):
    x, y = noisy_digits()
    whole = CleanAndCondense(cleaner=cleaner(), condenser=learner(), random_state=0).fit(x, y)
    path, seen = tmp_path / "run.pt", []
    part = CleanAndCondense(cleaner=cleaner(), condenser=learner(), random_state=0)
    part.fit(x, y, checkpoint=path, callback=lambda progress: seen.append(progress.iteration) or len(seen) == 2)
    assert seen == [1, 2]
    assert path.exists()
    images, _ = clone(part).fit_resample(x, y, checkpoint=path, callback=lambda now: seen.append(now.iteration))
    assert seen == [1, 2, 3]
    np.testing.assert_array_equal(images, whole.condenser_.images_)
    with pytest.raises(ValueError, match="`checkpoint`"):  # other rows are kept
        CleanAndCondense(cleaner=Without(DROPPED), condenser=learner()).fit(x, y, checkpoint=path)


def test_labels_may_be_texts_and_samples_tensors_or_lists():
    x, y = noisy_digits()
    names = np.array([f"digit {label}" for label in y])
    given = CleanAndCondense(cleaner=Without(DROPPED), condenser=Herding(ipc=1))
    images, labels = given.fit_resample(torch.from_numpy(x), names)
    assert labels.tolist() == [f"digit {label}" for label in range(10)]
    assert given.condensed_set().class_names == tuple(labels)
    assert given.classes_.tolist() == list(labels)
    flat, numbers = given.fit_resample(x.reshape(150, 64).tolist(), torch.from_numpy(y))
    np.testing.assert_array_equal(flat.reshape(images.shape), images)
    assert numbers.tolist() == list(range(10))


def test_a_class_that_cleaning_empties_is_named():
    x, y = noisy_digits()
    rows = tuple(np.flatnonzero(y == 4).tolist())
    pipeline = CleanAndCondense(cleaner=Without(rows), condenser=Random(ipc=1))
    with pytest.raises(ValueError, match=rf"`cleaner` must keep a row of every class.*the {len(rows)} of class 4\."):
        pipeline.fit(x, y)
    assert pipeline.cleaner_.get_support().sum() == 150 - len(rows)
    with pytest.raises(ValueError, match=r"class nine"):
        CleanAndCondense(cleaner=Without((2,)), condenser=Random(ipc=1)).fit(x[:3], ["one", "one", "nine"])


@pytest.mark.parametrize(
    ("settings", "fit", "message"),
    [
        ({"cleaner": "ours"}, {}, "`cleaner` must have fit and get_support"),
        ({"cleaner": VarianceThreshold()}, {}, r"mask of the 150 rows .* shape \(64,\)"),
        ({"condenser": None}, {}, "`condenser` must be a coreset or a method"),
        ({"condenser": Without()}, {}, "`condenser` must be a coreset or a method"),
        ({}, {"checkpoint": "run.pt"}, "`checkpoint` must be None for a coreset"),
        ({}, {"callback": print}, "`callback` must be None for a coreset"),
        ({"condenser": Random(ipc=0)}, {}, "`ipc`"),
        ({"condenser": learner()}, {}, "`X` must be images"),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_bad_settings(settings, fit, message):
    x, y = noisy_digits()
    usual = {"cleaner": Without(DROPPED), "condenser": Random(ipc=1)}
    with pytest.raises(ValueError, match=message):
        CleanAndCondense(**{**usual, **settings}).fit(x.reshape(150, 64), y, **fit)


@pytest.mark.usefixtures("no_shape_checks")  # the checks hand over settings of all types
def test_estimator_checks():
    estimator = CleanAndCondense(cleaner=Random(size=0.9), condenser=Random(size=0.5), random_state=0)
    found = 0
    for each, check in estimator_checks_generator(estimator, mark="skip", expected_failed_checks={}):
        name = getattr(check, "func", check).__name__
        if name != "check_array_api_input":  # needs a setting of scipy
            check(each)
            found += 1
    assert found > 35
