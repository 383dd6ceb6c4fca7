"""A verdict as a table with a row per label, in the columns that users of cleanlab know."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossbuf.detection.verdict import Verdict

ClassNames = Sequence[Hashable] | NDArray[Any]
"""Names of the classes in the order of their numbers, such as a selector's ``classes_``."""


def issue_table(
    verdict: Verdict,
    labels: NDArray[np.int64],
    ids: Sequence[Hashable] | None = None,
    class_names: ClassNames | None = None,
) -> pd.DataFrame:
    """What is thought of every label, a row each, in the order of the rows; the index is the row number.

    Columns: ``id`` (the row number where there are no ids), ``given_label``, ``predicted_label`` (the class that the
    row is most likely of: the likely class where the label is wrong with a probability above one half, or for suspects
    where there is no posterior; else the given label), ``suggested_label`` (the likely class for suspects),
    ``is_label_issue``, ``label_quality`` (:func:`label_quality_of`) and ``suspicion``. Rows never seen are no issue and
    have no quality, NaN.

    Args:
        verdict: On all rows.
        labels: Given labels, shape ``(n_samples,)``.
        ids: Names of the rows.
        class_names: Names of the classes, to stand in the columns of labels.
    """
    wrong = verdict.suspect_mask if verdict.transition is None else verdict.suspicion > 0
    columns = {
        "given_label": labels,
        "predicted_label": np.where(wrong, verdict.likely, labels),
        "suggested_label": verdict.suggested(labels),
    }
    if class_names is not None:
        names = pd.Series(class_names)  # finds the dtype: the classes of a selector may be integers
        columns = {name: names.to_numpy()[classes] for name, classes in columns.items()}
    return pd.DataFrame(
        {
            "id": np.arange(len(labels)) if ids is None else pd.Series(ids, dtype=object),
            **columns,
            "is_label_issue": verdict.suspect_mask,
            "label_quality": label_quality_of(verdict),
            "suspicion": verdict.suspicion,
        }
    )


def label_quality_of(verdict: Verdict) -> NDArray[np.float64]:
    """How good each label is, in [0, 1], lower is worse, shape ``(n_samples,)``; NaN for rows never seen.

    With the posterior, the probability that the label is right. Without it there is no probability, and the quality is
    the place in the ranking: the share of the rows seen that are more suspect, equals counted by half.
    """
    suspicion = verdict.suspicion.astype(np.float64)
    if verdict.transition is not None:
        from scipy.special import expit  # slow to import

        return np.asarray(expit(-suspicion))
    worst_first = pd.Series(-suspicion).rank(method="average").to_numpy()
    return (worst_first - 0.5) / max(int((~np.isnan(suspicion)).sum()), 1)
