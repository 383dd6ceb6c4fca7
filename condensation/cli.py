"""The whole ``lossbuf`` command: that of :mod:`lossbuf.cli`, with ``lossbuf coreset`` and ``lossbuf condense``."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import pandas as pd
import typer

from lossbuf.cli.commands import (
    AlikeClasses,
    Channels,
    Device,
    ImageColumn,
    Label,
    Links,
    Overwrite,
    RowId,
    Seed,
    Size,
    app,
    check_device,
    out_path,
    read_settings,
    read_told,
)
from lossbuf.cli.terminal import closed_quietly, options_in, printable, say, tell, told_errors
from lossbuf.errors import InputError, LossBufferWarning
from lossbuf.files import write_whole
from lossbuf.inputs import LabelledData, ReadSettings
from lossbuf.results import Kind, ResultFolder

if TYPE_CHECKING:
    from condensation.artifact import CondensedSet
    from condensation.pipeline import CleanAndCondense

CORESETS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "random": lambda coresets, size: coresets.Random(**size),
    "herding": lambda coresets, size: coresets.Herding(**size, features=coresets.NetworkFeatures()),
    "k-center": lambda coresets, size: coresets.KCenter(**size, features=coresets.NetworkFeatures()),
    "k-means": lambda coresets, size: coresets.KMeans(**size, features=coresets.NetworkFeatures()),
    "forgetting": lambda coresets, size: coresets.Forgetting(**size),
    "gradient-norm": lambda coresets, size: coresets.GradientNorm(**size),
    "craig": lambda coresets, size: coresets.Craig(**size),
    "crust": lambda coresets, size: coresets.Crust(**size),
}
"""Methods that choose rows, made from :mod:`condensation.coresets`, which takes seconds to import, and the size."""

CONDENSERS = {"dm": 2000, "dsa": 200, "dc": 200}
"""Methods that learn images, and their iterations by default: a tenth or less of the published, for a start."""

CORESET = Kind("coreset", ("coreset.csv", "coreset.npz", "coreset.png"))
CONDENSED = Kind("condensation", ("condensed.npz", "condensed.png"), state="condense.pt")
"""What the two commands leave."""

Data = Annotated[Path, typer.Argument(help="Folder of a finished scan, or data as `lossbuf scan` takes them.")]


@app.command()
def coreset(
    path: Data,
    out: Annotated[Path, typer.Option(parser=out_path, metavar="PATH", help="Folder for coreset.csv and coreset.npz.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(CORESETS)}.")] = "herding",
    ipc: Annotated[int | None, typer.Option(min=1, help="Rows a class (default: 10).")] = None,
    size: Annotated[float | None, typer.Option(help="Rows in all, or a share of them below 1, by class.")] = None,
    label: Label = None,
    image: ImageColumn = None,
    row_id: RowId = None,
    image_size: Size = None,
    follow_links: Links = False,
    channels: Channels = None,
    alike: AlikeClasses = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Choose a few rows that stand for all: of a scan's clean rows, or of data taken as they are."""
    with told_errors():
        _check_one_of("method", method, tuple(CORESETS))
        if ipc is not None and size is not None:
            raise InputError(f"`size` must be left out where `ipc` is given, got {size:g}.")
        asked: dict[str, Any] = {"ipc": ipc or 10} if size is None else {"size": _size(size)}
        read = read_settings(label, image, row_id, image_size, follow_links, channels, alike)
        results = ResultFolder(out, CORESET)
        results.check([path], overwrite=overwrite)
        source = _read(path, read)
        results.check_unread(source.data.files)
        with results.draft(inputs=source.paths, overwrite=overwrite) as draft:
            chosen, made = _made(source, _coreset(method, asked), seed)
            _save(made, source.data, draft.file("coreset.npz"), draft.file("coreset.png"))
            _write_rows(draft.file("coreset.csv"), source.data, made, chosen)
            results.commit(draft)
        say(f"{len(made)} rows of {len(chosen.kept_indices_)}; {out}")


@app.command()
def condense(
    path: Data,
    out: Annotated[
        Path, typer.Option(parser=out_path, metavar="PATH", help="Folder for condensed.npz and its picture.")
    ],
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
    channels: Channels = None,
    alike: AlikeClasses = None,
    device: Device = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Learn a few images that train as well as all: from a scan's clean rows, or from data taken as they are."""
    with told_errors("What was learned is kept, at most 10 seconds of it lost: the same with --resume goes on."):
        _check_one_of("method", method, tuple(CONDENSERS))
        read = read_settings(label, image, row_id, image_size, follow_links, channels, alike)
        settings: dict[str, Any] = {"ipc": ipc, "iterations": iterations or CONDENSERS[method], "device": device}
        settings |= {"progress": True} | ({} if lr is None else {"lr": lr})
        make = _condenser(method, settings, soft_labels)
        results = ResultFolder(out, CONDENSED)
        results.check([path], overwrite=overwrite, resume=resume)
        check_device(device)
        source = _read(path, read)
        results.check_unread(source.data.files)
        if not source.data.has_images:
            shape = source.data.x.shape[1:]
            raise InputError(
                f"`condense` learns images, got rows of {shape[0]} features: `lossbuf coreset` takes them."
            )
        asked = {"method": method, "ipc": ipc, "lr": lr, "soft_labels": soft_labels, "seed": seed}
        asked["fingerprint"] = source.data.fingerprint()
        with results.draft(asked, inputs=source.paths, overwrite=overwrite, resume=resume) as draft:
            pipeline, made = _made(source, make, seed, None if soft_labels else draft.state)
            _save(made, source.data, draft.file("condensed.npz"), draft.file("condensed.png"))
            results.commit(draft)
        say(f"{len(made)} images learned from {len(pipeline.kept_indices_)}; {out}")


class _Source(NamedTuple):
    """What is to be shrunk.

    Attributes:
        data: Samples and labels.
        cleaner: Keeps the rows that a scan found clean; ``None`` where all are taken.
        paths: The files and folders that were read.
    """

    data: LabelledData
    cleaner: Any
    paths: list[Path]


def _read(path: Path, read: ReadSettings) -> _Source:
    """A finished scan with the data that it was made of, or data as they are."""
    from lossbuf.scan import ScanFolder, load_scan

    folder = ScanFolder(path)
    folder.results.settle()
    if not folder.about.is_file():
        data = read_told(path, read)
        tell("labels are taken as they are: scan first to leave wrong ones out.", "note")
        return _Source(data, None, [path])
    from sklearn.frozen import FrozenEstimator

    scan = load_scan(path)
    kept = int((~scan.suspect_mask).sum())
    tell(f"{kept:,} clean rows of {len(scan.data):,}")
    return _Source(scan.data, FrozenEstimator(scan.selector()), [path, Path(folder.read_about()["source"])])


def _made(
    source: _Source, make: Callable[[], Any], seed: int, checkpoint: Path | None = None
) -> tuple[CleanAndCondense, CondensedSet]:
    """The fitted pipeline and the set that it made."""
    from condensation.pipeline import CleanAndCondense

    data = source.data
    pipeline: CleanAndCondense = CleanAndCondense(cleaner=source.cleaner, condenser=make(), random_state=seed)
    with _told_warnings(data.class_names):
        pipeline.fit(data.x, data.labels, checkpoint=checkpoint)
    return pipeline, replace(pipeline.condensed_set(), class_names=tuple(map(printable, data.class_names)))


@contextmanager
def _told_warnings(class_names: Sequence[str]) -> Iterator[None]:
    """Our warnings as notes, with the names of classes that have few rows; others go on as they came."""
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        yield
    for record in records:
        if issubclass(record.category, LossBufferWarning):
            named = re.sub(r"\b(\d+) has", lambda match: f"{class_names[int(match[1])]} has", str(record.message))
            tell(options_in(named), "note")
        else:
            warnings.warn_explicit(record.message, record.category, record.filename, record.lineno)


def _coreset(method: str, asked: dict[str, Any]) -> Callable[[], Any]:
    def make() -> Any:
        from condensation import coresets

        return CORESETS[method](coresets, asked)

    return make


def _condenser(method: str, settings: dict[str, Any], soft_labels: bool) -> Callable[[], Any]:
    def make() -> Any:
        from condensation.augmentation.siamese import SiameseAugmentation
        from condensation.distillation import KnowledgeDistillation
        from condensation.matching import DistributionMatching, GradientMatching

        if method == "dm":
            made = DistributionMatching(**settings)
        else:
            made = GradientMatching(**settings, augment=SiameseAugmentation() if method == "dsa" else None)
        return KnowledgeDistillation(made) if soft_labels else made

    return make


def _save(made: CondensedSet, data: LabelledData, path: Path, picture: Path) -> None:
    made.save(path)
    if data.has_images and data.x.shape[1] in (1, 3):
        figure = made.figure(None)  # with the names of the classes
        write_whole(picture, lambda file: figure.savefig(file, format="png", dpi=150))


def _write_rows(path: Path, data: LabelledData, made: CondensedSet, pipeline: CleanAndCondense) -> None:
    from lossbuf.files.safe_csv import write_csv

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


def main() -> None:
    """Run the command."""
    with closed_quietly():
        app()
