"""lossbuf.report.figures: what is drawn, read back from the figures."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from lossbuf import LossBufferCallback
from lossbuf.detection.thresholds import Cut, KnownRate
from lossbuf.detection.verdict import Verdict
from lossbuf.networks import MLP
from lossbuf.report import figures
from lossbuf.training import TrainSettings, build, train

NAN = float("nan")
HOSTILE = ["$\\frac{1}{", "a\nb\tc", "<b>&amp;</b>", "_hidden", "long name of a class that goes on 1", "%s {x}"]


def some_verdict(size=400, rate=0.2, transition=True, seed=0):
    """A verdict on rows of which the share ``rate`` is wrong, and which are."""
    draws = np.random.default_rng(seed)
    wrong = draws.random(size) < rate
    suspicion = draws.normal(3.0 * wrong, 1.0).astype(np.float32)
    suspicion[:5] = NAN
    wrong[:5] = False
    loss = draws.random(size).astype(np.float32)
    likely = np.zeros(size, dtype=np.int64)
    cut = KnownRate(rate)(suspicion, loss)
    return Verdict(suspicion, loss, cut, likely, np.eye(2) if transition else None), wrong


def png(figure: Figure) -> bytes:
    """The figure as a file; warnings, such as of a glyph or a layout, are errors here."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    return file.getvalue()


def line(axes, label):
    (found,) = [one for one in axes.get_lines() if str(one.get_label()).startswith(label)]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# ---- histogram -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transition", [True, False])
@pytest.mark.parametrize("truth", [True, False])
def test_histogram_counts_all_rows_seen_and_marks_the_cut(transition, truth):
    verdict, wrong = some_verdict(transition=transition)
    figure = figures.score_histogram(verdict, wrong if truth else None)
    (axes,) = figure.axes
    assert axes.get_title()
    assert axes.get_ylabel() == "rows"
    assert ("log-odds" in axes.get_xlabel()) == transition
    suspects = int(verdict.suspect_mask.sum())
    names = ["right label", "wrong label"] if truth else ["kept", "suspects"]
    assert sorted(texts(axes)) == sorted([*names, f"cut: {suspects} suspects"])
    assert line(axes, "cut")[0].tolist() == [verdict.cut.threshold] * 2
    mask = wrong if truth else verdict.suspect_mask
    seen = ~np.isnan(verdict.suspicion)
    assert [counts(patch, 60).sum() for patch in axes.patches] == [(seen & ~mask).sum(), (seen & mask).sum()]
    assert png(figure).startswith(b"\x89PNG")


def counts(patch, bins):
    """Heights of a histogram drawn as steps."""
    return patch.get_path().vertices[1 : 2 * bins : 2, 1]


def test_histogram_heights():
    axes = Figure().subplots()
    figures.draw_histogram(axes, [0.0, 0.1, 1.0, NAN, 9.0, 1.0], np.array([0, 0, 1, 1, 1, 0], dtype=bool), bins=2)
    assert [counts(patch, 2).tolist() for patch in axes.patches] == [[3, 0], [1, 1]]


@pytest.mark.parametrize("values", [[NAN, NAN], [1e9, 1e9], [0.0, 0.0]])
def test_histogram_of_rows_that_do_not_differ(values):
    suspicion = np.array(values, dtype=np.float32)
    verdict = Verdict(suspicion, suspicion, Cut(np.inf, 0.0, np.zeros(2, dtype=bool)), np.zeros(2, dtype=np.int64))
    figure = figures.score_histogram(verdict)
    assert sum(counts(patch, 60).sum() for patch in figure.axes[0].patches) == np.isfinite(suspicion).sum()
    assert texts(figure.axes[0]) == ["kept", "suspects"]
    png(figure)
    png(figures.score_curves(verdict))


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_curve_by_rank():
    verdict, _ = some_verdict()
    figure = figures.score_curves(verdict)
    (axes,) = figure.axes
    shares, values = line(axes, "_child0")
    assert len(shares) == 395
    assert shares[-1] == 1
    assert values.tolist() == sorted(verdict.suspicion[~np.isnan(verdict.suspicion)].tolist(), reverse=True)
    _, of_suspects = line(axes, "suspects")
    assert len(of_suspects) == verdict.suspect_mask.sum()
    assert of_suspects.min() >= line(axes, "kept")[1].max()
    assert line(axes, "cut")[0][0] == pytest.approx(verdict.suspect_mask.sum() / 395)
    png(figure)


def test_roc_curve_with_the_cut_on_it():
    verdict, wrong = some_verdict()
    figure = figures.score_curves(verdict, wrong)
    axes = figure.axes[1]
    alarms, found = line(axes, "area")
    seen = ~np.isnan(verdict.suspicion)
    wanted = roc_auc_score(wrong[seen], verdict.suspicion[seen])
    assert np.trapezoid(found, alarms) == pytest.approx(wanted, abs=1e-9)
    assert f"area {wanted:.4f}" in texts(axes)
    (x,), (y,) = line(axes, "cut")
    assert x == pytest.approx(verdict.suspect_mask[seen & ~wrong].mean())
    assert y == pytest.approx(verdict.suspect_mask[seen & wrong].mean())
    assert np.isclose(alarms, x)[np.isclose(found, y)].any()
    png(figure)


@pytest.mark.parametrize("of", [np.zeros, np.ones])
def test_no_roc_of_labels_all_alike(of):
    verdict, _ = some_verdict()
    with pytest.raises(ValueError, match=r"must have right labels and wrong ones, got (0|395) wrong of 395"):
        figures.score_curves(verdict, of(400, dtype=bool))


@pytest.mark.parametrize("draw", [figures.score_histogram, figures.score_curves])
@pytest.mark.parametrize("mask", [np.zeros(3, dtype=bool), np.zeros(400), np.zeros((400, 1), dtype=bool)])
def test_a_mask_that_does_not_fit(draw, mask):
    with pytest.raises(ValueError, match="`noise_mask` must be 400 booleans, one a row, got"):
        draw(some_verdict()[0], mask)


# ---- purity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_pure_rates_by_counting(size):
    draws = np.random.default_rng(size)
    suspicion, ties, wrong = draws.integers(0, 4, size), draws.random(size), draws.random(size) < 0.3
    shares = [0.001, 0.3, 0.5, 1.0]
    ranked = sorted(range(size), key=lambda row: (suspicion[row], ties[row]))
    wanted = []
    for share in shares:
        kept = ranked[: max(1, round(share * size))]
        wanted.append(sum(not wrong[row] for row in kept) / len(kept))
    assert figures.pure_rates(suspicion, wrong, tie_break=ties, shares=shares).tolist() == pytest.approx(wanted)


def test_pure_rate_curve_of_several_rankings():
    verdict, wrong = some_verdict()
    rankings = {"ours": verdict.suspicion, "$at_random$": np.random.default_rng(1).random(400)}
    kept = 1 - float(verdict.suspect_mask.mean())
    figure = figures.pure_rate_curve(rankings, wrong, tie_break=verdict.tie_break, kept_share=kept)
    (axes,) = figure.axes
    for name, suspicion in rankings.items():
        shares, rates = line(axes, name)
        assert shares.tolist() == figures.SHARES.tolist()
        assert rates.tolist() == figures.pure_rates(suspicion, wrong, tie_break=verdict.tie_break).tolist()
    assert line(axes, "ours")[1][0] > 0.98
    assert line(axes, "ours")[1][-1] == pytest.approx(1 - wrong.mean())
    assert line(axes, "cut")[0].tolist() == [kept, kept]
    assert axes.get_xlabel()
    assert axes.get_ylabel() == "pure rate"
    png(figure)


def test_many_lines_differ_in_colour_or_dashes():
    axes = figures.draw_pure_rates({str(name): figures.SHARES for name in range(20)}).axes[0]
    assert len({(one.get_color(), one.get_linestyle()) for one in axes.get_lines()}) == 20


def test_one_ranking_alone():
    figure = figures.pure_rate_curve([0.1, 0.9, 0.5], [False, True, False])
    assert texts(figure.axes[0]) == ["kept"]


def test_bad_pure_rates():
    with pytest.raises(ValueError, match="`suspicion` must hold at least one row"):
        figures.pure_rates([], np.empty(0, dtype=bool))
    with pytest.raises(ValueError, match="`kept_share` must lie in"):
        figures.pure_rate_curve([1.0], [True], kept_share=1.5)


# ---- loss buffers over time ------------------------------------------------------------------------------------------


def test_history_keeps_what_the_rings_forget():
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(60, 4, generator=generator), torch.arange(60) % 3
    callback = LossBufferCallback(labels, 4, window=8)
    history, by_hand = figures.BufferHistory(callback), []
    settings = TrainSettings(epochs=4, batch_size=16, device="cpu")

    def after_epoch(network):
        by_hand.append(callback.rings.label_loss.mean().tolist())
        return history(network)

    told = train(build(lambda: MLP(4, 4), settings), x, labels, settings, callback=callback, after_epoch=after_epoch)
    assert history.label_loss.shape == (4, 4)
    np.testing.assert_array_equal(history.label_loss, np.array(by_hand))
    np.testing.assert_array_equal(history.label_loss, np.array(told.after_epoch))
    assert np.isnan(history.label_loss[:, 3]).all()
    assert len({tuple(epoch[:3]) for epoch in history.label_loss}) == 4
    drawn, again = (figures.buffer_heat_map(values) for values in (history, told.after_epoch))
    for figure in (drawn, again):
        image = np.ma.filled(figure.axes[0].get_images()[0].get_array(), NAN)
        np.testing.assert_array_equal(image, history.label_loss.T)
        png(figure)


def test_history_before_any_epoch():
    history = figures.BufferHistory(LossBufferCallback([0, 1]))
    assert history.label_loss.shape == (0, 2)
    with pytest.raises(ValueError, match=r"`history` must have shape \(epochs, num_classes\).*got shape \(0, 2\)"):
        figures.buffer_heat_map(history)


def test_epochs_count_from_one_and_classes_from_the_top():
    figure = figures.buffer_heat_map(np.arange(6.0).reshape(3, 2), ["cat", "dog"])
    axes, bar = figure.axes
    figure.draw_without_rendering()
    assert axes.get_images()[0].get_extent() == [0.5, 3.5, 1.5, -0.5]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    assert set(axes.get_xticks()[1:-1]) <= {1, 2, 3}
    assert bar.get_ylabel() == "mean label loss (nats)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "given class")


# ---- label noise -----------------------------------------------------------------------------------------------------


def some_transition(num_classes):
    return 0.7 * np.eye(num_classes) + 0.3 / num_classes


def test_transition_with_its_numbers():
    matrix = np.array([[0.9, 0.1, 0.0], [0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    figure = figures.transition_heat_map(matrix, HOSTILE[:3])
    axes, bar = figure.axes
    assert np.array_equal(axes.get_images()[0].get_array(), matrix)
    assert [text.get_text() for text in axes.texts] == [".90", ".10", ".00", ".25", ".75", ".00", ".00", ".00", "1"]
    assert [text.get_position() for text in axes.texts][:2] == [(0, 0), (1, 0)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("given class", "true class")
    assert bar.get_ylabel() == "P(given | true)"
    assert [text.get_text() for text in axes.get_yticklabels()] == [HOSTILE[0], "a b c", "<b>&amp;</b>"]


@pytest.mark.parametrize("num_classes", [1, 2, 10, 30, 100, 300])
@pytest.mark.parametrize("kind", ["transition", "buffers"])
def test_names_never_overlap(kind, num_classes):
    names = [f"a name that is rather long, number {label}" for label in range(num_classes)]
    if kind == "transition":
        figure = figures.transition_heat_map(some_transition(num_classes), names)
    else:
        figure = figures.buffer_heat_map(np.random.default_rng(0).random((5, num_classes)), names)
    figure.draw_without_rendering()
    sides = [figure.axes[0].yaxis, figure.axes[0].xaxis] if kind == "transition" else [figure.axes[0].yaxis]
    for place, axis in enumerate(sides):
        labels = [text for text in axis.get_ticklabels() if text.get_text()]
        assert len(labels) == min(num_classes, 100)
        assert len({text.get_text() for text in labels}) == len(labels)
        boxes = [text.get_window_extent() for text in labels]
        starts, ends = (
            np.sort([(box.y0, box.y1) if place == 0 else (box.x0, box.x1) for box in boxes], axis=0)[:, side]
            for side in (0, 1)
        )
        assert (starts[1:] >= ends[:-1] - 1).all()
    assert max(figure.get_size_inches()) <= 26


@pytest.mark.parametrize("count", range(1, len(HOSTILE) + 1))
def test_hostile_names_stay_text(count):
    png(figures.transition_heat_map(some_transition(count), HOSTILE[:count]))
    png(figures.buffer_heat_map(np.ones((2, count)), HOSTILE[:count]))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"`transition` must have shape \(num_classes, num_classes\), got shape \(2, 3\)"),
        (np.ones(4), r"`transition` must have shape \(num_classes, num_classes\), got shape \(4,\)"),
        (np.empty((0, 0)), r"got shape \(0, 0\)"),
        (np.array([[2.0, -1.0], [0.0, 1.0]]), r"`transition` must hold shares in \[0, 1\], got -1.0 to 2.0"),
        (np.full((2, 2), NAN), r"`transition` must hold shares in \[0, 1\], got nan to nan"),
    ],
)
def test_what_is_no_transition(matrix, message):
    with pytest.raises(ValueError, match=message):
        figures.transition_heat_map(matrix)


def test_as_many_names_as_classes():
    with pytest.raises(ValueError, match="`class_names` must be 2, one a class, got 1"):
        figures.transition_heat_map(np.eye(2), ["a"])
    with pytest.raises(ValueError, match="`class_names` must be 3, one a class, got 1"):
        figures.buffer_heat_map(np.ones((1, 3)), ["a"])


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys, io, numpy as np; from lossbuf.report import figures;"
        "figures.transition_heat_map(np.eye(3)).savefig(io.BytesIO());"
        "figures.pure_rate_curve([0.1, 0.2], [False, True]).savefig(io.BytesIO());"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
