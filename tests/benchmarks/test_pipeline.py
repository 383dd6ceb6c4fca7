"""The benchmark from noisy rows to a small set, at its smallest."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.pipeline import experiment as pipeline
from benchmarks.pipeline import report as pipeline_report
from condensation.artifact import CondensedSet

runner = CliRunner()


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch):
    monkeypatch.setitem(pipeline.EPOCHS, "digits", 4)
    pipeline.trained.cache_clear()
    yield
    pipeline.trained.cache_clear()


def run(folder, *arguments):
    small = ["--networks", "2", "--eval-epochs", "2", "--subset", "200", "--width", "4", "--iterations", "2"]
    found = runner.invoke(pipeline.app, [*arguments, *small, "--ipc", "2", "--device", "cpu", "--out", str(folder)])
    assert found.exit_code == 0, found.output
    return found.output


def settings(**changed):
    usual = {
        "dataset": "digits", "noise_kind": "class-dependent", "noise": 0.4, "cleaner": "none", "method": "random",
        "ipc": 2, "seed": 0, "width": 4, "networks": 2, "eval_epochs": 2, "iterations": 1, "subset": 300,
    }  # fmt: skip
    return pipeline.Settings(**{**usual, **changed})


@pytest.mark.slow
def test_every_cell_its_set_and_a_second_call_that_computes_nothing(tmp_path, monkeypatch):
    output = run(tmp_path)
    cells = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(cells) == len(pipeline.CLEANERS) * len(pipeline.METHODS)
    by = {(cell["settings"]["cleaner"], cell["settings"]["method"]): cell["values"] for cell in cells}
    for (cleaner, method), values in by.items():
        assert len(values["accuracies"]) == 2
        assert 0 < values["size"] <= 20
        assert (values["small_purity"] is None) == (method in ("dc", "dsa", "dm"))
        assert values["kept"] == by[cleaner, "random"]["kept"]
        small = CondensedSet.load(tmp_path / "sets" / f"digits-class-dependent-0.4-{cleaner}-{method}-ipc2-seed0.npz")
        assert len(small) == values["size"]
        assert small.provenance.n_samples == 200
        assert (small.provenance.cleaning is None) == (cleaner == "none")
        if cleaner == "ours":
            assert small.provenance.cleaning.name == "LossBufferSelector"
            assert small.provenance.cleaning.settings["planted"] == pipeline.PLANTED
    assert by["oracle", "dm"]["purity"] == by["oracle", "random"]["small_purity"] == 1
    assert by["none", "dm"]["purity"] == pytest.approx(1 - by["none", "dm"]["wrong"])
    assert not list((tmp_path / "state").iterdir())
    text = (tmp_path / "tables.md").read_text()
    assert text.strip() in output.strip()
    assert "| digits | class-dependent 0.4 | 2 | all |" in text
    assert "| digits | class-dependent 0.4 | 2 | dsa | small-loss | 1 |" in text

    monkeypatch.setattr(pipeline, "compute", lambda *_: pytest.fail("computed again"))
    assert run(tmp_path) == output


def test_cleaners_share_trainings_and_the_peers_drop_as_many_as_are_wrong(monkeypatch):
    trainings, fit = [], pipeline.LossBufferSelector.fit
    monkeypatch.setattr(pipeline.LossBufferSelector, "fit", lambda *given: trainings.append(0) or fit(*given))
    kept = {name: pipeline.cleaned(settings(cleaner=name), "cpu", Path()) for name in pipeline.CLEANERS}
    assert len(trainings) == 3
    watching, _ = pipeline.trained("watch", "digits", 300, "class-dependent", 0.4, 0, Path(), "cpu")
    assert len(trainings) == 3
    assert bool((watching.callback_.sample_weights == 1).all())
    _, labels, wrong = pipeline.noisy("digits", 300, "class-dependent", 0.4, 0, Path())
    for name in ("small-loss", "aum"):
        assert 0 <= len(kept[name].rows) - (~wrong).sum() < 3  # more where a class would lose nearly all its rows
        assert (~wrong[kept[name].rows]).mean() > (~wrong).mean() + 0.05
    assert not np.array_equal(kept["small-loss"].rows, kept["aum"].rows)
    np.testing.assert_array_equal(kept["oracle"].rows, np.flatnonzero(~wrong))
    np.testing.assert_array_equal(kept["none"].rows, np.arange(300))
    # A row's features are its own, whoever keeps it.
    for name in ("small-loss", "aum"):
        assert torch.equal(kept[name].features, kept["none"].features[torch.from_numpy(kept[name].rows)])
    assert all(len(each.features) == len(each.rows) for each in kept.values())
    assert set(labels[kept["ours"].rows]) == set(range(10))


def test_peers_leave_some_rows_of_every_class():
    found = pipeline.cleaned(settings(noise_kind="symmetric", noise=0.9, cleaner="aum"), "cpu", Path())
    _, labels, wrong = pipeline.noisy("digits", 300, "symmetric", 0.9, 0, Path())
    assert bool((np.bincount(labels[found.rows]) >= np.ceil(0.05 * np.bincount(labels))).all())
    assert len(found.rows) < 2 * (~wrong).sum()


def test_share_of_the_gap():
    none, oracle = np.array([[0.5, 0.6]]), np.array([[0.7, 0.7]])
    gap, error = pipeline_report.gap_of(none, oracle)
    assert gap == pytest.approx(0.15)
    assert error == pytest.approx(0.05)  # deviation of .2 and .1 is .0707, of two networks
    assert pipeline_report.recovered(none, np.array([[0.62, 0.72]]), oracle) == pytest.approx(0.8)
    assert pipeline_report.recovered(none, np.array([[0.8, 0.8]]), oracle) == pytest.approx(25 / 15)
    assert pipeline_report.recovered(none, none, np.array([[0.5, 0.7]])) is None  # .05 with an error of .05
    assert pipeline_report.recovered(none, none, none - 0.1) is None
    # Networks of a seed share their set: of several seeds the means count.
    seeds = np.array([[0.5, 0.7], [0.4, 0.8]]), np.array([[0.7, 0.7], [0.6, 0.8]])
    assert pipeline_report.gap_of(*seeds) == pytest.approx((0.1, 0.0))


def cell(cleaner, method, seed, accuracies):
    return {
        "dataset": "digits", "noise_kind": "symmetric", "noise": 0.4, "ipc": 1, "cleaner": cleaner, "method": method,
        "seed": seed, "accuracies": accuracies, "kept": 60, "n_samples": 100, "purity": 0.9, "small_purity": None,
        "seconds": 2.0,
    }  # fmt: skip


def test_tables_compare_what_is_there():
    found = [
        cell("none", "dm", 0, [0.5, 0.5]),
        cell("none", "dm", 1, [0.5, 0.5]),
        cell("ours", "dm", 0, [0.6, 0.6]),
        cell("ours", "dm", 1, [0.7, 0.7]),
        cell("oracle", "dm", 0, [0.7, 0.7]),
        cell("oracle", "dm", 1, [0.7, 0.7]),
        cell("none", "dc", 0, [0.5, 0.5]),
        cell("ours", "dc", 0, [0.3, 0.3]),
        cell("aum", "dm", 0, [0.7, 0.7]),
        cell("none", "random", 0, [0.6, 0.7]),
        cell("ours", "random", 0, [0.6, 0.7]),
        cell("oracle", "random", 0, [0.6, 0.7]),
    ]
    rows = pipeline_report.recovered_table(found)
    assert rows[0][3:] == ["condenser", "gap, points", "small-loss", "aum", "ours"]
    by = {row[3]: row[4:] for row in rows[1:]}
    assert by["dm"] == ["20.0 ±0.0", "", "", "75 %"]  # AUM is not there for all seeds, DC not for the oracle
    assert by["random"] == ["0.0 ±0.0", "", "", "no gap"]
    assert set(by) == {"dm", "random", "all"}
    rows = pipeline_report.accuracy_table(found)
    (ours,) = (row for row in rows if row[3:5] == ["dm", "ours"])
    assert ours[5:] == ["2", "60 of 100", "0.900", "", "65.0 ±5.0 (4)", "2"]


@pytest.mark.parametrize(
    "arguments",
    [["--dataset", "nonsense"], ["--methods", "nonsense"], ["--cleaners", "nonsense"], ["--noise-kind", "nonsense"]],
    ids=" ".join,
)
def test_bad_options(arguments):
    found = runner.invoke(pipeline.app, arguments)
    assert found.exit_code == 2
    assert "must be among" in found.output


@pytest.mark.slow
def test_as_a_command_with_several_workers(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.pipeline",
        "--jobs",
        "2",
        "--methods",
        "random",
        "--cleaners",
        "none,oracle",
    ]
    small = ["--networks", "2", "--eval-epochs", "1", "--subset", "150", "--device", "cpu", "--out", str(tmp_path)]
    found = subprocess.run(
        [*command, *small], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert found.returncode == 0, found.stderr
    assert len(list(tmp_path.glob("*.json"))) == 2
