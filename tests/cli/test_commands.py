"""``lossbuf scan`` and ``apply`` as a script uses them: files, exit status, one line on standard output."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import lossbuf
from lossbuf.cli.commands import app
from lossbuf.cli.terminal import told_errors
from lossbuf.files.safe_csv import read_csv, write_csv

FAST = ["--epochs", "6", "--batch-size", "32", "--device", "cpu"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Digits as an archive; a tenth of the labels are wrong."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:400].reshape(-1, 8, 8).astype(np.uint8) * 15, y[:400]
    labels = np.where(np.arange(400) % 10 == 3, (y + 1) % 10, y)
    path = tmp_path_factory.mktemp("archive") / "digits.npz"
    np.savez(path, x=x, y=labels)
    return path


@pytest.fixture(scope="module")
def scanned(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("scanned") / "out"
    result = run("scan", archive, "--out", out, *FAST)
    assert result.exit_code == 0, result.output
    return out, result


def test_a_scan_ends_with_one_line(scanned):
    out, result = scanned
    suspects = len(read_csv(out / "issues.csv"))
    assert result.stdout.startswith(f"{suspects} suspects of 400 rows; noise rate 0.")
    assert result.stdout.count("\n") == 1
    assert "400 images of 10 classes" in result.stderr


def test_a_given_rate_is_called_so_and_doubted(archive, tmp_path):
    result = run("scan", archive, "--out", tmp_path / "out", "--noise-rate", "0.9", *FAST)
    assert result.exit_code == 0
    assert "noise rate 0.900 as given (0." in result.stdout
    assert " doubt" in result.stdout
    assert "The noise rate given, 0.90, is far from what is estimated" in " ".join(result.stderr.split())
    assert "Leave `--noise-rate` out" in " ".join(result.stderr.split())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "of the labels are wrong, as given" in page
    assert "are estimated to be wrong" not in page


def test_doubts_name_classes_and_options():
    from lossbuf.scan.run import _of_command

    text = "More than half of the labels of true class 0, 2 seem wrong. Give `noise_rate`, or use a longer `warmup`."
    told = _of_command(text, ["cat", "dog", "eel"])
    assert told == (
        "More than half of the labels of true class 'cat', 'eel' seem wrong. Give `--noise-rate`, or train with more "
        "`--epochs`."
    )


def test_wrong_labels_are_found(scanned):
    out, _ = scanned
    issues = read_csv(out / "issues.csv")
    wrong = issues["row"].astype(int) % 10 == 3
    assert wrong.mean() > 0.7
    assert wrong.sum() > 25


def test_a_second_scan_needs_a_word(archive, scanned):
    out, _ = scanned
    result = run("scan", archive, "--out", out, *FAST)
    assert result.exit_code == 2
    assert "holds a finished scan" in result.stderr
    assert not result.stdout
    again = run("scan", archive, "--out", out, "--resume", "--top", "5", *FAST)
    assert again.exit_code == 0
    assert again.stdout.startswith("5 suspects of 400 rows")
    assert run("scan", archive, "--out", out, "--resume", *FAST).exit_code == 0


def test_decisions_are_applied(scanned, tmp_path):
    out, _ = scanned
    issues = read_csv(out / "issues.csv")
    decisions = issues[["id", "given_label", "suggested_label"]].head(3).copy()
    decisions["decision"], decisions["label"] = ["relabel", "drop", "keep"], decisions["suggested_label"]
    write_csv(tmp_path / "decisions.csv", decisions)
    result = run("apply", out, tmp_path / "decisions.csv", "--out", tmp_path / "labels.csv")
    assert result.exit_code == 0
    assert result.stdout.startswith("399 labels, 1 of them changed")
    labels = read_csv(tmp_path / "labels.csv")
    assert len(labels) == 399
    assert labels.set_index("id").loc[issues["id"][0], "label"] == issues["suggested_label"][0]
    assert run("apply", out, "--out", tmp_path / "labels.csv").exit_code == 2
    assert "`--out` must lie outside" in run("apply", out, "--out", out / "clean.csv", "--overwrite").stderr
    assert run("apply", out, "--out", tmp_path / "labels.csv", "--overwrite", "--undecided", "drop").exit_code == 0
    assert len(read_csv(tmp_path / "labels.csv")) == 400 - len(issues)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no such file or folder"),
        (["data", "--network", "no"], "`--network` must be one of"),
        (["data", "--noise-rate", "0.1", "--top", "3"], "`--top` must be left out where `--noise-rate` is given"),
        (["data", "--label", "no"], "must have an array 'no', got x, y"),
        (["data", "--top", "500"], "`--top` must be at most 400"),
        (["data", "--epochs", "0"], "Invalid value for '--epochs'"),
        (["data", "--planted", "0.5"], "Invalid value for '--planted'"),
    ],
)
def test_wrong_input_ends_with_status_2_and_writes_nothing(archive, tmp_path, arguments, said, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    source = archive if arguments[0] == "data" else tmp_path / arguments[0]
    result = run("scan", source, "--out", tmp_path / "out", *arguments[1:])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_folder_that_cannot_be_written(archive, tmp_path):
    (tmp_path / "file").touch()
    result = run("scan", archive, "--out", tmp_path / "file" / "out", *FAST)
    assert result.exit_code == 2
    assert "file is no folder" in result.stderr


def test_what_is_skipped_is_told_and_listed(tmp_path):
    for name in ("[red]cat", "=dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (8, 8), 30 * number).save(tmp_path / "in" / name / f"{number}.png")
    (tmp_path / "in" / "=dog" / "bad.png").write_text("no picture")
    result = run("scan", tmp_path / "in", "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 0, result.output
    assert "skipped: =dog/bad.png: no image, or a damaged one" in result.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["skipped"] == [{"id": "=dog/bad.png", "reason": "no image, or a damaged one"}]
    assert {part["name"] for part in summary["classes"]} == {"[red]cat", "=dog"}
    rows = (tmp_path / "out" / "clean.csv").read_text() + (tmp_path / "out" / "issues.csv").read_text()
    assert ",=dog" not in rows
    assert "\n=" not in rows


def test_the_version_is_told():
    assert run("version").stdout.strip() == run("--version").stdout.strip() == lossbuf.__version__
    assert run("--help").exit_code == 0


@pytest.mark.parametrize("module", ["lossbuf", "condensation.main"])
def test_the_version_needs_no_torch(module):
    code = (
        "import runpy, sys; sys.argv[1:] = ['--version'];"
        f"runpy.run_module({module!r}, run_name='other')['main']();"
        "print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == [lossbuf.__version__, "False"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped. Nothing was written."),
        (ValueError("bad [x]"), 2, "error: bad [x]"),
        (OSError("full"), 1, "error: full"),
        (MemoryError(), 1, "error: there is not enough memory: take smaller images (`--image-size`), or fewer rows."),
    ],
)
def test_errors_have_their_status(error, status, said, capsys):
    with pytest.raises(typer.Exit) as exited, told_errors():
        raise error
    assert exited.value.exit_code == status
    assert capsys.readouterr().err.strip() == said


def test_an_error_that_ctrl_c_led_to_is_a_stop(capsys):
    error = RuntimeError("the file was not written")
    error.__context__ = KeyboardInterrupt()
    with pytest.raises(typer.Exit) as exited, told_errors("Go on."):
        raise error
    assert exited.value.exit_code == 130
    assert capsys.readouterr().err.strip() == "stopped. Go on."


def test_faults_of_ours_are_not_hidden():
    with pytest.raises(KeyError), told_errors():
        raise KeyError("x")


def _started(archive, out, *more):
    code = "from lossbuf.cli.commands import app; app()"
    here = os.environ | {"PYTHONPATH": str(Path(lossbuf.__file__).parents[1])}
    command = [
        sys.executable,
        "-c",
        code,
        "scan",
        archive,
        "--out",
        out,
        "--batch-size",
        "32",
        "--device",
        "cpu",
        *more,
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=here,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done(archive, tmp_path):
    out, epochs = tmp_path / "out", ["--epochs", "120"]
    process = _started(archive, out, *epochs)
    try:
        end = time.monotonic() + 120
        while not list(out.glob("unfinished-*/scan.pt")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert not stdout
    assert "--resume goes on" in stderr.replace("\n", " ")
    assert not (out / "summary.json").exists()
    again = run("scan", archive, "--out", out, "--resume", "--batch-size", "32", "--device", "cpu", *epochs)
    assert again.exit_code == 0, again.output
    assert (out / "summary.json").exists()
