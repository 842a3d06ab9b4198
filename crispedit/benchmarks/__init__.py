"""Benchmarks, one per file: published cases, and the protocols that score answers to them."""
