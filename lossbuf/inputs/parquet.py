"""Parquet and Arrow files, whose few bytes may stand for any number of rows, read within bounds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from lossbuf.files import check_unfolding, size_of
from lossbuf.inputs.raw import RawTable

_ROWS = 65_536
_PART = 2**28
"""Bytes that a part may take at most while it is looked at."""

_NUMBER = 24
"""Bytes that a number takes, read, converted and as a feature, about."""

_OBJECT = 128
"""Bytes that a text or a container takes beside its content, about."""


def unfolded(path: Path, most_columns: int) -> RawTable:
    """Read a table; what it unfolds to is held against its size before it is unfolded.

    Args:
        path: Of a Parquet file, or of an Arrow file where it ends in ``.arrow`` or ``.feather``.
        most_columns: More are refused.

    Raises:
        Exception: Almost any, where the file is damaged.
        ValueError: If it would take more than 512 MiB and 100 times its own size.
    """
    is_arrow = path.suffix.lower() in (".arrow", ".feather")
    table = _arrow(path, most_columns) if is_arrow else _parquet(path, most_columns)
    frame, unread = _frame(table)
    return RawTable(_with_index(frame), _class_names(table.schema), unread=unread)


def _parquet(path: Path, most_columns: int) -> pa.Table:
    size = size_of(path)
    with parquet.ParquetFile(path) as file:
        schema, about = file.schema_arrow, file.metadata
    _check_width(schema, most_columns)
    texts = [field.name for field in schema if _is_text(field.type)]
    objects = sum(not _is_number(field.type) for field in schema)
    # Repeated texts stay numbers of entries in a dictionary until their lengths are known.
    cost = about.num_rows * (_NUMBER * (len(schema) - objects) + _OBJECT * objects)
    check_unfolding(size, cost)
    found = []
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        for group in range(about.num_row_groups):
            rows = _ROWS
            if objects > len(texts):  # one value may be as large as the group, and come in every row
                rows = min(64, max(1, _PART // max(1, about.row_group(group).total_byte_size)))
            for batch in file.iter_batches(rows, row_groups=[group]):
                cost += sum(2 * _bytes(column) for column in batch.columns if not _is_number(column.type))
                check_unfolding(size, cost)
                found.append(batch)
    table = pa.Table.from_batches(found, found[0].schema) if found else schema.empty_table()
    return table.cast(schema)


def _arrow(path: Path, most_columns: int) -> pa.Table:
    """A file or a stream of Arrow's, as ``DataFrame.to_feather`` and Hugging Face's data sets write them."""
    size = size_of(path)
    with pa.memory_map(os.fspath(path)) as source:
        try:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        _check_width(reader.schema, most_columns)
        found, cost = [], 0
        for batch in batches:
            objects = sum(not _is_number(field.type) for field in batch.schema)
            cost += batch.num_rows * (_NUMBER * (len(batch.schema) - objects) + _OBJECT * objects)
            cost += sum(2 * _bytes(column) for column in batch.columns if not _is_number(column.type))
            check_unfolding(size, cost)
            batch.validate(full=True)  # offsets of a damaged file would lead out of the memory
            found.append(batch)
        return pa.Table.from_batches(found, reader.schema)


def _check_width(schema: pa.Schema, most_columns: int) -> None:
    if len(schema) > most_columns:
        raise ValueError(f"{len(schema):,} columns, more than {most_columns:,}")


def _frame(table: pa.Table) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table with cells of Python's types, and the columns that have no such cells, with the reason."""
    try:
        return table.to_pandas(), {}
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        unread = {}
        for name in table.column_names:
            try:
                table.select([name]).to_pandas()
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                unread[name] = f"cells of type {table.schema.field(name).type}, which cannot be read"
        return table.drop_columns(list(unread)).to_pandas(), unread


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes of columns of numbers, as the data sets of Hugging Face keep them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(text) for text in feature["names"]]
            for name, feature in features.items()
            if feature["_type"] == "ClassLabel" and feature["names"]
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """What pandas wrote as the index as columns: those with a name, and one without that tells the rows apart."""
    if isinstance(frame.index, pd.RangeIndex):
        return frame
    unnamed = [level for level, name in enumerate(frame.index.names) if name is None]
    if unnamed and (frame.index.nlevels > 1 or not frame.index.is_unique):
        frame = frame.reset_index(unnamed, drop=True)
    return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_binary(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)


def _bytes(column: pa.Array) -> int:
    if not isinstance(column, pa.DictionaryArray):
        return column.nbytes
    if not _is_text(column.dictionary.type):
        return _NUMBER * len(column) + column.nbytes
    lengths = pc.call_function("binary_length", [column.dictionary])
    return pc.call_function("sum", [lengths.take(column.indices)]).as_py() or 0
