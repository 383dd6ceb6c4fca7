"""Condensation by matching: gradients (DC, DSA) or distributions of features (DM)."""
