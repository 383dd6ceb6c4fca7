"""How good a ranking and a cut are, against the noise that was put in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from lossbuf.recording.scores import suspicion_order


def places(suspicion: NDArray[Any], tie_break: NDArray[Any]) -> NDArray[np.int64]:
    """Place of every row in the ranking, 0 for the most suspect, ties broken."""
    order = suspicion_order(suspicion, tie_break)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place


def ranking(suspicion: NDArray[Any], tie_break: NDArray[Any], noise_mask: NDArray[np.bool_]) -> dict[str, float]:
    """AUROC, average precision, and the share of wrong labels missed when exactly the true number is flagged."""
    wrong = int(noise_mask.sum())
    if not 0 < wrong < len(noise_mask):
        return {"auroc": float("nan"), "average_precision": float("nan"), "fnr_at_rate": float("nan")}
    place = places(suspicion, tie_break)
    return {
        "auroc": float(roc_auc_score(noise_mask, -place)),
        "average_precision": float(average_precision_score(noise_mask, -place)),
        "fnr_at_rate": float((place[noise_mask] >= wrong).mean()),
    }


def cut(suspicion: NDArray[Any], suspect_mask: NDArray[np.bool_], noise_mask: NDArray[np.bool_]) -> dict[str, float]:
    """F1 of the flagged rows, and the best F1 that any cut of the ranking would have had."""
    wrong = int(noise_mask.sum())
    hits = np.cumsum(noise_mask[np.argsort(places(suspicion, suspicion))])
    best = 2 * hits / (np.arange(1, len(hits) + 1) + wrong)
    flagged = int(suspect_mask.sum())
    return {
        "f1": 2 * float((suspect_mask & noise_mask).sum()) / max(flagged + wrong, 1),
        "best_f1": float(best.max()),
    }


def kept(suspect_mask: NDArray[np.bool_], noise_mask: NDArray[np.bool_]) -> dict[str, float]:
    """Pure rate of the kept rows, share of the clean rows that are kept, and share of all rows that are."""
    kept_mask = ~suspect_mask
    return {
        "pure_rate": float((~noise_mask[kept_mask]).mean()) if kept_mask.any() else float("nan"),
        "clean_recall": float(kept_mask[~noise_mask].mean()) if (~noise_mask).any() else float("nan"),
        "kept_share": float(kept_mask.mean()),
    }
