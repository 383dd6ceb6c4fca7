"""``python -m benchmarks.grid``."""

from benchmarks.grid.experiment import app

if __name__ == "__main__":
    app()
