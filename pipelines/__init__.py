"""The only place that composes parts, tables and Ray into runs and commands."""
