"""Everything that writes a file, in one form: what is saved, where, and what a file holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks.reliability.children import digest
from benchmarks.reliability.jobs import callback_of, digits
from condensation.artifact import CondensedSet
from condensation.coresets import Random
from lossbuf.files import load_tensors, save_tensors
from lossbuf.files.safe_csv import read_csv, write_csv
from lossbuf.report import PageContent
from lossbuf.report.page import save_page


class Writer(NamedTuple):
    """Something that can be saved.

    Attributes:
        save: Writes it to a file.
        state: Tells what is in memory.
        held: Tells what a file holds; raises ``ValueError`` where that is damaged.
    """

    save: Callable[[Path], Any]
    state: Callable[[], str]
    held: Callable[[Path], str]


def callback(which: int = 0) -> Writer:
    """A callback in the middle of its second epoch."""
    _, labels = digits()
    made, draws = callback_of("filter", labels), torch.Generator().manual_seed(which)
    for step in range(15):
        rows = torch.arange(step * 30, step * 30 + 30) % 300
        made.loss(torch.randn(30, 10, generator=draws), torch.from_numpy(labels)[rows], rows)
        if step == 9:
            made.end_epoch()

    def held(path: Path) -> str:
        other = callback_of("filter", labels)
        other.load(path)
        return digest(dict(other.state_dict()))

    return Writer(made.save, lambda: digest(dict(made.state_dict())), held)


def tensors(which: int = 0) -> Writer:
    """The state of a run, as a training and a condensation write it."""
    content = {"kind": "box", "x": torch.randn(300, 100, generator=torch.Generator().manual_seed(which)), "step": which}
    return Writer(
        lambda path: save_tensors(path, content),
        lambda: digest(content),
        lambda path: digest(load_tensors(path, "box")),
    )


def small_set(which: int = 0) -> Writer:
    """A coreset."""
    x, y = digits()
    chosen = CondensedSet.of_coreset(Random(ipc=10, random_state=which).fit(x, y), x, y)

    def told(made: CondensedSet) -> str:
        return digest([made.x, made.labels, repr(made.provenance), made.seed])

    return Writer(chosen.save, lambda: told(chosen), lambda path: told(CondensedSet.load(path)))


def table(which: int = 0) -> Writer:
    """A table of suspects."""
    draws = np.random.default_rng(which)
    made = pd.DataFrame({"id": [f"row {row}" for row in range(2000)], "suspicion": draws.random(2000).astype(str)})
    return Writer(
        lambda path: write_csv(path, made),
        lambda: digest(made.to_numpy().tolist()),
        lambda path: digest(read_csv(path).to_numpy().tolist()),
    )


def page(which: int = 0) -> Writer:
    """The page of a scan."""
    draws = np.random.default_rng(which)
    suspicion = draws.normal(0, 3, 400)
    content = PageContent(
        title="Digits",
        class_names=["one", "two"],
        table=pd.DataFrame(
            {
                "id": [f"row {row}" for row in range(400)],
                "given_label": np.arange(400) % 2,
                "suggested_label": (np.arange(400) + 1) % 2,
                "predicted_label": (np.arange(400) + 1) % 2,
                "is_suspect": suspicion > 0,
                "suspicion": suspicion,
                "wrong_probability": 1 / (1 + np.exp(-suspicion)),
                "label_loss": np.abs(suspicion),
            }
        ),
        noise_rate=0.5,
        noise_rate_interval=(0.4, 0.6),
        threshold=0.0,
        transition=np.full((2, 2), 0.5),
        thumbnail=None,
        facts=(),
        skipped=(),
        doubts=(),
    )

    def held(path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        if not text.rstrip().endswith("</html>"):
            raise ValueError("the page is cut off")
        return digest(text)

    from lossbuf.report.page import page as text_of

    return Writer(lambda path: save_page(path, content), lambda: digest(text_of(content)), held)


WRITERS: dict[str, Callable[[int], Writer]] = {
    "LossBufferCallback.save": callback,
    "checkpoints of trainings and condensations": tensors,
    "CondensedSet.save": small_set,
    "CSV tables": table,
    "HTML report": page,
}
