"""How speed and memory behave as streams, classes, ranks and records grow."""
