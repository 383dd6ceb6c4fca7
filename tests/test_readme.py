"""README.md says what is true: its snippets run as written, its two commands stand at the top."""

import re
from functools import partial
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from condensation.evaluate import EvalSettings, evaluate
from lossbuf.networks import MLP
from lossbuf.noise import corrupt, symmetric
from lossbuf.training import seeded

README = Path(__file__).parents[1] / "README.md"


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_two_commands_stand_at_the_top():
    commands = [line.strip() for line in README.read_text().splitlines() if line.startswith("    ")][:2]
    assert commands == [
        "pip install -e . && python -m benchmarks.noisy --noise 0.4",
        'pip install -e ".[test]" && pytest',
    ]


def test_callback_snippet_finds_wrong_labels():
    x, y = load_digits(return_X_y=True)
    noisy = corrupt(y, symmetric(10, 0.2), 0)
    with seeded(0, torch.device("cpu")):
        model = MLP(64, 10)
        scope = {
            "my_dataset": TensorDataset(torch.tensor(x / 16, dtype=torch.float32), torch.from_numpy(noisy.labels)),
            "model": model,
            "optimizer": torch.optim.Adam(model.parameters(), 1e-3),
            "epochs": 8,
        }
        exec(snippets()[0], scope)
    suspects = scope["suspects"]
    assert noisy.noise_mask[suspects.index].mean() > 0.9
    assert len(scope["clean"]) == len(y) - len(suspects)


def test_selector_snippet_cleans_arrays():
    x, y = load_digits(return_X_y=True)
    noisy = corrupt(y, symmetric(10, 0.2), 0)
    scope = {"X": x, "y": noisy.labels}
    exec(snippets()[1], scope)
    kept = scope["selector"].sample_indices_
    assert len(scope["X_clean"]) == len(scope["y_clean"]) == len(kept)
    assert noisy.noise_mask[kept].mean() < 0.05


def test_coreset_snippet_chooses_from_cleaned_arrays():
    x, y = load_digits(return_X_y=True)
    scope = {"X_clean": x, "y_clean": y}
    exec(snippets()[2], scope)
    assert len(scope["X_small"]) == 100
    assert sorted(scope["y_small"]) == sorted(list(range(10)) * 10)


def test_condensed_set_snippet_makes_saves_loads_and_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = load_digits(return_X_y=True)
    x = x[:300].reshape(-1, 1, 8, 8)
    scope = {"X_clean": x[:200], "y_clean": y[:200], "X_test": x[200:], "y_test": y[200:300]}
    code = snippets()[3]
    assert "iterations=1000" in code
    quick = partial(evaluate, settings=EvalSettings(epochs=100))  # in place of 1000
    monkeypatch.setattr("condensation.evaluate.evaluate", quick)
    exec(code.replace("iterations=1000", "iterations=2, init='real', lr=0.01, batch_size=16"), scope)
    assert scope["small"].provenance.n_samples == 200
    assert len(scope["found"].accuracies) == 5
    assert scope["found"].mean > 0.2
    assert capsys.readouterr().out.startswith(f"{scope['found'].mean:.3f} ±")
