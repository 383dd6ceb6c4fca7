"""Slow, obvious versions of what the packages do fast; they import neither package."""
