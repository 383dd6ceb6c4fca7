"""Every place where a file of a user is read: a small whole sample of it, and the reading."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from benchmarks.common import labels as label_files
from benchmarks.common.results import read_json, write_json
from benchmarks.reliability.children import digest
from condensation.artifact import CondensedSet
from condensation.artifact.condensed_set import Provenance
from condensation.coresets.shards import head, samples
from condensation.matching import DistributionMatching
from lossbuf import LossBufferCallback
from lossbuf.errors import InputError
from lossbuf.inputs import ReadSettings, read_labelled
from lossbuf.scan import ScanFolder, ScanSettings, load_scan, scan
from lossbuf.scan.decisions import corrected_labels
from lossbuf.training import TrainSettings, train

ROWS = 24
_LABELS = np.arange(ROWS) % 3
_NAMES = ("cat", "dog", "hen")


class Loader(NamedTuple):
    """Something that reads a file.

    Attributes:
        name: What is read.
        file: The file that is to be damaged, below the folder of the sample.
        form: Its format: ``"torch"``, ``"npz"``, ``"npy"``, ``"parquet"``, ``"csv"``, ``"json"`` or a picture's ending.
        make: Fills a folder with a whole sample.
        load: Reads it, and tells the content by a digest.
        checked: The format holds checksums: what was damaged at random must be refused where it is not the same.
    """

    name: str
    file: str
    form: str
    make: Callable[[Path], object]
    load: Callable[[Path], str]
    checked: bool = False


def _x(seed: int = 0, shape: tuple[int, ...] = (1, 8, 8)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((ROWS, *shape)).astype(np.float32)


# --- states ---


def _callback(steps: int) -> LossBufferCallback:
    callback, draws = LossBufferCallback(_LABELS, 3, mode="filter", warmup=1), torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(ROWS, (8,), generator=draws)
        callback.loss(torch.randn(8, 3, generator=draws), torch.from_numpy(_LABELS)[rows], rows)
    return callback


def _load_callback(folder: Path) -> str:
    callback = _callback(0)
    before = digest(dict(callback.state_dict()))
    try:
        callback.load(folder / "state.pt")
    except ValueError:
        if digest(dict(callback.state_dict())) != before:
            raise RuntimeError("A state that was refused has changed what was collected so far.") from None
        raise
    return digest(dict(callback.state_dict()))


def _train(folder: Path) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    settings, x = TrainSettings(epochs=2, batch_size=8, device="cpu"), torch.from_numpy(_x())
    callback = LossBufferCallback(_LABELS, 3)
    history = train(
        network, x, torch.from_numpy(_LABELS), settings, callback=callback, checkpoint=folder / "checkpoint.pt"
    )
    return digest([dict(network.state_dict()), dict(callback.state_dict()), history.loss])


def _condense(folder: Path) -> str:
    condenser = DistributionMatching(ipc=1, iterations=1, batch_size=4, random_state=0, device="cpu")
    condenser.fit(_x(), _LABELS, checkpoint=folder / "condense.pt")
    return digest(condenser.condensed_set().x)


def _condensed(folder: Path) -> None:
    made = CondensedSet(
        x=torch.from_numpy(_x()),
        labels=torch.from_numpy(_LABELS),
        method="DM",
        class_names=_NAMES,
        weights=torch.ones(ROWS),
        settings={"ipc": 8, "deep": {"a": [1, 2.5, "b", True]}},
        provenance=Provenance(rows=torch.arange(ROWS), n_samples=ROWS),
    )
    made.save(folder / "small.npz")


def _load_condensed(folder: Path) -> str:
    made = CondensedSet.load(folder / "small.npz")
    return digest([made.x, made.labels, made.weights, made.settings, made.class_names])


# --- a scan's folder ---


def _scan(folder: Path) -> None:
    source = folder / "source.npz"
    np.savez(source, x=_x(), y=_LABELS)
    data, read, settings = read_labelled(source), ReadSettings(), ScanSettings(epochs=2, network="mlp", device="cpu")
    result = ScanFolder(folder)
    result.begin(source, data, read, settings)
    result.write(scan(data, settings, checkpoint=result.state), source)
    suspect = pd.read_csv(result.issues).iloc[:1] if len(pd.read_csv(result.issues)) else None
    if suspect is None:
        raise RuntimeError("The sample of a scan has no suspects.")
    decisions = suspect[["id", "given_label"]].assign(decision="drop", label="")
    decisions.to_csv(folder / "decisions.csv", index=False)


def _load_scan(folder: Path) -> str:
    found = load_scan(folder)
    about = json.loads((folder / "scan.json").read_text())
    return digest([found.verdict.suspicion, found.suspect_mask, about])


def _apply(folder: Path) -> str:
    return digest(corrected_labels(folder, folder / "decisions.csv").to_numpy().tolist())


# --- labelled data ---


def _read(folder: Path, name: str) -> str:
    data = read_labelled(folder / name)
    for row, reason in data.skipped:
        if reason != "no label":
            raise InputError(f"{folder / name}: {row}: {reason}")
    return digest([data.x, data.labels, data.class_names, data.ids, data.skipped])


def _table() -> pd.DataFrame:
    x = _x(shape=(3,)).astype(np.float64)
    x[2, 1] = np.nan
    return pd.DataFrame(
        {"id": [f"r{row}" for row in range(ROWS)], "a": x[:, 0], "b": x[:, 1], "kind": ["x", "y"] * (ROWS // 2),
         "label": [_NAMES[label] for label in _LABELS]}
    )  # fmt: skip


def _picture(seed: int, form: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "jpeg", "tif": "tiff"}.get(form, form))
    return file.getvalue()


def _parquet_of_pictures(folder: Path) -> None:
    images = [{"bytes": _picture(row, "png"), "path": f"{row}.png"} for row in range(ROWS)]
    pd.DataFrame({"image": images, "label": _LABELS}).to_parquet(folder / "images.parquet")


def _table_of_pictures(folder: Path) -> None:
    for row in range(4):
        (folder / f"{row}.png").write_bytes(_picture(row, "png"))
    rows = "".join(f"{row}.png,{_NAMES[row % 2]}\n" for row in range(4))
    (folder / "images.csv").write_text("image,label\n" + rows)


def _pictures(folder: Path, form: str) -> None:
    for row in range(4):
        (folder / "photos" / _NAMES[row % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "photos" / _NAMES[row % 2] / f"{row}.{form}").write_bytes(_picture(row, form))


def _shard(folder: Path, half: bool) -> str:
    shard: Any = (folder / "x.npy", _LABELS) if half else folder / "shard.npz"
    return digest([(found := head(shard, "shards[0]").labels), samples(shard, "shards[0]", found)])


# --- files of the benchmarks ---


def _label_file(folder: Path, name: str) -> str:
    return digest(label_files._read(folder / name, ROWS))


def _result(folder: Path) -> str:
    return digest(read_json(folder / "result.json") or {})


def _archive(folder: Path) -> None:
    ids = np.array([f"r{row}" for row in range(ROWS)])
    np.savez_compressed(folder / "data.npz", x=_x(), y=_LABELS, ids=ids, class_names=np.array(_NAMES))


LOADERS = (
    Loader("callback state", "state.pt", "torch", lambda f: _callback(4).save(f / "state.pt"), _load_callback, True),
    Loader("training checkpoint", "checkpoint.pt", "torch", _train, _train, True),
    Loader("condensation checkpoint", "condense.pt", "torch", _condense, _condense, True),
    Loader("condensed set", "small.npz", "npz", _condensed, _load_condensed, True),
    Loader("scan: state", "scan.pt", "torch", _scan, _load_scan, True),
    Loader("scan: settings", "scan.json", "json", _scan, _load_scan),
    Loader("apply: summary", "summary.json", "json", _scan, _apply),
    Loader("apply: suspects", "issues.csv", "csv", _scan, _apply),
    Loader("apply: clean rows", "clean.csv", "csv", _scan, _apply),
    Loader("apply: decisions", "decisions.csv", "csv", _scan, _apply),
    Loader("table: csv", "data.csv", "csv", lambda f: _table().to_csv(f / "data.csv", index=False),
           partial(_read, name="data.csv")),
    Loader("table: tsv", "data.tsv", "csv", lambda f: _table().to_csv(f / "data.tsv", index=False, sep="\t"),
           partial(_read, name="data.tsv")),
    Loader("table: parquet", "data.parquet", "parquet", lambda f: _table().to_parquet(f / "data.parquet"),
           partial(_read, name="data.parquet")),
    Loader("table: images in parquet", "images.parquet", "parquet", _parquet_of_pictures,
           partial(_read, name="images.parquet")),
    Loader("table: paths of images", "images.csv", "csv", _table_of_pictures, partial(_read, name="images.csv")),
    Loader("archive", "data.npz", "npz", _archive, partial(_read, name="data.npz")),
    *(
        Loader(f"picture: {form}", f"photos/cat/0.{form}", form, partial(_pictures, form=form),
               partial(_read, name="photos"))
        for form in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm")
    ),
    Loader("shard: npz", "shard.npz", "npz", lambda f: np.savez(f / "shard.npz", X=_x(), y=_LABELS),
           partial(_shard, half=False)),
    Loader("shard: npy", "x.npy", "npy", lambda f: np.save(f / "x.npy", _x()), partial(_shard, half=True)),
    Loader("label file: npy", "given.npy", "npy", lambda f: np.save(f / "given.npy", _LABELS),
           partial(_label_file, name="given.npy")),
    Loader("label file: npz", "given.npz", "npz", lambda f: np.savez(f / "given.npz", given=_LABELS),
           partial(_label_file, name="given.npz:given")),
    Loader("label file: torch", "given.pt", "torch", lambda f: torch.save({"given": _LABELS}, f / "given.pt"),
           partial(_label_file, name="given.pt:given")),
    Loader("label file: text", "given.txt", "csv", lambda f: np.savetxt(f / "given.txt", _LABELS, fmt="%d"),
           partial(_label_file, name="given.txt")),
    Loader("benchmark result", "result.json", "json",
           lambda f: write_json(f / "result.json", {"settings": {"seed": 0}, "values": {"fnr": [0.1, 0.2]}}), _result),
)  # fmt: skip
"""All of them; readers that share a file share its sample."""


def make_samples(root: Path) -> dict[str, Path]:
    """Make a sample for every loader: its folder by the loader's name."""
    made: dict[Any, Path] = {}
    found = {}
    for place, loader in enumerate(LOADERS):
        if loader.make not in made:
            made[loader.make] = root / str(place)
            made[loader.make].mkdir(parents=True)
            loader.make(made[loader.make])
        found[loader.name] = made[loader.make]
    return found


def copy_sample(sample: Path, folder: Path) -> None:
    """A fresh copy of a sample, in the place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sample, folder)
