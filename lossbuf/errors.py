"""The error and warning classes of the package; arguments of a wrong value raise a plain ``ValueError``."""

from __future__ import annotations

from lossbuf import checks


class LossBufferWarning(UserWarning):
    """Something in the training data or the training loop looks wrong, or a result should not be trusted blindly."""


class InputError(ValueError):
    """A source or a folder cannot be used as it is. The message, one line, says why and what to do."""

    def __init__(self, message: object = "") -> None:
        super().__init__(checks.line(message))
