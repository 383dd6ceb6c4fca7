"""``lossbuf coreset`` and ``condense``: of a finished scan, and of data taken as they are."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from condensation.artifact import CondensedSet
from condensation.cli import CONDENSERS, CORESETS, app
from condensation.learned.real_images import RealImages
from lossbuf.files.safe_csv import read_csv


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Digits as an archive; a tenth of the labels are wrong."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:300].reshape(-1, 8, 8).astype(np.uint8) * 15, y[:300]
    labels = np.where(np.arange(300) % 10 == 3, (y + 1) % 10, y)
    path = tmp_path_factory.mktemp("archive") / "digits.npz"
    np.savez(path, x=x, y=labels, class_names=[f"digit {n}" for n in range(10)])
    return path


@pytest.fixture(scope="module")
def scanned(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("scanned") / "out"
    result = run("scan", archive, "--out", out, "--epochs", "6", "--batch-size", "32", "--device", "cpu")
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("method", CORESETS)
def test_a_coreset_of_a_scan_has_clean_rows(scanned, archive, tmp_path, method):
    result = run("coreset", scanned, "--out", tmp_path, "--method", method, "--ipc", "2")
    assert result.exit_code == 0, result.output
    rows = read_csv(tmp_path / "coreset.csv")
    small = CondensedSet.load(tmp_path / "coreset.npz")
    assert len(rows) == len(small) == 20
    assert set(rows["id"]) <= set(read_csv(scanned / "clean.csv")["id"])
    assert sorted(rows["label"]) == sorted(f"digit {n}" for n in range(10) for _ in range(2))
    chosen = rows["row"].astype(int).to_numpy()
    with np.load(archive) as data:
        assert (small.x.numpy()[:, 0] == data["x"][chosen]).all()
    assert [small.class_names[label] for label in small.labels] == rows["label"].tolist()
    assert small.provenance.cleaning.dropped == 300 - len(read_csv(scanned / "clean.csv"))
    assert small.provenance.rows.tolist() == chosen.tolist()
    assert ("weight" in rows) == (method in ("craig", "crust"))
    assert (tmp_path / "coreset.png").exists()


def test_a_coreset_of_data_as_they_are(archive, tmp_path):
    result = run("coreset", archive, "--out", tmp_path, "--method", "random", "--size", "0.1")
    assert result.exit_code == 0, result.output
    assert "labels are taken as they are" in result.stderr
    assert len(read_csv(tmp_path / "coreset.csv")) == pytest.approx(30, abs=5)
    small = CondensedSet.load(tmp_path / "coreset.npz")
    assert small.provenance.cleaning is None
    again = run("coreset", archive, "--out", tmp_path, "--method", "random", "--size", "20")
    assert again.exit_code == 2
    assert "holds coreset.csv already: `--overwrite` replaces it." in again.stderr
    more = run("coreset", archive, "--out", tmp_path, "--method", "random", "--size", "20", "--overwrite")
    assert more.stdout.startswith("20 rows of 300")


def test_what_is_written_is_no_part_of_the_source(tmp_path):
    (tmp_path / "photos").mkdir()
    result = run("coreset", tmp_path / "photos", "--out", tmp_path / "photos" / "small")
    assert result.exit_code == 2
    assert "`--out` must lie outside the folder" in result.stderr


@pytest.mark.parametrize("method", CONDENSERS)
def test_a_condensed_set_of_a_scan(scanned, tmp_path, method):
    fast = ("--iterations", "2", "--ipc", "1", "--lr", "0.01", "--device", "cpu")
    result = run("condense", scanned, "--out", tmp_path, "--method", method, *fast)
    assert result.exit_code == 0, result.output
    small = CondensedSet.load(tmp_path / "condensed.npz")
    assert small.x.shape == (10, 1, 8, 8)
    assert small.class_names[3] == "digit 3"
    assert small.provenance.cleaning.name == "LossBufferSelector"
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lossbuf.json",
        ".lossbuf.lock",
        "condensed.npz",
        "condensed.png",
    }
    assert run("condense", scanned, "--out", tmp_path, "--method", method, *fast).exit_code == 2


def test_classes_with_few_rows_are_told_by_name(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8)
    labels = np.array(["seven"] * 25 + ["one"] * 5)
    np.savez(tmp_path / "few.npz", x=x, y=labels)
    result = run("coreset", tmp_path / "few.npz", "--out", tmp_path / "out", "--ipc", 10, "--method", "random")
    assert result.exit_code == 0, result.output
    assert "note: Classes of fewer rows than asked give all they have: one has 5 of 10." in result.stderr


def test_a_finished_run_is_not_gone_on_with(archive, tmp_path):
    out = tmp_path / "out"
    assert run("condense", archive, "--out", out, "--ipc", 1, "--iterations", 2, "--device", "cpu").exit_code == 0
    before = (out / "condensed.npz").read_bytes()
    again = run("condense", archive, "--out", out, "--ipc", 2, "--iterations", 2, "--device", "cpu", "--resume")
    assert again.exit_code == 2
    assert "holds condensed.npz already: `--overwrite` replaces it." in again.stderr
    assert (out / "condensed.npz").read_bytes() == before


def test_soft_labels(archive, tmp_path):
    result = run("condense", archive, "--out", tmp_path, "--iterations", "1", "--ipc", "1", "--soft-labels")
    assert result.exit_code == 0, result.output
    assert CondensedSet.load(tmp_path / "condensed.npz").labels.shape == (10, 10)


def test_a_stopped_run_goes_on_with_the_same_bits(archive, tmp_path, monkeypatch):
    fast = ("--iterations", "6", "--ipc", "1", "--device", "cpu")
    assert run("condense", archive, "--out", tmp_path / "whole", *fast).exit_code == 0
    monkeypatch.setattr("condensation.learned.run._SECONDS", 0.0)
    draw, draws = RealImages.batch, 0

    def stopping(real, size, generator):
        nonlocal draws
        draws += 1
        if draws == 4:
            raise KeyboardInterrupt
        return draw(real, size, generator)

    monkeypatch.setattr(RealImages, "batch", stopping)
    out = tmp_path / "stopped"
    stopped = run("condense", archive, "--out", out, *fast)
    assert stopped.exit_code == 130
    assert "--resume goes on" in stopped.stderr
    assert {path.name for path in out.iterdir()} == {".lossbuf.lock", "unfinished-1"}
    refused = run("condense", archive, "--out", out, *fast)
    assert refused.exit_code == 2
    assert "`--resume` goes on" in refused.stderr
    assert run("condense", archive, "--out", out, "--resume", *fast).exit_code == 0
    assert draws == 4 + 3
    one, other = (CondensedSet.load(tmp_path / name / "condensed.npz") for name in ("whole", "stopped"))
    assert torch.equal(one.x, other.x)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["coreset", "--method", "no"], "`--method` must be one of random"),
        (["coreset", "--ipc", "2", "--size", "3"], "`--size` must be left out where `--ipc` is given"),
        (["coreset", "--size", "1.5"], "`--size` must be a share below 1 or a whole number of rows, got 1.5"),
        (["coreset", "--size", "0"], "`--size` must be a share below 1"),
        (["coreset", "--size", "inf"], "`--size` must be a share below 1"),
        (["condense", "--method", "no"], "`--method` must be one of dm"),
        (["condense", "--lr", "-1", "--iterations", "1"], "lr"),
    ],
)
def test_wrong_options_end_with_status_2(archive, tmp_path, arguments, said):
    result = run(arguments[0], archive, "--out", tmp_path / "out", *arguments[1:])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not list((tmp_path / "out").glob("*.npz"))
