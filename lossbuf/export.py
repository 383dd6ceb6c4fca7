"""The verdict as the table that users of cleanlab, FiftyOne and Renumics Spotlight know."""

from __future__ import annotations

import pandas as pd

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.detection.issue_table import ClassNames, issue_table
from lossbuf.detection.verdict import table

_NOT_TWICE = ("id", "given_label", "suggested_label", "is_suspect")  # in the columns before the statistics already


def label_issues(callback: LossBufferCallback, class_names: ClassNames | None = None) -> pd.DataFrame:
    """All rows, in the order of the data set.

    Args:
        callback: After a training; also the ``callback_`` of a fitted :class:`~lossbuf.selectors.LossBufferSelector`.
        class_names: ``num_classes`` names, to stand in the columns of labels instead of class numbers.

    Returns:
        The columns of :func:`issue_table`, then the statistics of
        :meth:`~lossbuf.callback.LossBufferCallback.report`, those that are classes by their numbers.

    Raises:
        ValueError: If the number of names is not the number of classes.

    Warns:
        LossBufferWarning: As :meth:`~lossbuf.callback.LossBufferCallback.verdict` does.

    Example:
        >>> import torch
        >>> callback = LossBufferCallback([0, 1, 1], noise_rate=1 / 3)
        >>> logits = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
        >>> loss = callback.loss(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
        >>> callback.end_epoch()
        >>> label_issues(callback, ["cat", "dog"]).query("is_label_issue")[["given_label", "suggested_label"]]
          given_label suggested_label
        2         dog             cat
    """
    if class_names is not None and len(class_names) != callback.num_classes:
        rule = f"must be {callback.num_classes}, one a class"
        raise ValueError(checks.problem("class_names", rule, len(class_names)))
    verdict, labels = callback.verdict(), callback.dynamics.labels
    issues = issue_table(verdict, labels.cpu().numpy(), callback.ids, class_names)
    statistics = table(verdict, callback.statistics(), labels, callback.ids).drop(columns=list(_NOT_TWICE))
    return issues.join(statistics)
