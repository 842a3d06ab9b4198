"""The on-disk formats: committed table parts, and packed WebDataset shards."""
