"""What `crispedit view` is made of: a snapshot of a run or shard set, queries over it, pictures, charts, pages."""
