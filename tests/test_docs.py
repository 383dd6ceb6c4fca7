"""The snippets of docs/coresets.md and docs/condensation.md run as written, those that learn with few iterations."""

import re
from pathlib import Path

import torch
from sklearn.datasets import load_digits

from lossbuf.networks import ConvNet
from lossbuf.training import TrainSettings, build, train

DOCS = Path(__file__).parents[1] / "docs"


def snippets(page: str = "coresets.md") -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


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
