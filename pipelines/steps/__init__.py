"""The steps of a build, one per file, each a reader of the table before it."""
