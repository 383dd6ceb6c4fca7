"""From clean rows to a small set that trains as well: coresets and condensation."""
