"""Training a network: the loop, and random changes of its images."""

from lossbuf.training.loop import (
    History,
    ResumableCallback,
    StepCallback,
    TrainSettings,
    accuracy,
    build,
    predict,
    seeded,
    train,
)

__all__ = [
    "History",
    "ResumableCallback",
    "StepCallback",
    "TrainSettings",
    "accuracy",
    "build",
    "predict",
    "seeded",
    "train",
]
