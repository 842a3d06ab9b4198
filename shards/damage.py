"""Damage: what can be wrong with stored shards, with the shard, key and byte of the place."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "missing_shard", "truncated", "hash", "missing_member", "foreign_member", "undecodable", "sizes_differ", "json"
]
KindOfVerify = Literal["foreign_shard", "wrong_index", "wrong_count", "duplicate", "caption"]
"""What only `verify` looks for."""


@dataclass(eq=False)
class Damage(ValueError):  # noqa: N818 - it is also what `verify` lists, not only what is raised
    """One damaged place. Key and offset are None where they are not known.

    Kind and shard are given by position, so that a Damage pickles from a worker to the training process.
    """

    kind: Kind | KindOfVerify
    shard: str
    key: str | None = None
    offset: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        where = self.shard
        if self.key is not None:
            where += f": key {self.key}"
        if self.offset is not None:
            where += f" at byte {self.offset}"
        return f"{where}: {self.kind}" + (f": {self.detail}" if self.detail else "")
