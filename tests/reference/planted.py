"""Slow versions of what is read from planted labels."""

import math


def shares_above(values, threshold):
    known = [value for value in values if not math.isnan(value)]
    return sum(value >= threshold for value in known) / len(known)


def noise_rate(suspicion, planted, least):
    best = (math.inf, math.nan)
    for threshold in sorted(value for value in suspicion if not math.isnan(value)):
        found = shares_above(planted, threshold)
        if found >= least:
            ratio = shares_above(suspicion, threshold) / found
            above = shares_above(suspicion, threshold)
            rows = sum(not math.isnan(value) for value in suspicion)
            bound = ratio * (1 + 2 * math.sqrt((1 - found) / found / len(planted) + (1 - above) / above / rows))
            best = min(best, (bound, ratio), key=lambda pair: pair[0])
    return min(1.0, best[1])


def false_discovery(suspicion, planted, noise_rate):
    curve = []
    for threshold in suspicion:
        if math.isnan(threshold):
            curve.append(float("nan"))
            continue
        wrong = noise_rate * shares_above(planted, threshold) / shares_above(suspicion, threshold)
        curve.append(min(1.0, max(0.0, 1 - wrong)))
    return curve
