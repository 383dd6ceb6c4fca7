"""From noisy rows to a small set: test accuracy by what cleans and what condenses."""
