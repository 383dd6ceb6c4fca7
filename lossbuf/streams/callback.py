"""``LossBufferStream``: loss buffers for data of unknown length; what is learnt of each sample goes to files."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Integer
from numpy.typing import NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.files import load_tensors, restoring, save_tensors
from lossbuf.recording.losses import weighted_mean_loss
from lossbuf.recording.process_group import (
    PADDING,
    Block,
    check_agreement,
    is_first,
    of_all_ranks,
    places,
    rank,
    world_size,
)
from lossbuf.recording.recorder import Watching
from lossbuf.recording.scores import all_scores
from lossbuf.streams.checking import check_folder, check_state, checked_ids, of_this_rank
from lossbuf.streams.files import check_own, files_of, remove_from, schema_of
from lossbuf.streams.waiting_ids import WaitingIds
from lossbuf.streams.writer import Rows, RowWriter

_KIND = "lossbuf.stream"
_VERSION = 1
_REASONS = ("not_finite", "label_out_of_range")
_RANK_BITS = 40


class LossBufferStream(Watching):
    """Watches a training on data of unknown length, and writes what it learns of every sample to Parquet files.

    It is to an ``IterableDataset`` what :class:`~lossbuf.callback.LossBufferCallback` is to a data set with rows: call
    :meth:`loss` (or :meth:`update`) in every step with the ids of the samples, :meth:`end_epoch` after every pass over
    the data if there are passes, :meth:`close` at the end, and then :func:`~lossbuf.streams.summarise` on the folder.
    Memory does not grow with the data: the loss buffers, one block of steps, and the rows of a file.

    A step copies its logits, labels and ids to a block and no more. A full block is digested in one pass: its losses
    enter the rings, its rows are scored against the class means of the rings then, and a thread of its own gets them to
    write. No step waits for a GPU; a step waits for the disk only where the thread is blocks behind.

    What is bad is left out and told, as by the callback: rows that are not finite are counted, labels out of range
    raise at once on a CPU and are counted on a GPU, and :meth:`end_epoch` warns. A sample that comes twice in an epoch
    enters the rings twice, since nothing remembers it here; the summary counts it once.

    Under ``torch.distributed`` the rings of all ranks are those of one process on the joined batches; each rank writes
    its own rows, to files with its number. All ranks must make the same number of steps with batches of the same size;
    only the last of an epoch may differ, and be smaller. They call :meth:`end_epoch`, :meth:`flush`, :meth:`save` and
    :meth:`close` together.

    Args:
        num_classes: Number of classes.
        folder: Where the files go; it is made if missing.
        window: Losses kept a class and ring.
        rows_a_file: Rows at which a file is written. Each :meth:`end_epoch`, :meth:`flush` and :meth:`save` ends a file
            as well.
        overwrite: Remove the rows that are in the folder already, when the first step comes, unless the state that
            belongs to them is loaded before.

    Raises:
        ImportError: If pyarrow is missing.
        ValueError: If a setting has no meaning.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with LossBufferStream(2, folder.name) as stream:
        ...     loss = stream.loss(torch.tensor([[3.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 1]), ["a.png", "b.png"])
        >>> sorted(path.name for path in Path(folder.name).iterdir())
        ['rows-00000-000000.parquet']
        >>> folder.cleanup()
    """

    arrived: Tensor

    def __init__(
        self,
        num_classes: int,
        folder: str | os.PathLike[str],
        *,
        window: int = 512,
        rows_a_file: int = 2**19,
        overwrite: bool = False,
    ) -> None:
        checks.installed("`LossBufferStream`", "streams", "pyarrow")
        super().__init__(num_classes, window, _REASONS)
        self.rows_a_file = checks.positive_int("rows_a_file", rows_a_file)
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(checks.problem("folder", "must be a folder", self.folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.overwrite = overwrite
        self.epoch = 0
        self.register_buffer("arrived", torch.zeros((), dtype=torch.int64))
        self._ids = WaitingIds()  # of the steps that are not digested yet
        self._sizes: deque[int] = deque()  # rows of this rank in the blocks that are closed and not digested yet
        self._text_ids: bool | None = None
        self._staged = self._digested = 0  # rows of this rank
        self._begun = False  # a block of this epoch was digested, on all ranks
        self._writer: RowWriter | None = None
        self._left: weakref.finalize[..., Any] | None = None  # writes what nobody closes
        self._closed = False
        self._busy = threading.Lock()

    def loss(
        self,
        logits: Float[Tensor, "batch num_classes"],
        labels: Integer[Tensor, " batch"],
        ids: Integer[Tensor, " batch"] | Sequence[Hashable] | NDArray[Any],
    ) -> Float[Tensor, ""]:
        """Take note of a batch and give its mean cross-entropy, to call ``backward`` on; 0 for an empty batch.

        Arguments and errors are those of :meth:`update`.
        """
        self.update(logits, labels, ids)
        return weighted_mean_loss(logits, labels)

    forward = loss

    def update(
        self,
        logits: Float[Tensor, "batch num_classes"],
        labels: Integer[Tensor, " batch"],
        ids: Integer[Tensor, " batch"] | Sequence[Hashable] | NDArray[Any],
    ) -> None:
        """Take note of a batch, without waiting for the GPU.

        Args:
            logits: Outputs of the network in training, shape ``(batch, num_classes)``, any floating dtype.
            labels: Labels as given, shape ``(batch,)``.
            ids: What the samples are called, ``batch`` of them: text, or integers; the same kind in all steps.

        Raises:
            OSError: If the thread that writes has failed, on a full disk for example.
            ValueError: If shapes or dtypes do not fit, the kind of ids changes, the folder holds rows of another
                stream or, on a CPU, a label is out of range. Nothing of the batch is then noted.
        """
        self._check_batch(logits, labels)
        names = checked_ids(ids, logits, self._text_ids)
        labels = labels.long()
        self._come_to(logits)
        if logits.device.type == "cpu":
            checks.looked_up("labels", self.class_probe, labels)
        self._take(logits.detach(), labels, names)

    def _stage(self, logits: Tensor, labels: Tensor, names: Tensor | list[str]) -> None:
        """Copy the batch to the block; what is there is digested first where the batch does not fit in."""
        device = self.counter.device
        names = names.to(device, copy=True) if isinstance(names, Tensor) else names
        with self._alone():
            self._add(logits, labels, names, device)

    def _add(self, logits: Tensor, labels: Tensor, names: Tensor | list[str], device: torch.device) -> None:
        failure: Exception | None = None
        try:
            self._open_writer().check()
        except (OSError, ValueError) as error:
            failure = error
        if world_size() > 1 and not self._compared:  # before the first collective that would hang
            now = {"epoch": self.epoch, "stage": self.stage.cursors, "folder": str(failure or "usable")}
            check_agreement({**self._identity(), **now}, device)
            self._compared = True
        if failure is not None:
            raise failure
        if self.stage.is_full(len(labels), world_size()):
            self._sizes.append(self.stage.filled)
            self._digest(self.stage.close(device))
        if len(labels):
            self._text_ids = not isinstance(names, Tensor)
            first = (rank() << _RANK_BITS) + self._staged
            self.stage.add(logits, labels, torch.arange(first, first + len(labels), device=logits.device))
            self._ids.put(names)
            self._staged += len(labels)
        self.stage.steps += 1

    @torch.no_grad()
    def _digest(self, blocks: list[Block]) -> None:
        """Rings and counts from the rows of all ranks; the rows of this one to the thread."""
        for block in blocks:
            self._begun = True
            losses, labels, rows, _ = block
            known = labels.clamp(0, self.num_classes - 1)
            label_known, came = known == labels, rows != PADDING
            finite = losses.usable
            usable = finite & label_known & came
            self.counter += torch.stack([(came > finite).sum(), (came > label_known).sum()])
            self.rings.update(losses, known, usable)
            means = (mean.index_select(0, known) for mean in self.rings.class_means())
            three = all_scores(losses.label_loss, losses.margin, *means)
            place = torch.arange(len(rows), device=rows.device)
            floats = torch.stack([losses.label_loss, losses.margin, *three])
            integers = torch.stack([place + self.arrived, labels.long(), losses.predicted, usable.long()])
            self.arrived += came.sum()
            size = self._sizes.popleft()
            mine = places(rows, (rank() << _RANK_BITS) + self._digested, size)
            self._digested += size
            if size:
                schema = schema_of(self.num_classes, bool(self._text_ids), rank(), world_size())
                parts = floats.index_select(1, mine), integers.index_select(1, mine)
                self._open_writer().put(Rows(*parts, self._ids.take(size, self.counter.device), self.epoch), schema)

    def flush(self) -> None:
        """Digest the rows still in the block, and wait until all rows are in files.

        Raises:
            OSError: If they could not be written.
        """
        with self._alone():
            if self.stage.steps:
                self._sizes.append(self.stage.filled)
            self._digest(self.stage.empty(self.counter.device, begun=self._begun))
            if self._writer is not None:
                self._writer.drain()

    def end_epoch(self) -> None:
        """Mark the end of a pass over the data. All rows so far are then in files.

        Raises:
            OSError: If they could not be written.

        Warns:
            LossBufferWarning: If rows of this epoch were left out (not finite, label out of range).
        """
        self.flush()
        self.epoch += 1
        self._begun = False
        self._tell(self.epoch)

    def close(self) -> None:
        """Write what is left and end the thread; may be called twice.

        Raises:
            OSError: If it could not be written. The thread is ended all the same.
        """
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            if self._writer is not None:
                self._writer.stop()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise ValueError(
                checks.problem("stream", "must be called by one thread at a time", "a call during another")
            )
        try:
            yield
        finally:
            self._busy.release()

    def __reduce_ex__(self, protocol: Any) -> Any:
        advice = "Give the copy a folder of its own, and this one's `state_dict` to go on from."
        raise TypeError(
            checks.problem("stream", "must not be copied or pickled, since it writes files", "a copy", advice)
        )

    def __enter__(self) -> LossBufferStream:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
            return
        if world_size() == 1 and not self._closed:
            with suppress(Exception):
                self.flush()
        # Else the other ranks may not come to a collective now, so the block is left. What was digested is written.
        self._closed = True
        if self._writer is not None:
            self._writer.finish()  # the error under way says more, or the same

    def _open_writer(self) -> RowWriter:
        if self._closed:
            raise ValueError(checks.problem("stream", "must be open", "one that was closed"))
        if self._writer is None:
            found = files_of(self.folder, rank(), world_size())
            if found and not self.overwrite:
                advice = "Load the checkpoint that goes with them, or give overwrite=True."
                raise ValueError(checks.problem("folder", "must hold no rows yet", f"{len(found)} files", advice))
            check_own([path for _, path in found])
        return self._writer or self._write_from(0, 0)

    def _write_from(self, number: int, chain: int) -> RowWriter:
        """A thread that writes file ``number`` next; later files, and what a killed process left, are removed."""
        if self._writer is not None:
            self._writer.stop()
        if self._left is not None:
            self._left.detach()
        remove_from(number, self.folder, rank(), world_size())
        self._writer = RowWriter(self.folder, rank(), self.rows_a_file, number, chain)
        self._left = weakref.finalize(self, self._writer.finish)
        return self._writer

    def _save_to_state_dict(self, *arguments: Any, **settings: Any) -> None:
        self.stage.check_sent()
        self._digest(self.stage.arrived())
        if self._writer is not None and not self._closed:
            self._writer.drain()
        super()._save_to_state_dict(*arguments, **settings)

    def get_extra_state(self) -> dict[str, Any]:
        """The cursors that are no tensors, and what the state belongs to."""
        staged = {name: part.cpu() if isinstance(part, Tensor) else part for name, part in self.stage.state().items()}
        return {
            **self._identity(),
            "text_ids": self._text_ids,
            "files": None if self._writer is None else self._writer.written,
            "chain": 0 if self._writer is None else self._writer.chain,
            "epoch": self.epoch,
            "staged": self._staged,
            "told": list(self._told),
            "stage": staged,
            "ids": self._ids.state(),
        }

    def _identity(self) -> dict[str, int]:
        return {"version": _VERSION, "num_classes": self.num_classes, "window": self.rings.window}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave; files that are newer than it are removed."""
        self.stage.load(state["stage"])
        self.epoch, self._staged = state["epoch"], state["staged"]
        self._digested, self._begun = self._staged - self.stage.filled, False
        self._text_ids, self._told = state["text_ids"], list(state["told"])
        self._ids.load(state["ids"])
        self._sizes.clear()
        if state["files"] is not None:  # else it was saved before the first step, and says nothing of the folder
            self._write_from(state["files"], state["chain"])

    def check_state(self, state_dict: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` where a state is of other settings, or the folder lacks files that go with it."""
        if self._closed:
            raise ValueError(checks.problem("load", "needs a stream that is open", "one that was closed"))
        check_state(dict(self.named_buffers()), self._identity(), state_dict)
        extra = state_dict["_extra_state"]
        if extra["files"] is not None:
            check_folder(self.folder, rank(), world_size(), extra)
        elif self._writer is not None:
            advice = "Make a new stream; with overwrite=True it takes the same folder."
            rule, got = "must be of a stream with rows, since this one has some", "one from before the first step"
            raise ValueError(checks.problem("state_dict", rule, got, advice))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Restore a state, whole or not at all, and remove the files of this rank that are newer than it.

        Raises:
            ValueError: If it is of other settings, or the folder lacks files that go with it. What was collected so far
                then stays.
        """
        self.check_state(state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state to a file, once what was digested is in files.

        In a process group all ranks call it, and the block is digested first, which ends it early; rank 0 writes.

        Raises:
            OSError: If one or the other could not be written.
        """
        if world_size() > 1:
            self.flush()
        state = dict(self.state_dict())
        files = [-1, 0] if self._writer is None else [self._writer.written, self._writer.chain]
        of_ranks = of_all_ranks(files, self.counter.device).tolist() if world_size() > 1 else [files]
        if is_first():
            save_tensors(path, {"kind": _KIND, "state": state, "files": of_ranks})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Restore what :meth:`save` wrote, into a stream with the same settings and as many ranks, on the same folder.

        This rank's files that are newer than the state are removed: their rows will come again.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, holds code, or is of other settings, or files in the folder are missing.
                What was collected so far then stays.
        """
        with restoring(path):
            self.load_state_dict(of_this_rank(load_tensors(path, _KIND), rank(), world_size()))
