"""Coresets: test accuracy by method and size, label noise, speed, growth, and choice over shards."""
