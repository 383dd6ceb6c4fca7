"""Condensation by matching: gradients (DC, DSA) or distributions of features (DM)."""

from condensation.matching.distribution import DistributionMatching
from condensation.matching.gradient import GradientMatching

__all__ = ["DistributionMatching", "GradientMatching"]
