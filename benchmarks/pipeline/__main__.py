"""``python -m benchmarks.pipeline``."""

from benchmarks.pipeline.experiment import app

if __name__ == "__main__":
    app()
