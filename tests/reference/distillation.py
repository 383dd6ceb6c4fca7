"""Slow versions of the distillations: sample by sample, and one graph from the first step to the loss."""

import torch


def perceptron(parameters, x):
    """Logits of one sample; the parameters are those of two linear layers with tanh between them."""
    return parameters[2] @ hidden(parameters, x) + parameters[3]


def hidden(parameters, x):
    return torch.tanh(parameters[0] @ x.reshape(-1) + parameters[1])


def cross_entropy(logits, target):
    """``target`` is a class or the probability of every class."""
    logs = logits - logits.exp().sum().log()
    return (
        -logs[int(target)] if target.ndim == 0 else -sum(share * log for share, log in zip(target, logs, strict=True))
    )


def mean_loss(forward, parameters, x, targets, weights=None):
    weights = [1.0] * len(x) if weights is None else weights.tolist()
    total = 0.0
    for sample, target, weight in zip(x, targets, weights, strict=True):
        total = total + weight * cross_entropy(forward(parameters, sample), target)
    return total / sum(weights)


def trained(forward, parameters, x, targets, steps, rates):
    """Parameters after plain gradient descent, in one graph."""
    for rows, rate in zip(steps.tolist(), rates, strict=True):
        loss = mean_loss(forward, parameters, [x[row] for row in rows], [targets[row] for row in rows])
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        parameters = [value - rate * slope for value, slope in zip(parameters, slopes, strict=True)]
    return parameters


class Adam:
    """Of one tensor, as published."""

    def __init__(self, lr, betas=(0.9, 0.999), epsilon=1e-8):
        self.lr, self.betas, self.epsilon = lr, betas, epsilon
        self.first = self.second = 0.0
        self.count = 0

    def moved(self, value, gradient, lr=None):
        self.count += 1
        one, two = self.betas
        self.first = one * self.first + (1 - one) * gradient
        self.second = two * self.second + (1 - two) * gradient**2
        first, second = self.first / (1 - one**self.count), self.second / (1 - two**self.count)
        return value - (lr or self.lr) * first / (second**0.5 + self.epsilon)


def ridge(features, labels, penalty):
    """The head of least squares over the rows and, for the penalty, one row of its root a feature."""
    many = features.shape[1]
    rows = torch.cat([features, penalty**0.5 * torch.eye(many, dtype=features.dtype)])
    wanted = torch.cat([labels, torch.zeros(many, labels.shape[1], dtype=labels.dtype)])
    return torch.linalg.lstsq(rows, wanted).solution


def ridge_losses(parameters, scale, head, x, labels, moved_labels, real, penalty, share=0.01):
    """Loss on the real images, on the set's own with the labels moved, and the new head."""
    parts = [torch.cat([hidden(parameters, sample), torch.ones(1, dtype=x.dtype)]) for sample in x]
    head = (1 - share) * head + share * ridge(torch.stack(parts), labels, penalty)

    def forward(parameters, sample):
        return scale * (torch.cat([hidden(parameters, sample), torch.ones(1, dtype=x.dtype)]) @ head)

    return mean_loss(forward, parameters, *real), mean_loss(forward, parameters, x, moved_labels), head


def as_probabilities(labels):
    rows = []
    for row in labels.tolist():
        clamped = [min(max(value, 0.0), 1.0) for value in row]
        total = sum(clamped)
        rows.append([value / total if total else 1 / len(row) for value in clamped])
    return torch.tensor(rows, dtype=labels.dtype)


def worn_out(losses, patience):
    """Goes through the losses as they come: the least mean so far, and the steps since."""
    least, since = None, 0
    for last in range(patience, len(losses) + 1):
        mean = sum(losses[last - patience : last]) / patience
        if least is None or mean < least:
            least, since = mean, 0
        else:
            since += 1
    return since > patience
