"""Condensation by distillation: of a data set (DD), of labels (LD) or of a teacher's knowledge (KD)."""

from condensation.distillation.dataset import DatasetDistillation, evaluate_distilled, train_as_distilled
from condensation.distillation.knowledge import KnowledgeDistillation, distillation_loss, soft_labels
from condensation.distillation.labels import LabelDistillation

__all__ = [
    "DatasetDistillation",
    "KnowledgeDistillation",
    "LabelDistillation",
    "distillation_loss",
    "evaluate_distilled",
    "soft_labels",
    "train_as_distilled",
]
