"""The snippets of docs/coresets.md run as written."""

import re
from pathlib import Path

import torch
from sklearn.datasets import load_digits

from lossbuf.networks import ConvNet
from lossbuf.training import TrainSettings, build, train

PAGE = Path(__file__).parents[1] / "docs" / "coresets.md"


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


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
