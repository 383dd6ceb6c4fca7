"""``python -m benchmarks.scale``."""

import typer

from benchmarks.scale.experiment import main

if __name__ == "__main__":
    typer.run(main)
