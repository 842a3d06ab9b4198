"""Training of EditMGT on shards: its recipe, its data, Ray, tokenising ahead."""
