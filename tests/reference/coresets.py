"""Coresets, one row at a time. Whole numbers are added as whole numbers, so that ties are ties."""

import itertools

import torch
from torch import Tensor


def rows_asked(sizes: list[int], ipc: int | None, size: float | None, balanced: bool) -> list[int]:
    """Dealt out one by one."""
    if ipc is not None:
        return [ipc for _ in sizes]
    groups = sizes if balanced else [sum(sizes)]
    if isinstance(size, float):
        counts = []
        for rows in groups:
            whole = int(size * rows)
            counts.append(max(1, whole + 1 if size * rows - whole >= 0.5 else whole))
        return counts
    counts = [0 for _ in groups]
    for row in range(size):
        counts[row % len(groups)] += 1
    return counts


def by_class(labels: list[int], counts: list[int], choose) -> list[int]:
    """``choose(rows, k)`` gives rows of ``rows``."""
    chosen = []
    for label, count in enumerate(counts):
        rows = [row for row, given in enumerate(labels) if given == label]
        chosen += choose(rows, min(count, len(rows)))
    return chosen


def _square(a: list, b: list) -> float:
    return sum((one - other) ** 2 for one, other in zip(a, b, strict=True))


def herding(x: list[list], k: int) -> list[int]:
    """Least distance of the running mean to the mean, both times all counts, so that nothing is divided."""
    total, chosen = [sum(column) for column in zip(*x, strict=True)], []
    for count in range(1, k + 1):
        off = {}
        for row in range(len(x)):
            if row not in chosen:
                running = [sum(column) for column in zip(*[x[one] for one in [*chosen, row]], strict=True)]
                off[row] = _square([len(x) * value for value in running], [count * value for value in total])
        chosen.append(min(off, key=lambda row: (off[row], row)))
    return chosen


def k_center(x: list[list], k: int) -> list[int]:
    """The row nearest to the mean, then the farthest."""
    chosen = herding(x, 1)
    while len(chosen) < k:
        far = {row: min(_square(x[row], x[one]) for one in chosen) for row in range(len(x)) if row not in chosen}
        chosen.append(min(far, key=lambda row: (-far[row], row)))
    return chosen


def _distances(x: list[list]) -> list[list[float]]:
    return [[round(_square(a, b) ** 0.5, 9) for b in x] for a in x]


def medoids(x: list[list], k: int) -> tuple[list[int], list[int]]:
    """Greedy facility location and how many rows each chosen row serves; the first chosen of equally near ones."""
    distances, chosen = _distances(x), []
    farthest, size = max(max(row) for row in distances), range(len(x))
    while len(chosen) < k:
        value = {}
        for row in size:
            if row not in chosen:
                value[row] = round(sum(max(farthest - distances[i][j] for j in [*chosen, row]) for i in size), 6)
        chosen.append(min(value, key=lambda row: (-value[row], row)))
    return chosen, served(x, chosen)


def centrality(x: list[list], k: int) -> tuple[list[int], list[int]]:
    """Least total distance first."""
    totals = [round(sum(row), 6) for row in _distances(x)]
    chosen = sorted(range(len(x)), key=lambda row: (totals[row], row))[:k]
    return chosen, served(x, chosen)


def served(x: list[list], chosen: list[int]) -> list[int]:
    """Rows nearest to each chosen one."""
    distances, sizes = _distances(x), [0 for _ in chosen]
    for row in range(len(x)):
        sizes[min(range(len(chosen)), key=lambda one: (distances[row][chosen[one]], one))] += 1
    return sizes


def nearest_rows(x: list[list], centres: list[list], clusters: list[int]) -> list[int]:
    """Largest cluster first; then what is left, nearest first."""
    far = [_square(row, centres[cluster]) for row, cluster in zip(x, clusters, strict=True)]
    order = sorted(range(len(centres)), key=lambda cluster: (-clusters.count(cluster), cluster))
    chosen = []
    for cluster in order:
        members = [row for row in range(len(x)) if clusters[row] == cluster]
        if members:
            chosen.append(min(members, key=lambda row: (far[row], row)))
    while len(chosen) < len(centres):
        left = [row for row in range(len(x)) if row not in chosen]
        chosen.append(min(left, key=lambda row: (far[row], row)))
    return chosen


def forgetting(predicted: list[list[int | None]], labels: list[int], never_learned: str) -> list[float]:
    """From the predictions of every epoch, ``None`` where a row was not seen."""
    found = []
    for row, label in enumerate(labels):
        right = [epoch[row] == label for epoch in predicted if epoch[row] is not None]
        if not right:
            found.append(-2.0)
        elif not any(right):
            found.append(float("inf") if never_learned == "first" else -1.0)
        else:
            found.append(float(sum(before and not after for before, after in itertools.pairwise(right))))
    return found


def largest_first(values: list[float], k: int) -> list[int]:
    """Equals to the lowest row."""
    return sorted(range(len(values)), key=lambda row: (-values[row], row))[:k]


def last_layer_gradients(features: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> list[list[Tensor]]:
    """Of each row's cross-entropy, by autograd: in the logits, the features, and the weight and bias together."""
    found = []
    for row, label in zip(features.double(), labels, strict=True):
        given, matrix = row.clone().requires_grad_(), weight.double().clone().requires_grad_()
        added = torch.zeros(len(weight)).double() if bias is None else bias.double().clone()
        logits = matrix @ given + added.requires_grad_()
        loss = torch.nn.functional.cross_entropy(logits[None], label[None])
        by_logits, by_features, by_weight, by_bias = torch.autograd.grad(loss, (logits, given, matrix, added))
        layer = [by_weight.flatten()] + ([] if bias is None else [by_bias])
        found.append([by_logits, by_features, torch.cat(layer)])
    return found
