"""Editors, one per file: jobs in, edited images out."""
