"""The hard suite: a small cell by all methods, what is computed when, missing files, and its tables."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.common.data import DataError
from benchmarks.grid import experiment as grid
from benchmarks.grid import report as grid_report
from benchmarks.hard import cell, files, ours, report, run, standings, suite, trainings
from benchmarks.hard.data import LOADERS, Folders
from benchmarks.hard.suite import SUITE, Settings

SETTINGS = Settings(dataset="wine", noise_kind="symmetric", noise=0.4, seed=100)
PEERS = {*cell.WATCHED, "cleanlab", "cleanlab-logistic", "neighbours"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return Folders(tmp_path_factory.mktemp("no files"), None)


@pytest.fixture(scope="module")
def out(tmp_path_factory, folders):
    """Results with the peers alone."""
    folder = tmp_path_factory.mktemp("hard")
    assert run.run_cell(SETTINGS, folder, folders, "cpu", ours=False)
    return folder


def path_in(folder):
    return folder / "wine" / "wine-symmetric-0.4-seed100.json"


def values_in(folder):
    return json.loads(path_in(folder).read_text())["values"]


@pytest.fixture
def copied(out, tmp_path):
    """A copy of the results that a test may change."""
    path = path_in(tmp_path)
    path.parent.mkdir()
    path.write_bytes(path_in(out).read_bytes())
    return tmp_path


def test_a_cell_holds_every_peer(out):
    values = values_in(out)
    assert values["methods"].keys() == PEERS
    assert 0.25 < values["true_noise_rate"] < 0.55
    assert values["n_samples"] == 178
    for found in values["methods"].values():
        assert 0.6 < found["auroc"] <= 1
        for name in ("average_precision", "fnr_at_rate", "f1", "best_f1", "noise_rate", "flagged_share"):
            assert 0 <= found[name] <= 1
        assert found["seconds"] > 0
    assert values["methods"]["aum-otsu"]["auroc"] == values["methods"]["aum-mixture"]["auroc"]
    assert values["out_of_sample_accuracy"].keys() == {"cleanlab", "cleanlab-logistic", "neighbours"}
    assert values["out_of_sample_accuracy"]["neighbours"] > 0.7


def test_ours_is_added_to_the_peers_that_are_done(copied, folders, monkeypatch):
    before = values_in(copied)
    monkeypatch.setattr(cell.Cell, "by_peers", lambda _: pytest.fail("the peers were computed again"))
    assert run.run_cell(SETTINGS, copied, folders, "cpu")
    values = values_in(copied)
    own = values["methods"].pop("ours")
    assert values["methods"] == before["methods"]
    assert own["auroc"] > 0.6
    low, high = values["noise_rate_interval"]
    assert 0 <= low <= own["noise_rate"] <= high <= 1
    assert isinstance(values["warnings"], list)
    assert 0 <= values["transition_error"] < 0.5


def test_what_is_done_is_skipped_and_renewed_only_where_asked(copied, folders, monkeypatch):
    assert not run.run_cell(SETTINGS, copied, folders, "cpu", ours=False)
    facts = {"methods": {"ours": {"auroc": 0.5}}, "warnings": ["doubtful"]}
    monkeypatch.setattr(cell.Cell, "own", lambda _: facts)
    assert run.run_cell(SETTINGS, copied, folders, "cpu")
    assert not run.run_cell(SETTINGS, copied, folders, "cpu")
    monkeypatch.setattr(cell.Cell, "own", lambda _: {**facts, "methods": {"ours": {"auroc": 0.75}}})
    assert run.run_cell(SETTINGS, copied, folders, "cpu", renew=True)
    values = values_in(copied)
    assert values["methods"]["ours"] == {"auroc": 0.75}
    assert values["warnings"] == ["doubtful"]
    assert values["methods"].keys() == {*PEERS, "ours"}


def test_a_cell_that_is_not_done_is_not_renewed(tmp_path, folders):
    assert not run.run_cell(SETTINGS, tmp_path, folders, "cpu", renew=True)
    assert not list(tmp_path.rglob("*.json"))


def test_a_cell_with_other_settings_is_computed_anew(copied, folders, monkeypatch):
    other = suite.Entry("wine", trainings.Training(network="mlp", epochs=1, lr=0.1), SUITE["wine"].noise)
    monkeypatch.setitem(SUITE, "wine", other)
    monkeypatch.setattr(cell.Cell, "by_peers", lambda self: {"epochs": self.settings.entry.training.epochs})
    assert run.run_cell(SETTINGS, copied, folders, "cpu", ours=False)
    assert values_in(copied) == {"epochs": 1}


def test_without_peers_a_cell_has_a_file_of_its_own(copied, folders):
    assert run.run_cell(SETTINGS, copied, folders, "cpu", peers=False)
    content = json.loads((copied / "wine" / "wine-symmetric-0.4-seed100-no-peers.json").read_text())
    assert content["values"]["methods"].keys() == {"ours"}
    assert values_in(copied)["methods"].keys() == PEERS


def test_networks_other_than_for_features_are_watched_by_the_callback(folders, monkeypatch):
    data = LOADERS["digits-100"](folders)
    images = trainings.Training(network="convnet", epochs=2, lr=1e-3, batch_size=32, optimizer="adamw", width=4)
    monkeypatch.setitem(SUITE, "digits-100", suite.Entry("digits-100", images, (), cross_validated=False))
    as_images = cell.HardData("images", data.x.reshape(-1, 1, 8, 8), data.labels, 10)
    small = cell.Cell(as_images, Settings(dataset="digits-100", noise_kind="pair-flip", noise=0.3, seed=0), "cpu")
    assert small.by_peers()["methods"].keys() == cell.WATCHED.keys()
    own = small.own()
    assert own["methods"]["ours"]["trainings"] == 1
    assert any("Nothing was dropped" in text for text in own["warnings"])


def test_warnings_are_heard_each_once_and_others_are_left_alone():
    def compute():
        for text in ("first", "first", "second"):
            ours.warnings.warn(text, ours.LossBufferWarning, stacklevel=1)
        return 3

    assert ours._heard(compute) == (3, ["first", "second"])


# ---- the suite -------------------------------------------------------------------------------------------------------


def test_every_entry_is_known():
    for entry in SUITE.values():
        assert entry.data in LOADERS
        assert len(set(entry.noise)) == len(entry.noise)
    assert sum(suite.CLEAN in entry.noise for entry in SUITE.values()) >= 8
    assert {entry.data for entry in SUITE.values()} == LOADERS.keys()


def test_cells_are_ordered_by_seed_and_hold_the_noise_asked_for():
    names = [settings.name for settings in suite.cells(["wine", "iris"], (suite.CLEAN,), range(2))]
    assert names == ["iris-clean-0-seed0", "wine-clean-0-seed0", "iris-clean-0-seed1", "wine-clean-0-seed1"]
    assert len(suite.cells(list(SUITE), None, range(1))) == sum(len(entry.noise) for entry in SUITE.values())


def test_the_same_seed_trains_the_same_network():
    training = trainings.Training(network="convnet", epochs=2, lr=1e-3, batch_size=8, optimizer="adam", width=4)
    x, labels = torch.randn(20, 1, 8, 8), torch.arange(20) % 3
    first, second, other = (trainings.fit(training, seed, x, labels, 3, None, "cpu") for seed in (1, 1, 2))
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), other(x))


def test_the_plain_loop_shows_the_callback_every_row_once_an_epoch():
    class Notes:
        def __init__(self):
            self.rows, self.epochs = [], 0

        def loss(self, logits, labels, rows):
            self.rows += rows.tolist()
            return torch.nn.functional.cross_entropy(logits, labels)

        def end_epoch(self):
            self.epochs += 1
            assert sorted(self.rows) == list(range(20))
            self.rows = []

    notes = Notes()
    training = trainings.Training(network="mlp", epochs=3, lr=1e-3, batch_size=8, optimizer="adamw")
    trainings.fit(training, 0, torch.randn(20, 4), torch.arange(20) % 3, 3, notes, "cpu")
    assert notes.epochs == 3


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="`network` must be one that is known, got 'transformer'"):
        trainings.make(trainings.Training(network="transformer", epochs=1, lr=0.1), (4,), 3)


# ---- the command -----------------------------------------------------------------------------------------------------


def invoke(*arguments):
    return CliRunner().invoke(grid.app, ["--suite", "hard", "--device", "cpu", *arguments])


def test_a_missing_file_is_told_in_one_line_and_the_rest_is_computed(tmp_path):
    found = invoke(
        *("--dataset", "clinc150,wine", "--noise", "pair-flip:0.3", "--seeds", "1", "--peers-only"),
        *("--hard-dir", str(tmp_path), "--out", str(tmp_path / "out")),
    )
    assert found.exit_code == 0, found.output
    (line,) = (line for line in found.output.splitlines() if "clinc150" in line)
    assert line == (
        "clinc150 is skipped: clinc150-minilm.npz (written by `python -m benchmarks.hard.prepare`) "
        f"is not in {tmp_path}: put it there, or name its folder with --hard-dir."
    )
    (path,) = (tmp_path / "out").glob("*/*.json")
    assert path.name == "wine-pair-flip-0.3-seed0.json"
    assert "wine-pair-flip-0.3-seed0: " in found.output
    assert "pair-flip 0.3" in (tmp_path / "out" / "tables.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "letters"], "must be among iris"),
        (["--dataset", "wine", "--noise", "human:0.1"], "must be among symmetric:0.2"),
    ],
)
def test_what_is_not_in_the_suite(arguments, message, tmp_path):
    found = invoke(*arguments, "--out", str(tmp_path))
    assert found.exit_code == 2
    assert message in " ".join(found.output.replace("│", " ").split())


@pytest.mark.parametrize("arguments", [["--suite", "harder"], ["--peers-only"]])
def test_options_that_mean_nothing(arguments, tmp_path):
    assert CliRunner().invoke(grid.app, [*arguments, "--out", str(tmp_path)]).exit_code == 2


def test_files_are_looked_for_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSBUF_HARD_DATA", str(tmp_path))
    assert files.default_folder() == tmp_path
    with pytest.raises(DataError, match=r"banking77-minilm\.npz"):
        LOADERS["banking77"](Folders(files.default_folder(), None))


# ---- tables ----------------------------------------------------------------------------------------------------------


def _write(folder, seed, methods, kind="symmetric", **values):
    settings = Settings(dataset="wine", noise_kind=kind, noise=0.4, seed=seed)
    content = {
        "settings": settings.described(),
        "values": {"true_noise_rate": 0.4, "n_samples": 100, "methods": methods, **values},
    }
    path = folder / "wine" / f"{settings.name}.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content))


def _found(fnr=0.1, f1=0.9, rate=0.4, **more):
    measured = {"auroc": 1 - fnr, "fnr_at_rate": fnr, "f1": f1, "best_f1": 0.95, "noise_rate": rate}
    return {**measured, "flagged_share": rate, "seconds": 2.0} | more


def test_standings(tmp_path):
    for seed, fnr in enumerate((0.1, 0.3)):
        _write(
            tmp_path,
            seed,
            {
                "ours": _found(fnr, f1=0.6, rate=0.3),
                "aum-otsu": _found(0.15, f1=0.7),
                "neighbours": _found(0.5, f1=0.8),
            },
            noise_rate_interval=[0.25, 0.35 + 0.1 * seed],
            warnings=["doubtful"] * (1 - seed),
        )
    (row,) = standings.standings(standings.cells(tmp_path)).to_dict("records")
    assert row["seeds"] == 2
    assert (row["fnr_at_rate: best peer"], row["f1: best peer"]) == ("aum-otsu", "neighbours")
    assert row["fnr_at_rate"] == pytest.approx(0.2)
    assert row["fnr_at_rate: first"]  # .2 is within the standard error, .1, of .15
    assert not row["f1: first"]
    assert row["rate error"] == pytest.approx(0.1)
    assert (row["covered"], row["warned"]) == (1, 1)
    assert row["silent failure"]  # .6 is below .8 times .8, and one seed did not warn
    text = report.markdown(standings.cells(tmp_path))
    assert "0.600 (not first) | 0.800 neighbours" in text
    assert "1 of 2" in text


def test_a_failure_that_is_told_is_not_silent(tmp_path):
    methods = {"ours": _found(f1=0.1), "aum-otsu": _found(f1=0.9)}
    _write(tmp_path, 0, methods, noise_rate_interval=[0.1, 0.2], warnings=["doubtful"])
    (row,) = standings.standings(standings.cells(tmp_path)).to_dict("records")
    assert not row["silent failure"]
    assert row["covered"] == 0


@pytest.mark.parametrize(
    ("ours", "short"),
    [
        (_found(0.1, 0.91, 0.43), ""),
        (_found(0.2, 0.91, 0.43), "FNR"),
        (_found(0.1, 0.85, 0.43), "F1 of best peer, F1 of ranking"),
        (_found(0.1, 0.91, 0.47), "rate"),
    ],
)
def test_what_a_cell_falls_short_of(ours, short, tmp_path):
    methods = {"ours": ours, "aum-otsu": _found(0.15, 0.9)}
    _write(tmp_path, 0, methods, noise_rate_interval=None, warnings=[])
    (row,) = standings.standings(standings.cells(tmp_path)).to_dict("records")
    assert row["falls short of"] == short


@pytest.mark.parametrize(
    ("flagged", "accuracy", "short"),
    [(0.009, 0.96, ""), (0.015, 0.96, "flagged, rate"), (0.015, 0.9, ""), (0.03, 0.9, "flagged")],
)
def test_what_clean_data_fall_short_of(flagged, accuracy, short, tmp_path):
    ours, cleanlab = (_found(f1=0.0, rate=rate, auroc=None, fnr_at_rate=None) for rate in (flagged, 0.04))
    values = {"true_noise_rate": 0.0, "out_of_sample_accuracy": {"cleanlab": accuracy}, "warnings": []}
    _write(tmp_path, 0, {"ours": ours, "cleanlab": cleanlab}, kind="clean", noise_rate_interval=[0, 1], **values)
    (row,) = standings.standings(standings.cells(tmp_path)).to_dict("records")
    assert row["falls short of"] == short


def test_seeds_of_development_have_a_report_of_their_own(tmp_path):
    for seed, f1 in ((0, 0.6), (100, 0.9)):
        _write(tmp_path, seed, {"ours": _found(f1=f1)}, noise_rate_interval=[0, 1], warnings=[])
    for arguments, ending, f1 in (([], "", 0.6), (["--development"], "-development", 0.9)):
        found = CliRunner().invoke(report.app, [str(tmp_path), *arguments])
        assert found.exit_code == 0, found.output
        assert "1 cells with ours" in found.output
        (row,) = json.loads((tmp_path / f"summary{ending}.json").read_text())["standings"]
        assert (row["seeds"], row["f1"]) == (1, f1)


def test_clean_data_have_a_table_of_their_own_and_the_usual_report_shows_it(tmp_path):
    clean = _found(f1=0.0, rate=0.02, auroc=None, fnr_at_rate=None)
    _write(
        tmp_path,
        0,
        {"ours": clean, "cleanlab": clean | {"flagged_share": 0.07}},
        kind="clean",
        true_noise_rate=0.0,
        out_of_sample_accuracy={"cleanlab": 0.97},
        noise_rate_interval=[0.0, 0.03],
        warnings=[],
    )
    found = CliRunner().invoke(grid_report.app, [str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "Clean data" in found.output
    assert "Wrong labels" not in found.output
    assert (
        "| wine | clean | 1 | 0.020 | 0.070 | 0.020 | 0.970 | yes | no | 2.0 | flagged, rate |"
        in (tmp_path / "tables.md").read_text()
    )


def test_peers_alone_have_tables_too(out):
    text = report.markdown(standings.cells(out))
    assert "| wine | symmetric 0.4 | 1 | - |" in text
    assert pd.isna(standings.standings(standings.cells(out)).get("fnr_at_rate", pd.Series([np.nan]))[0])


def test_no_cells(tmp_path):
    assert "no cells" in CliRunner().invoke(report.app, [str(tmp_path)]).output
