"""The source's containers: which are listed, which are not yet, and the waves that are made of them."""

import heapq
import math
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from crispedit.outcome import is_transient
from crispedit.pipelines import sources, tables
from crispedit.pipelines.building import listing
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Route, Row, Stage, commit, failed
from crispedit.pipelines.sources.pairs import AnySource
from crispedit.recipe import Pool
from crispedit.record import content_key
from crispedit.shards import journal
from crispedit.shards.journal import quoted

LIST = "list"
WIRE = pa.schema([("key", pa.string()), ("container", pa.binary()), ("error", pa.string()), ("transient", pa.bool_())])


class Containers:
    """The containers of a run. `sample`: make one wave of this many photographs, chosen by the hashes of their
    names."""

    def __init__(self, run: Run, waves: Waves, sample: int | None) -> None:
        self.run, self.waves, self.sample = run, waves, sample
        self.source = run.recipe.source
        self.size = run.recipe.engine.wave_sources or math.inf
        members = int(min(listing.MOST_MEMBERS, self.size))
        self.stage = Indexing(self.source, run.root, members)
        folder, table = run.folder("listing"), listing.table(self.source)
        committing = partial(commit, folder=folder, table=table, explode=itemgetter("slices"), heavy="members")
        self.route = Route(LIST, -1, (LIST,), WIRE, committing, _unlisted, itemgetter("transient"))
        rows = tables.listing_rows(run)
        listed = {row["container"] for row in rows if row["last"]}
        files = [file for row in rows if row["container"] in listed for file in row["files"]]
        containers, left_out = listing.containers(self.source, files, members)
        self.todo = [{"key": container.key, "container": pickle.dumps(container)} for container in containers]
        """The rows of the containers that are not listed."""
        if left_out and not any(row["key"] == listing.REST for row in rows):
            journal.commit(folder, table, [listing.row(listing.REST, skipped=left_out)])
        self._waits = {container.key for container in containers}
        self._cut = {key for wave in waves for key in wave.listing}
        self._lost = self._cut - {row["key"] for row in rows}
        """Rows of the listing that waves hold but that are missing, with the part that held them."""
        self._rows: dict[str, Row] = {}
        """Rows of the listing that no wave holds yet."""
        self._add(row for row in rows if row["container"] in listed - {listing.REST})
        self.drawn_from = 0
        """The number of members that the sample was drawn from."""
        if not containers and not listed - {listing.REST}:
            raise ValueError(sources.nothing(self.source.path, self.source.kind, left_out))

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
            self._add(row["committed"])
        if not self._waits and not any(row["rows"] for row in self._rows.values()) and not len(self.waves):
            listed = tables.listing_rows(self.run)
            if failed := next((row["error"] for row in listed if row["error"] is not None), None):
                raise ValueError(
                    f"{self.source.path} could not be listed for a transient reason, so try again: {failed}"
                )
            raise ValueError(sources.nothing(self.source.path, self.source.kind, listing.skipped(listed)))

    def _add(self, rows: Iterable[Row]) -> None:
        self._rows |= {row["key"]: row for row in rows if row["error"] is None and row["key"] not in self._cut}

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
class Indexing(Stage):
    """The stage that lists containers."""

    name = LIST
    pool = Pool(batch=1)
    source: AnySource
    root: Path
    members: int

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        index = partial(listing.index, self.source, folder=str(self.root / "listing"), most=self.members)
        return [{**row, "slices": list(index(pickle.loads(row["container"])))} for row in rows]


def _unlisted(row: Row, error: Exception) -> Row:
    """The row of a container with a transient error, which waits for the next run. A permanent error is raised as the
    user's mistake."""
    if not is_transient(error):
        raise error
    done = failed(row, error)
    return {**done, "slices": [listing.row(row["key"], last=False, error=done["error"], transient=True)]}
