"""Run cells of the hard suite one after the other, and skip what is done."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

import torch
from joblib import Parallel, delayed
from rich.console import Console

from benchmarks.common import results
from benchmarks.common.data import DataError
from benchmarks.hard.cell import Cell
from benchmarks.hard.data import LOADERS, Folders, HardData
from benchmarks.hard.suite import Settings


@lru_cache(maxsize=2)
def _loaded(name: str, folders: Folders) -> HardData:
    return LOADERS[name](folders)


def run_cell(
    settings: Settings,
    out: Path,
    folders: Folders,
    device: str | None = None,
    *,
    renew: bool = False,
    peers: bool = True,
    ours: bool = True,
) -> bool:
    """Compute what a cell does not have yet.

    The peers come first and are saved by themselves. Ours is added to what was saved, now or in a later run.

    Args:
        settings: The cell.
        out: Folder of the results; the cell is ``DATASET/NAME.json`` in it.
        folders: Where data lies.
        device: Where to train; by default a GPU where there is one.
        renew: Compute ours anew in a cell that is done, and leave one alone that is not.
        peers: Compute the peers too. Without them the cell has a file of its own.
        ours: Compute ours too.

    Returns:
        Whether anything was computed.

    Raises:
        DataError: If data is missing.
    """
    path = out / settings.dataset / f"{settings.name}{'' if peers else '-no-peers'}.json"
    described = settings.described()
    done = results.values_of(path, described)
    if renew and done is None:
        return False
    if done is not None and not (ours and (renew or "ours" not in done["methods"])):
        return False
    cell = Cell(_loaded(settings.entry.data, folders), settings, device)
    if done is None:
        results.cell(path, described, cell.by_peers if peers else cell.facts)
    if ours:
        own = cell.own()
        results.renew(path, described, lambda values: {**values, **own, "methods": values["methods"] | own["methods"]})
    return True


def run(
    todo: list[Settings],
    out: Path,
    folders: Folders,
    device: str | None = None,
    *,
    renew: bool = False,
    peers: bool = True,
    ours: bool = True,
    jobs: int = 1,
) -> None:
    """Compute cells, in their order; say in one line how long each took.

    A data set whose files are missing is skipped, with one line that says so. Arguments are those of :func:`run_cell`;
    ``jobs`` cells run at a time, with one thread each if there are several.
    """
    console = Console()

    def one(settings: Settings) -> str | None:
        if jobs > 1:
            torch.set_num_threads(1)
        start = time.perf_counter()
        try:
            computed = run_cell(settings, out, folders, device, renew=renew, peers=peers, ours=ours)
        except DataError as error:
            return str(error)
        if computed:
            seconds = time.perf_counter() - start
            Console().print(f"{settings.name}: {seconds:.1f} s", highlight=False, soft_wrap=True)
        return None

    skipped: dict[str, str] = {}
    found = Parallel(n_jobs=jobs)(delayed(one)(settings) for settings in todo)
    for settings, problem in zip(todo, found, strict=True):
        if problem is not None:
            skipped[settings.dataset] = problem
    for dataset, problem in skipped.items():
        console.print(f"{dataset} is skipped: {problem}", highlight=False, soft_wrap=True)
