"""Filters, one measurement per file. Filters measure, bounds decide: see `crispedit.parts.Filter`."""
