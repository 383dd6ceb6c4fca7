"""The commands ``lossbuf scan`` and ``lossbuf apply``, and how all commands write to a terminal."""
