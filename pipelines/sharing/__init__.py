"""Commands on finished shard sets: verify, inspect, export, merge."""
