"""``python -m benchmarks.coresets``."""

from benchmarks.coresets.experiment import app

if __name__ == "__main__":
    app()
