"""Where the record of every sample lies: with the network, in the host's memory, or in files mapped to it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lossbuf import checks

_FILL_ROWS = 2**24


def checked(storage: str | os.PathLike[str] | None) -> str | None:
    """``None``, ``"cpu"`` or a folder, as text.

    Raises:
        ValueError: If it is a path that is no folder.
    """
    if storage is None or storage == "cpu":
        return None if storage is None else "cpu"
    if not isinstance(storage, str | os.PathLike) or storage == "" or not Path(storage).is_dir():
        raise ValueError(checks.problem("storage", "must be None, 'cpu' or a folder that is there", repr(storage)))
    return os.fspath(storage)


def allocated(shape: Sequence[int], dtype: torch.dtype, fill: float, storage: str | None) -> Tensor:
    """A tensor on the CPU, all ``fill``; mapped to a file where ``storage`` is a folder.

    The file takes its whole room at once, so that a full disk is an error here and no signal later. It loses its name
    where the system allows that, and is gone with the process.

    Raises:
        OSError: If the folder has no room for it, or cannot be written to.
    """
    if storage in (None, "cpu"):
        return torch.full(tuple(shape), fill, dtype=dtype)
    count = int(torch.Size(shape).numel())
    handle, path = tempfile.mkstemp(prefix="lossbuf-", suffix=".scratch", dir=storage)
    try:
        if hasattr(os, "posix_fallocate") and count:
            os.posix_fallocate(handle, 0, count * dtype.itemsize)
        mapped = torch.from_file(path, shared=True, size=count, dtype=dtype)
    finally:
        os.close(handle)
        if os.name == "posix":
            os.unlink(path)
    for part in mapped.split(_FILL_ROWS):
        part.fill_(fill)
    return mapped.view(tuple(shape))


class HostRecord(nn.Module):
    """A module with tensors that stay on the host while it moves to a GPU with the network.

    What a step brings for them is copied to pinned memory on the side and put in when the next block comes
    (:meth:`later`), so that no step waits for the GPU. Reading them needs :meth:`settle` first; saving and loading do
    it themselves.

    Args:
        storage: ``None`` for a module like any other, ``"cpu"``, or a folder of mapped files.
    """

    def __init__(self, storage: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.storage = checked(storage)
        self._on_host: list[str] = []
        self._waiting: tuple[Any, Callable[..., None], list[Tensor]] | None = None

    def register_record(self, name: str, shape: Sequence[int], dtype: torch.dtype, fill: float = 0.0) -> None:
        """Register a buffer that stays on the host if ``storage`` says so."""
        self.register_buffer(name, allocated(shape, dtype, fill, self.storage))
        if self.storage is not None:
            self._on_host.append(name)

    def later(self, put_in: Callable[..., None], *tensors: Tensor) -> None:
        """Call ``put_in(*tensors)``: at once, or with what is on the host and copies of them as soon as another comes.

        Whatever waits is put in first, so that the order is kept.
        """
        if self.storage is None:
            put_in(*tensors)
            return
        self.settle()
        copies = [_copied(tensor) for tensor in tensors]
        device = next((tensor.device for tensor in tensors if tensor.device.type == "cuda"), None)
        event = None
        if device is not None:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
        self._waiting = (event, put_in, copies)

    def settle(self) -> None:
        """Put in what still waits. For a copy that is not done yet this waits."""
        if self._waiting is None:
            return
        event, put_in, copies = self._waiting
        self._waiting = None
        if event is not None:
            event.synchronize()
        put_in(*copies)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        stay = {name: self._buffers[name] for name in self._on_host}
        self._buffers.update(dict.fromkeys(stay))  # torch passes over what is None
        try:
            return super()._apply(fn, recurse)
        finally:
            self._buffers.update(stay)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.settle()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *arguments: Any, **settings: Any) -> None:
        self.settle()
        super()._load_from_state_dict(*arguments, **settings)


def _copied(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True)
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
