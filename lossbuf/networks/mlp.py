"""A perceptron for features: linear layers with ReLU between them."""

from __future__ import annotations

import itertools

from jaxtyping import Float
from torch import Tensor, nn

from lossbuf import checks


class MLP(nn.Module):
    """Linear layers with ReLU between them; anything beyond the first axis is flattened.

    Args:
        in_features: Features of a sample.
        num_classes: Number of classes.
        hidden: Units of each hidden layer.

    Raises:
        ValueError: If a size is no positive integer.
    """

    def __init__(self, in_features: int, num_classes: int, hidden: tuple[int, ...] = (256, 256)) -> None:
        super().__init__()
        sizes = [checks.positive_int("in_features", in_features)]
        sizes += [checks.positive_int("hidden", size) for size in hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(sizes[-1], checks.positive_int("num_classes", num_classes))

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch num_classes"]:
        """Logits of a batch."""
        return self.classifier(self.features(x))
