"""``lossbuf scan`` and ``lossbuf apply``: from labels as they are to labels that were looked at.

Exit status: 0 all is done; 2 an option or the input is wrong, with a line that says what; 130 stopped by Ctrl-C, with
what was done kept; 1 anything else, such as a full disk. Results go to files and one line to standard output, all else
to standard error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import typer

import lossbuf
from lossbuf.cli.terminal import open_streams, options_in, say, tell, tell_table, told_errors
from lossbuf.errors import InputError
from lossbuf.inputs import LabelledData, ReadSettings, read_labelled

if TYPE_CHECKING:
    from lossbuf.arrays.image_layout import Layout
    from lossbuf.inputs.classes import Alike
    from lossbuf.scan import Scan

app = typer.Typer(
    help="Find wrong labels in one training, look at them, correct them; shrink what is left to a small set.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FEW_IMAGES = 1000
"""With fewer images a scan says so."""

Source = Annotated[Path, typer.Argument(help="Image folder (a subfolder a class), .csv, .tsv, .parquet or .npz.")]
Label = Annotated[str | None, typer.Option(help="Column, or array, of labels (default: a usual name).")]
ImageColumn = Annotated[
    str | None, typer.Option("--image", help="Column of image paths, or none (default: a usual name).")
]
RowId = Annotated[str | None, typer.Option("--id", help="Column, or array, of row names.")]
Size = Annotated[
    int | None, typer.Option("--image-size", min=4, help="Pixels that images are brought to (default: at most 64).")
]
Links = Annotated[bool, typer.Option("--follow-links", help="Read what links out of the folder lead to.")]
Channels = Annotated[str | None, typer.Option(help="Where images of an .npz have their channels: first or last.")]
AlikeClasses = Annotated[
    str | None, typer.Option("--alike", help="Classes whose names look alike: merge or keep (default: merge most).")
]
Device = Annotated[str | None, typer.Option(help="Where to train (default: the GPU where there is one).")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")]


def out_path(text: str | Path) -> Path:
    """The place of an output. An empty text, as of a variable that is not set, is none: it would mean this folder.

    Raises:
        typer.BadParameter: If it is empty.
    """
    if text == "":
        raise typer.BadParameter("must be the name of a folder or file, got nothing")
    return Path(text)


def read_settings(
    label: str | None,
    image: str | None,
    row_id: str | None,
    size: int | None,
    links: bool,
    channels: str | None,
    alike: str | None,
) -> ReadSettings:
    """The options on how to read a source.

    Raises:
        InputError: If one has no meaning.
    """
    if channels not in (None, "first", "last"):
        raise InputError(f"`--channels` must be first or last, got {channels!r}.")
    if alike not in (None, "merge", "keep"):
        raise InputError(f"`--alike` must be merge or keep, got {alike!r}.")
    return ReadSettings(
        label=label,
        image=image,
        row_id=row_id,
        image_size=size,
        follow_links=links,
        channels=cast("Layout | None", channels),
        alike=cast("Alike | None", alike),
    )


def read_told(source: Path, settings: ReadSettings) -> LabelledData:
    """Read the source, and tell what a user should know of it."""
    data = read_labelled(source, settings)
    kind = "images" if data.has_images else "rows"
    skipped = f", {len(data.skipped):,} skipped" if data.skipped else ""
    tell(f"{len(data):,} {kind} of {len(data.class_names):,} classes in {source}{skipped}")
    for note in data.notes:
        tell(options_in(note), "note")
    for name, reason in data.skipped[:5]:
        tell(f"{name}: {reason}", "skipped")
    if len(data.skipped) > 5:
        tell(f"and {len(data.skipped) - 5:,} more", "skipped")
    return data


def no_device(device: str) -> str:
    """Why a device cannot be used."""
    import torch

    if not device.startswith("cuda"):
        return "there is no such device"
    if not torch.cuda.is_available():
        return "no GPU was found"
    return f"{torch.cuda.device_count()} GPU was found" if torch.cuda.device_count() == 1 else "there is no such GPU"


def check_device(device: str | None) -> None:
    """Raise ``InputError`` where nothing can be computed on a device; by default there is always one."""
    import torch

    if device is None:
        return
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"`--device` must be a device of this machine, got {device!r}: {no_device(device)}."
        ) from error


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(lossbuf.__version__)
        raise typer.Exit
    return asked


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find wrong labels in one training, look at them, correct them; shrink what is left to a small set."""
    open_streams()


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(lossbuf.__version__)


@app.command()
def scan(
    path: Source,
    out: Annotated[Path, typer.Option(parser=out_path, metavar="PATH", help="Folder for the results.")],
    label: Label = None,
    image: ImageColumn = None,
    row_id: RowId = None,
    image_size: Size = None,
    follow_links: Links = False,
    channels: Channels = None,
    alike: AlikeClasses = None,
    network: Annotated[str, typer.Option(help="auto, mlp, convnet, resnet9 or resnet18.")] = "auto",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 20,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows a step (default: 128, of few images 32 or 64).")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate; 0.05, or 0.02 for small tables.", show_default=False)
    ] = None,
    augment: Annotated[bool, typer.Option(help="Shift images at random.")] = True,
    noise_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of wrong labels, if known (default: estimated).")
    ] = None,
    max_fdr: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest share of right labels among the suspects.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Take the worst TOP rows for suspects.")] = None,
    planted: Annotated[
        float, typer.Option(min=0, max=0.2, help="Share of labels to get wrong on purpose, to see how many are found.")
    ] = 0.0,
    seed: Seed = 0,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a scan that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Find wrong labels: train once, and write issues.csv, clean.csv, report.html and summary.json."""
    from lossbuf.scan import ScanFolder, ScanSettings
    from lossbuf.scan import scan as run

    with told_errors("The training up to its last whole epoch is kept: the same command with --resume goes on."):
        settings = ScanSettings(
            network=network,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            augment=augment,
            noise_rate=noise_rate,
            max_fdr=max_fdr,
            top=top,
            planted=planted,
            seed=seed,
            device=device,
        )
        read = read_settings(label, image, row_id, image_size, follow_links, channels, alike)
        check_device(device)
        folder = ScanFolder(out)
        folder.results.check_places([path], replacing=resume or overwrite)
        data = read_told(path, read)
        folder.results.check_unread(data.files)
        settings.check_fits(data)
        with folder.held():
            folder.begin(path, data, read, settings, resume=resume, overwrite=overwrite)
            result = run(data, settings, checkpoint=folder.state, progress=True)
            folder.write(result, path)
        _tell(result, folder.path)


def _tell(result: Scan, out: Path) -> None:
    verdict, data = result.verdict, result.data
    for doubt in result.doubts:
        tell(doubt, "doubt")
    columns = ["id", "given_label", "suggested_label", "wrong_probability"]
    worst = [
        [str(name), data.class_names[given], data.class_names[suggested], f"{wrong:.3f}"]
        for name, given, suggested, wrong in result.table.query("is_suspect").head(5)[columns].to_numpy()
    ]
    if worst:
        tell_table("Most suspect", ["id", "given", "suggested", "wrong with probability"], worst, right=1)
    for text in _cautions(result):
        tell(text, "note")
    tell(f"Open {out / 'report.html'} to look through them.")
    low, high = verdict.noise_rate_interval or (verdict.noise_rate, verdict.noise_rate)
    suspects, doubts = int(result.suspect_mask.sum()), len(result.doubts)
    rate = f"noise rate {verdict.noise_rate:.3f} ({low:.3f} to {high:.3f})"
    if result.settings.noise_rate is not None:
        rate = f"noise rate {verdict.noise_rate:.3f} as given ({low:.3f} to {high:.3f} estimated)"
    told = "" if not doubts else "1 doubt above; " if doubts == 1 else f"{doubts} doubts above; "
    say(f"{suspects} suspects of {len(data)} rows; {rate}; {told}{out}")


def _cautions(result: Scan) -> list[str]:
    """What to keep in mind with the counts: classes of which most rows are suspects, and few images to learn from."""
    data, suspects = result.data, result.suspect_mask
    rows = np.bincount(data.labels, minlength=len(data.class_names))
    flagged = np.bincount(data.labels[suspects], minlength=len(data.class_names))
    most = [
        f"{flagged[number]:,} of {rows[number]:,} rows of class {data.class_names[number]!r}"
        for number in np.flatnonzero(2 * flagged > rows)
    ]
    found = []
    if most:
        more = f", and most of {len(most) - 5} more classes" if len(most) > 5 else ""
        found.append(f"Suspects are {', '.join(most[:5])}{more}: which labels are wrong is then a matter of names.")
    if data.has_images and len(data) < FEW_IMAGES:
        found.append(
            f"There are only {len(data):,} images: of under {FEW_IMAGES:,} a network learns little, so look closely."
        )
    return found


@app.command()
def apply(
    scan: Annotated[Path, typer.Argument(help="Folder of a finished scan.")],
    decisions: Annotated[
        Path | None, typer.Argument(help="CSV from the scan's page; without it none is decided.")
    ] = None,
    out: Annotated[
        Path, typer.Option(parser=out_path, metavar="PATH", help="CSV file: id, label, given_label, decision.")
    ] = Path("labels.csv"),
    undecided: Annotated[str, typer.Option(help="What becomes of other suspects: keep, drop or relabel.")] = "keep",
    overwrite: Overwrite = False,
) -> None:
    """Write the labels of all rows with the decisions carried out."""
    from lossbuf.files.safe_csv import write_csv
    from lossbuf.results import Kind, ResultFolder
    from lossbuf.scan import ScanFolder
    from lossbuf.scan.decisions import corrected_labels, n_undecided

    with told_errors():
        if out.name in ("", "..") or out.name.startswith(".lossbuf."):
            raise InputError(f"`--out` must be the name of a file, got {out}.")
        results = ResultFolder(out.parent, Kind("file of labels", (out.name,)))
        folder = ScanFolder(scan)
        source = folder.read_about().get("source") if folder.about.is_file() else None
        read = [scan, *map(Path, filter(None, (source, decisions)))]
        results.check(read, overwrite=overwrite)
        labels = corrected_labels(scan, decisions, undecided=undecided)
        with results.draft(inputs=read, overwrite=overwrite) as draft:
            write_csv(draft.file(out.name), labels)
            results.commit(draft)
        changed = int(np.sum(labels["label"].to_numpy() != labels["given_label"].to_numpy()))
        left = n_undecided(scan, decisions)
        what = {"keep": "keep their label", "drop": "are dropped", "relabel": "get the suggested label"}[undecided]
        if left:
            tell(f"{left:,} suspects without a decision {what} (`--undecided` decides).", "note")
        say(f"{len(labels)} labels, {changed} of them changed; {out}")
