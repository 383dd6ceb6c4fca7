"""Damaged and hostile files for every loader: each is read as it was, or refused in one clear line.

    python -m benchmarks.reliability.fuzz --count 10000 --seed 0 --out fuzz.json

A file is right where its load gives the whole file's content or, where the format has no checksums or somebody made the
file, another; or where it is refused by one of the documented errors, whose message is one line that names the file. It
is wrong where anything else happens: another error, a message of many lines, a warning of a library, something written
to the terminal, code that runs, a crash, more than :data:`~benchmarks.reliability.limits.SECONDS` or
:data:`~benchmarks.reliability.limits.MEBIBYTES`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from benchmarks.common.results import environment, write_json
from benchmarks.reliability import hostile
from benchmarks.reliability.content import changed
from benchmarks.reliability.damage import AT_RANDOM
from benchmarks.reliability.limits import Outcome, Watched
from benchmarks.reliability.samples import LOADERS, Loader, copy_sample, make_samples

DAMAGES = (*AT_RANDOM, *hostile.ON_PURPOSE, "other content", "odd zip file")


def loads() -> dict[str, Callable[[Path], str]]:
    """The functions to load by."""
    return {loader.name: loader.load for loader in LOADERS}


def pairs(loaders: Sequence[Loader] = LOADERS) -> list[tuple[Loader, str]]:
    """Every loader with every damage that its form can have."""
    zipped = ("npz", "torch")
    return [(one, kind) for kind in DAMAGES for one in loaders if kind != "odd zip file" or one.form in zipped]


def damage(file: Path, form: str, kind: str, draws: np.random.Generator, canary: Path) -> None:
    """Put a damaged file in the place of a whole one."""
    if kind in AT_RANDOM:
        file.write_bytes(AT_RANDOM[kind](file.read_bytes(), draws))
    elif kind == "other content":
        changed(file, form, draws, canary)
    elif kind == "odd zip file":
        hostile.odd_zip(file, form, draws, canary)
    else:
        hostile.ON_PURPOSE[kind](file, form, draws, canary)


def fuzz(count: int, seed: int, *, loaders: Sequence[Loader] = LOADERS, progress: bool = False) -> list[dict[str, Any]]:
    """Try so many files, as many of each damage for each loader.

    Args:
        count: Files in all.
        seed: Number ``i`` of ``count`` is the same file whenever it is made.
        loaders: Which to try.
        progress: Show a progress bar, on a terminal only.

    Returns:
        A row for each loader and damage: ``loader``, ``damage``, ``tried``, ``same`` (as the whole file), ``other``
        (content), ``refused``, ``failed``, ``seconds`` and ``mebibytes`` (the worst), ``failures`` (up to five texts).
    """
    rows = {(one.name, kind): _row(one.name, kind) for one, kind in pairs(loaders)}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve()
        samples = make_samples(root / "samples")
        worker = Watched(loads, [(one.name, str(samples[one.name])) for one in loaders])
        try:
            whole = {
                one.name: worker.load(one.name, samples[one.name], samples[one.name], root / "ran") for one in loaders
            }
            for number in tqdm(range(count), "files", leave=False, disable=None if progress else True):
                loader, kind = pairs(loaders)[number % len(rows)]
                folder, canary = root / "work", root / "ran"
                copy_sample(samples[loader.name], folder)
                damage(folder / loader.file, loader.form, kind, np.random.default_rng([seed, number]), canary)
                found = worker.load(loader.name, folder, folder / loader.file, canary)
                found = _held_against(whole[loader.name], found, loader.checked and kind in AT_RANDOM)
                _count(rows[loader.name, kind], found, f"{seed}/{number}")
        finally:
            worker.close()
    return [row for row in rows.values() if row["tried"]]


def _row(loader: str, kind: str) -> dict[str, Any]:
    counts = dict.fromkeys(("tried", "same", "other", "refused", "failed"), 0)
    return {"loader": loader, "damage": kind, **counts, "seconds": 0.0, "mebibytes": 0.0, "failures": []}


def _held_against(whole: Outcome, found: Outcome, must_be_same: bool) -> Outcome:
    if found.state != "loaded":
        return found
    if found.text == whole.text:
        return found._replace(state="same")
    if must_be_same:
        return found._replace(state="failed", text="loaded other content than was saved")
    return found._replace(state="other")


def _count(row: dict[str, Any], found: Outcome, number: str) -> None:
    row["tried"] += 1
    row[found.state] += 1
    row["seconds"] = round(max(row["seconds"], found.seconds), 3)
    row["mebibytes"] = round(max(row["mebibytes"], found.mebibytes), 1)
    if found.state == "failed" and len(row["failures"]) < 5:
        row["failures"].append(f"{number}: {found.text}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="loaders whose name holds this")
    asked = parser.parse_args()
    loaders = [one for one in LOADERS if asked.only in one.name]
    rows = fuzz(asked.count, asked.seed, loaders=loaders, progress=True)
    write_json(asked.out, {"count": asked.count, "seed": asked.seed, "environment": environment(), "rows": rows})
    total = Counter({key: sum(row[key] for row in rows) for key in ("tried", "same", "other", "refused", "failed")})
    tqdm.write(f"{dict(total)}, worst {max(row['seconds'] for row in rows)} s, "
               f"{max(row['mebibytes'] for row in rows)} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
