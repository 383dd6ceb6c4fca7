"""Is a saved state one that a callback can load?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lossbuf import checks
from lossbuf.arrays.content_hash import content_hash


def check_same_kind(mine: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raise where a state would not fit, before any of it is loaded.

    Args:
        mine: The ``state_dict`` of the callback that is to load it.
        state: The saved one.

    Raises:
        ValueError: If it is of another version, class count, number of samples, window, mode, ranking, warm-up, planted
            share or data set, or has other keys, shapes or dtypes.
    """
    extra = state.get("_extra_state") if isinstance(state, Mapping) else None
    if not isinstance(extra, Mapping):
        raise ValueError(checks.problem("state_dict", "must be one of a LossBufferCallback", "another"))
    for name in ("version", "num_classes", "n_samples", "window", "mode", "rank_by", "warmup", "planted", "neighbours"):
        if extra.get(name) != mine["_extra_state"][name]:
            rule = f"must have {name} {mine['_extra_state'][name]}"
            raise ValueError(checks.problem("state_dict", rule, extra.get(name)))
    if extra.get("data") != mine["_extra_state"]["data"]:
        raise ValueError(checks.problem("state_dict", "must be of the same labels and ids", "another data set's"))
    for name in state:
        if name not in mine:
            raise ValueError(checks.problem("state_dict", "must be one of a LossBufferCallback", f"key {name!r}"))
    for name, value in mine.items():
        other = state.get(name)
        if isinstance(value, Tensor):
            check_same_form(name, value, other)
        elif not isinstance(other, Mapping) or other.keys() != value.keys():
            raise ValueError(checks.problem("state_dict", f"must hold {name} as it was saved", type(other).__name__))


def check_part(module: Any, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
    """Check a state that is loaded as a part of another module's, which does not ask ``load_state_dict``; a hook."""
    if prefix and (own := {name[len(prefix) :]: state_dict[name] for name in state_dict if name.startswith(prefix)}):
        module.check_state(own)


def check_same_form(name: str, mine: Tensor, other: object) -> None:
    """Raise ``ValueError`` unless a saved value is a tensor of the same shape and dtype."""
    if not isinstance(other, Tensor) or other.shape != mine.shape or other.dtype != mine.dtype:
        raise ValueError(checks.problem("state_dict", f"must hold {name} as it was saved", type(other).__name__))


def fingerprint(labels: Tensor, ids: Sequence[Hashable] | None) -> str:
    """Tells data sets apart by their given labels and ids; waits for the device."""
    return content_hash(labels) if ids is None else content_hash(labels, repr(ids))
