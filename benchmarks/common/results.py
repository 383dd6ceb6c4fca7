"""Results on disk: one JSON file a cell, written whole, with all that is needed to read it later."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

import lossbuf
from lossbuf.files import size_of, write_whole

Cell = dict[str, Any]
"""Settings and values of one measurement, by name."""


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    return {
        "lossbuf": lossbuf.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def short_hash(settings: dict[str, Any]) -> str:
    """Eight characters that tell settings apart."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all; a number that is not finite becomes null."""
    text = json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a JSON file; ``None`` where there is none, or it is damaged."""
    try:
        size_of(path)
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def values_of(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The values of a cell that is done with these settings; ``None`` where there is none."""
    done = read_json(path)
    return done["values"] if done is not None and done.get("settings") == _plain(settings) else None


def cell(path: Path, settings: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The values of a cell: read where it is done with the same settings, else computed and written."""
    done = values_of(path, settings)
    if done is not None:
        return done
    values = compute()
    write_json(path, {"settings": settings, "environment": environment(), "values": values})
    return _plain(values)


def cells(folder: Path) -> list[Cell]:
    """The settings and values of every finished cell in a folder."""
    found = []
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        if content is not None:
            found.append({**content["settings"], **content["values"]})
    return found


def renew(path: Path, settings: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the values of a cell that is done with these settings; another is left as it is."""
    done = values_of(path, settings)
    if done is not None:
        write_json(path, {"settings": settings, "environment": environment(), "values": change(done)})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
