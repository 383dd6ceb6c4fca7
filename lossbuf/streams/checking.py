"""What a stream is given: are the ids fit for a column, and is a saved state one that it can load?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from numpy.typing import NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.streams.files import check_files, check_later

_CURSORS = ("text_ids", "files", "chain", "epoch", "staged", "told", "stage", "ids")


def checked_ids(
    ids: Integer[Tensor, " batch"] | Sequence[Hashable] | NDArray[Any], logits: Tensor, text: bool | None
) -> Tensor | list[str]:
    """Ids as an integer tensor or as a list of text that can be written.

    Args:
        ids: Text or integers, one a sample.
        logits: Of the samples; integers come to where they are.
        text: Whether they were text before; ``None`` where none came.

    Raises:
        ValueError: If they are neither, their number or kind differs, or a text cannot be written as UTF-8.
    """
    size = len(logits)
    if isinstance(ids, Tensor):
        ids = ids if ids.device.type == "meta" else ids.to(logits.device, non_blocking=True)
        checks.batch_vector("ids", ids, logits)
        found: Tensor | list[str] = ids.long()
    else:
        plain: Any = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if isinstance(plain, str | bytes) or not isinstance(plain, Sequence) or len(plain) != size:
            number = len(plain) if isinstance(plain, Sequence) else type(plain).__name__
            raise ValueError(checks.problem("ids", f"must be a sequence of {size}, one a sample", number))
        found = _text(plain) if size and isinstance(plain[0], str) else _integers(plain)
    if size and text is not None and text == isinstance(found, Tensor):
        rule = f"must be {'text' if text else 'integers'} in every step, as in the first"
        raise ValueError(checks.problem("ids", rule, "integers" if text else "text"))
    return found


def _text(ids: Sequence[Any]) -> list[str]:
    try:
        "".join(ids).encode()
    except TypeError:
        other = next(value for value in ids if not isinstance(value, str))
        raise ValueError(checks.problem("ids", "must all be text or all integers", repr(other))) from None
    except UnicodeEncodeError:
        bad = next(value for value in ids if not _encodable(value))
        raise ValueError(checks.problem("ids", "must be text that UTF-8 can write", ascii(bad))) from None
    return [str.__str__(value) for value in ids]  # of a text that is also an enum, the text


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integers(ids: Sequence[Any]) -> Tensor:
    for value in ids:
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise ValueError(checks.problem("ids", "must all be text or all integers", repr(value)))
    try:
        return torch.tensor([int(value) for value in ids], dtype=torch.int64)
    except (OverflowError, RuntimeError, ValueError):
        raise ValueError(checks.problem("ids", "must be integers of 64 bits", max(ids, key=abs))) from None


def check_state(buffers: Mapping[str, Tensor], identity: Mapping[str, int], state: Mapping[str, Any]) -> None:
    """Raise where a state would not fit a stream, before any of it is loaded.

    Args:
        buffers: Those of the stream.
        identity: Version, class count and window of the stream.
        state: The saved ``state_dict``.

    Raises:
        ValueError: If it is of another identity, or has other keys, shapes or dtypes.
    """
    name, extra = "state_dict", state.get("_extra_state") if isinstance(state, Mapping) else None
    if not isinstance(extra, Mapping) or extra.keys() != {*identity, *_CURSORS}:
        raise ValueError(checks.problem(name, "must be one of a LossBufferStream", "another"))
    for setting, value in identity.items():
        if extra[setting] != value:
            raise ValueError(checks.problem(name, f"must have {setting} {value}", extra[setting]))
    if state.keys() != {*buffers, "_extra_state"} - {"class_probe"}:
        raise ValueError(checks.problem(name, "must be one of a LossBufferStream", "other keys"))
    for part in state.keys() - {"_extra_state"}:
        if not _alike(state[part], buffers[part].shape, buffers[part].dtype):
            rule = f"must hold {part} as it was saved"
            raise ValueError(checks.problem(name, rule, type(state[part]).__name__))
    if not _whole(extra, identity["num_classes"]):
        raise ValueError(checks.problem(name, "must hold cursors and block as they were saved", "others"))


def check_folder(folder: Path, rank: int, ranks: int, extra: Mapping[str, Any]) -> None:
    """Raise where files that go with a state are missing, or those to be removed are not of its training.

    Args:
        folder: Of the stream.
        rank: Of the process.
        ranks: How many there are.
        extra: Cursors and block of a state that :func:`check_state` has passed.

    Raises:
        ValueError: If so.
    """
    check_files(folder, rank, extra["files"], extra["chain"])
    ids, labels = extra["ids"], extra["stage"]["labels"].tolist()
    begin = list(zip(ids.tolist() if isinstance(ids, Tensor) else ids, labels, strict=True))
    check_later(folder, rank, ranks, extra["files"], extra["chain"], begin)


def of_this_rank(content: Mapping[str, Any], rank: int, ranks: int) -> dict[str, Any]:
    """The state of one rank in what ``save`` wrote for all.

    Raises:
        ValueError: If it is something else, or of another number of ranks.
    """
    state, files = content.get("state"), content.get("files")
    extra = state.get("_extra_state") if isinstance(state, Mapping) else None
    pairs = isinstance(files, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in files)
    if not isinstance(files, list) or not pairs or not isinstance(state, Mapping) or not isinstance(extra, Mapping):
        raise ValueError(checks.problem("content", "must be what `save` wrote", "another"))
    if len(files) != ranks:
        raise ValueError(checks.problem("content", f"must be of {ranks} ranks", len(files)))
    count, chain = files[rank]
    return {**state, "_extra_state": {**extra, "files": None if count == -1 else count, "chain": chain}}


def _whole(extra: Mapping[str, Any], num_classes: int) -> bool:
    """Do the parts fit each other?"""
    stage, ids, told = extra["stage"], extra["ids"], extra["told"]
    cursors = [extra["files"] or 0, extra["chain"], extra["epoch"], *(told if isinstance(told, list) else [None])]
    if not isinstance(stage, Mapping) or extra["text_ids"] not in (None, True, False):
        return False
    cursors.append(extra["staged"])
    cursors += [stage.get(cursor) for cursor in ("filled", "steps", "largest")]
    if any(type(cursor) is not int or cursor < 0 for cursor in cursors):
        return False
    filled, sizes = stage["filled"], stage.get("step_sizes")
    return (
        _alike(stage.get("logits"), (filled, num_classes), torch.float32)
        and all(_alike(stage.get(part), (filled,), torch.int64) for part in ("labels", "rows"))
        and isinstance(sizes, list)
        and all(isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair) for pair in sizes)
        and sum(pair[1] for pair in sizes) == filled
        and extra["staged"] >= filled
        and (_alike(ids, (filled,), torch.int64) if isinstance(ids, Tensor) else _all_text(ids, filled))
        and (not filled or extra["text_ids"] is isinstance(ids, list))
    )


def _all_text(ids: object, size: int) -> bool:
    return isinstance(ids, list) and len(ids) == size and all(type(text) is str for text in ids)


def _alike(value: object, shape: Sequence[int], dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape) == tuple(shape) and value.dtype == dtype
