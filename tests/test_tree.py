"""The tree stays easy to find one's way in: few modules side by side, short files, imports in one direction."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
PACKAGES = ("lossbuf", "condensation", "benchmarks")


@pytest.mark.parametrize(("package", "most"), [("lossbuf", 12), ("condensation", 8), ("benchmarks", 8)])
def test_few_modules_are_directly_in_a_package(package, most):
    assert len(list((ROOT / package).glob("*.py"))) <= most


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_have_at_most_400_lines(package):
    lines = {path: path.read_text().count("\n") for path in (ROOT / package).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > 400} == {}


def test_imports_keep_the_contracts(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("package", ["lossbuf", "condensation"])
def test_the_architecture_page_names_every_package_and_module(package):
    text = (ROOT / "docs" / "architecture.md").read_text().split(f"### {package}\n")[1].split("\n#")[0]
    parts = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / package).iterdir()
        if not path.name.startswith("__") and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    assert {part for part in parts if f"`{part}`" not in text} == set()
