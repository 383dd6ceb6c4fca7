"""The coreset benchmark at its smallest."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.common import data as datasets
from benchmarks.common.results import cells
from benchmarks.coresets import experiment as coresets
from benchmarks.coresets import report as coreset_report
from benchmarks.coresets import speed as coreset_speed

runner = CliRunner()


def run(folder, *arguments):
    small = ["--networks", "2", "--eval-epochs", "2", "--subset", "200", "--device", "cpu", "--out", str(folder)]
    found = runner.invoke(coresets.app, [*arguments, *small])
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.slow
def test_tables_of_all_methods_and_a_second_call_that_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(coresets.EPOCHS, "digits", 4)
    monkeypatch.setattr(coresets, "NOISE", (("class-dependent", 0.4),))
    arguments = ["--table", "accuracy,noise", "--ipc", "1,3", "--seeds", "1"]
    output = run(tmp_path, *arguments)
    accuracy = [json.loads(path.read_text()) for path in (tmp_path / "accuracy").glob("*.json")]
    noise = [json.loads(path.read_text()) for path in (tmp_path / "noise").glob("*.json")]
    assert len(accuracy) == 2 * len(coresets.METHODS)
    assert len(noise) == 3 * len(coresets.METHODS)
    for cell in accuracy + noise:
        assert len(cell["values"]["accuracies"]) == 2
        assert 0 < cell["values"]["size"] <= 10 * cell["settings"]["ipc"]
        assert cell["settings"]["rows"] != "clean" or cell["values"]["purity"] == 1
    noisy = [cell["values"]["purity"] for cell in noise if cell["settings"]["rows"] == "noisy"]
    assert 0.5 < np.mean(noisy) < 0.95
    assert (tmp_path / "tables.md").read_text().strip() in output.strip()
    assert "| digits | 1 | no | 2 |" in output
    assert "class-dependent 0.4 | craig" in output

    monkeypatch.setattr(coresets, "compute", lambda *_: pytest.fail("computed again"))
    assert run(tmp_path, *arguments) == output


def test_what_a_training_tells_is_of_the_rows_asked_for(monkeypatch):
    monkeypatch.setitem(coresets.EPOCHS, "digits", 4)
    data = datasets.load("digits", None, 150)
    rows = torch.arange(20, 120)
    run, kept = coresets.watched(data, data.labels, rows, 0, "cpu", cleaning=False)
    assert torch.equal(run.rows, rows)
    assert torch.equal(kept, torch.arange(100))
    assert {len(part) for part in (run.features, run.logit_gradients, run.feature_gradients, run.error_norms)} == {100}
    assert bool((run.statistics.count == 4).all())
    # Gradients in the logits are softmax less one-hot, so only that of the label is below 0.
    assert torch.equal((run.logit_gradients < 0).long().argmax(1), data.labels[rows])

    labels = data.labels.clone()
    labels[:30] = (labels[:30] + 1) % 10
    run, kept = coresets.watched(data, labels, rows, 0, "cpu", cleaning=True)
    assert torch.equal(run.rows, rows[kept])
    assert len(run.features) == len(kept)


def test_published_columns_and_deviations():
    cell = {"dataset": "mnist", "ipc": 10, "augment": True, "networks": 2, "method": "random", "dtype": "float32"}
    cells = [cell | {"accuracies": [0.9, 0.8]}, cell | {"accuracies": [0.7], "dtype": "bfloat16"}]
    table = coreset_report.accuracy_table(cells)
    assert table[1] == ["mnist", "10", "yes", "2", "bfloat16", "70.0 (published 95.1 ±0.9)"]
    assert table[2] == ["mnist", "10", "yes", "2", "float32", "85.0 ±5.0 (published 95.1 ±0.9)"]


def test_precision_and_augmentation_have_cells_of_their_own():
    usual = coresets.Settings(
        table="accuracy", dataset="mnist", method="random", ipc=1, seed=0, networks=2, eval_epochs=3
    )
    others = [replace(usual, dtype="bfloat16"), replace(usual, augment=True), replace(usual, ipc=10)]
    assert len({one.name for one in (usual, *others)}) == 4


def test_speed_and_growth_at_a_small_size(tmp_path, monkeypatch):
    monkeypatch.setattr(coreset_speed, "SPEED", ((60, 4, 5),))
    monkeypatch.setattr(coreset_speed, "GROWTH", (("k-center", 80, 4, 5),))
    monkeypatch.setattr(coreset_speed, "PEERS", {"random": lambda x, k: list(range(k)), "missing": _missing})
    coreset_speed.speed(tmp_path)
    found = {cell["method"]: cell for cell in cells(tmp_path / "speed")}
    assert set(found) == {"ours, lazy", "ours, batched", "ours, stochastic", "random"}
    assert found["ours, batched"]["objective_ratio"] == pytest.approx(1)
    assert found["random"]["objective_ratio"] < 1
    assert found["random"]["peers_missing"] == ["missing"]
    values = coreset_speed.measure("k-center", 80, 4, 5)
    assert values["seconds"] > 0
    assert values["peak_gib"] > 0.01
    coreset_report.show(tmp_path)
    assert "ours, lazy" in (tmp_path / "tables.md").read_text()


def _missing(x, k):
    raise ImportError


@pytest.mark.parametrize(
    "arguments", [["--table", "nonsense"], ["--dataset", "nonsense"], ["--methods", "nonsense"]], ids=" ".join
)
def test_bad_options(arguments):
    found = runner.invoke(coresets.app, arguments)
    assert found.exit_code == 2
    assert "must be among" in found.output
