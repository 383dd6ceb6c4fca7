"""What learning does with networks, checkpoints, settings and weights that are not as they should be."""

import functools
import os

import numpy as np
import pytest
import torch
from torch import nn

from condensation.coresets import Herding
from condensation.coresets.features import FreshNetwork
from condensation.distillation import DatasetDistillation, KnowledgeDistillation, LabelDistillation
from condensation.evaluate import EvalSettings, evaluate
from condensation.learned.condenser import Condenser
from condensation.matching import DistributionMatching, GradientMatching
from condensation.pipeline import CleanAndCondense
from lossbuf.files import load_tensors, save_tensors
from lossbuf.networks import ConvNet
from lossbuf.training import TrainSettings

pytestmark = pytest.mark.usefixtures("no_shape_checks")


def of_width(width):
    return lambda shape, num_classes: ConvNet(shape[0], num_classes, shape[1:], width=width, depth=1)


def images(count=24):
    draw, y = np.random.RandomState(0), np.arange(count) % 3
    return (draw.rand(count, 1, 8, 8) + y.reshape(-1, 1, 1, 1)).astype(np.float32), y


def matching(**settings):
    usual = {"ipc": 1, "network": of_width(4), "iterations": 2, "outer_steps": 1, "random_state": 0, "device": "cpu"}
    return GradientMatching(**usual | settings)


def distributions(**settings):
    usual = {"ipc": 1, "network": of_width(4), "iterations": 2, "random_state": 0, "device": "cpu"}
    return DistributionMatching(**usual | settings)


METHODS = [matching, distributions]


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("wrap", [lambda made: made, functools.partial])
def test_a_checkpoint_belongs_to_the_network(make, wrap, tmp_path):
    make(network=wrap(of_width(4))).fit(*images(), checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="`checkpoint` must be of a run with the same data and settings"):
        make(network=wrap(of_width(6)), iterations=3).fit(*images(), checkpoint=tmp_path / "run.pt")
    make(network=wrap(of_width(4)), iterations=3).fit(*images(), checkpoint=tmp_path / "run.pt")


def test_a_checkpoint_of_more_iterations(tmp_path):
    matching(iterations=3).fit(*images(), checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="`iterations` must be at least 3, as many as there are in"):
        matching(iterations=2).fit(*images(), checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("losses", ["abc", [float("nan")], [1.0, "two"], {"a": 1.0}])
def test_a_checkpoint_whose_losses_are_none(losses, tmp_path):
    path = tmp_path / "run.pt"
    matching().fit(*images(), checkpoint=path)
    save_tensors(path, load_tensors(path, "condensation.learning") | {"losses": losses})
    with pytest.raises(ValueError, match="must hold a finite loss an iteration"):
        matching(iterations=4).fit(*images(), checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    seen = []
    with pytest.raises(OSError, match="file"):
        matching().fit(*images(), checkpoint=tmp_path / "file" / "run.pt", callback=seen.append)
    assert not seen


def test_what_a_callback_breaks_off_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("condensation.learned.run._SECONDS", 0.0)

    def broken(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        matching().fit(*images(), checkpoint=tmp_path / "run.pt", callback=broken)
    assert len(load_tensors(tmp_path / "run.pt", "condensation.learning")["losses"]) == 1


@pytest.mark.parametrize("end", [True, np.bool_(True), torch.tensor(True)])
def test_a_callback_ends_it_by_any_true(end):
    assert len(matching(iterations=4).fit(*images(), callback=lambda progress: end).losses_) == 1


@pytest.mark.parametrize("go_on", [None, False, np.bool_(False), 1, "text"])
def test_and_by_nothing_else(go_on):
    assert len(matching(iterations=2).fit(*images(), callback=lambda progress: go_on).losses_) == 2


def test_a_callback_that_is_none():
    with pytest.raises(ValueError, match="`callback` must be callable, got 3"):
        matching().fit(*images(), callback=3)


class Drawing(nn.Module):
    """A network that draws in its forward pass."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 3)

    def embed(self, x):
        return nn.functional.dropout(self.body(x.flatten(1)), 0.5)

    def forward(self, x):
        return self.head(self.embed(x))


@pytest.mark.parametrize("make", METHODS)
def test_what_layers_draw_comes_from_the_seed(make):
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(make(network=lambda shape, num_classes: Drawing()).fit(*images()).images_)
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("make", METHODS)
def test_a_factory_must_make_new_networks(make):
    one = of_width(4)((1, 8, 8), 3)
    with pytest.raises(ValueError, match="`network` must make a new network at every call, got one it made before"):
        make(network=lambda shape, num_classes: one).fit(*images())
    with pytest.raises(ValueError, match=r"`network` must make a torch\.nn\.Module, got int"):
        make(network=lambda shape, num_classes: 5).fit(*images())


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("weight", [3e38, 1e300, 1e-300])
def test_weights_count_by_how_they_compare(make, weight):
    plain = make().fit(*images()).images_
    np.testing.assert_array_equal(make().fit(*images(), sample_weight=np.full(24, weight)).images_, plain)


def test_weights_of_an_evaluation_count_by_how_they_compare():
    x, labels = torch.eye(4, dtype=torch.float64), torch.arange(4)
    settings = EvalSettings(epochs=2, networks=1)
    plain = evaluate(x, labels, x, labels, settings=settings, weights=torch.ones(4, dtype=torch.float64))
    large = torch.full((4,), 1.7e308, dtype=torch.float64)
    assert evaluate(x, labels, x, labels, settings=settings, weights=large).accuracies == plain.accuracies


def test_images_that_left_all_bounds_are_no_result(tmp_path):
    with pytest.raises(FloatingPointError, match="The images must stay finite"):
        distributions(lr=3e38, iterations=1).fit(*images(), checkpoint=tmp_path / "run.pt")
    assert not (tmp_path / "run.pt").exists()


def test_images_that_are_finite_in_float64_only():
    x, y = images()
    with pytest.raises(ValueError, match="`X` must be finite in float32"):
        matching().fit(x.astype(np.float64) * 1e300, y)


def test_a_set_tells_the_settings_it_was_learned_with():
    estimator = matching().fit(*images())
    made = estimator.set_params(lr=7.0, random_state=5, iterations=99, ipc=4).condensed_set()
    assert (made.seed, made.settings["lr"], made.settings["iterations"], len(made)) == (0, matching().lr, 2, 3)
    teacher = FreshNetwork(settings=TrainSettings(epochs=1, device="cpu"))
    distilled = KnowledgeDistillation(Herding(ipc=1), teacher=teacher, temperature=4.0, random_state=0).fit(*images())
    assert distilled.set_params(temperature=1.0).condensed_set().schedule["temperature"] == 4.0


@pytest.mark.parametrize("name", ["ice\u00a0cream", "\u200b", "", "two\nlines"])
def test_a_class_name_that_cannot_be_printed_costs_no_result(name):
    x, y = images()
    labels = np.array([name, "b", "c"])[y]
    pipeline = CleanAndCondense(cleaner=None, condenser=matching()).fit(x, labels)
    assert pipeline.condensed_set().class_names == tuple(
        text if text.isprintable() and text else ascii(text) for text in pipeline.classes_.tolist()
    )


def test_a_set_that_cannot_be_made_leaves_the_condenser(monkeypatch):
    def broken(*_, **__):
        raise ValueError("broken")

    monkeypatch.setattr(Condenser, "condensed_set", broken)
    pipeline = CleanAndCondense(cleaner=None, condenser=matching())
    with pytest.raises(ValueError, match="broken"):
        pipeline.fit(*images())
    assert pipeline.condenser_.images_.shape == (3, 1, 8, 8)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "make",
    [*METHODS, lambda: DatasetDistillation(ipc=1, iterations=1), lambda: LabelDistillation(ipc=1, iterations=1)],
)
def test_where_gradients_are_off(make, off):
    x, y = images()
    with off(), pytest.raises(RuntimeError, match=rf"call it outside of torch\.{off.__name__}\(\)"):
        make().fit(x, y)
    with off(), pytest.raises(RuntimeError, match="evaluate trains a network, which needs gradients"):
        evaluate(x, y, x, y)


def test_another_default_type_changes_nothing():
    plain = matching().fit(*images()).images_
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(matching().fit(*images()).images_, plain)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_tensors_and_arrays_of_other_kinds():
    x, y = images()
    low = torch.from_numpy(x).bfloat16()
    np.testing.assert_array_equal(matching().fit(low, y).images_, matching().fit(low.float(), y).images_)
    weights = torch.ones(24, requires_grad=True)
    np.testing.assert_array_equal(matching().fit(x, y, sample_weight=weights).images_, matching().fit(x, y).images_)
    settings = EvalSettings(epochs=2, networks=1)
    plain = evaluate(x, y, x, y, settings=settings).accuracies
    fixed = x.copy()
    fixed.flags.writeable = False
    for other in (x[::-1][::-1], x.astype(">f4"), fixed):
        assert evaluate(other, y, other, y, settings=settings).accuracies == plain


@pytest.mark.parametrize("make", METHODS)
def test_an_augmentation_that_is_none(make):
    with pytest.raises(ValueError, match="`augment` must be a SiameseAugmentation, got 'dsa'"):
        make(augment="dsa").fit(*images())
    x, y = images()
    with pytest.raises(ValueError, match="`augment` must be callable"):
        evaluate(x, y, x, y, augment="dsa")


def test_a_checkpoint_that_is_a_folder(tmp_path):
    with pytest.raises(ValueError, match="it is a folder"):
        matching().fit(*images(), checkpoint=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_a_checkpoint_that_may_not_be_read_is_not_told_to_be_damaged(tmp_path):
    matching().fit(*images(), checkpoint=tmp_path / "run.pt")
    (tmp_path / "run.pt").chmod(0)
    with pytest.raises(PermissionError):
        matching().fit(*images(), checkpoint=tmp_path / "run.pt")
