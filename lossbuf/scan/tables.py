"""What a scan found as tables and as plain values: suspects, clean rows, and a summary for scripts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lossbuf
from lossbuf.detection.issue_table import issue_table
from lossbuf.scan.run import Scan

MOST_CLASSES = 100
"""With more classes ``summary.json`` leaves the transition matrix out, which ``load_scan`` still has."""


def issues_table(result: Scan) -> pd.DataFrame:
    """The suspects, worst first, with the columns that users of cleanlab know and every statistic."""
    data, table = result.data, result.table.query("is_suspect")
    issues = issue_table(result.verdict, data.labels, data.ids, data.class_names).loc[table.index]
    known = [*issues.columns, "is_suspect", "wrong_probability"]
    statistics = table[[name for name in table.columns if name not in known]]
    return issues.join(statistics).reset_index(names="row")


def clean_table(result: Scan) -> pd.DataFrame:
    """The other rows in their order: ``row``, ``id``, ``label``."""
    kept = np.flatnonzero(~result.suspect_mask)
    names = np.array(result.data.class_names, dtype=object)
    ids = [result.data.ids[row] for row in kept]
    return pd.DataFrame({"row": kept, "id": ids, "label": names[result.data.labels[kept]]})


def summary(result: Scan, source: Path) -> dict[str, Any]:
    """What a script may want to know of a scan: plain values, no NaN."""
    data, verdict = result.data, result.verdict
    suspects = np.bincount(data.labels[result.suspect_mask], minlength=len(data.class_names))
    rows = np.bincount(data.labels, minlength=len(data.class_names))
    planted = verdict.planted
    return {
        "lossbuf": lossbuf.__version__,
        "source": str(source),
        "settings": asdict(result.settings),
        "device": str(result.settings.training().torch_device()),
        "n_samples": len(data),
        "n_suspects": int(result.suspect_mask.sum()),
        "n_skipped": len(data.skipped),
        "noise_rate": verdict.noise_rate,
        "noise_rate_estimates": _plain(verdict.noise_rates),
        "noise_rate_interval": _plain(verdict.noise_rate_interval),
        "threshold": verdict.cut.threshold if math.isfinite(verdict.cut.threshold) else None,
        "planted_found": None if planted is None else float(planted.found),
        "classes": [
            {"name": name, "rows": int(n), "suspects": int(bad)}
            for name, n, bad in zip(data.class_names, rows, suspects, strict=True)
        ],
        "transition": (None if verdict.transition is None or len(rows) > MOST_CLASSES else verdict.transition.tolist()),
        "doubts": list(result.doubts),
        "notes": list(data.notes),
        "skipped": [{"id": name, "reason": reason} for name, reason in data.skipped],
        "fingerprint": data.fingerprint(),
        "seconds": round(result.seconds, 3),
    }


def _plain(values: Iterable[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
