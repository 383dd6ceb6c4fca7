"""The thread that writes the rows of a stream."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossbuf import checks
from lossbuf.files import write_whole
from lossbuf.streams.files import BATCH_ROWS, FLOATS, chained, following, path_of

if TYPE_CHECKING:
    import pyarrow as pa

WAITING_BLOCKS = 4
"""Blocks that may wait for the thread; then the training waits."""

_FILE_BYTES = 2**28
_NEWEST: weakref.WeakValueDictionary[tuple[Path, int], RowWriter] = weakref.WeakValueDictionary()
_LOOK_SECONDS = 1.0


class Rows(NamedTuple):
    """The rows of a block, on the host or on their way there.

    Attributes:
        floats: The columns of :data:`~lossbuf.streams.files.FLOATS`, shape ``(5, n)``.
        integers: Position, given label, predicted class, and 1 for rows to write; int64, shape ``(4, n)``.
        ids: Text, or int64 of shape ``(n,)``.
        epoch: Epochs ended before.
        copied: A CUDA event to wait for before reading; ``None`` where there is nothing to wait for.
    """

    floats: Tensor
    integers: Tensor
    ids: Tensor | list[str]
    epoch: int
    copied: Any = None

    def on_host(self) -> Rows:
        """The same, with copies under way from a GPU to pinned memory; does not wait."""
        if self.floats.device.type != "cuda":
            return self
        floats, integers = _pinned(self.floats), _pinned(self.integers)
        ids = _pinned(self.ids) if isinstance(self.ids, Tensor) else self.ids
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(self.floats.device))
        return Rows(floats, integers, ids, self.epoch, copied)

    def to_arrow(self, schema: pa.Schema) -> pa.RecordBatch:
        """The rows to write, as columns; waits for the copies."""
        import pyarrow as pa

        if self.copied is not None:
            self.copied.synchronize()
        position, label, predicted, usable = self.integers.numpy()
        columns = {
            "id": self.ids.numpy() if isinstance(self.ids, Tensor) else self.ids,
            "epoch": np.full(len(label), self.epoch, dtype=np.int32),
            "position": position,
            "given_label": label.astype(schema.field("given_label").type.to_pandas_dtype()),
            "predicted": predicted.astype(schema.field("predicted").type.to_pandas_dtype()),
            **dict(zip(FLOATS, self.floats.numpy(), strict=True)),
        }
        arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return batch if usable.all() else batch.filter(pa.array(usable.astype(bool)))


def _pinned(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


class RowWriter:
    """Writes rows to numbered Parquet files from a thread of its own, each file whole or not at all.

    An error in the thread is raised by the next call, and by all that follow. What comes after it is dropped, so that
    no call waits for ever. Of two in a process that write for one rank to one folder the newer one has it: what is left
    of a stream that broke down must not come between the rows of the one that went on from its checkpoint.

    Args:
        folder: Where to; it must be there.
        rank: Of the process, for the names.
        rows_a_file: Rows at which a file is written; a block is not parted.
        written: Files there are already.
        chain: What :func:`~lossbuf.streams.files.chained` says of these.
    """

    def __init__(self, folder: Path, rank: int, rows_a_file: int, written: int = 0, chain: int = 0) -> None:
        self.folder, self.rank, self.rows_a_file = folder, rank, rows_a_file
        self.written, self.chain = written, chain
        self._queue: queue.Queue[tuple[Rows, pa.Schema] | threading.Event | None] = queue.Queue(WAITING_BLOCKS)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._pending: list[pa.RecordBatch] = []
        self._place = folder.resolve(), rank
        _NEWEST[self._place] = self

    def put(self, rows: Rows, schema: pa.Schema) -> None:
        """Hand rows out; waits only where :data:`WAITING_BLOCKS` blocks wait already.

        Raises:
            OSError: If the thread could not write.
        """
        self.check()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="lossbuf-rows", daemon=True)
            self._thread.start()
        self._queue.put((rows.on_host(), schema))

    def drain(self) -> None:
        """Wait until all rows handed out are in files.

        Raises:
            OSError: If the thread could not write.
        """
        self.check()
        if self._thread is not None:
            written = threading.Event()
            self._queue.put(written)
            while not written.wait(_LOOK_SECONDS) and self._thread.is_alive():
                pass
        self.check()

    def stop(self) -> None:
        """End the thread. Rows that were handed out since the last :meth:`drain` may be lost."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        self._pending = []

    def finish(self) -> None:
        """Write what was handed out as far as possible, and end the thread; raises nothing."""
        with contextlib.suppress(OSError):
            self.drain()
        self.stop()

    def check(self) -> None:
        """Raise what the thread failed with.

        Raises:
            OSError: If it did.
        """
        if self._failure is not None:
            rule = f"must take the rows of the stream ({self.folder})"
            advice = "Files written so far are whole; advice it and resume from the last checkpoint."
            raise OSError(checks.problem("folder", rule, repr(self._failure), advice)) from self._failure

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if self._failure is None:
                    self._do(item)
            except BaseException as error:  # the user sees it at the next call
                self._failure, self._pending = error, []
            finally:
                if isinstance(item, threading.Event):
                    item.set()

    def _do(self, item: tuple[Rows, pa.Schema] | threading.Event) -> None:
        if isinstance(item, threading.Event):
            self._write()
            return
        rows, schema = item
        self._pending.append(rows.to_arrow(schema))
        large = sum(batch.nbytes for batch in self._pending) >= _FILE_BYTES
        if large or sum(batch.num_rows for batch in self._pending) >= self.rows_a_file:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        batches, self._pending = [batch for batch in self._pending if batch.num_rows], []
        if not batches:
            return
        table = pa.Table.from_batches(batches).combine_chunks()  # pages do not depend on the blocks then
        table = following(table, self.chain)
        batches.clear()
        path = path_of(self.folder, self.rank, self.written)

        def write(file: BinaryIO) -> None:
            settings: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
            settings["use_dictionary"] = ["epoch", "given_label", "predicted"]
            settings["column_encoding"] = {"position": "DELTA_BINARY_PACKED"}
            pq.write_table(table, file, row_group_size=BATCH_ROWS, **settings)
            if path.exists() or _NEWEST.get(self._place) is not self:
                raise FileExistsError(f"another stream writes to it, too: {path.name}")

        if not self.folder.is_dir():
            raise FileNotFoundError(f"it is gone: {self.folder}")
        write_whole(path, write)
        self.written, self.chain = self.written + 1, chained(self.chain, path)
