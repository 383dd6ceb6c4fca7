"""The ``lossbuf`` command, whole: what :mod:`lossbuf.cli` has, and ``lossbuf coreset`` and ``lossbuf condense``."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer

from lossbuf.checks import LossBufferWarning
from lossbuf.cli import (
    Device,
    ImageColumn,
    Label,
    Links,
    Overwrite,
    RowId,
    Seed,
    Size,
    app,
    read_told,
    tell,
    told_errors,
)
from lossbuf.inputs import InputError, LabelledData, ReadSettings
from lossbuf.locks import alone_in

if TYPE_CHECKING:
    from condensation.artifact import CondensedSet
    from condensation.pipeline import CleanAndCondense

CORESETS = ("random", "herding", "k-center", "k-means", "forgetting", "gradient-norm", "craig", "crust")
CONDENSERS = {"dm": 2000, "dsa": 200, "dc": 200}
"""Methods that learn images, and their iterations by default: a tenth or less of the published, for a start."""

Data = Annotated[Path, typer.Argument(help="Folder of a finished scan, or data as `lossbuf scan` takes them.")]


@app.command()
def coreset(
    path: Data,
    out: Annotated[Path, typer.Option(help="Folder for coreset.csv and coreset.npz.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(CORESETS)}.")] = "herding",
    ipc: Annotated[int | None, typer.Option(min=1, help="Rows a class (default: 10).")] = None,
    size: Annotated[float | None, typer.Option(help="Rows in all, or a share of them below 1, by class.")] = None,
    label: Label = None,
    image: ImageColumn = None,
    row_id: RowId = None,
    image_size: Size = None,
    follow_links: Links = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Choose a few rows that stand for all: of a scan's clean rows, or of data taken as they are."""
    with told_errors():
        _check_one_of("method", method, CORESETS)
        if ipc is not None and size is not None:
            raise InputError(f"`size` must be left out where `ipc` is given, got {size:g}.")
        asked: dict[str, Any] = {"ipc": ipc or 10} if size is None else {"size": _size(size)}
        read = ReadSettings(label=label, image=image, row_id=row_id, image_size=image_size, follow_links=follow_links)
        _check_outside(path, out)
        with alone_in(out):
            files = _files(out, ("coreset.csv", "coreset.npz", "coreset.png"), overwrite)
            data, chosen, made = _made(path, read, _coreset(method, asked), seed)
            _save(made, data, files[1], files[2])
            _write_rows(files[0], data, made, chosen)
        typer.echo(f"{len(made)} rows of {len(chosen.kept_indices_)}; {out}")


@app.command()
def condense(
    path: Data,
    out: Annotated[Path, typer.Option(help="Folder for condensed.npz and condensed.png.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(CONDENSERS)}.")] = "dm",
    ipc: Annotated[int, typer.Option(min=1, help="Images a class.")] = 10,
    iterations: Annotated[int | None, typer.Option(min=1, help="Steps (default: dm 2000, dsa and dc 200).")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the images (default: the published).")] = None,
    soft_labels: Annotated[bool, typer.Option("--soft-labels", help="Label the images by a network of all.")] = False,
    label: Label = None,
    image: ImageColumn = None,
    row_id: RowId = None,
    image_size: Size = None,
    follow_links: Links = False,
    device: Device = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Learn a few images that train as well as all: from a scan's clean rows, or from data taken as they are."""
    with told_errors("What was learned is kept, at most 10 seconds of it lost: the same with --resume goes on."):
        _check_one_of("method", method, tuple(CONDENSERS))
        read = ReadSettings(label=label, image=image, row_id=row_id, image_size=image_size, follow_links=follow_links)
        names = ("condensed.npz", "condensed.png", "condense.pt")
        _check_outside(path, out)
        settings: dict[str, Any] = {"ipc": ipc, "iterations": iterations or CONDENSERS[method], "device": device}
        settings |= {"progress": True} | ({} if lr is None else {"lr": lr})
        make = _condenser(method, settings, soft_labels)
        with alone_in(out):
            files = _files(out, names, overwrite, resume)
            checkpoint = None if soft_labels else files[2]
            data, pipeline, made = _made(path, read, make, seed, checkpoint)
            _save(made, data, files[0], files[1])
            files[2].unlink(missing_ok=True)
        typer.echo(f"{len(made)} images learned from {len(pipeline.kept_indices_)}; {out}")


def _made(
    path: Path, read: ReadSettings, make: Callable[[], Any], seed: int, checkpoint: Path | None = None
) -> tuple[LabelledData, Any, CondensedSet]:
    """The data, the fitted pipeline and the set that it made."""
    from condensation.pipeline import CleanAndCondense
    from lossbuf.scan import ScanFolder, load_scan

    cleaner = None
    if ScanFolder(path).about.is_file():
        from sklearn.frozen import FrozenEstimator

        scan = load_scan(path)
        data = scan.data
        cleaner = FrozenEstimator(scan.selector())
        kept = int((~scan.suspect_mask).sum())
        tell(f"{kept:,} clean rows of {len(data):,}")
    else:
        data = read_told(path, read)
        tell("labels are taken as they are: scan first to leave wrong ones out.", "note")
    pipeline: CleanAndCondense = CleanAndCondense(cleaner=cleaner, condenser=make(), random_state=seed)
    with _told_warnings(data.class_names):
        pipeline.fit(data.x, data.labels, checkpoint=checkpoint)
    made = replace(pipeline.condensed_set(), class_names=data.class_names)
    return data, pipeline, made


@contextmanager
def _told_warnings(class_names: Sequence[str]) -> Iterator[None]:
    """Our warnings as notes, with the names of classes that have few rows; others go on as they came."""
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        yield
    for record in records:
        if issubclass(record.category, LossBufferWarning):
            tell(re.sub(r"\b(\d+) has", lambda match: f"{class_names[int(match[1])]} has", str(record.message)), "note")
        else:
            warnings.warn_explicit(record.message, record.category, record.filename, record.lineno)


def _coreset(method: str, asked: dict[str, Any]) -> Callable[[], Any]:
    def make() -> Any:
        from condensation import coresets as c

        features = c.NetworkFeatures()
        return {
            "random": lambda: c.Random(**asked),
            "herding": lambda: c.Herding(**asked, features=features),
            "k-center": lambda: c.KCenter(**asked, features=features),
            "k-means": lambda: c.KMeans(**asked, features=features),
            "forgetting": lambda: c.Forgetting(**asked),
            "gradient-norm": lambda: c.GradientNorm(**asked),
            "craig": lambda: c.Craig(**asked),
            "crust": lambda: c.Crust(**asked),
        }[method]()

    return make


def _condenser(method: str, settings: dict[str, Any], soft_labels: bool) -> Callable[[], Any]:
    def make() -> Any:
        from condensation.distillation import KnowledgeDistillation
        from condensation.matching import DistributionMatching, GradientMatching
        from condensation.siamese import SiameseAugmentation

        if method == "dm":
            made = DistributionMatching(**settings)
        else:
            made = GradientMatching(**settings, augment=SiameseAugmentation() if method == "dsa" else None)
        return KnowledgeDistillation(made) if soft_labels else made

    return make


def _save(made: CondensedSet, data: LabelledData, path: Path, picture: Path) -> None:
    made.save(path)
    if data.has_images and data.x.shape[1] in (1, 3):
        made.save_images(picture)


def _write_rows(path: Path, data: LabelledData, made: CondensedSet, pipeline: CleanAndCondense) -> None:
    from lossbuf.safe_csv import write_csv

    rows = pipeline.kept_indices_[pipeline.condenser_.sample_indices_]
    columns: dict[str, Any] = {
        "row": rows,
        "id": [data.ids[row] for row in rows],
        "label": [data.class_names[label] for label in data.labels[rows]],
    }
    if made.weights is not None:
        columns["weight"] = made.weights.numpy()
    write_csv(path, pd.DataFrame(columns))


def _check_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")


def _size(size: float) -> int | float:
    if not math.isfinite(size) or size <= 0 or (size >= 1 and size != int(size)):
        raise InputError(f"`size` must be a share below 1 or a whole number of rows, got {size:g}.")
    return size if size < 1 else int(size)


def _check_outside(path: Path, out: Path) -> None:
    """Refuse a folder for results that would be read as a part of the source."""
    if path.is_dir() and not (path / "scan.json").is_file() and out.resolve().is_relative_to(path.resolve()):
        raise InputError(f"`out` must lie outside the folder of images, got {out}.")


def _files(out: Path, names: tuple[str, ...], overwrite: bool, resume: bool = False) -> list[Path]:
    """The files to write; refused where they are there."""
    files = [out / name for name in names]
    there = [file for file in files if file.exists()]
    if there and overwrite:
        for file in there:
            file.unlink()
    elif there and not (resume and files[-1] in there):  # a finished run has no checkpoint to go on from
        mend = ", `--resume` goes on" if len(names) > 2 and there == [files[2]] and names[2].endswith(".pt") else ""
        raise InputError(f"{out} holds {there[0].name} already: `--overwrite` replaces it{mend}.")
    return files


def main() -> None:
    """Run the command."""
    app()
