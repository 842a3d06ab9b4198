"""The browser of `crispedit view`: a snapshot of a run or shard set, queries over it, pictures, charts, pages."""
