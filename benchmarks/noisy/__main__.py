"""``python -m benchmarks.noisy``."""

from benchmarks.noisy.experiment import app

if __name__ == "__main__":
    app()
