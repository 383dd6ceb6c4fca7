"""The terminal shows names and never obeys them, and a terminal that goes away stops nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import lossbuf
from condensation.cli import app
from lossbuf.cli.terminal import options_in, printable

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(lossbuf.__file__).parents[1])}
HOSTILE = "\x1b[31mred\x1b[0m\x07\r\u202etxt.\N{ZERO WIDTH SPACE}[bold]"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Names that a terminal would act on."""
    path = tmp_path_factory.mktemp("archive") / "data.npz"
    x = np.random.default_rng(0).normal(size=(40, 3)) + 9 * (np.arange(40) % 2)[:, None]
    names = [HOSTILE, "\x1b]0;title\x07"]
    np.savez(path, x=x, y=np.arange(40) % 2, class_names=names, ids=[f"\x1b[2J{row}" for row in range(40)])
    return path


@given(st.text())
def test_every_text_is_one_line_that_can_be_shown(text):
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("`max_fdr` must lie in [0, 1], got 2.", "`--max-fdr` must lie in [0, 1], got 2."),
        ("`row_id` must be a text.", "`--id` must be a text."),
        ("`ipc` and `size`", "`--ipc` and `--size`"),
        ("`--ipc` and `path` and `noise_rate=0.1`", "`--ipc` and `path` and `noise_rate=0.1`"),
    ],
)
def test_messages_name_options(text, told):
    assert options_in(text) == told


def test_nothing_is_shown_that_a_terminal_acts_on(archive, tmp_path):
    words = ["scan", str(archive), "--out", str(tmp_path / "out"), "--epochs", "2", "--device", "cpu", "--top", "30"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 0, ended.output
    shown = (ended.stderr + ended.stdout).replace("\n", "")
    assert shown.isprintable()
    assert "\\x1b[2J" in ended.stderr
    assert "rows of class" in ended.stderr  # most of a class are suspects
    applied = CliRunner().invoke(app, ["apply", str(tmp_path / "out"), "--out", str(tmp_path / "labels.csv")])
    assert "30 suspects without a decision keep their label (`--undecided` decides)" in applied.stderr
    small = CliRunner().invoke(app, ["coreset", str(archive), "--out", str(tmp_path / "small"), "--ipc", "30"])
    assert small.exit_code == 0, small.output
    assert (small.stderr + small.stdout).replace("\n", "").isprintable()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell of Unix")
@pytest.mark.parametrize("streams", ["2>&-", ">&-", ">&- 2>&-", "2>&1 | true", "2>/dev/full", ">/dev/full"])
def test_a_closed_terminal_does_not_end_a_run(archive, tmp_path, streams):
    out = tmp_path / "out"
    command = f'"{sys.executable}" -c "from condensation.main import main; main()" scan "{archive}" --out "{out}"'
    shell = f"( {command} --epochs 2 --device cpu; echo $? >{tmp_path / 'status'} ) {streams}"
    subprocess.run(["sh", "-c", shell], env=ENVIRONMENT, check=False, timeout=120, capture_output=True)
    assert json.loads((out / "summary.json").read_text())["n_samples"] == 40
    assert (tmp_path / "status").read_text().strip() == "0"


def run(*words):
    return subprocess.run(
        [sys.executable, *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_module_runs():
    assert run("-m", "lossbuf", "--help").returncode == 0
    assert run("-m", "lossbuf", "--version").stdout.strip() == lossbuf.__version__


def test_the_version_is_told_at_once():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        ended = run("-c", "import sys; sys.argv[1:] = ['--version']; from condensation.main import main; main()")
        times.append(time.perf_counter() - start)
        assert ended.stdout == f"{lossbuf.__version__}\n"
    assert min(times) < 1
