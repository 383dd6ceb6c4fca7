"""What ``import lossbuf`` brings with it, in a process of its own."""

import pickle
import subprocess
import sys

import pytest

import lossbuf
from lossbuf.selectors import LossBufferSelector

NOT_IMPORTED = (
    "IPython",
    "PIL",
    "duckdb",
    "jinja2",
    "matplotlib",
    "rich",
    "scipy",
    "sklearn",
    "tensorboard",
    "torchvision",
    "typer",
    "wandb",
)


def in_a_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_heavy_libraries_wait_until_they_are_needed():
    code = (
        "import sys, torch; before = set(sys.modules);"
        "from lossbuf import LossBufferCallback, IndexedDataset, find_label_issues;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    brought = set(in_a_fresh_process(code).split())
    assert {"lossbuf", "pandas"} <= brought
    assert not brought & set(NOT_IMPORTED)


def test_the_package_alone_brings_nothing():
    code = (
        "import sys, lossbuf;"
        "print(lossbuf.__version__, *({'torch', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)));"
        "print(lossbuf.noise.symmetric.__name__, lossbuf.LossBufferCallback.__name__)"
    )
    assert in_a_fresh_process(code).splitlines() == [lossbuf.__version__, "symmetric LossBufferCallback"]


def test_the_selector_comes_on_first_use():
    code = (
        "import sys, pickle, lossbuf; assert 'LossBufferSelector' in dir(lossbuf); assert 'sklearn' not in sys.modules;"
        "selector = lossbuf.LossBufferSelector(epochs=3); assert 'sklearn' in sys.modules;"
        "from lossbuf import LossBufferSelector; assert LossBufferSelector is lossbuf.LossBufferSelector;"
        "print(pickle.loads(pickle.dumps(selector)).epochs)"
    )
    assert in_a_fresh_process(code).strip() == "3"


def test_the_names_are_all_there():
    assert set(lossbuf.__all__) <= set(dir(lossbuf))
    scope: dict = {}
    exec("from lossbuf import *", scope)
    assert set(lossbuf.__all__) <= scope.keys()
    assert scope["LossBufferSelector"] is LossBufferSelector
    assert pickle.loads(pickle.dumps(LossBufferSelector)) is LossBufferSelector


def test_other_names_are_told_as_usual():
    with pytest.raises(AttributeError, match="module 'lossbuf' has no attribute 'nonsense'"):
        lossbuf.nonsense  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
