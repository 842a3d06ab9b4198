"""Training of EditMGT on shards: recipe, data, Ray, and tokenising in advance."""
