"""Interim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from crispedit.pipelines import pairs, sources
from crispedit.pipelines.pairs import AnySource, Pair, PairsSource
from crispedit.pipelines.sources import Entry
from crispedit.shards.journal import Table


@dataclass(frozen=True)
class Container:
    key: str
    members: tuple[str, ...]
    bytes: int | None = None

    def to_row(self) -> dict[str, Any]:
        return {"key": self.key, "members": list(self.members), "bytes": self.bytes}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Container:
        return cls(row["key"], tuple(row["members"]), row["bytes"])


def table(source: AnySource) -> Table:
    return Table(
        pa.schema(
            [
                ("key", pa.string()),
                ("container", pa.string()),
                ("slice", pa.int64()),
                ("last", pa.bool_()),
                ("files", pa.list_(pa.string())),
                ("rows", pa.int64()),
                ("members", pa.list_(pa.string())),
            ]
        )
    )


def _entries(source: AnySource) -> list[Any]:
    return list(pairs.pairs(source)) if isinstance(source, PairsSource) else list(sources.entries(source))


def containers(source: AnySource, listed: Sequence[str] = (), members: int = 10_000) -> list[Container]:
    known = set(listed)
    names = [entry.uri for entry in _entries(source) if entry.uri not in known]
    return [Container(names[at], tuple(names[at : at + members])) for at in range(0, len(names), members)]


def index(source: AnySource, container: Container, members: int = 10_000) -> Iterator[dict[str, Any]]:
    import json

    wanted = set(container.members)
    found = [json.dumps(asdict(entry)) for entry in _entries(source) if entry.uri in wanted]
    yield {
        "key": container.key,
        "container": container.key,
        "slice": 0,
        "last": True,
        "files": list(container.members),
        "rows": len(found),
        "members": found,
    }


def members(row: dict[str, Any]) -> list[Entry | Pair]:
    import json

    rows = [json.loads(text) for text in row["members"]]
    return [Pair.from_row(one) if "instruction" in one else Entry.from_row(one) for one in rows]


def nothing(source: AnySource, counts: dict[str, int]) -> str:
    return f"source.path: no photographs in {source.path!r}"
