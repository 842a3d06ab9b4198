"""Damage: what can be wrong with stored shards, with the shard, key and byte of the place."""

from __future__ import annotations

MISSING_SHARD = "missing_shard"
TRUNCATED = "truncated"
HASH = "hash"
MISSING_MEMBER = "missing_member"
FOREIGN_MEMBER = "foreign_member"
UNDECODABLE = "undecodable"
SIZES_DIFFER = "sizes_differ"
JSON = "json"
# What only `verify` looks for:
FOREIGN_SHARD = "foreign_shard"
WRONG_INDEX = "wrong_index"
WRONG_COUNT = "wrong_count"
DUPLICATE = "duplicate"
CAPTION = "caption"


class Damage(ValueError):  # noqa: N818 - it is also what `verify` lists, not only what is raised
    """One damaged place. `kind` is one of this module's words; key and offset are None where they are not known."""

    def __init__(
        self, kind: str, shard: str, key: str | None = None, offset: int | None = None, detail: str = ""
    ) -> None:
        # All arguments go to args, so that a Damage pickles from a worker to the training process.
        super().__init__(kind, shard, key, offset, detail)
        self.kind = kind
        self.shard = shard
        self.key = key
        self.offset = offset
        self.detail = detail

    def __str__(self) -> str:
        where = self.shard
        if self.key is not None:
            where += f": key {self.key}"
        if self.offset is not None:
            where += f" at byte {self.offset}"
        return f"{where}: {self.kind}" + (f": {self.detail}" if self.detail else "")
