"""One measurement per file. A filter measures, bounds decide: see `crispedit.parts.Filter`."""
