"""The benchmark of coresets over shards at its smallest."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.coresets import shards as coreset_shards

runner = CliRunner()


def run(folder, *arguments):
    small = ["--rows", "600", "--features", "4", "--classes", "2", "--clusters", "10", "--k", "20", "--jobs", "1"]
    found = runner.invoke(coreset_shards.app, [*small, *arguments, "--out", str(folder)])
    assert found.exit_code == 0, found.output
    return found.output


def test_cells_ratios_and_a_second_call_that_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(coreset_shards, "apart", lambda measure, settings: measure(**settings))
    arguments = ["--shards", "1,3", "--oversample", "1,2"]
    output = run(tmp_path, *arguments)
    cells = [json.loads(path.read_text()) for path in (tmp_path / "cells").glob("*.json")]
    assert len(cells) == 2 * (2 + 4)
    by_choice = {(cell["settings"]["method"], cell["settings"]["choice"]): cell["values"] for cell in cells}
    for method in coreset_shards.METHODS:
        whole, random = by_choice[method, "all rows"], by_choice[method, "random"]
        for name in ("objective", "mean_distance", "radius"):  # one shard is the choice from all rows
            assert by_choice[method, "1 shards"][name] == whole[name]
        aim = "radius" if method == "k-center" else "mean_distance"
        assert whole[aim] < random[aim]
        assert by_choice[method, "3 shards, oversample 2"][aim] < random[aim]
        assert whole["seconds"] > 0 < whole["peak_gib"]
    assert (tmp_path / "table.md").read_text().strip() in output
    assert "| k-center | 600 | 2 | 20 | 3 shards, oversample 2 | 1 |" in output
    monkeypatch.setattr(coreset_shards, "compute", lambda *_: pytest.fail("computed again"))
    assert run(tmp_path, *arguments) == output


def test_the_objectives_are_those_of_their_definitions():
    settings = coreset_shards.Settings(
        method="k-center", rows=300, features=3, classes=2, clusters=6, k=8, seed=1, choice="all rows"
    )
    x, y = coreset_shards.data(300, 3, 2, 6, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset_shards, "apart", lambda measure, settings: measure(**settings))
        found = coreset_shards.compute(settings)
    chosen = coreset_shards.choose(settings)["chosen"]
    served, near = [], []
    for row in range(300):
        distances = np.linalg.norm(x[y == y[row]] - x[row], axis=1)
        to_chosen = min(np.linalg.norm(x[one].astype(float) - x[row]) for one in chosen if y[one] == y[row])
        far = max(np.linalg.norm(x[y == y[row]] - other, axis=1).max() for other in x[y == y[row]])
        assert distances.max() <= far
        near.append(to_chosen)
        served.append(1 - to_chosen / far)
    assert found["objective"] == pytest.approx(np.mean(served), rel=1e-4)
    assert found["mean_distance"] == pytest.approx(np.mean(near), rel=1e-4)
    assert found["radius"] == pytest.approx(max(near), rel=1e-4)


@pytest.mark.slow
def test_in_processes_of_its_own():
    settings = coreset_shards.Settings(
        method="k-center",
        rows=600,
        features=4,
        classes=2,
        clusters=10,
        k=20,
        seed=0,
        choice="2 shards",
        shards=2,
        jobs=2,
    )
    found = coreset_shards.apart(coreset_shards.choose, {"settings": settings})
    assert found["chosen"] == coreset_shards.choose(replace(settings, jobs=1))["chosen"]
    assert 0.05 < found["worker_gib"] < 8
