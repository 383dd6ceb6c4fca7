"""What the benchmarks share: data sets, given labels, measures, results on disk and tables."""
