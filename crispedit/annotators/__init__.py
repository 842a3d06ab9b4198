"""Annotators, one per file: photographs in, edit jobs out."""
