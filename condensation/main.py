"""The start of the ``lossbuf`` command: the version at once, everything else after its imports."""

from __future__ import annotations

import sys
from importlib.metadata import version


def main() -> None:
    """Run the command."""
    if sys.argv[1:] in (["--version"], ["version"]) and sys.stdout is not None:
        sys.stdout.write(version("lossbuf") + "\n")
        return
    from condensation.cli import main as run  # torch, which takes seconds

    run()
