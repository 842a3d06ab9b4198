"""The tables of an evaluation: their schemas, their committed rows, and how rows are committed."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from crispedit.pipelines.engine import Row
from crispedit.record import content_key
from crispedit.shards import journal
from crispedit.shards.journal import Table, columns

ANSWERS = Table(
    pa.schema(
        [
            *columns(pa.string(), "key", "of", "editor", "case"),
            ("seed", pa.int64()),
            ("seconds", pa.float64()),
            *columns(pa.string(), "refusal", "error"),
            ("image", pa.binary()),
        ]
    ),
    blobs={"image": "png"},
)
COST = columns(pa.int64(), "asked", "kept", "prompt_tokens", "answer_tokens")
SCORES = Table(
    pa.schema(
        [
            *columns(pa.string(), "key", "of", "editor", "case"),
            ("repeat", pa.int64()),
            *columns(pa.bool_(), "black", "unparsed"),
            # JSON: values (protocol -> metric -> number or null), words (what a judge said)
            *columns(pa.string(), "values", "words", "error"),
            *COST,
        ]
    )
)
MATCHES = Table(
    pa.schema(
        [
            *columns(pa.string(), "key", "of", "case", "first", "second"),
            ("repeat", pa.int64()),
            ("unparsed", pa.bool_()),
            # JSON: winners and both orders (dimension -> first, second, tie or null), words
            *columns(pa.string(), "winners", "in_order", "reversed", "words", "error"),
            *COST,
        ]
    )
)
ASKED = pa.schema([*ANSWERS.schema, *columns(pa.string(), "asked_of", "source", "edit"), ("number", pa.int64())])
STOPPED = "judge-down.json"
"""The file that a stage writes beside its table when the judge is down."""


def players_of(table: Table) -> list[str]:
    """The columns of a table of measurements that name editors."""
    return [name for name in ("editor", "first", "second") if name in table.schema.names]


def wire(table: Table) -> pa.Schema:
    """The schema of measurements between the stages."""
    answers = [f"{name}_answer" for name in players_of(table)]
    return pa.schema([*table.schema, *columns(pa.string(), "asked_of", "source", *answers), ("stopped", pa.bool_())])


Kind = Literal["scored", "refused", "missing", "error", "unparsed", "unjudged"]


class Committed:
    """The rows of a table: done rows by key; failures and unreadable replies by the key that they would have."""

    def __init__(self, folder: Path, table: Table, keys_only: bool = False) -> None:
        wanted = ["key", "of", "error", "unparsed"] if keys_only else None
        self.done: dict[str, Row] = {}
        self.failed: dict[str, str] = {}
        self.unread: set[str] = set()
        for row in journal.read(folder, table, wanted).to_pylist():
            of = row["of"] or row["key"]
            if row["error"] is not None:
                self.failed[of] = min(row["error"], self.failed.get(of, row["error"]))
            elif row.get("unparsed"):
                self.unread.add(of)
            else:
                self.done[row["key"]] = row

    def result(self, key: str, *columns: str) -> dict[str, Any]:
        """These columns of the row of this key, read from JSON; without a row its `kind`, and the `reason`."""
        if (row := self.done.get(key)) is not None:
            return {name: json.loads(row[name]) if isinstance(row[name], str) else row[name] for name in columns}
        if key in self.unread:
            return {"kind": "unparsed", "reason": "the judge's reply cannot be read"}
        reason = self.failed.get(key)
        return {"kind": "unjudged", "reason": f"error: {reason}" if reason else "not scored"}


def without_addresses(text: str) -> str:
    """A message without memory addresses, so that it is the same in every process."""
    return re.sub(r" (?:object )?at 0x[0-9a-fA-F]+", "", text)


@dataclass(frozen=True)
class Committing:
    """Commits done rows. Failures and unreadable replies get another key, so that the next run retries them; rows that
    were not tried are not committed."""

    table: Table

    def __call__(self, row: Row) -> list[Row]:
        if row.get("stopped"):
            return []
        columns: dict[str, Any] = {name: row.get(name) for name in self.table.schema.names}
        if columns["error"] is not None:
            columns["error"] = without_addresses(columns["error"])
            columns["key"] = content_key("error", columns["of"], columns["error"])
        elif columns.get("unparsed"):
            columns["key"] = content_key("unparsed", columns["of"], columns["words"])
        return [columns]
