"""Composes parts, tables and Ray into runs and commands."""
