"""What was tried, how often, and what happened."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Trials:
    """Counts of what happened, by what was tried.

    Args:
        area: What all of it belongs to, such as ``"kills"``.
    """

    def __init__(self, area: str) -> None:
        self.area = area
        self._happened: dict[str, Counter[str]] = {}
        self._wrong: Counter[str] = Counter()

    def note(self, what: str, happened: str, *, right: bool = True) -> None:
        """One trial.

        Args:
            what: What was tried.
            happened: What came of it.
            right: It is what should have happened.
        """
        self._happened.setdefault(what, Counter())[happened] += 1
        self._wrong[what] += not right

    def rows(self) -> list[dict[str, Any]]:
        """A row for each thing tried: ``area``, ``what``, ``tried``, ``happened`` (text: how often) and ``wrong``."""
        return [
            {
                "area": self.area,
                "what": what,
                "tried": sum(happened.values()),
                "happened": dict(happened.most_common()),
                "wrong": self._wrong[what],
            }
            for what, happened in self._happened.items()
        ]


def one_line(error: BaseException) -> bool:
    """Is it told in one line that says something?"""
    text = str(error)
    return bool(text.strip()) and "\n" not in text and len(text) < 1000
