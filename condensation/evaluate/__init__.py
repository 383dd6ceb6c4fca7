"""The field's evaluation protocol: train fresh networks on a small set and test them."""

from condensation.evaluate.protocol import (
    EvalSettings,
    Evaluation,
    NetworkSeeds,
    evaluate,
    network_seeds,
)

__all__ = ["EvalSettings", "Evaluation", "NetworkSeeds", "evaluate", "network_seeds"]
