"""The source's containers: which are listed, which are not yet, and the waves that are made of them."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from crispedit.outcome import describe, is_transient
from crispedit.pipelines import tables
from crispedit.pipelines.building import listing
from crispedit.pipelines.building.listing import Container
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Route, Row
from crispedit.pipelines.sources.pairs import AnySource
from crispedit.recipe import Pool
from crispedit.record import content_key
from crispedit.shards import journal
from crispedit.shards.journal import Table, quoted

LIST = "list"
ALONE = Pool(batch=1)


class Containers:
    """The containers of a run. `sample`: make one wave of this many photographs, chosen by the hashes of their
    names."""

    def __init__(self, run: Run, waves: Waves, sample: int | None) -> None:
        self.run, self.waves, self.sample = run, waves, sample
        self.source = run.recipe.source
        size = run.recipe.engine.wave_sources
        self.size = float("inf") if size is None else size
        self.members = listing.MOST_MEMBERS if size is None else min(listing.MOST_MEMBERS, size)
        self.stage = Indexing(self.source, run.root, self.members)
        self.route = Route(
            LIST,
            -1,
            (LIST,),
            Indexing.wire,
            partial(_listed, folder=run.folder("listing"), table=listing.table(self.source)),
            failed=_unlisted,
            transient=_may_pass,
        )
        rows = tables.listing_rows(run)
        listed = {row["container"] for row in rows if row["last"]}
        files = [file for row in rows if row["container"] in listed for file in row["files"]]
        containers, left_out = listing.containers(self.source, files, self.members)
        self.containers = {container.key: container for container in containers}
        if left_out and not any(row["key"] == listing.REST for row in rows):
            journal.commit(run.folder("listing"), listing.table(self.source), [listing.rest(left_out)])
        self._waits = set(self.containers)
        self._cut = {key for wave in waves for key in wave.listing}
        self._lost = self._cut - {row["key"] for row in rows}
        """Rows of the listing that waves hold but that are missing, with the part that held them."""
        self._rows = {
            row["key"]: row
            for row in rows
            if row["container"] in listed - {listing.REST} and row["key"] not in self._cut
        }
        """Rows of the listing that no wave holds yet."""
        self.drawn_from = 0
        """The number of members that the sample was drawn from."""
        if not self.containers and not listed - {listing.REST}:
            raise ValueError(listing.nothing(self.source, left_out))

    def todo(self) -> Iterator[Row]:
        for container in self.containers.values():
            yield {"key": container.key, "container": json.dumps(container.to_row())}

    @property
    def to_come(self) -> int:
        """Listed photographs in no wave yet; unlisted containers do not count."""
        return sum(row["rows"] for row in self._rows.values())

    @property
    def holds_waves(self) -> bool:
        """Whether the listing has all rows of the waves, or will not get them any more."""
        return not (self._lost and self._waits)

    @property
    def exhausted(self) -> bool:
        return not self._waits and not self._rows

    def listed(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._waits.discard(row["key"])
            self._lost -= {one["key"] for one in row["committed"]}
            self._rows |= {
                one["key"]: one for one in row["committed"] if one["error"] is None and one["key"] not in self._cut
            }
        if not self._waits and not any(row["rows"] for row in self._rows.values()) and not len(self.waves):
            listed = tables.listing_rows(self.run)
            if failed := next((row["error"] for row in listed if row["error"] is not None), None):
                raise ValueError(
                    f"{self.source.path} could not be listed for a transient reason, so try again: {failed}"
                )
            raise ValueError(listing.nothing(self.source, listing.skipped(listed)))

    def cut_wave(self) -> None:
        """Make a wave of the first containers in name order, once enough are listed or no more will come."""
        first_missing = min(self._waits, default=None)
        chosen: list[str] = []
        count = 0
        for row in sorted(self._rows.values(), key=lambda row: (row["container"], row["slice"])):
            if count >= self.size or (first_missing is not None and row["container"] > first_missing):
                break
            chosen.append(row["key"])
            count += row["rows"]
        if self.sample is not None:
            self._draw(self.sample)
        elif chosen and (count >= self.size or first_missing is None):
            self.waves.add(chosen, count)
            for key in chosen:
                del self._rows[key]

    def _draw(self, photographs: int) -> None:
        """Make one wave of a random sample of everything listed."""
        if self._waits or not self._rows:
            return
        rows = {uri: key for key in sorted(self._rows) for uri, _ in members_of(self.run, [key])}
        drawn = heapq.nsmallest(photographs, rows, key=lambda uri: content_key("dry run", uri))
        self.waves.add(sorted({rows[uri] for uri in drawn}), len(drawn), sorted(drawn))
        self.drawn_from = len(rows)
        self._rows = {}


def members_of(run: Run, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The members in these rows of the listing, by uri."""
    table = listing.table(run.recipe.source)
    with journal.database() as db:
        body = journal.view(db, table, journal.parts(run.folder("listing")))
        wanted = ", ".join(map(quoted, keys))
        rows = db.sql(f"SELECT * FROM ({body}) WHERE key IN ({wanted}) ORDER BY container, slice")
        for row in rows.to_arrow_table().to_pylist():
            for member in listing.members(row):
                yield member.uri, member


@dataclass
class Indexing:
    """The stage that lists containers."""

    source: AnySource
    root: Path
    members: int
    name: str = LIST
    pool: Pool = ALONE
    gpus: float = 0.0
    wire = pa.schema(
        [("key", pa.string()), ("container", pa.string()), ("error", pa.string()), ("transient", pa.bool_())]
    )

    def load(self) -> None:
        pass

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        results = []
        for row in rows:
            container = Container.from_row(json.loads(row["container"]))
            folder = str(self.root / "listing")
            results.append({**row, "slices": list(listing.index(self.source, container, folder, self.members))})
        return results


def _unlisted(row: Row, error: Exception) -> Row:
    """The row of a container with a transient error, which waits for the next run. A permanent error is raised as the
    user's mistake."""
    if not is_transient(error):
        raise error
    empty = {"key": row["key"], "container": row["key"], "slice": 0, "last": False, "files": [], "rows": 0}
    failed = {"error": describe(error), "transient": True}
    return {**row, **failed, "slices": [{**empty, **failed, "members": [], "skipped": []}]}


def _may_pass(row: Row) -> bool:
    return bool(row.get("transient"))


def _listed(rows: Sequence[Row], *, folder: Path, table: Table) -> Sequence[Row]:
    slices = iter(journal.commit(folder, table, [one for row in rows for one in row["slices"]]))
    light = [name for name in table.schema.names if name != "members"]
    return [
        {
            "key": row["key"],
            "committed": [{name: one[name] for name in light} for one in itertools.islice(slices, len(row["slices"]))],
        }
        for row in rows
    ]
