"""From what was recorded to a verdict on every label: suspicion, cut, suggested label, table."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossbuf import checks
from lossbuf.detection.consensus import BESIDE_POSTERIOR, INSTEAD_OF_POSTERIOR, in_order_of, mean_place
from lossbuf.detection.planted import PlantedCheck, PlantedLabels
from lossbuf.detection.planted import noise_rate as rate_by_planting
from lossbuf.detection.posterior import LabelPosterior
from lossbuf.detection.thresholds import Cut, CutRule, KnownRate, MaxF1, MaxFDR, Mixture, with_floor
from lossbuf.detection.transition import is_even, true_shares
from lossbuf.recording.dynamics import Ranking, SampleDynamics
from lossbuf.recording.sample_statistics import SUSPICIONS, SampleStatistics
from lossbuf.recording.scores import suspicion_order

RANKINGS = ("posterior", *SUSPICIONS)
"""What rows can be ranked by."""

CLASS_FLOOR = 0.05
"""Share of every given class that is kept, unless ``noise_rate`` or ``cut`` say what to drop."""

CLASS_MARGIN = 2.0
"""Over the square root of the number of labels, the share of a class by which more of it may be dropped from training
than the matrix expects to be wrong."""

AUDIT_FLOOR = 0.1
"""Share of every given class that stays in training during an audit, so that rare classes are not forgotten."""

DOUBTFUL = -2.0
"""Log-odds above which a label is in doubt: a probability of .12 of being wrong."""

FEW = 0.1
"""Rows in doubt that no estimate counts as wrong go from training too where they are at most this share of those."""


@dataclass(frozen=True)
class Verdict:
    """What is thought of every label.

    Attributes:
        suspicion: Higher is more suspect; NaN for rows never seen, shape ``(n_samples,)``.
        tie_break: Mean label loss, which decides between equals, shape ``(n_samples,)``.
        cut: Threshold, noise rate and suspects.
        likely: For every row the class it is most likely of if its label is wrong, shape ``(n_samples,)``.
        transition: P(given | true), shape ``(num_classes, num_classes)``; ``None`` without the posterior.
        noise_rates: Estimates of the noise rate: by the most confident rows, by all outputs since and, where labels
            were planted, by those found. Where suspects were dropped while training, the rate is the share of labels
            that are more likely wrong than right, else the mean of the first two; or the mean of that and the last.
        noise_rate_interval: From the lowest less to the highest plus 1.96 standard errors of counting so few rows.
            Where nothing was dropped the first two are the same. It is no confidence interval: what the estimates
            share, outputs that are vague or wrong labels learnt by heart, is not in it.
        hidden: Classes of which more than half of the labels seem wrong.
        lost: Classes of which far more labels are suspect than the transition matrix expects: each with the share that
            is and the share expected.
        audited: The first estimate is that of rows held back, the second that of rows out of sample after a new start.
        bounded: Suspects may be more likely right than wrong: nobody said how many or which labels are wrong.
        planted: What became of the planted labels, where there are any.
    """

    suspicion: NDArray[np.float32]
    tie_break: NDArray[np.float32]
    cut: Cut
    likely: NDArray[np.int64]
    transition: NDArray[np.float64] | None = None
    noise_rates: tuple[float, ...] | None = None
    noise_rate_interval: tuple[float, float] | None = None
    hidden: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    lost: tuple[tuple[int, float, float], ...] = ()
    audited: bool = False
    bounded: bool = False
    planted: PlantedCheck | None = None

    @property
    def noise_rate(self) -> float:
        """Share of wrong labels, estimated or given."""
        return self.cut.noise_rate

    @property
    def suspect_mask(self) -> NDArray[np.bool_]:
        """True for suspects, shape ``(n_samples,)``."""
        return self.cut.suspect_mask

    def suggested(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The given labels, with the likely class for suspects; where bounded not for those more likely right."""
        doubtful = self.bounded & (self.suspicion <= 0)
        return np.where(self.cut.suspect_mask & ~doubtful, self.likely, labels)


def cut_rule(rank_by: str, noise_rate: float | None, max_fdr: float | None, cut: CutRule | None) -> CutRule | None:
    """The rule that the settings ask for; ``None`` is to cut off the estimated noise rate.

    Raises:
        ValueError: If more than one is asked for, or ``max_fdr`` without the posterior.
    """
    given = {"noise_rate": noise_rate, "max_fdr": max_fdr, "cut": cut}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ValueError(checks.problem(named[1], f"must be left out where `{named[0]}` is given", given[named[1]]))
    if cut is not None and (isinstance(cut, type) or not callable(cut)):
        raise ValueError(checks.problem("cut", "must be a rule, such as Otsu()", repr(cut)))
    if max_fdr is not None:
        if rank_by != "posterior":
            raise ValueError(checks.problem("max_fdr", "needs `rank_by` to be 'posterior'", repr(rank_by)))
        return MaxFDR(max_fdr)
    if noise_rate is not None:
        return KnownRate(noise_rate)
    return cut or (None if rank_by == "posterior" else Mixture())


def by_statistic(ranking: Ranking, labels: Tensor, rule: CutRule | None) -> Verdict:
    """The verdict by one of :data:`~lossbuf.recording.sample_statistics.SUSPICIONS`; waits for the device."""
    suspicion, tie_break, other = ranking
    likely = np.where(other >= 0, other, labels.cpu().numpy())
    return Verdict(suspicion, tie_break, (rule or Mixture())(suspicion, tie_break), likely)


def by_posterior(
    dynamics: SampleDynamics,
    posterior: LabelPosterior,
    rule: CutRule | None,
    *,
    training: bool = False,
    planted: PlantedLabels | None = None,
) -> Verdict:
    """The verdict by the posterior; waits for the device.

    Args:
        dynamics: Statistics and given labels.
        posterior: What was recorded of the same rows.
        rule: Where to cut; ``None`` is :class:`~lossbuf.detection.thresholds.MaxF1` where suspects were dropped while
            training. Else as many rows are cut off as the estimated noise rate says are wrong, since outputs that
            labels taught make these look right.
        training: The verdict decides which rows go on training: as many as are estimated to be right, less those in
            doubt where these are few. A rule then waits, unless it is another than a bound on the false-discovery rate.
        planted: Labels planted to see how many are found.
    """
    labels = dynamics.labels
    audit = training and posterior.is_audit(dynamics.epoch)
    refine = not training or (posterior.audited and not audit)
    reading = posterior.read(labels if planted is None else planted.all_labels(labels), refine=refine)
    suspicion = reading.log_odds.cpu().numpy()
    likely, matrix, hidden = (part.cpu().numpy() for part in (reading.likely, reading.transition, reading.hidden))
    first, second, error = reading.estimates.tolist()
    rate, matrix = float(reading.noise_rate), matrix.copy()  # on a CPU it may be the settled one itself
    by_odds, by_planting = posterior.dropping and not training, float("nan")
    estimates, rows, of_planted = [first, second], np.empty(0, dtype=np.int64), suspicion[:0]
    if planted is not None and planted.sown and not training:  # back to the rows' own labels
        rows = planted.rows.cpu().numpy()
        own, likely_own = posterior.read_also(planted.rows, planted.own, reading.transition, planted.all_labels(labels))
        of_planted, suspicion, likely = suspicion[rows], suspicion.copy(), likely.copy()
        suspicion[rows], likely[rows] = own.cpu().numpy(), likely_own.cpu().numpy()
        matrix = planted.removed(reading.transition, labels).cpu().numpy()
        first, second, rate = (planted.rate_without(value) for value in (first, second, rate))
        estimates = [first, second]
        by_planting = rate_by_planting(np.delete(suspicion, rows), of_planted)
    even = not training and not len(rows) and not posterior.audited and is_even(reading.transition)
    tie_break, suspicion = _ordered(dynamics, suspicion, even, posterior.dropping)
    if by_odds and not posterior.is_cautious:
        rate = share_above(suspicion, 0.0)
    if np.isfinite(by_planting):
        estimates.append(by_planting)
        rate = (rate + by_planting) / 2  # the errors of the two seldom agree
    if audit:
        cut = KnownRate(float(posterior.audited_share))(suspicion, tie_break)
        cut = with_floor(cut, suspicion, labels.cpu().numpy(), AUDIT_FLOOR)
    elif rule is None or isinstance(rule, MaxFDR):
        dropped = share_above(suspicion, 0.0) if posterior.audited else _to_drop(rate, suspicion)
        usual = MaxF1() if by_odds else KnownRate(dropped if training else rate)
        chosen = usual if rule is None or training else rule
        cut = chosen(suspicion, tie_break)._replace(noise_rate=rate)
        floor = _expected_to_be_right(labels, matrix) if training and rule is None else CLASS_FLOOR
        cut = with_floor(cut, suspicion, labels.cpu().numpy(), floor)
    else:
        cut = rule(suspicion, tie_break)
    # Where no row is suspect a label that is more likely wrong than right would be one all the same.
    found_from = min(cut.threshold, 0.0) if by_odds and rule is None else cut.threshold
    low, high = min(*estimates, rate) - 1.96 * error, max(*estimates, rate) + 1.96 * error
    return Verdict(
        suspicion,
        tie_break,
        cut,
        likely,
        matrix,
        noise_rates=tuple(estimates),
        noise_rate_interval=(max(low, 0.0), min(high, 1.0)),
        hidden=np.flatnonzero(hidden),
        lost=_lost(cut.suspect_mask, labels, matrix) if by_odds and rule is None else (),
        audited=posterior.audited,
        bounded=isinstance(rule, MaxFDR) or (rule is None and by_odds),
        planted=PlantedCheck.of(rows, of_planted, found_from) if len(rows) else None,
    )


def _expected_wrong(labels: Tensor, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The share of the labels of each given class that the matrix expects to be wrong, and the number of its labels."""
    counts = np.bincount(labels.cpu().numpy(), minlength=len(matrix)).clip(1)
    shares = true_shares(torch.from_numpy(matrix), labels.cpu()).numpy()
    return (1 - shares * matrix.diagonal() * len(labels) / counts).clip(0, 1), counts


def _expected_to_be_right(labels: Tensor, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of each given class that stays in training: what is expected to be right, less a margin.

    A network forgets a class of which too many rows are dropped. It then contradicts the labels of the others as well,
    and they are dropped after the next epoch.
    """
    wrong, counts = _expected_wrong(labels, matrix)
    return np.maximum(CLASS_FLOOR, 1 - wrong - CLASS_MARGIN / np.sqrt(counts))


def _lost(
    suspects: NDArray[np.bool_], labels: Tensor, matrix: NDArray[np.float64]
) -> tuple[tuple[int, float, float], ...]:
    """Classes of which over half of the labels are suspect, and over half as many again as the matrix expects."""
    expected, counts = _expected_wrong(labels, matrix)
    seen = np.bincount(labels.cpu().numpy()[suspects], minlength=len(matrix)) / counts
    far = (seen > 0.5) & (seen > 1.5 * expected + 1 / np.sqrt(counts))
    return tuple((int(label), float(seen[label]), float(expected[label])) for label in np.flatnonzero(far))


def _ordered(
    dynamics: SampleDynamics, suspicion: NDArray[np.float32], even: bool, dropping: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean label losses, and the suspicions in the order of several rankings where the noise is even.

    There all classes are alike to Bayes' rule, which then only knows of outputs what other statistics know as well.
    """
    beside = (BESIDE_POSTERIOR if dropping else INSTEAD_OF_POSTERIOR) if even else ()
    tie_break, *statistics = dynamics.suspicions(("label_loss", *beside))
    if not even:
        return tie_break, suspicion
    own = [suspicion] * 2 if dropping else []  # it counts as much as the others together
    return tie_break, in_order_of(suspicion, mean_place([*own, *statistics]), tie_break)


def share_above(log_odds: NDArray[np.float32], threshold: float) -> float:
    """Share of the rows seen that lie above a threshold; 0 where none was seen."""
    known = log_odds[~np.isnan(log_odds)]
    return float((known > threshold).mean()) if len(known) else 0.0


def _to_drop(rate: float, log_odds: NDArray[np.float32]) -> float:
    """Share of the rows that go from training.

    Wrong labels that stay are learnt and look right from then on. So labels in doubt go too where they are few, which
    tells that wrong and right ones lie well apart.
    """
    doubtful = share_above(log_odds, DOUBTFUL)
    return doubtful if rate < doubtful <= (1 + FEW) * rate else rate


def table(
    verdict: Verdict, statistics: SampleStatistics, labels: Tensor, ids: Sequence[Hashable] | None
) -> pd.DataFrame:
    """All rows, most suspect first; see :meth:`~lossbuf.callback.LossBufferCallback.report`."""
    columns = {name: value.cpu().numpy() for name, value in vars(statistics).items() if name != "other_class"}
    if verdict.transition is not None:
        from scipy.special import expit  # slow to import

        columns = {"wrong_probability": expit(verdict.suspicion), **columns}
    given, suspects = labels.cpu().numpy(), verdict.cut.suspect_mask
    rows = pd.DataFrame(
        {
            "id": np.arange(len(given)) if ids is None else pd.Series(ids, dtype=object),
            "given_label": given,
            "suggested_label": verdict.suggested(given),
            "is_suspect": suspects,
            **columns,
        }
    )
    return rows.iloc[suspicion_order(verdict.suspicion, verdict.tie_break)]
