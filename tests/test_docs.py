"""The snippets of docs/ run as written, those that learn with few iterations, and the pages build without a warning."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from condensation.cli import app
from lossbuf.networks import ConvNet
from lossbuf.training import TrainSettings, build, train

DOCS = Path(__file__).parents[1] / "docs"
WHOLE = (
    "start.md",
    "training-loop.md",
    "arrays.md",
    "scores.md",
    "cut.md",
    "interchange.md",
    "figures.md",
    "streams.md",
)
"""Pages whose snippets are one program."""


def snippets(page: str = "coresets.md") -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_every_page_with_snippets_is_run():
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "```python" in path.read_text()}
    others = {"coresets.md", "condensation.md"}  # below
    frameworks = {path for path in pages if path.startswith("frameworks/")}  # in tests/integrations
    assert pages == {*WHOLE, *others, *frameworks}


@pytest.mark.parametrize("page", WHOLE)
def test_a_page_is_a_program(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "__main__"}
    for snippet in snippets(page):
        exec(snippet, scope)


def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch):
    x, y = load_digits(return_X_y=True)
    x, y = x[:300], y[:300]
    monkeypatch.chdir(tmp_path)
    np.savez("arrays.npz", x=x.reshape(-1, 8, 8), y=y)
    pd.DataFrame(x).assign(species=y).to_csv("table.csv", index=False)
    for row, label in enumerate(y):
        Path("photos", str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((x[row].reshape(8, 8) * 15).astype(np.uint8)).save(f"photos/{label}/{row}.png")
    commands = re.findall(r"^\$ (lossbuf .*)$", (DOCS / "command.md").read_text(), re.MULTILINE)
    assert len(commands) == 7
    first_scan = True
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] == "scan":
            words += ["--epochs", "4", *(() if first_scan else ("--overwrite",))]
            first_scan = False
        if words[0] == "apply":
            Path("decisions.csv").write_text("id,given_label,decision,label\n")
            words += ["--overwrite"]
        words = ["2" if word == "500" else word for word in words]  # iterations
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (command, result.output)
    assert Path("small/coreset.npz").exists()
    assert Path("learned/condensed.npz").exists()


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, tmp_path / "site"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "LossBufferCallback" in (tmp_path / "site" / "api" / "lossbuf.html").read_text()


def digits() -> tuple:
    x, y = load_digits(return_X_y=True)
    return x[:600].reshape(-1, 1, 8, 8), y[:600]


def test_a_coreset_of_arrays():
    x, y = digits()
    scope = {"X": x, "y": y}
    exec(snippets()[0], scope)
    assert len(scope["X_small"]) == 100
    assert sorted(scope["y_small"]) == sorted(list(range(10)) * 10)


def test_a_coreset_is_evaluated():
    x, y = digits()
    scope = {"X": x[:500], "X_small": x[:100], "y_small": y[:100], "X_test": x[500:], "y_test": y[500:]}
    exec(snippets()[2], scope)
    assert scope["found"].mean > 0.3
    assert len(scope["found"].accuracies) == 2


def test_one_training_serves_cleaning_and_forgetting():
    x, y = digits()
    scope = {"X": x, "y": y}
    exec(snippets()[1], scope)
    assert len(scope["y_small"]) == 100
    assert len(scope["statistics"].count) == len(scope["rows"])


def test_training_on_a_coreset_chosen_anew():
    x, y = digits()
    settings = TrainSettings(epochs=6, batch_size=64, device="cpu")
    network = build(lambda: ConvNet(1, 10, (8, 8), width=8), settings)
    scope = {
        "x": torch.from_numpy(x / 16).float(),
        "labels": torch.from_numpy(y),
        "network": network,
        "settings": settings,
        "train": train,
    }
    exec(snippets()[3], scope)
    chosen = scope["repicking"].chosen
    assert chosen is not None
    assert 290 <= len(chosen.indices) <= 310


def test_a_coreset_over_shards():
    x, y = digits()
    scope = {"X": x, "y": y}
    for snippet in snippets()[4:]:
        exec(snippet, scope)
        assert sorted(scope["y_small"]) == sorted(list(range(10)) * 10)
    assert scope["sharded"].sample_weight_.shape == (100,)


def test_a_set_is_learned_saved_and_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = digits()
    learn, test, _ = snippets("condensation.md")
    scope = {"X": x[:500], "y": y[:500], "X_test": x[500:], "y_test": y[500:]}
    assert "ipc=1," in learn
    exec(learn.replace("ipc=1,", "ipc=1, iterations=2, init='real', lr=0.01, batch_size=16,"), scope)
    assert scope["images"].shape == (10, 1, 8, 8)
    assert sorted(scope["labels"]) == list(range(10))
    exec(test, scope)
    assert scope["found"].mean > 0.3


def test_noisy_rows_to_a_small_set():
    x, y = digits()
    scope = {"X": x, "y": y}
    exec(snippets("condensation.md")[2], scope)
    assert len(scope["small"]) == 100
    assert scope["small"].provenance.cleaning.name == "LossBufferSelector"
