"""Scheduling: which process gets which rows, on a Ray cluster or in this process."""
