"""From what was recorded to a verdict on every label: noise, posterior, ranking, cut, diagnostics."""
