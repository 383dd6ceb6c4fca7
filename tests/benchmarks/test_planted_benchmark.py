"""The benchmark of planted labels at its smallest."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks import planted
from benchmarks.grid import experiment as grid

runner = CliRunner()


def test_a_cell_and_its_table(tmp_path, monkeypatch):
    monkeypatch.setitem(grid.PRESETS, "digits", grid.Preset(4, 1, 300, 4, grid.CropFlip(1, flip=False)))
    monkeypatch.setattr(grid, "NOISE", (("symmetric", 0.2), ("symmetric", 0.8)))
    arguments = ["--seeds", "1", "--share", "0.1", "--device", "cpu", "--out", str(tmp_path)]
    found = runner.invoke(planted.app, arguments)
    assert found.exit_code == 0, found.output
    (path,) = (tmp_path / "digits").glob("*.json")
    values = json.loads(path.read_text())["values"]
    assert values["planted"] == 30
    assert set(values["false_discovery"]) == {"0.5", "0.75", "1", "1.25"}
    assert 0 <= values["found"]["planted"] <= 1
    assert values["noise_rate"]["both"] == pytest.approx(
        (values["noise_rate"]["planted"] + values["noise_rate"]["posterior"]) / 2, abs=0.02
    )
    assert "| symmetric 0.2 | 1 |" in (tmp_path / "digits" / "table.md").read_text()
    monkeypatch.setattr(planted, "compute", lambda *_: pytest.fail("computed again"))
    assert runner.invoke(planted.app, arguments).exit_code == 0


def test_unknown_data():
    found = runner.invoke(planted.app, ["--dataset", "nonsense"])
    assert found.exit_code == 2
    assert "must be one of" in found.output
