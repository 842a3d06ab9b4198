"""A stage in its process: works on blocks, isolates rows that raise, commits at the end of the route."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import pyarrow as pa

from crispedit import machine
from crispedit.outcome import each
from crispedit.pipelines.scheduling.flow import Route, Row, Stage


class Order(NamedTuple):
    """Instructions to a process besides the data: which rows of each piece to process, and how."""

    spans: Sequence[tuple[int, int]]
    last: bool
    """Whether to commit the rows."""
    final: bool
    """Whether a transient error is final."""
    error: Exception | None = None
    """Do not process the rows; record them with this error."""


class BlockResult(NamedTuple):
    """The result of a block, without its data."""

    rows: int
    again: Sequence[int] = ()
    """Indices of rows with a transient error, which are neither passed on nor committed."""
    committed: Sequence[Row] = ()
    """Light rows, if the block was committed."""
    bytes: int = 0
    """Bytes of the data for the next stage."""
    load_seconds: float = 0.0
    seconds: float = 0.0
    """Seconds of the work, with the commit."""


class Worker:
    """One stage, loaded once."""

    def __init__(self, stage: Stage | None) -> None:
        self.stage = stage
        self.loaded = False

    def load(self) -> float:
        """Load the stage if needed; returns the seconds that it took."""
        if self.stage is None or self.loaded:
            return 0.0
        start = time.perf_counter()
        # One thread per worker: Ray counts one CPU for it, and OpenCV's results must not depend on the number of cores.
        cv2.setNumThreads(1)
        machine.keep_memory()
        self.stage.load()
        self.loaded = True
        return time.perf_counter() - start

    def work(self, route: Route, order: Order, *data: pa.Table) -> tuple[BlockResult, pa.Table | None]:
        """Process the rows of a block: the result is passed on, or committed at the end of the route."""
        loading = self.load()
        start = time.perf_counter()
        rows = [
            row
            for table, (first, end) in zip(data, order.spans, strict=True)
            for row in table.slice(first, end - first).to_pylist()
        ]
        done = self._processed(route, rows, order.error)
        again = [place for place, row in enumerate(done) if not order.final and route.transient(row)]
        tried_again = set(again)
        kept = [row for place, row in enumerate(done) if place not in tried_again]
        if order.last:
            table, committed = None, route.commit(kept) if kept else ()
        else:
            table, committed = pa.Table.from_pylist(kept, schema=route.wire), ()
        size = 0 if table is None else table.nbytes
        return BlockResult(len(rows), again, committed, size, loading, time.perf_counter() - start), table

    def _processed(self, route: Route, rows: Sequence[Row], error: Exception | None) -> list[Row]:
        """The rows after the stage, in its own batches; failed rows pass through."""
        if error is not None:
            return [row if row.get("error") is not None else route.failed(row, error) for row in rows]
        assert self.stage is not None, "rows are only recorded with an error here"
        done = list(rows)
        live = [place for place, row in enumerate(rows) if row.get("error") is None]
        for first in range(0, len(live), self.stage.pool.batch):
            places = live[first : first + self.stage.pool.batch]
            answers = each(self.stage.process, [rows[place] for place in places])
            for place, answer in zip(places, answers, strict=True):
                done[place] = route.failed(rows[place], answer) if isinstance(answer, Exception) else answer
        return done
