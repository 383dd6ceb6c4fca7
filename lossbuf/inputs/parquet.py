"""Parquet files, whose few bytes may stand for any number of rows, read within bounds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from lossbuf.files import check_unfolding, size_of

_ROWS = 65_536
_PART = 2**28
"""Bytes that a part may take at most while it is looked at."""

_NUMBER = 24
"""Bytes that a number takes, read, converted and as a feature, about."""

_OBJECT = 128
"""Bytes that a text or a container takes beside its content, about."""


def unfolded(path: Path, most_columns: int) -> pd.DataFrame:
    """Read a table; what it unfolds to is held against its size before it is unfolded.

    Args:
        path: Of the file.
        most_columns: More are refused.

    Raises:
        Exception: Almost any, where the file is damaged.
        ValueError: If it would take more than 512 MiB and 100 times its own size.
    """
    size = size_of(path)
    with parquet.ParquetFile(path) as file:
        schema, about = file.schema_arrow, file.metadata
    if len(schema) > most_columns:
        raise ValueError(f"{len(schema):,} columns, more than {most_columns:,}")
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
    return _with_index(table.cast(schema).to_pandas())


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
    lengths = pc.call_function("binary_length", [column.dictionary])
    return pc.call_function("sum", [lengths.take(column.indices)]).as_py() or 0
