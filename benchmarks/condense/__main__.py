"""``python -m benchmarks.condense``."""

from benchmarks.condense.experiment import app

if __name__ == "__main__":
    app()
