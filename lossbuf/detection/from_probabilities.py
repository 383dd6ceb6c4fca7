"""Wrong labels from out-of-sample probabilities, for users of cleanlab, judged by the scores of this package.

For those who have the probabilities already, from cross-validation of any classifier. There is no history of a training
then, so there is one view: the transition matrix P(given | true) is counted from the rows that are most surely of each
class, the mixture is undone with it, and every label is judged by Bayes' rule (:mod:`lossbuf.detection.transition`). A
classifier that never saw a label was still taught by wrong ones: its outputs are read as those of a training that drops
nothing.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.arrays.conversion import as_array
from lossbuf.detection import diagnostics as doubts
from lossbuf.detection import transition
from lossbuf.detection.issue_table import issue_table, label_quality_of
from lossbuf.detection.thresholds import KnownRate, MaxFDR, with_floor
from lossbuf.detection.verdict import CLASS_FLOOR, Verdict, cut_rule
from lossbuf.errors import LossBufferWarning
from lossbuf.recording.mean_outputs import FLOOR
from lossbuf.recording.scores import suspicion_order

RANKED_BY = ("label_quality", "self_confidence", "normalized_margin", "confidence_weighted_entropy")
"""What indices can be ranked by: our own quality, and the three of cleanlab."""

SUM_TOLERANCE = 1e-3
"""How far from 1 a row of probabilities may sum: as far as half precision takes it."""


@overload
def find_label_issues(
    labels: ArrayLike | Tensor,
    pred_probs: ArrayLike | Tensor,
    *,
    noise_rate: float | None = None,
    max_fdr: float | None = None,
    return_indices_ranked_by: None = None,
    return_table: Literal[False] = False,
) -> NDArray[np.bool_]: ...


@overload
def find_label_issues(
    labels: ArrayLike | Tensor,
    pred_probs: ArrayLike | Tensor,
    *,
    noise_rate: float | None = None,
    max_fdr: float | None = None,
    return_indices_ranked_by: str,
    return_table: Literal[False] = False,
) -> NDArray[np.int64]: ...


@overload
def find_label_issues(
    labels: ArrayLike | Tensor,
    pred_probs: ArrayLike | Tensor,
    *,
    noise_rate: float | None = None,
    max_fdr: float | None = None,
    return_indices_ranked_by: None = None,
    return_table: Literal[True],
) -> pd.DataFrame: ...


def find_label_issues(
    labels: ArrayLike | Tensor,
    pred_probs: ArrayLike | Tensor,
    *,
    noise_rate: float | None = None,
    max_fdr: float | None = None,
    return_indices_ranked_by: str | None = None,
    return_table: bool = False,
) -> Any:
    """Labels that seem wrong, by probabilities of a classifier that did not train on the row it speaks of.

    Args:
        labels: Given labels, integers in ``[0, num_classes)``, shape ``(n_samples,)``.
        pred_probs: Out-of-sample probabilities, rows sum to 1, shape ``(n_samples, num_classes)``.
        noise_rate: Share of wrong labels, where it is known; by default it is estimated.
        max_fdr: Largest share of right labels among the issues to put up with, as an alternative.
        return_indices_ranked_by: Give the rows of the issues, worst first, by one of :data:`RANKED_BY`.
        return_table: Give a table of all rows instead, with the columns of
            :func:`~lossbuf.detection.issue_table.issue_table`.

    Returns:
        A mask, True for issues, shape ``(n_samples,)``; or row numbers; or a table.

    Raises:
        ValueError: If shapes do not fit, labels are no integers in range, probabilities are none, or settings exclude
            each other.

    Warns:
        LossBufferWarning: If most labels of a class seem wrong.

    Example:
        >>> probs = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))
        >>> labels = np.tile([0, 1], 10)
        >>> labels[3] = 0
        >>> find_label_issues(labels, probs, noise_rate=0.05, return_indices_ranked_by="label_quality")
        array([3])
    """
    if return_indices_ranked_by is not None:
        checks.one_of("return_indices_ranked_by", return_indices_ranked_by, RANKED_BY)
        if return_table:
            rule = "must be left out where `return_indices_ranked_by` is given"
            raise ValueError(checks.problem("return_table", rule, return_table))
    given, probs = _checked(labels, pred_probs)
    verdict = _judged(given, probs, noise_rate, max_fdr)
    for doubt in doubts.of_verdict(verdict):
        warnings.warn(doubt, LossBufferWarning, stacklevel=2)
    if return_table:
        return issue_table(verdict, given.numpy())
    if return_indices_ranked_by is None:
        return verdict.suspect_mask
    badness = _badness(return_indices_ranked_by, given, probs, verdict)
    order = suspicion_order(badness, verdict.suspicion)
    return order[verdict.suspect_mask[order]]


def label_quality(labels: ArrayLike | Tensor, pred_probs: ArrayLike | Tensor) -> NDArray[np.float64]:
    """The probability that each label is right, in [0, 1], lower is worse, shape ``(n_samples,)``.

    Arguments and errors are those of :func:`find_label_issues`.
    """
    return label_quality_of(_judged(*_checked(labels, pred_probs)))


def judge(
    labels: ArrayLike | Tensor,
    pred_probs: ArrayLike | Tensor,
    *,
    noise_rate: float | None = None,
    max_fdr: float | None = None,
) -> Verdict:
    """The whole verdict: suspicion, cut, likely classes, transition matrix and noise rate.

    Arguments and errors are those of :func:`find_label_issues`. The two estimates of the noise rate are the same, since
    there is one view.
    """
    return _judged(*_checked(labels, pred_probs), noise_rate, max_fdr)


def _judged(given: Tensor, probs: Tensor, noise_rate: float | None = None, max_fdr: float | None = None) -> Verdict:
    rule = cut_rule("posterior", noise_rate, max_fdr, None)
    anchored = transition.from_anchors(probs, given)
    rate = min(max(float(transition.noise_rate(anchored.matrix, given)), 0.0), 1.0)  # may be beyond by rounding
    error = float(anchored.rate_error(given))
    true = transition.deconvolved(probs, anchored.matrix)
    suspicion = transition.wrong_log_odds(true, given, anchored.matrix).numpy()
    tie_break = -probs.gather(1, given.unsqueeze(1)).squeeze(1).log().numpy()
    cut = (rule or KnownRate(rate))(suspicion, tie_break)
    if rule is None or isinstance(rule, MaxFDR):
        cut = with_floor(cut._replace(noise_rate=rate), suspicion, given.numpy(), CLASS_FLOOR)
    return Verdict(
        suspicion,
        tie_break,
        cut,
        transition.likely_labels(true, given, anchored.matrix).numpy(),
        anchored.matrix.numpy(),
        noise_rates=(rate, rate),
        noise_rate_interval=(max(rate - 1.96 * error, 0.0), min(rate + 1.96 * error, 1.0)),
        hidden=np.flatnonzero(anchored.hidden().numpy()),
        bounded=isinstance(rule, MaxFDR),
    )


def _badness(name: str, given: Tensor, probs: Tensor, verdict: Verdict) -> NDArray[Any]:
    """What to rank by, higher is worse; formulas of Northcutt et al. 2021 and Kuan, Mueller 2022."""
    if name == "label_quality":
        return verdict.suspicion
    own = probs.gather(1, given.unsqueeze(1)).squeeze(1)
    if name == "self_confidence":
        return -own.numpy()
    if name == "normalized_margin":
        return (probs.scatter(1, given.unsqueeze(1), 0.0).amax(1) - own).numpy()
    return (torch.special.entr(probs).sum(1) / own).numpy()


def _checked(labels: object, pred_probs: object) -> tuple[Tensor, Tensor]:
    """Labels as int64, and probabilities as float32, none below the floor, rows summing to 1."""
    try:
        probs = torch.as_tensor(pred_probs if isinstance(pred_probs, Tensor) else as_array(pred_probs))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(checks.problem("pred_probs", "must be numbers", type(pred_probs).__name__)) from error
    if probs.is_complex():
        raise ValueError(checks.problem("pred_probs", "must be real numbers", f"dtype {probs.dtype}"))
    shape = f"shape {tuple(probs.shape)}"
    if probs.ndim != 2 or probs.shape[1] < 1:
        raise ValueError(checks.problem("pred_probs", "must have shape (n_samples, num_classes)", shape))
    given = checks.class_labels("labels", labels, probs.shape[1])
    if len(probs) != len(given):
        raise ValueError(checks.problem("pred_probs", f"must have {len(given)} rows, one a label", shape))
    probs = probs.detach().to("cpu", torch.float64)
    _raise_at("must be no NaN", probs.isnan().any(1), probs)
    _raise_at("must lie in [0, 1]", ((probs < -SUM_TOLERANCE) | (probs > 1 + SUM_TOLERANCE)).any(1), probs)
    _raise_at("must have rows that sum to 1", (probs.sum(1) - 1).abs() > SUM_TOLERANCE, probs)
    floored = probs.float().clamp_(min=float(np.exp(FLOOR)))
    return given, floored.div_(floored.sum(1, keepdim=True))


def _raise_at(rule: str, wrong: Tensor, probs: Tensor) -> None:
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        values = [f"{value:.4g}" for value in probs[row, :5].tolist()]
        shown = ", ".join([*values, *(["..."] if probs.shape[1] > 5 else [])])
        advice = "Are they logits? Give them as softmax(1)." if "NaN" not in rule else ""
        raise ValueError(checks.problem("pred_probs", rule, f"[{shown}] in row {row}", advice))
