"""What a user should know before trusting a result, and what to do about it: texts of warnings."""

from __future__ import annotations

import numpy as np

from lossbuf.detection.posterior import LabelPosterior
from lossbuf.detection.verdict import Verdict
from lossbuf.detection.warmup import Warmup

DISAGREEMENT = 0.1
"""Difference between the two estimates of the noise rate, beyond chance, that is told."""

FAR_LESS = 0.25
"""Share of one estimate under which the other is told of sooner: beyond chance and half of that difference."""

UNEXPLAINED = 0.15
"""Share of labels that the network contradicts out of sample although they are not estimated to be wrong, from which on
it is reported where it is also more than twice the noise rate."""

MORE_SUSPECTS = 1.5
"""Suspects over the number of wrong labels estimated, above which it is told."""

LEAST_FOUND = 0.6
"""Share of the planted labels found under which it is told."""


def of_verdict(verdict: Verdict, given: float | None = None, ruled: bool = False) -> list[str]:
    """Classes with most labels wrong or lost, estimates that disagree, and a cut that means little.

    Args:
        verdict: The verdict.
        given: The noise rate, where it is known.
        ruled: Somebody said where to cut.
    """
    found = []
    if len(verdict.hidden):
        found.append(
            f"More than half of the labels of true class {', '.join(map(str, verdict.hidden))} seem wrong, so the "
            "labels alone cannot tell which they are: look at some by hand. Is the network still weak, train longer."
        )
    for label, seen, expected in verdict.lost:
        found.append(
            f"Of the labels of class {label} {seen:.0%} are suspect, where {expected:.0%} were to be expected: once "
            "most of a class is dropped the network forgets it. Look at these by hand; give more steps (smaller "
            "batches, more epochs) or a better network."
        )
    if verdict.noise_rates is not None and verdict.noise_rate_interval is not None:
        first, second = verdict.noise_rates[:2]
        low, high = verdict.noise_rate_interval
        least, most = min(verdict.noise_rates), max(verdict.noise_rates)
        by_chance = max(high - most, least - low)  # one of them may be cut off at 0 or 1
        far = min(first, second) < FAR_LESS * max(first, second)
        allowed = max(DISAGREEMENT / 2, by_chance) if far else DISAGREEMENT + by_chance
        if verdict.audited:  # the first is too high by the network's own errors
            allowed += DISAGREEMENT
        if given is None and abs(first - second) > allowed:
            ways = (
                ("rows held back", "rows out of sample later")
                if verdict.audited
                else ("the most confident rows", "all")
            )
            found.append(
                f"The two estimates of the noise rate disagree: {first:.2f} by {ways[0]}, {second:.2f} by {ways[1]}. "
                "Give `noise_rate` if you know it, or `max_fdr`; or train longer, or with a better network."
            )
    share, slack = float(verdict.suspect_mask.mean()), max(0.02, 5 / len(verdict.suspicion))
    if not ruled and share > MORE_SUSPECTS * verdict.noise_rate + slack:
        found.append(
            f"{share:.0%} of the labels are suspect, but only {verdict.noise_rate:.0%} more likely wrong than right: "
            "right and wrong labels are hardly told apart. Go by the order and not by the cut, or train longer or with "
            "a better network."
        )
    check = verdict.planted
    if check is not None and check.found + 2 * check.found_error < LEAST_FOUND:
        found.append(
            f"Of {len(check.rows)} labels planted wrong on purpose only {check.found:.0%} are among the suspects, so "
            "perhaps half of the wrong labels are not. Train longer or with a better network, or drop more rows."
        )
    return found


def of_epochs(rows_in_epoch: int, n_samples: int) -> list[str]:
    """An epoch that does not end."""
    if rows_in_epoch <= 2 * n_samples:
        return []
    return [
        f"{rows_in_epoch} rows came since the last `end_epoch`, where there are {n_samples}: call it after every pass "
        "over the data, or all passes but the first do not count."
    ]


def of_given_rate(verdict: Verdict, given: float) -> list[str]:
    """A noise rate that was given, and is far from all estimates."""
    if verdict.noise_rate_interval is None:
        return []
    low, high = verdict.noise_rate_interval
    if low - DISAGREEMENT <= given <= high + DISAGREEMENT:
        return []
    return [
        f"The noise rate given, {given:.2f}, is far from what is estimated, {low:.2f} to {high:.2f}. Is it the share "
        "of wrong labels, in [0, 1]? Leave `noise_rate` out to go by the estimate."
    ]


def of_nothing_seen(verdict: Verdict) -> list[str]:
    """No step that told of a sample."""
    if not np.isnan(verdict.tie_break).all():
        return []
    return ["No sample was seen yet, so nothing is known: call `loss` or `update` in every step."]


def of_memory(warm_up: Warmup, verdict: Verdict, mode: str) -> list[str]:
    """Labels that the network memorized, so that its outputs believe them.

    Args:
        warm_up: Whether labels were memorized, and what was done about it.
        verdict: The verdict.
        mode: The mode of the callback.
    """
    if not warm_up.memorized or warm_up.restarted:
        return []
    if mode == "watch":
        advice = "Use `mode='filter'`, or a smaller learning rate and fewer epochs."
    elif not warm_up.leaves_time:
        if verdict.noise_rates is None or verdict.noise_rates[0] - verdict.noise_rates[1] < DISAGREEMENT:
            return []  # rows out of sample do not contradict
        advice = "Train for more epochs, so that the training can start anew without the suspects."
    elif warm_up.attached and not warm_up.learned:
        advice = "It learned nothing about rows that it was not trained on: use another network or better features."
    else:
        advice = (
            "Call `attach(network, optimizer)` before the training, so that it can start anew without the suspects."
        )
    return [
        f"The network memorized single labels by the end of epoch {warm_up.ended_after}, wrong ones too, so that wrong "
        f"labels look right: the noise rate may be far higher than {verdict.noise_rate:.2f}, and the suspects are only "
        f"those that it could not fit. {advice}"
    ]


def of_disagreement(warm_up: Warmup, verdict: Verdict, given: float | None = None) -> list[str]:
    """Labels that the network contradicts out of sample far more often than labels are estimated to be wrong.

    Args:
        warm_up: How often the given labels of rows held back were predicted.
        verdict: The verdict.
        given: The noise rate, where it is known.
    """
    count = int(warm_up.held.sum())
    right = warm_up.history[-1].right if warm_up.history else float("nan")
    one_class = verdict.transition is not None and len(verdict.transition) < 2
    if given is not None or not count or np.isnan(right) or one_class:
        return []
    disagreement = 1 - right
    unexplained = disagreement - verdict.noise_rate - np.sqrt(right * disagreement / count)
    if unexplained < UNEXPLAINED or unexplained < 2 * verdict.noise_rate:
        return []
    return [
        f"The evidence is weak: on rows that it was not trained on, the network predicts another label than the given "
        f"one for {disagreement:.0%}, but only {verdict.noise_rate:.0%} of the labels are estimated to be wrong. The "
        f"rest may be rows that it cannot classify, or wrong labels that follow a rule it has learned; the noise rate "
        f"may be anything up to {disagreement:.2f} and more. Check a random sample of the labels by hand, or use a "
        "better network or better features."
    ]


def of_nothing_dropped(epoch: int, warm_up: Warmup, posterior: LabelPosterior | None) -> list[str]:
    """Training that was to drop suspects and has not.

    Args:
        epoch: Epochs ended.
        warm_up: When the warm-up ends.
        posterior: What was recorded, where the ranking is by it.
    """
    if warm_up.ended_after is None:
        return [
            f"Nothing was dropped yet: the warm-up takes up to {warm_up.longest} epochs, {epoch} have ended. Give "
            "`epochs`, the number of epochs of the whole training, so that it ends in time."
        ]
    if posterior is None:
        return []
    return [
        f"Nothing was dropped: the rows to keep were expected to be only {float(posterior.purity):.0%} pure at the end "
        "of the warm-up. If the network was still learning then, use a longer `warmup`."
    ]
