"""``python -m lossbuf``: the ``lossbuf`` command."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from lossbuf import __version__


def main() -> None:
    """Run the command as it is installed, with all its parts; without an installation, what this package has of it."""
    if sys.argv[1:] in (["--version"], ["version"]) and sys.stdout is not None:
        sys.stdout.write(__version__ + "\n")
        return
    for entry in entry_points(group="console_scripts", name="lossbuf"):
        entry.load()()
        return
    from lossbuf.cli.commands import app

    app(prog_name="lossbuf")


if __name__ == "__main__":
    main()
