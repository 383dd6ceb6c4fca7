"""The terminal shows names and never obeys them, and a terminal that goes away stops nothing."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import lossbuf
from condensation.cli import app
from lossbuf.cli.terminal import options_in, printable, told_errors

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
        ("`X` must be finite in float32.", "the samples must be finite in float32."),
        ("`y` must hold at least two classes.", "the labels must hold at least two classes."),
        ("`batch_size`, `image_size`", "`--batch-size`, `--image-size`"),
        ("`soft_labels` and `follow_links`", "`--soft-labels` and `--follow-links`"),
        ("no names, seed or `unknown`", "no names, seed or `unknown`"),
        ("`device` of `Device`", "`--device` of `Device`"),
        ("``lr``", "``--lr``"),
    ],
)
def test_messages_name_options(text, told):
    assert options_in(text) == told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"), ("Käuzchen", "Käuzchen"), ("猫", "猫"), ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"), ("\x9b2J", "\\x9b2J"), ("a\rb", "a\\rb"), ("a\nb", "a\\nb"),
        ("a\tb", "a\\tb"), ("\u202etxt.exe", "\\u202etxt.exe"), ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"), ("\x00", "\\x00"), ("[bold]no markup[/bold]", "[bold]no markup[/bold]"),
        ("\u2028", "\\u2028"), ("\U000e0041", "\\U000e0041"), (3, "3"),
    ],
)  # fmt: skip
def test_escapes_of_what_a_terminal_acts_on(text, shown):
    assert printable(text) == shown


BAD_COMMANDS = [
    (["coreset", "DATA", "--ipc", "1000"], 2, "`--ipc` must be at most 40, the number of rows, got 1000"),
    (["coreset", "DATA", "--size", "41"], 2, "`--size` must be at most 40, the number of rows"),
    (["coreset", "DATA", "--size", "0.5", "--ipc", "3"], 2, "`--size` must be left out where `--ipc` is given"),
    (["coreset", "DATA", "--method", "best"], 2, "`--method` must be one of random, herding"),
    (["condense", "DATA"], 2, "`lossbuf coreset` takes them"),
    (["condense", "DATA", "--method", "best"], 2, "`--method` must be one of dm"),
    (["scan", "DATA", "--max-fdr", "0.1", "--top", "3"], 2, "`--top` must be left out where `--max-fdr` is given"),
    (["scan", "DATA", "--top", "41"], 2, "`--top` must be at most 40, the number of rows"),
    (["scan", "DATA", "--device", "cuda:99"], 2, "`--device` must be a device of this machine, got 'cuda:99'"),
    (["scan", "DATA", "--network", "resnet9"], 2, "`--network` must be 'auto' or 'mlp'"),
    (["scan", "DATA", "--seed", str(2**63)], 2, "`--seed` must be below 2**63"),
    (["scan", "DATA", "--lr", "-1"], 2, "`--lr` must be a finite number above 0"),
    (["scan", "DATA", "--alike", "some"], 2, "`--alike` must be merge or keep"),
    (["scan", "DATA", "--channels", "middle"], 2, "`--channels` must be first or last"),
    (["scan", "DATA", "--label", "kind"], 2, "Name another one: `--label NAME`"),
    (["scan", "nowhere"], 2, "there is no such file or folder"),
    (["condense", "IMAGES", "--iterations", "2", "--ipc", "1", "--lr", "1e30"], 1, "A lower learning rate may help"),
    (["condense", "IMAGES", "--lr", "0"], 2, "`--lr` must be a finite number above 0"),
]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    BAD_COMMANDS,
    ids=lambda part: " ".join(map(str, part))[:60] if isinstance(part, list) else "",
)
def test_errors_are_one_line_that_speaks_of_options_and_files(archive, tmp_path, words, status, message):
    images = tmp_path / "images.npz"
    np.savez(images, x=np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8), y=np.arange(40) % 2)
    places = {"DATA": str(archive), "IMAGES": str(images)}
    words = [places.get(word, word) for word in words]
    ended = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert ended.exit_code == status, ended.output
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not re.search(r"`[a-z]\w*_\w+`|`(X|y|ipc|size|lr|device|top|seed)`|Traceback", ended.stderr)
    left = [path for path in (tmp_path / "out").glob("*") if not path.name.startswith((".lossbuf", "unfinished-"))]
    assert left == []


def test_too_little_memory_is_one_line(capsys):
    with pytest.raises(typer.Exit) as ended, told_errors():
        raise MemoryError("Unable to allocate 819. TiB")
    assert ended.value.exit_code == 1
    assert "there is not enough memory (Unable to allocate 819. TiB): take smaller images" in capsys.readouterr().err


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
