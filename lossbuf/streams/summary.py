"""From the files of a stream to a table of its samples and a cut, out of core."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lossbuf import checks
from lossbuf.detection.thresholds import KnownRate, Mixture
from lossbuf.errors import LossBufferWarning
from lossbuf.files import remove_abandoned, write_whole
from lossbuf.recording.sample_statistics import SUSPICIONS, SampleStatistics
from lossbuf.recording.scores import suspicion_order
from lossbuf.streams.cut import checked_rule, find_edge
from lossbuf.streams.files import BATCH_ROWS, label_type, read_batches, said_in, stream_files
from lossbuf.streams.folding import folded, whole_ids
from lossbuf.streams.sketch import ScoreSketch

if TYPE_CHECKING:
    import pyarrow as pa

_KIND = "lossbuf.streams.summary"
_CLASSES = ("most_frequent", "other_class", "last_predicted")


_MOST_THREADS = 1024


@dataclass(frozen=True)
class StreamSummary:
    """What is thought of the samples of a stream.

    Attributes:
        path: The table, a Parquet file with a row an id, sorted by id.
        rows: Number of ids.
        rank_by: Statistic by which they are ranked.
        threshold: Suspects lie at it or above; infinite where there are none.
        noise_rate: Estimated share of wrong labels, or the one given.
        n_suspects: Number of suspects.
        class_counts: Ids of each given label, shape ``(num_classes,)``.
        suspect_counts: Suspects of each given label, shape ``(num_classes,)``.
        relabelled: Ids that came with another given label before.
    """

    path: Path
    rows: int
    rank_by: str
    threshold: float
    noise_rate: float
    n_suspects: int
    class_counts: NDArray[np.int64]
    suspect_counts: NDArray[np.int64]
    relabelled: int

    def suspects(self, limit: int | None = 1000) -> pd.DataFrame:
        """The suspects, worst first, without the rest of the table.

        Args:
            limit: How many at most; ``None`` for all.
        """
        import pyarrow.parquet as pq

        count = self.n_suspects if limit is None else checks.positive_int("limit", limit)
        best: list[pd.DataFrame] = []
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                found = batch.filter(batch.column("is_suspect"))
                if found.num_rows or not best:
                    both = pd.concat([*best, found.to_pandas()], ignore_index=True)
                    best = [both.iloc[suspicion_order(both["suspicion"], both["label_loss"])[:count]]]
        return pd.concat(best or [file.schema_arrow.empty_table().to_pandas()], ignore_index=True)


def summarise(
    folder: str | os.PathLike[str],
    *,
    rank_by: str = "score2",
    noise_rate: float | None = None,
    cut: KnownRate | Mixture | None = None,
    out: str | os.PathLike[str] | None = None,
    memory_limit: str = "1GB",
    threads: int | None = None,
) -> StreamSummary:
    """Sum up what a :class:`~lossbuf.streams.LossBufferStream` wrote, and choose the cut: a table with a row an id.

    The statistics are those that :class:`~lossbuf.recording.dynamics.SampleDynamics` holds in memory, to the last bit:
    DuckDB sorts the rows by id, epoch and position, on disk where memory does not do, and the rows then pass by in this
    order and are folded by the same code. (PyArrow's own ``group_by`` holds all groups in memory, and DuckDB's would
    add in another order and precision.) The cut comes from a sketch of the scores and is that of the same scores in
    memory, see :mod:`lossbuf.streams.sketch`; of ids with the same suspicion and label loss the lower ones are suspects
    first.

    A sample that came more than once in an epoch counts once, the first time by position. Where its given label
    changed, each epoch is judged by the label it had then, and the last one is its ``given_label``.

    Args:
        folder: Where the stream wrote, from all ranks.
        rank_by: One of :data:`~lossbuf.recording.sample_statistics.SUSPICIONS`. The posterior needs the outputs of all
            samples at once.
        noise_rate: Share of wrong labels, where it is known; exactly this share of the ids are suspects.
        cut: :class:`~lossbuf.detection.thresholds.KnownRate` or :class:`~lossbuf.detection.thresholds.Mixture`, the
            default.
        out: The table's file, by default beside the folder, with ``-summary.parquet`` at its end. A file there is
            replaced. Temporary files of about three times its size lie beside it meanwhile.
        memory_limit: For the sort, such as ``"1GB"``; what else there is does not grow with the stream.
        threads: For the sort; by default as many as there are cores.

    Returns:
        The cut, some counts, and where the table is. Its columns: ``id``, ``given_label``, ``suggested_label``,
        ``is_suspect``, ``suspicion`` and the statistics of
        :class:`~lossbuf.recording.sample_statistics.SampleStatistics`.

    Raises:
        ImportError: If pyarrow or duckdb is missing.
        FileNotFoundError: If there is no such folder.
        ValueError: If a setting has no meaning, or the folder holds no rows, a damaged file or another's.
        MemoryError: If the memory limit is too small.

    Warns:
        LossBufferWarning: If given labels changed.
    """
    checks.installed("`summarise`", "streams", "pyarrow", "duckdb")
    checks.one_of("rank_by", rank_by, SUSPICIONS)
    if threads is not None and checks.positive_int("threads", threads) > _MOST_THREADS:
        raise ValueError(checks.problem("threads", f"must be at most {_MOST_THREADS}", threads))
    if not isinstance(memory_limit, str) or not memory_limit.strip()[:1].isdigit():  # duckdb takes others for no limit
        raise ValueError(checks.problem("memory_limit", "must be a size, such as '1GB'", memory_limit))
    rule = checked_rule(noise_rate, cut)
    folder = Path(folder).absolute()
    out = folder.with_name(f"{folder.name}-summary.parquet") if out is None else Path(out).absolute()
    if folder.resolve() in out.resolve().parents:
        raise ValueError(checks.problem("out", "must lie outside of `folder`", out))
    if out.is_dir():
        raise ValueError(checks.problem("out", "must be a file", f"the folder {out}"))
    paths, schema = stream_files(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out.parent, f".{out.name}-")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        table = Path(temporary, "table.parquet")
        num_classes = int(said_in(schema)["num_classes"])
        columns = _columns(schema, num_classes)
        with _sorted(read_batches(paths, schema), schema, temporary, memory_limit, threads) as batches:
            sketch, relabelled = _write_statistics(table, columns, batches, rank_by)
        edge = find_edge(rule, sketch, lambda: _scores(table))
        threshold, counts = edge.threshold, np.zeros((2, num_classes), dtype=np.int64)

        def marked() -> Iterator[pa.RecordBatch]:
            for batch in _batches(table):
                yield _marked(batch, edge.suspects(*_numbers(batch, "suspicion", "label_loss")), counts)

        write_whole(out, lambda file: _write(file, columns, marked()))
    if relabelled:
        text = "The label of the last epoch is taken; each epoch was judged by its own."
        warnings.warn(f"The given label of {relabelled} ids changed. {text}", LossBufferWarning, stacklevel=2)
    suspects = int(counts[1].sum())
    return StreamSummary(
        path=out,
        rows=len(sketch),
        rank_by=rank_by,
        threshold=threshold if suspects else float("inf"),
        noise_rate=edge.noise_rate,
        n_suspects=suspects,
        class_counts=counts[0],
        suspect_counts=counts[1],
        relabelled=relabelled,
    )


@contextmanager
def _sorted(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, temporary: str, memory_limit: str, threads: int | None
) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows by id, epoch and position."""
    import duckdb
    import pyarrow as pa

    failures: list[Exception] = []

    def told() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:
            failures.append(error)
            raise

    database = duckdb.connect()
    try:
        try:
            database.execute("SET memory_limit = ?", [memory_limit])
        except duckdb.Error as error:
            raise ValueError(checks.problem("memory_limit", "must be a size, such as '1GB'", memory_limit)) from error
        database.execute("SET enable_progress_bar = false")
        database.execute("SET temp_directory = ?", [temporary])
        if threads is not None:
            database.execute("SET threads = ?", [threads])
        database.register("rows", pa.RecordBatchReader.from_batches(schema, told()))
        found = database.sql("SELECT * FROM rows ORDER BY id, epoch, position")
        read: Any = getattr(found, "to_arrow_reader", None) or found.fetch_record_batch  # its name before duckdb 1.4
        yield read(BATCH_ROWS)
    except Exception as error:  # of duckdb, or of pyarrow where it reads on
        if failures:
            raise failures[0] from None
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in str(error):
            advice = "Give more, or fewer `threads`."
            rule = "must be enough for the sort"
            raise MemoryError(checks.problem("memory_limit", rule, memory_limit, advice)) from error
        raise
    finally:
        database.close()


def _columns(schema: pa.Schema, num_classes: int) -> pa.Schema:
    """Columns of the table."""
    import pyarrow as pa

    label = label_type(num_classes)
    types = {"id": schema.field("id").type, "given_label": label, "suggested_label": label, "is_suspect": pa.bool_()}
    types["suspicion"] = pa.float32()
    for field in fields(SampleStatistics):
        whole = field.name in ("count", "wrong_count", "forgetting_events")
        types[field.name] = label if field.name in _CLASSES else pa.int32() if whole else pa.float32()
    said = {"lossbuf.kind": _KIND, "lossbuf.num_classes": str(num_classes)}
    return pa.schema([pa.field(name, dtype, nullable=False) for name, dtype in types.items()], metadata=said)


def _write_statistics(
    path: Path, columns: pa.Schema, batches: Iterator[pa.RecordBatch], rank_by: str
) -> tuple[ScoreSketch, int]:
    """Write the table with no suspects; the sketch of the suspicions, and how many ids were relabelled."""
    import pyarrow as pa

    sketch, relabelled = ScoreSketch(), 0

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal relabelled
        for batch in whole_ids(batches):
            ids, labels, statistics, changed = folded(batch)
            relabelled += changed
            suspicion = statistics.suspicion(rank_by)
            sketch.update(suspicion.numpy())
            found = {
                "given_label": labels,
                "suggested_label": labels,
                "is_suspect": torch.zeros(len(labels), dtype=torch.bool),
                "suspicion": suspicion,
                **vars(statistics),
            }
            arrays = [pa.array(found[field.name].numpy()).cast(field.type) for field in list(columns)[1:]]
            yield pa.RecordBatch.from_arrays([ids, *arrays], schema=columns)

    with path.open("wb") as file:
        _write(file, columns, rows())
    return sketch, relabelled


def _write(file: BinaryIO, columns: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Write batches of any size in row groups of one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, columns, compression="zstd", write_page_checksum=True) as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            waiting.append(batch)
            if sum(part.num_rows for part in waiting) >= BATCH_ROWS:
                writer.write_table(pa.Table.from_batches(waiting, columns))
                waiting = []
        writer.write_table(pa.Table.from_batches(waiting, columns))


def _batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:  # else all that was read stays
        yield from file.iter_batches(BATCH_ROWS, columns=columns)


def _numbers(batch: pa.RecordBatch, *names: str) -> list[NDArray[Any]]:
    return [batch.column(name).to_numpy() for name in names]


def _scores(path: Path) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    for batch in _batches(path, ("suspicion", "label_loss")):
        suspicion, label_loss = _numbers(batch, "suspicion", "label_loss")
        yield suspicion, label_loss


def _marked(batch: pa.RecordBatch, suspects: NDArray[np.bool_], counts: NDArray[np.int64]) -> pa.RecordBatch:
    """The rows with the suspects marked and other labels suggested for them; adds to the counts of the classes."""
    import pyarrow as pa

    given, other = _numbers(batch, "given_label", "other_class")
    for count, labels in zip(counts, (given, given[suspects]), strict=True):
        count += np.bincount(labels, minlength=len(count))
    suggested = pa.array(np.where(suspects & (other >= 0), other, given))
    return batch.set_column(2, batch.schema.field(2), suggested).set_column(
        3, batch.schema.field(3), pa.array(suspects)
    )
