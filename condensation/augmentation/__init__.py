"""Random changes of images: for training on a set, and differentiable ones for learning it."""

from condensation.augmentation.random_changes import DC_MNIST, Augmentation, Crop, OneOf, Rotate, Scale, warped
from condensation.augmentation.siamese import SiameseAugmentation

__all__ = ["DC_MNIST", "Augmentation", "Crop", "OneOf", "Rotate", "Scale", "SiameseAugmentation", "warped"]
