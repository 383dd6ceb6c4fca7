"""Rows sorted by id, epoch and position -> statistics of every id, by the very code that works in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossbuf.recording.sample_statistics import SampleStatistics, fold_, new_state, statistics_of
from lossbuf.recording.scores import Scores
from lossbuf.streams.files import FLOATS

if TYPE_CHECKING:
    import pyarrow as pa


def whole_ids(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, less those that come again in an epoch, in batches that part no id."""
    import pyarrow as pa

    carried = None
    for batch in batches:
        if not batch.num_rows:
            continue
        if carried is not None:
            arrays = [pa.concat_arrays(pair) for pair in zip(carried.columns, batch.columns, strict=True)]
            batch = pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
        starts = _starts(batch)
        epoch = batch.column("epoch").to_numpy()
        first = starts.copy()
        first[1:] |= epoch[1:] != epoch[:-1]
        if not first.all():
            batch, starts = batch.filter(pa.array(first)), starts[first]
        last = int(np.flatnonzero(starts)[-1])
        if last:
            yield batch.slice(0, last)
        carried = batch.slice(last)
    if carried is not None:
        yield carried


def _starts(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """True where an id begins."""
    import pyarrow.compute as pc

    ids, size = batch.column("id"), batch.num_rows
    starts = np.ones(size, dtype=bool)
    starts[1:] = pc.call_function("not_equal", [ids.slice(1), ids.slice(0, size - 1)]).to_numpy(zero_copy_only=False)
    return starts


def folded(batch: pa.RecordBatch) -> tuple[pa.Array, Tensor, SampleStatistics, int]:
    """Statistics of the ids of a batch of :func:`whole_ids`.

    Returns:
        The ids; their given labels, those of the last epoch seen, shape ``(n_ids,)``; the statistics; and how many ids
        had another label before.
    """
    import pyarrow as pa

    starts = np.flatnonzero(_starts(batch))
    counts = np.diff(np.append(starts, batch.num_rows))
    columns = {
        name: torch.from_numpy(batch.column(name).to_numpy().astype(np.float32)) for name in (*FLOATS, "predicted")
    }
    given = torch.from_numpy(batch.column("given_label").to_numpy().astype(np.int64))
    state = new_state(len(starts))
    for epoch in range(int(counts.max())):
        seen = torch.from_numpy(counts > epoch)
        rows = torch.from_numpy(starts + np.minimum(epoch, counts - 1))
        now = {name: column.index_select(0, rows).masked_fill_(~seen, 0.0) for name, column in columns.items()}
        label_loss, margin, *three = (now[name] for name in FLOATS)
        fold_(state, seen, label_loss, margin, Scores(*three), now["predicted"], given.index_select(0, rows))
    labels = given.index_select(0, torch.from_numpy(starts + counts - 1))
    per_row = labels.repeat_interleave(torch.from_numpy(counts))
    changed = np.logical_or.reduceat((given != per_row).numpy(), starts)
    return batch.column("id").take(pa.array(starts)), labels, statistics_of(state, labels), int(changed.sum())
