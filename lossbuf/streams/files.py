"""The files of a stream: names, columns and metadata, and how they are read back."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossbuf import checks
from lossbuf.errors import LossBufferWarning

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "lossbuf.streams.rows"
VERSION = 1
FLOATS = ("label_loss", "margin", "score", "score2", "score3")
"""Columns of float32."""

BATCH_ROWS = 2**17
"""Rows of a row group, and read at once."""

_SMALL = 2**15
_BEGIN = ("position", "id", "given_label")
_NAME = re.compile(r"rows-(\d{5,})-(\d{6,})\.parquet")


def path_of(folder: Path, rank: int, number: int) -> Path:
    """Where a rank's file of that number lies."""
    return folder / f"rows-{rank:05d}-{number:06d}.parquet"


def numbered(folder: Path) -> list[tuple[int, int, Path]]:
    """Rank, number and path of all files of streams in a folder, in this order."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(name[1]), int(name[2]), path) for name, path in found if name)


def files_of(folder: Path, rank: int, ranks: int) -> list[tuple[int, Path]]:
    """Numbers and paths of a rank's files; for rank 0 those of ranks that there are no more, too."""
    return [(number, path) for of, number, path in numbered(folder) if of == rank or (rank == 0 and of >= ranks)]


def chained(chain: int, path: Path) -> int:
    """A number below 2**63 that stands for a file of a stream and all before it, whose number is ``chain``; 0 for none.

    It is made of what Parquet writes at the end of a file: sizes, places and extremes of all its columns.

    Raises:
        OSError: If the file cannot be read, or is none of Parquet's.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length, magic = int.from_bytes(file.read(4), "little"), file.read(4)
        if magic != b"PAR1" or length > size - 8:
            raise OSError(f"no Parquet file: {path}")
        file.seek(size - 8 - length)
        digest = hashlib.blake2b(file.read(length), digest_size=8, key=chain.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") >> 1


def check_files(folder: Path, rank: int, count: int, chain: int) -> None:
    """Raise unless the first ``count`` files of a rank are there, and are those that ``chain`` stands for.

    Raises:
        ValueError: If they are not.
    """
    rule = f"must hold the {count} files that go with the state"
    there = numbered(folder) if folder.is_dir() else []
    paths = [path for of, number, path in there if of == rank and number < count]
    if len(paths) < count:
        raise ValueError(checks.problem("folder", rule, f"{count - len(paths)} fewer in {folder}"))
    found = 0
    for path in paths:
        try:
            found = chained(found, path)
        except OSError as error:
            raise ValueError(checks.problem("folder", rule, f"a damaged one, {path}")) from error
    if found != chain:
        advice = "Load the checkpoint of the training that wrote them."
        raise ValueError(checks.problem("folder", rule, f"those of another training in {folder}", advice))


def check_later(folder: Path, rank: int, ranks: int, count: int, chain: int, first: Sequence[tuple[Any, int]]) -> None:
    """Raise unless the files of a rank from ``count`` on, which are to be removed, go on from a state.

    Args:
        folder: Where they lie.
        rank: Of the process.
        ranks: How many there are.
        count: Files that go with the state.
        chain: What :func:`chained` says of these.
        first: Ids and given labels of the first rows of the training, where the state still holds them: they tell its
            first file from another's.

    Raises:
        ValueError: If they are of another training, none of a stream's, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    later = [(number, path) for number, path in files_of(folder, rank, ranks) if number >= count]
    check_own([path for _, path in later])
    for number, path in later[:1]:
        follows = said_in(pq.read_schema(path)).get("follows") == str(chain) and number == count
        if follows and count == 0:
            try:
                begin = next(pq.ParquetFile(path).iter_batches(max(1, len(first)), columns=_BEGIN), None)
            except (pa.ArrowException, OSError):
                begin = None
            rows = [] if begin is None else zip(*(begin.column(name).to_pylist() for name in _BEGIN), strict=True)
            known = [(at, row) for at, *row in rows if at < len(first)]
            follows = bool(known) and all(tuple(row) == tuple(first[at]) for at, row in known)
        if not follows:
            rule, advice = "must hold no rows of another training, which would be removed", "Remove them yourself."
            raise ValueError(checks.problem("folder", rule, path, advice))


def remove_from(number: int, folder: Path, rank: int, ranks: int) -> None:
    """Remove a rank's files from this number on, and what a killed process left half written."""
    for at, path in files_of(folder, rank, ranks):
        if at >= number:
            path.unlink()
    for path in folder.glob(f".rows-{rank:05d}-*.part"):
        path.unlink()


def check_own(paths: Sequence[Path]) -> None:
    """Raise unless files are those of streams, before they are removed.

    Raises:
        ValueError: If one is not, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            own = said_in(pq.read_schema(path)).get("kind") == KIND
        except (pa.ArrowException, OSError):
            own = False
        if not own:
            rule, advice = "must hold nothing but rows of streams under their names", "Remove it yourself."
            raise ValueError(checks.problem("folder", rule, path, advice))


def label_type(num_classes: int) -> pa.DataType:
    """The narrowest type of a class that all readers know."""
    import pyarrow as pa

    return pa.int16() if num_classes <= _SMALL else pa.int32()


def schema_of(num_classes: int, text_ids: bool, rank: int, ranks: int) -> pa.Schema:
    """Columns of a rank's files, and what their metadata say; :func:`following` adds the rest."""
    import pyarrow as pa

    label = label_type(num_classes)
    columns: dict[str, Any] = {
        "id": pa.string() if text_ids else pa.int64(),
        "epoch": pa.int32(),
        "position": pa.int64(),
        "given_label": label,
        "predicted": label,
        **dict.fromkeys(FLOATS, pa.float32()),
    }
    said = {"kind": KIND, "version": VERSION, "num_classes": num_classes, "rank": rank, "ranks": ranks}
    return pa.schema(
        [pa.field(name, dtype, nullable=False) for name, dtype in columns.items()],
        metadata={f"lossbuf.{name}": str(value) for name, value in said.items()},
    )


def following(table: pa.Table, chain: int) -> pa.Table:
    """The table, with what :func:`chained` says of the files before it in its metadata."""
    return table.replace_schema_metadata({**table.schema.metadata, b"lossbuf.follows": str(chain).encode()})


def said_in(schema: pa.Schema) -> dict[str, str]:
    """What :func:`schema_of` and :func:`following` put in the metadata."""
    pairs = (schema.metadata or {}).items()
    return {
        name.decode(errors="replace").removeprefix("lossbuf."): value.decode(errors="replace")
        for name, value in pairs
        if name.startswith(b"lossbuf.")
    }


def stream_files(folder: Path) -> tuple[list[Path], pa.Schema]:
    """All files of a stream, and the columns and metadata of the first.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no rows, another Parquet file, a damaged one, those of several streams, or a gap.

    Warns:
        LossBufferWarning: If there is no file of some ranks.
    """
    if not folder.is_dir():
        raise FileNotFoundError(checks.problem("folder", "must be the folder of a LossBufferStream", folder))
    files = numbered(folder)
    paths = [path for _, _, path in files]
    foreign = sorted(set(folder.glob("*.parquet")) - set(paths))
    if foreign:
        raise ValueError(checks.problem("folder", "must hold files of a LossBufferStream only", foreign[0]))
    if not paths:
        raise ValueError(checks.problem("folder", "must hold rows of a LossBufferStream", f"none in {folder}"))
    wanted = dict.fromkeys({rank for rank, _, _ in files}, 0)
    for rank, number, _ in files:
        if number != wanted[rank]:
            missing = path_of(folder, rank, wanted[rank])
            raise ValueError(checks.problem("folder", "must hold every file of the stream", f"no {missing}"))
        wanted[rank] += 1
    schema = _common_schema(paths)
    _check_order(files)
    absent = sorted({*range(int(said_in(schema)["ranks"]))} - wanted.keys())
    if absent:
        text = f"The training had {said_in(schema)['ranks']} ranks; there are no rows of {absent}."
        warnings.warn(f"{text} Are all files in {folder}?", LossBufferWarning, stacklevel=3)
    return paths, schema


def _check_order(files: Sequence[tuple[int, int, Path]]) -> None:
    import pyarrow.parquet as pq

    chain, before = 0, None
    for rank, number, path in files:
        chain, before = (0, None) if number == 0 else (chain, before)
        with _named(path):
            said = said_in(pq.read_schema(path))
            if (said.get("rank"), said.get("follows")) != (str(rank), str(chain)):
                rule = "must hold the files of one training, under the names that it gave them"
                raise ValueError(checks.problem("folder", rule, f"{path}, which does not follow {before}"))
            chain, before = chained(chain, path), path


def _common_schema(paths: Sequence[Path]) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, identity = None, None
    for path in paths:
        with _named(path):
            schema = pq.read_schema(path)
        said = said_in(schema)
        classes = said.get("num_classes", "")
        numbers = classes.isdecimal() and said.get("ranks", "").isdecimal()
        if (said.get("kind"), said.get("version")) != (KIND, str(VERSION)) or not numbers:
            rule = f"must hold files of a LossBufferStream, version {VERSION}, only"
            raise ValueError(checks.problem("folder", rule, path))
        text_ids = "id" in schema.names and schema.field("id").type == pa.string()
        if not schema.equals(schema_of(int(classes), text_ids, 0, 1)):
            raise ValueError(checks.problem("folder", "must hold files with the columns of a stream", path))
        if first is None:
            first, identity = schema, (classes, said["ranks"], text_ids)
        elif (classes, said["ranks"], text_ids) != identity:
            rule = "must hold files of one stream, with one number of classes and ranks and one kind of ids"
            raise ValueError(checks.problem("folder", rule, f"{paths[0]} and {path}"))
    if first is None:
        raise ValueError(checks.problem("folder", "must hold rows of a LossBufferStream", "none"))
    return first


def read_batches(paths: Sequence[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """All rows, some at a time; checksums are compared.

    Raises:
        ValueError: If a file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        with _named(path), pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
                _check_values(batch, int(said_in(schema)["num_classes"]))
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _check_values(batch: pa.RecordBatch, num_classes: int) -> None:
    import pyarrow as pa

    labels = [batch.column(name).to_numpy() for name in ("given_label", "predicted")]
    known = all(((column >= 0) & (column < num_classes)).all() for column in labels)
    if not known or not all(np.isfinite(batch.column(name).to_numpy()).all() for name in FLOATS):
        raise pa.ArrowInvalid("a value is out of range")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        rule = "must hold whole files"
        raise ValueError(checks.problem("folder", rule, f"{path}, which is damaged ({_line(error)})")) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
