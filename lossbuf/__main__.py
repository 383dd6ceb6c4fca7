"""``python -m lossbuf``: the ``lossbuf`` command."""

from __future__ import annotations

from importlib.metadata import entry_points


def main() -> None:
    """Run the command as it is installed, with all its parts; without an installation, what this package has of it."""
    for entry in entry_points(group="console_scripts", name="lossbuf"):
        entry.load()()
        return
    from lossbuf.cli.commands import app

    app(prog_name="lossbuf")


if __name__ == "__main__":
    main()
