"""Slow versions of knowledge distillation: a row and a class at a time."""

import math


def softmax(logits, temperature):
    """Probabilities of one row; a number is compared with every other, so that none is too large for exp."""
    return [1 / sum(math.exp(min((other - one) / temperature, 700.0)) for other in logits) for one in logits]


def distillation_loss(logits, teacher_logits, labels, temperature, alpha):
    total = 0.0
    for row, taught, label in zip(logits, teacher_logits, labels, strict=True):
        student, teacher = softmax(row, temperature), softmax(taught, temperature)
        divergence = sum(p * (math.log(p) - math.log(q)) for p, q in zip(teacher, student, strict=True) if p > 0)
        total += alpha * temperature**2 * divergence - (1 - alpha) * math.log(softmax(row, 1.0)[label])
    return total / len(logits)
