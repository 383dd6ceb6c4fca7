"""Condensed sets: test accuracy by method and size, and how fast they are learned."""
