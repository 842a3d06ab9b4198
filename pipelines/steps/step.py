"""Step: the interface of a build's steps, and a wave in work as the steps see it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from crispedit.cascade import Cascade
from crispedit.parts import Filter, Part
from crispedit.pipelines.building.listing import Member
from crispedit.pipelines.records import Candidate, Comparison, Photograph, Request
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Route, Row, Stage, commit, failed
from crispedit.recipe import Pool
from crispedit.record import Sample
from crispedit.shards import journal
from crispedit.shards.journal import Table


@dataclass(slots=True)
class Subject:
    """A kept photograph with its jobs and candidates."""

    key: str
    photographs: list[Photograph] = field(default_factory=list)
    """Its files: one, or several for imported edits with the same source."""
    requests: dict[str, Request] = field(default_factory=dict)
    candidates: dict[str, dict[str, Candidate]] = field(default_factory=dict)
    """Candidates by job and key."""
    comparisons: dict[str, Comparison] = field(default_factory=dict)

    def jobs(self) -> dict[str, Request]:
        """Each job once: the request of the first key."""
        requests: dict[str, Request] = {}
        for key in sorted(self.requests):
            request = self.requests[key]
            if request.job_key is not None:
                requests.setdefault(request.job_key, request)
        return requests


@dataclass
class ActiveWave:
    """A wave in work: its members, its committed rows, and the rows that processes hold."""

    number: int
    members: dict[str, Member]
    photographs: dict[str, Photograph] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)
    """The kept photographs, once the wave is judged."""
    owners: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The photograph and job of each candidate."""
    judged: str | None = None
    """Digest of the verdicts on its photographs."""
    full: frozenset[str] | None = None
    """The full categories; None: not known yet."""
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By category and editor: its share of the jobs; empty if every editor makes a candidate of each job."""
    out: set[tuple[str, str]] = field(default_factory=set)
    """(step, key) of rows that wait for a process or are in work."""
    offered: set[tuple[str, str]] = field(default_factory=set)
    """(step, key) of all rows that this command has tried: each is tried once."""
    most: Mapping[str, int] = field(default_factory=dict)
    """The most pairs that it can give of each category, once it is known which are full."""
    routes: dict[tuple[str, tuple[str, ...]], Route] = field(default_factory=dict)
    """By step and stages."""
    retry_errors: bool = False

    @property
    def curated(self) -> bool:
        """Whether all photographs are measured, and not judged yet."""
        return self.judged is None and not any(step == "curate" for step, _ in self.out)

    def lacks(self, row: Photograph | Request | Candidate | Comparison | None) -> bool:
        """Whether a row is to be made: it is not committed, or only with an error that is to be retried."""
        return row is None or (row.error is not None and bool(row.transient or self.retry_errors))


class Step(ABC):
    """One step of a run. Its stages work in worker processes; everything else runs in the driver and is cheap."""

    name: ClassVar[str]
    wire: pa.Schema
    """The schema of rows between stages."""
    table: Table

    def __init__(self, run: Run) -> None:
        self.run, self.recipe = run, run.recipe

    @property
    @abstractmethod
    def stages(self) -> list[Stage]:
        """The stages, in the order in which rows pass them."""

    @abstractmethod
    def load(self, wave: ActiveWave, row: Row) -> None:
        """Add a committed row to the wave. Rows of photographs that are not kept are ignored."""

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Row]:
        """The rows that are left to make for a photograph, by its committed rows so far. Columns that `wire` has not
        are dropped."""
        return iter(())

    def identity(self) -> dict[str, Any]:
        """What determines the step's output: its part of the run's fingerprint. Every step's output depends on what
        determines the stored photographs."""
        stored = self.recipe.curate.model_dump(include={"max_short_side_px", "jpeg_quality"})
        return {"photographs": {"source": self.recipe.source.model_dump(mode="json"), **stored}}

    def route(self, row: Row) -> tuple[str, ...]:
        """The names of the stages that a row passes."""
        return self._all_stages

    @cached_property
    def _all_stages(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def subject(self, wave: ActiveWave, row: Row) -> str:
        """The key of the photograph that a committed row belongs to."""
        return str(row["source_key"])

    def failed(self, row: Row, error: Exception) -> Row:
        """The row with an error: its stage raised, or its process died."""
        return failed(row, error)

    def transient(self, row: Row) -> bool:
        return bool(row.get("transient"))

    def folder(self, wave: str) -> Path:
        return self.run.folder(self.name) / wave

    def rows(self, wave: str) -> list[Row]:
        """The committed rows of a wave."""
        folder = self.folder(wave)
        return journal.read(folder, self.table).to_pylist() if folder.exists() else []

    def commit(self, wave: str) -> Callable[[Sequence[Row]], Sequence[Row]]:
        """A function that commits processed rows of a wave in a worker (see `flow.commit`)."""
        return partial(commit, folder=self.folder(wave), root=self.run.root, table=self.table, explode=self.explode)

    @staticmethod
    def explode(row: Row) -> Sequence[Row]:
        """The rows of the table for a processed row."""
        return [row]


@dataclass
class PartStage(Stage):
    """A stage whose work one part of the recipe does, on images of the run in `root`."""

    part: Part
    root: Path
    pool: Pool

    def __post_init__(self) -> None:
        self.gpus = self.part.gpus

    def load(self) -> None:
        self.part.load()


@dataclass
class MeasureStage(Stage):
    """Measures photographs with the cascade's filters in `own`, which share this pool."""

    cascade: Cascade
    own: Sequence[str]
    pool: Pool
    gpus: float = 0.0
    name: str = "filters"

    def load(self) -> None:
        for name in self.own:
            self.cascade.filters[name].load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        done = [dict(row) for row in rows]
        self.measure(done)
        return done

    def measure(self, rows: Sequence[Row]) -> None:
        """Measure every photograph with every filter, so that bounds can be moved later."""
        whole = [row for row in rows if row.get("image") is not None]
        sizes = ("original_width", "original_height")
        samples = [
            Sample(key=row["key"], source_jpeg=row["image"], **{name: row[name] for name in sizes}) for row in whole
        ]
        self.cascade.measure(samples, whole, own=self.own, everything=True)


def filters(of: Mapping[str, Filter]) -> dict[str, object]:
    """The identities of filters, as parts of a step's identity."""
    return {f"filter {name}": one.identity() for name, one in of.items()}
