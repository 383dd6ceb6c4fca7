"""The hard suite: data on which detection is hard, and on which people really work."""
