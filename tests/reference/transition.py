"""Transition matrices and what is read through them, in loops over Python floats."""

import math

Matrix = list[list[float]]


def deconvolved(outputs: Matrix, transition: Matrix, steps: int) -> Matrix:
    """Richardson-Lucy, a row at a time."""
    found = []
    for output in outputs:
        true, classes = list(output), range(len(output))
        for _ in range(steps):
            said = [max(sum(true[i] * transition[i][j] for i in classes), 1e-9) for j in classes]
            true = [true[i] * sum(output[j] / said[j] * transition[i][j] for j in classes) for i in classes]
            total = max(sum(true), 1e-9)
            true = [value / total for value in true]
        found.append(true)
    return found


def wrong_log_odds(true_probs: Matrix, labels: list[int], transition: Matrix) -> list[float]:
    """By Bayes, a row at a time."""
    found = []
    for probs, label in zip(true_probs, labels, strict=True):
        joint = [prob * transition[i][label] for i, prob in enumerate(probs)]
        wrong = sum(value for i, value in enumerate(joint) if i != label)
        found.append(math.log(wrong + 1e-9) - math.log(joint[label] + 1e-9))
    return found


def likely_labels(true_probs: Matrix, labels: list[int], transition: Matrix) -> list[int]:
    """The class other than the label with the largest share."""
    found = []
    for probs, label in zip(true_probs, labels, strict=True):
        others = [i for i in range(len(probs)) if i != label] or [label]
        found.append(max(others, key=lambda i: (probs[i] * transition[i][label], -i)))
    return found


def shrunk(matrix: Matrix, counts: list[float]) -> Matrix:
    """Off the diagonal toward the row's mean, as far as chance explains the scatter."""
    size = len(matrix)
    if size < 3:
        return matrix
    pairs = [(i, j) for i in range(size) for j in range(size) if i != j]
    means = [sum(matrix[i][j] for j in range(size) if j != i) / (size - 1) for i in range(size)]
    by_chance = sum(matrix[i][j] * (1 - matrix[i][j]) / counts[i] for i, j in pairs) / len(pairs)
    seen = sum((matrix[i][j] - means[i]) ** 2 for i, j in pairs) / len(pairs)
    kept = max(0.0, 1 - by_chance / max(seen, 1e-12))
    return [
        [matrix[i][j] if i == j else means[i] + kept * (matrix[i][j] - means[i]) for j in range(size)]
        for i in range(size)
    ]


def smoothed(matrix: Matrix, share: float) -> Matrix:
    """No entry is 0."""
    return [[(1 - share) * value + share / len(row) for value in row] for row in matrix]


def from_anchors(
    outputs: Matrix,
    labels: list[int],
    usable: list[bool],
    *,
    confidence: float,
    least: int,
    most: float,
    rounds: int,
    smoothing: float,
) -> tuple[Matrix, list[int]]:
    """Labels of the surest rows of each class, counted; matrix and anchors a class."""
    num_classes = len(outputs[0])
    outputs = [row for row, fine in zip(outputs, usable, strict=True) if fine]
    labels = [label for label, fine in zip(labels, usable, strict=True) if fine]
    sizes = [labels.count(label) for label in range(num_classes)]
    floors = [max(1, min(size // 2, least)) for size in sizes]
    ceilings = [max(floor, int(most * size)) for floor, size in zip(floors, sizes, strict=True)]
    true, counts, matrix = outputs, floors, []
    unsupported, usual = set(), []
    for turn in range(rounds):
        if turn:
            unsupported |= without_rows(matrix, deconvolved(outputs, matrix, 20), sizes, counts)
            rows = smoothed(usual, smoothing)
            matrix = [rows[i] if i in unsupported else row for i, row in enumerate(matrix)]
            true = deconvolved(outputs, matrix, 20)
            sure = [sum(row[label] > confidence for row in true) for label in range(num_classes)]
            counts = [min(max(one, low), high) for one, low, high in zip(sure, floors, ceilings, strict=True)]
        found = []
        for label in range(num_classes):
            order = sorted(range(len(true)), key=lambda row: -true[row][label])[: counts[label]]
            found.append(
                [sum(labels[row] == given for row in order) / max(len(order), 1) for given in range(num_classes)]
            )
        raw = found
        found = shrunk([row if size else [0.0] * num_classes for row, size in zip(found, sizes, strict=True)], counts)
        named = [label for label, size in enumerate(sizes) if size]
        wrong = sum(counts[i] * (1 - raw[i][i]) for i in named) / max(sum(counts[i] for i in named), 1)
        others = max(num_classes - 1, 1)
        usual = [[1 - wrong if i == j else wrong / others for j in range(num_classes)] for i in range(num_classes)]
        matrix = [
            [(value * count + (1 - wrong if i == j else wrong / others)) / (count + 1) for j, value in enumerate(row)]
            for i, (row, count) in enumerate(zip(found, counts, strict=True))
        ]
        for label, size in enumerate(sizes):
            if label in unsupported:
                matrix[label] = usual[label]
            if not size:
                matrix[label] = [float(given == label) for given in range(num_classes)]
        matrix = smoothed(matrix, smoothing)
    return matrix, counts


def without_rows(matrix: Matrix, true: Matrix, sizes: list[int], counts: list[int]) -> set[int]:
    """Classes most of whose anchors carry another label, and that cannot be told from the class of that label."""
    found = set()
    for i, row in enumerate(matrix):
        share, other = max((value, -j) for j, value in enumerate(row) if j != i)
        other = -other
        left = sum(probs[other] for probs in true)
        clearly = counts[i] >= 20 and share - row[i] > math.sqrt((share + row[i]) / counts[i])
        if clearly and (row[i] < 2 * matrix[other][i] or left < sizes[other] / 2):
            found.add(i)
    return found


def from_joint(true_probs: Matrix, labels: list[int], start: Matrix, steps: int) -> Matrix:
    """Expectation maximization with shrinkage in every step; a class that no row is of keeps its row of the matrix."""
    matrix, classes = start, range(len(start))
    for _ in range(steps):
        counts = [[0.0 for _ in classes] for _ in classes]
        for probs, label in zip(true_probs, labels, strict=True):
            joint = [probs[i] * matrix[i][label] for i in classes]
            total = max(sum(joint), 1e-12)
            for i in classes:
                counts[i][label] += joint[i] / total
        sizes = [sum(row) for row in counts]
        shares = [[value / max(size, 1e-9) for value in row] for row, size in zip(counts, sizes, strict=True)]
        drawn = shrunk(shares, [max(size, 1.0) for size in sizes])
        matrix = [drawn[i] if sizes[i] > 0 else matrix[i] for i in classes]
    return matrix


def sharpness(true_probs: Matrix, labels: list[int], start: Matrix, powers: list[float], steps: int) -> float:
    """The square root of the power under which the given labels are most likely."""
    best, found, matrix = -math.inf, 1.0, start
    for power in powers:
        probs = []
        for row in true_probs:
            raised = [max(value, 1e-9) ** power for value in row]
            probs.append([value / sum(raised) for value in raised])
        matrix = from_joint(probs, labels, matrix, steps)
        likelihood = sum(
            math.log(max(sum(row[i] * matrix[i][label] for i in range(len(row))), 1e-12))
            for row, label in zip(probs, labels, strict=True)
        )
        if likelihood > best:
            best, found = likelihood, power
    return math.sqrt(found)


def true_shares(transition: Matrix, labels: list[int]) -> list[float]:
    """The shares of true classes that make the given ones most likely."""
    classes = range(len(transition))
    given = [labels.count(label) / len(labels) for label in classes]
    shares = list(given)
    for _ in range(2000):
        said = [sum(shares[i] * transition[i][j] for i in classes) for j in classes]
        shares = [shares[i] * sum(transition[i][j] * given[j] / max(said[j], 1e-12) for j in classes) for i in classes]
        shares = [value / sum(shares) for value in shares]
    return shares
