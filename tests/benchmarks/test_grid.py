"""The grid: one small cell by all methods, its resuming, and the standings drawn from cells."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.common import metrics
from benchmarks.grid import experiment as grid
from benchmarks.grid import report as grid_report

SETTINGS = grid.Settings(
    dataset="digits",
    noise_kind="pair-flip",
    noise=0.2,
    seed=100,
    epochs=6,
    batch_size=64,
    lr=0.05,
    width=8,
    subset=500,
)
METHODS = {"ours", *grid_report.PEERS, *grid_report.OWN_EARLIER}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("grid")
    grid.run_cell(SETTINGS, out, "cpu", None, None)
    return out


@pytest.fixture(scope="module")
def values(folder):
    return json.loads((folder / "digits" / "digits-pair-flip-0.2-seed100.json").read_text())["values"]


def test_a_cell_holds_every_method(values):
    assert values["methods"].keys() == METHODS
    for name, found in values["methods"].items():
        assert 0.4 < found["auroc"] <= 1
        assert 0 <= found["fnr_at_rate"] < 1
        assert 0 <= found["f1"] <= 1
        if name != "cleanlab":  # whose issues are not the first of its own ranking
            assert found["f1"] <= found["best_f1"] + 1e-9
        assert 0 <= found["noise_rate"] <= 1
        assert found["seconds"] > 0
    assert values["methods"]["ours"]["auroc"] > 0.6
    assert values["true_noise_rate"] == pytest.approx(0.2, abs=0.05)
    assert 0 <= values["transition_error"] < 0.2
    assert values["test_accuracy"].keys() == {"all rows", "ours", "oracle"}


def test_cost_is_told_in_trainings(values):
    trainings = {name: found["trainings"] for name, found in values["methods"].items()}
    assert {name: trainings.pop(name) for name in ("cleanlab", "aum-package")} == {"cleanlab": 4.0, "aum-package": 2.0}
    assert set(trainings.values()) == {1.0}


def test_the_package_and_our_aum_are_close(values):
    # The package averages margins of two trainings in which a few labels are made up.
    assert values["methods"]["aum"]["auroc"] == pytest.approx(values["methods"]["aum-package"]["auroc"], abs=0.1)


def test_a_done_cell_is_skipped_and_others_are_not(folder, monkeypatch):
    path = folder / "digits" / "digits-pair-flip-0.2-seed100.json"
    before = path.read_bytes()
    monkeypatch.setattr(grid.Cell, "compute", lambda self, peers: {"epochs": self.settings.epochs})
    grid.run_cell(SETTINGS, folder, "cpu", None, None)
    assert path.read_bytes() == before
    other = grid.Settings(**{**vars(SETTINGS), "epochs": 7})
    grid.run_cell(other, folder / "other", "cpu", None, None)
    written = json.loads((folder / "other" / "digits" / "digits-pair-flip-0.2-seed100.json").read_text())
    assert written["values"] == {"epochs": 7}


def test_a_renewed_cell_has_ours_anew_and_the_peers_as_they_were(folder, values, tmp_path):
    path = tmp_path / "digits" / "digits-pair-flip-0.2-seed100.json"
    path.parent.mkdir()
    stale = {**values, "methods": {**values["methods"], "ours": {"auroc": 0.5}, "gmm": {"auroc": 0.3}}}
    path.write_text(json.dumps({"settings": vars(SETTINGS), "values": stale}))
    grid.run_cell(SETTINGS, tmp_path, "cpu", None, None, renew=True)
    found = json.loads(path.read_text())["values"]
    assert found["methods"]["gmm"] == {"auroc": 0.3}
    for name in ("auroc", "fnr_at_rate", "f1", "noise_rate"):
        assert found["methods"]["ours"][name] == values["methods"]["ours"][name]
    for name in ("test_accuracy", "transition_error", "suggestion_right", "true_noise_rate"):
        assert found[name] == values[name]


def test_cells_that_are_not_done_are_not_renewed(tmp_path):
    grid.run_cell(SETTINGS, tmp_path, "cpu", None, None, renew=True)
    assert not list(tmp_path.rglob("*.json"))


def test_in_full_the_network_is_a_resnet_and_images_are_augmented(monkeypatch):
    settings = grid.Settings(**{**vars(SETTINGS), "network": "resnet9", "augment": True, "width": 4, "epochs": 1})
    cell = grid.Cell(grid.datasets.load("digits", None, 200), settings, "cpu")
    seen = []
    monkeypatch.setattr(grid, "train", lambda network, *_, augment, **__: seen.append((network, augment)))
    cell.fit(cell.data.x, cell.labels, 11, None)
    ((network, augment),) = seen
    assert network(cell.data.x[:2]).shape == (2, 11)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == 8
    assert augment == grid.PRESETS["digits"].augment


def test_tables_are_written(folder):
    result = CliRunner().invoke(grid_report.app, [str(folder)])
    assert result.exit_code == 0, result.output
    assert "pair-flip 0.2" in result.output
    tables = (folder / "tables.md").read_text()
    for text in ("digits (500 rows, 6 epochs, 1 seeds)", "AUROC, by method", "cleanlab", "FNR at the true rate"):
        assert text in tables
    standings = json.loads((folder / "summary.json").read_text())["standings"]
    assert standings[0]["seeds"] == 1


def test_without_peers_ours_is_held_against_the_oracle_alone(folder, values, tmp_path):
    arguments = ["--dataset", "digits", "--noise", "pair-flip:0.2", "--seeds", "1", "--first-seed", "100", "--no-peers"]
    result = CliRunner().invoke(grid.app, [*arguments, "--rows", "500", "--epochs", "6", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "digits: ours, seeds: 1" in result.output
    assert "best peer" not in result.output
    (path,) = tmp_path.glob("digits/*.json")
    assert path.name == "digits-pair-flip-0.2-seed100-no-peers.json"  # no cell with peers is taken for done
    content = json.loads(path.read_text())
    assert (content["settings"]["subset"], content["settings"]["epochs"]) == (500, 6)
    assert content["values"]["methods"].keys() == {"ours"}
    assert content["values"]["test_accuracy"].keys() == {"all rows", "ours", "oracle"}
    tables = (tmp_path / "tables.md").read_text()
    assert "accuracy: all rows / ours / oracle" in tables
    assert "by method" not in tables
    both = pd.concat([grid_report.cells(tmp_path), grid_report.cells(folder).assign(dataset="other")])
    alone, beside = grid_report.standings(both).to_dict("records")
    assert np.isnan(alone["auroc of best peer"])
    assert beside["auroc: best peer"] in grid_report.PEERS
    assert "cleanlab" in grid_report.markdown(both)


def test_all_rows_where_asked():
    assert grid.settings_of("mnist", "symmetric", 0.4, 0).subset == 10_000
    assert grid.settings_of("mnist", "symmetric", 0.4, 0, rows=0).subset is None
    assert grid.settings_of("mnist", "symmetric", 0.4, 0, full=True).subset is None
    assert grid.settings_of("mnist", "symmetric", 0.4, 0, full=True, rows=500, epochs=3).subset == 500


def test_no_cells(tmp_path):
    assert "no cells" in CliRunner().invoke(grid_report.app, [str(tmp_path)]).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "letters"], "must be among digits"),
        (["--noise", "symmetric:0.3"], "must be among symmetric:0.2"),
        (["--noise", "symmetric"], "must be among symmetric:0.2"),
    ],
)
def test_what_is_not_in_the_grid(arguments, message, tmp_path):
    result = CliRunner().invoke(grid.app, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


# ---- standings -------------------------------------------------------------------------------------------------------


def _cells(**aurocs):
    """Cells of two methods, one value a seed."""
    rows = []
    for method, values in aurocs.items():
        for seed, value in enumerate(values):
            rows.append(
                {
                    **{"dataset": "d", "noise_kind": "pair-flip", "noise": 0.4, "seed": seed, "subset": None},
                    **{"epochs": 1, "method": method, "auroc": value, "fnr_at_rate": 1 - value, "f1": 0.5},
                    **{"best_f1": 0.6, "noise_rate": 0.3, "true_noise_rate": 0.4, "transition_error": 0.01},
                    **{"suggestion_right": None, "seconds": 2.0, "plain_seconds": 1.0},
                    **{"accuracy, all rows": 0.5, "accuracy, ours": 0.6, "accuracy, oracle": 0.7},
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("ours", "peer", "first"),
    [
        ([0.9, 0.9], [0.8, 0.8], True),
        ([0.8, 0.8], [0.9, 0.9], False),
        ([0.7, 0.9], [0.8, 0.85], True),
        ([0.5], [0.6], False),
    ],
)
def test_first_or_within_one_standard_error(ours, peer, first):
    table = _cells(ours=ours, aum=peer, cleanlab=[value - 0.2 for value in peer])
    (row,) = grid_report.standings(table).to_dict("records")
    assert row["auroc: best peer"] == row["fnr_at_rate: best peer"] == "aum"
    assert row["auroc: first"] is row["fnr_at_rate: first"] is first
    assert row["auroc of best peer"] == pytest.approx(np.mean(peer))
    assert row["rate error"] == pytest.approx(0.1)
    assert row["cost"] == 2.0


def test_gain_over_the_best_peer():
    rows = grid_report.standings(_cells(ours=[0.9], aum=[0.8], cleanlab=[0.7]))
    assert grid_report.fnr_gain(rows) == pytest.approx(0.5)
    assert np.isnan(grid_report.fnr_gain(rows.assign(noise_kind="symmetric")))


def test_f1_at_a_cut():
    noise = np.array([True, True, False, False, True])
    found = metrics.cut(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([1, 1, 1, 0, 0], dtype=bool), noise)
    assert found == {"f1": pytest.approx(2 * 2 / 6), "best_f1": pytest.approx(2 * 2 / 5)}
    assert metrics.cut(np.zeros(2), np.zeros(2, bool), np.zeros(2, bool)) == {"f1": 0.0, "best_f1": 0.0}
