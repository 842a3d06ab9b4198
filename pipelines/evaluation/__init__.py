"""Evaluation of editors on benchmarks: the runner and its tables."""
