"""The snippets of docs/frameworks/ run as written, and find most of the wrong labels."""

import re
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

PAGES = Path(__file__).parents[2] / "docs" / "frameworks"
LIBRARIES = {
    "lightning": "lightning",
    "huggingface": "transformers",
    "accelerate": "accelerate",
    "skorch": "skorch",
    "ignite": "ignite",
}


def test_there_is_a_page_for_each_adapter():
    assert {path.stem for path in PAGES.glob("*.md")} == LIBRARIES.keys()


@pytest.mark.parametrize("page", LIBRARIES)
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")  # Lightning's
def test_a_page_is_a_program(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip(LIBRARIES[page])
    text = (PAGES / f"{page}.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert f'pip install "lossbuf[{page}]"' in text
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "__main__"}
    with torch.random.fork_rng():
        for snippet in snippets:
            exec(compile(snippet, f"{page}.md", "exec"), scope)
    report = scope["callback"].report().sort_index()
    wrong = report.given_label.to_numpy() != load_digits(return_X_y=True)[1][: len(report)]
    seen = report["count"].to_numpy() > 0
    suspect = report.is_suspect.to_numpy()
    assert (wrong & suspect).sum() > 0.8 * (wrong & seen).sum()
    assert (wrong & suspect).sum() > 0.8 * suspect.sum()
    told = capsys.readouterr().out
    assert "suspects; " in told
    if page == "ignite":  # whose second snippet resumes the first
        assert "15 epochs" in told
