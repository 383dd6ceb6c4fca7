"""What a scan leaves, and what may be started in a folder that is not empty."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lossbuf.files.safe_csv import read_csv
from lossbuf.inputs import InputError, ReadSettings, read_labelled
from lossbuf.results import MARKER
from lossbuf.scan import ScanFolder, ScanSettings, load_scan, scan

SETTINGS = ScanSettings(epochs=6, batch_size=32, device="cpu")


@pytest.fixture(scope="module")
def data(digits_folder):
    return read_labelled(digits_folder[0])


@pytest.fixture(scope="module")
def finished(data, digits_folder, tmp_path_factory):
    """A folder with a finished scan, not to be changed, and the scan."""
    folder = ScanFolder(tmp_path_factory.mktemp("scans") / "out")
    folder.begin(digits_folder[0], data, ReadSettings(), SETTINGS)
    result = scan(data, SETTINGS, checkpoint=folder.state)
    folder.write(result, digits_folder[0])
    return folder, result


def test_files_and_their_content(finished):
    folder, result = finished
    assert folder.is_finished
    assert {path.name for path in folder.path.iterdir()} == {MARKER, *(path.name for path in folder.files())}
    issues, clean = read_csv(folder.issues), read_csv(folder.clean)
    assert len(issues) == result.suspect_mask.sum()
    assert len(issues) + len(clean) == 500
    assert issues["id"].tolist()[0] == result.table.query("is_suspect")["id"].iloc[0]
    summary = json.loads(folder.summary.read_text())
    assert summary["n_suspects"] == len(issues)
    assert "<html" in folder.report.read_text()
    parquet = pd.read_parquet(folder.issues_parquet)
    assert parquet["id"].tolist() == issues["id"].tolist()
    assert parquet["suspicion"].dtype == "float32"


def test_a_finished_scan_is_loaded_without_training(finished, monkeypatch):
    folder, result = finished
    monkeypatch.setattr("lossbuf.training.loop._Run.train_step", lambda run: pytest.fail("trained"))
    loaded = load_scan(folder.path)
    assert (loaded.verdict.suspicion == result.verdict.suspicion).all()
    assert loaded.data.ids == result.data.ids
    assert loaded.settings == result.settings


def test_an_earlier_scan_is_not_overwritten(finished, data, digits_folder):
    folder, _ = finished
    before = folder.about.read_bytes()
    with pytest.raises(
        InputError, match="holds a finished scan: `--resume` goes on from it, `--overwrite` starts anew"
    ):
        folder.begin(digits_folder[0], data, ReadSettings(), SETTINGS)
    with pytest.raises(InputError, match="holds a scan of other settings, epochs 6 and now 7"):
        folder.begin(digits_folder[0], data, ReadSettings(), replace(SETTINGS, epochs=7), resume=True)
    with pytest.raises(InputError, match="holds a scan of other rows"):
        folder.begin(digits_folder[0], replace(data, ids=data.ids[::-1]), ReadSettings(), SETTINGS, resume=True)
    assert folder.about.read_bytes() == before


def test_another_top_is_read_from_the_same_training(finished, data, digits_folder, tmp_path):
    folder, result = finished
    other = ScanFolder(shutil.copytree(folder.path, tmp_path, dirs_exist_ok=True))
    settings = replace(SETTINGS, top=7)
    other.begin(digits_folder[0], data, ReadSettings(), settings, resume=True)
    other.write(scan(data, settings, checkpoint=other.state), digits_folder[0])
    issues = read_csv(other.issues)["id"].tolist()
    assert issues == result.table["id"].head(7).tolist()
    assert load_scan(tmp_path).settings.top == 7


def test_another_bound_is_read_from_the_same_training(finished, data, digits_folder, tmp_path):
    folder, before = finished
    again, settings = ScanFolder(tmp_path), replace(SETTINGS, max_fdr=0.5)
    shutil.copytree(folder.path, tmp_path, dirs_exist_ok=True)
    again.begin(digits_folder[0], data, ReadSettings(), settings, resume=True)
    result = scan(data, settings, checkpoint=again.state)
    assert result.verdict.suspicion.tolist() == before.verdict.suspicion.tolist()
    assert 0 < result.suspect_mask.sum() != before.suspect_mask.sum()
    other = replace(SETTINGS, noise_rate=0.3)  # drops other rows while it trains
    with pytest.raises(InputError, match=r"noise_rate None and now 0\.3"):
        again.begin(digits_folder[0], data, ReadSettings(), other, resume=True)


def test_unfinished_foreign_and_overwritten_folders(data, digits_folder, tmp_path):
    folder = ScanFolder(tmp_path / "out")
    folder.begin(digits_folder[0], data, ReadSettings(), SETTINGS)
    assert not folder.is_finished
    folder.begin(digits_folder[0], data, ReadSettings(), SETTINGS)  # nothing was trained yet
    folder.state.touch()
    with pytest.raises(InputError, match="holds an unfinished scan"):
        folder.begin(digits_folder[0], data, ReadSettings(), SETTINGS)
    with pytest.raises(InputError, match="must hold a finished scan"):
        load_scan(folder.path)
    folder.begin(digits_folder[0], data, ReadSettings(), SETTINGS, resume=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "clean.csv").write_text("mine")
    (foreign / "other.txt").write_text("mine")
    for asked in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match=r"clean\.csv was not written by this command"):
            ScanFolder(foreign).begin(digits_folder[0], data, ReadSettings(), SETTINGS, **asked)
    assert {path.name: path.read_text() for path in foreign.iterdir()} == {"clean.csv": "mine", "other.txt": "mine"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind": "other"}', b"[" * 100_000, b"\xff"])
def test_damaged_folders_are_refused(tmp_path, content):
    (tmp_path / "scan.json").write_bytes(content)
    with pytest.raises(InputError, match=r"scan\.json must be"):
        load_scan(tmp_path)


def test_a_source_in_the_way_is_refused(data, tmp_path):
    source = tmp_path / "clean.csv"
    source.write_text("mine")
    with pytest.raises(InputError, match=r"must be another place than .*clean\.csv"):
        ScanFolder(tmp_path).begin(source, data, ReadSettings(), SETTINGS, overwrite=True)
    assert source.read_text() == "mine"


def test_results_that_cannot_be_written_leave_the_earlier_ones(finished, data, digits_folder, tmp_path, monkeypatch):
    folder, result = finished
    other = ScanFolder(tmp_path)
    shutil.copytree(folder.path, tmp_path, dirs_exist_ok=True)
    other.begin(digits_folder[0], data, ReadSettings(), SETTINGS, resume=True)
    before = {file.name: file.read_bytes() for file in other.files()}
    monkeypatch.setattr("lossbuf.scan.folder.clean_table", lambda scan: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        other.write(result, digits_folder[0])
    assert {file.name: file.read_bytes() for file in other.files()} == before
    assert load_scan(tmp_path).data.ids == data.ids


def test_a_source_that_changed_is_told(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder.path, tmp_path, dirs_exist_ok=True)
    about = json.loads(folder.about.read_text())
    (tmp_path / "scan.json").write_text(json.dumps(about | {"fingerprint": "0"}))
    with pytest.raises(InputError, match="must be as it was when"):
        load_scan(tmp_path)
    (tmp_path / "scan.json").write_text(json.dumps(about | {"source": str(tmp_path / "gone")}))
    with pytest.raises(InputError, match="there is no such file or folder"):
        load_scan(tmp_path)
    for wrong in ({"read": {"no": 1}}, {"settings": {"epochs": 0}}, {"settings": None}, {"source": None}):
        (tmp_path / "scan.json").write_text(json.dumps(about | wrong))
        with pytest.raises(InputError, match="must be as `lossbuf scan` writes it"):
            load_scan(tmp_path)


def changed(root, name):
    first, other = (sorted((root / f"digit {number}").iterdir())[0] for number in (0, 1))
    if name == "new":
        shutil.copy(first, first.with_name("more.png"))
        return r"got 1 row new: digit 0/more\.png: scan it again"
    if name == "gone":
        first.unlink()
        return rf"got 1 row missing: digit 0/{first.name}: scan"
    if name == "moved":
        first.rename(other.with_name("moved.png"))
        return rf"got 1 row new: digit 1/moved\.png; 1 row missing: digit 0/{first.name}: scan"
    shutil.copy(other, first)
    return "got rows with another content: scan"


@pytest.mark.parametrize("name", ["new", "gone", "moved", "replaced"])
def test_what_changed_is_named(finished, digits_folder, tmp_path, name):
    folder = ScanFolder(shutil.copytree(finished[0].path, tmp_path / "scan"))
    root = shutil.copytree(digits_folder[0], tmp_path / "photos")
    about = json.loads(folder.about.read_text())
    folder.about.write_text(json.dumps(about | {"source": str(root)}))
    said = changed(root, name)
    with pytest.raises(InputError, match=said):
        load_scan(folder.path)


def test_a_damaged_state_is_refused(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder.path, tmp_path, dirs_exist_ok=True)
    content = folder.state.read_bytes()
    (tmp_path / "scan.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="must be a file saved by lossbuf"):
        load_scan(tmp_path)


def test_a_folder_without_a_scan(tmp_path):
    with pytest.raises(InputError, match=r"must hold a scan, got no scan.json"):
        load_scan(tmp_path)
    assert not ScanFolder(Path("nowhere")).is_finished
