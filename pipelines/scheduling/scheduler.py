"""The scheduler of a flow: which stage gets a process, and which rows a process gets. docs/engine.md has the rules.

This module only decides. Time, nodes and processes are a `Cluster`: Ray (`on_ray.py`), this process
(`cluster.py`), or a simulation (`benchmarks.engine`). The driver's work for a block depends neither on the number
of processes nor on the length of the run.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from crispedit.outcome import Failing
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.scheduling.cluster import Cluster, Died, Done, Event, Lost, Ready
from crispedit.pipelines.scheduling.division import Division
from crispedit.pipelines.scheduling.flow import Flow, Quarantined, Route
from crispedit.pipelines.scheduling.pool import Piece, Process, Sent, StagePool
from crispedit.pipelines.scheduling.worker import BlockResult, Order

LOOK_SECONDS = 2.0
"""Least seconds between looks at nodes and their division."""
BLOCK_BYTES = 64 * 2**20
"""Bytes that a block may pass on to the next stage, which a node fetches at once."""
QUEUE_BYTES = 2 * 2**30
"""Bytes that may wait between two stages; if more wait, the earlier stage gets no block."""
QUEUE_ROWS = 20_000
GROWTH = 4
"""A block has at most this many times the rows of the largest before it, because a single first row may be unusually
fast."""
DEATHS_ALONE = 2
LOADING_DEATHS = 3
PAUSES = (2.0, 15.0, 60.0)
"""Seconds before the second, third and later attempts at a row whose result was transient."""

Tell = Callable[["Scheduler"], object]
"""Is called with the scheduler after each event."""


class Scheduler:
    """Carries out a flow on a cluster."""

    def __init__(self, flow: Flow, cluster: Cluster, settings: EngineSpec, tell: Tell = lambda _: None) -> None:
        self.flow, self.cluster, self.settings, self._tell = flow, cluster, settings, tell
        self.pools = {stage.name: StagePool(stage, cluster.holds(stage)) for stage in flow.stages}
        if len(self.pools) != len(flow.stages):
            raise ValueError("two stages of a build have the same name")
        self.committed: Counter[str] = Counter()
        """Rows by step."""
        self.division = Division(flow, cluster, self.pools)
        self._blocks: set[Sent] = set()
        self._interval = min(LOOK_SECONDS, settings.block_seconds / 20)
        self._looked = -math.inf

    def run(self) -> None:
        """Run until the flow is finished. Errors of a commit, a load or the flow are raised here."""
        try:
            while True:
                self._look()
                self._dispatch()
                queued = any(pool.queue.rows or pool.later for pool in self.pools.values())
                if not self._blocks and not queued and self.flow.finished():
                    return
                for event in self.cluster.wait(self._patience()):
                    self._handle(event)
                self._tell(self)
        finally:
            for pool in self.pools.values():
                for process in pool.processes:
                    self.cluster.stop(process)

    def left_seconds(self, pool: StagePool) -> float:
        """About how many seconds a stage has left, with its present processes."""
        return (pool.row_seconds or 0.0) * self.division.rest(pool) / max(1, self.division.slots(pool))

    def _patience(self) -> float:
        """Seconds to wait for an event: until the next look, or the end of a pause."""
        now = self.cluster.now()
        due = [piece.due for pool in self.pools.values() for piece in pool.later]
        return max(0.001, min([self._looked + self._interval - now, *(at - now for at in due)]))

    def _look(self) -> None:
        """Check hanging blocks, the nodes, and their division among the stages."""
        now = self.cluster.now()
        if now - self._looked < self._interval:
            return
        passed = 0.0 if math.isinf(self._looked) else now - self._looked
        self._looked = now
        if (limit := self.settings.stall_minutes) is not None:
            for block in [block for block in self._blocks if now - block.since > 60 * limit]:
                block.since, block.hung = now, True
                self.cluster.kill(block)
        self.division.look(passed)

    # Events

    def _handle(self, event: Event) -> None:
        if isinstance(event, Ready):
            self._ready(event.process)
            return
        block = event.block
        if isinstance(event, Died) and block is None:  # while it loaded
            assert event.process is not None
            pool = self.pools[event.process.stage.name]
            pool.processes.remove(event.process)
            self._died_loading(pool, event)
            return
        assert block is not None
        self._ended(block)
        process = block.process
        if isinstance(event, Done):
            self._done(block, event.report, event.data)
        elif isinstance(event, Lost):
            start = self.pools[block.route.stages[0]]
            start.queue.put_back([Piece(piece.route, piece.plan) for piece in block.pieces])
        else:
            if process is not None:
                block.pool.processes.remove(process)
            self._died_working(block, event)
        if process is not None and process.leaving and process in block.pool.processes:
            self.division.stop(process)

    def _ready(self, process: Process) -> None:
        pool, now = self.pools[process.stage.name], self.cluster.now()
        process.ready, process.free_since = True, now
        pool.load_seconds = now - process.started
        pool.loading_seconds += pool.load_seconds
        pool.loading_deaths = 0
        if process.leaving:
            self.division.stop(process)

    def _ended(self, block: Sent) -> None:
        self._blocks.remove(block)
        block.pool.blocks -= block.order.error is None
        block.pool.working -= block.rows
        if block.process is not None:
            block.process.block, block.process.free_since = None, self.cluster.now()

    def _done(self, block: Sent, report: BlockResult, data: Any) -> None:
        pool = block.pool
        if not block.pieces:
            pool.probing, pool.load_seconds = False, report.load_seconds
            return
        if block.order.error is None:
            pool.learn(report)
        rows = [(piece, at) for piece in block.pieces for at in range(len(piece))]
        for piece, at in (rows[place] for place in report.again):
            due = self.cluster.now() + PAUSES[min(piece.attempt, len(PAUSES)) - 1]
            pool.later.append(replace(piece.part(at, at + 1), attempt=piece.attempt + 1, suspect=False, due=due))
        tried_again = set(report.again)
        kept = [piece.plan[at] for place, (piece, at) in enumerate(rows) if place not in tried_again]
        if kept and block.order.last:
            self.committed[block.route.step] += len(kept)
            self.flow.done(block.route, report.committed)
        elif kept:
            stages = block.route.stages
            pool.next = self.pools[stages[stages.index(pool.stage.name) + 1]]
            pool.next.queue.append(Piece(block.route, kept, data, 0, report.bytes / len(kept)))

    def _died_working(self, block: Sent, event: Died) -> None:
        """Rows that may have killed a process are run again in smaller blocks, finally alone."""
        pool, pieces = block.pool, list(block.pieces)
        alone = block.rows == 1
        deaths = pieces[0].deaths + alone if pieces else 0
        if block.order.error is not None:
            self._send(pool, block.route, pieces, error=block.order.error)
        elif not pieces:
            self._died_loading(pool, event)
            self._send(pool, block.route, ())
        elif not event.node_lives:
            pool.queue.put_back(pieces)
        elif not pool.held and pool.load_seconds is None:
            # A task loads its stage itself, so first check whether loading kills its process.
            pool.queue.put_back(pieces)
            if not pool.probing:
                pool.probing = True
                self._send(pool, block.route, ())
        elif alone and deaths >= DEATHS_ALONE:
            how = "hung and was killed" if block.hung else "died"
            error = Quarantined(f"its {pool.stage.name} process {how} {deaths} times on it")
            self._send(pool, block.route, pieces, error=error)
        else:
            node = None if block.process is None else block.process.node
            batch = pool.stage.pool.batch
            size = batch if block.rows > batch else 1
            parts = [piece.part(at, at + size) for piece in pieces for at in range(0, len(piece), size)]
            pool.queue.put_back([replace(part, deaths=part.deaths + alone, suspect=True, avoid=node) for part in parts])

    def _died_loading(self, pool: StagePool, event: Died) -> None:
        pool.loading_deaths += event.node_lives
        if pool.loading_deaths >= LOADING_DEATHS:
            raise Failing(
                f"{pool.stage.name} cannot be loaded: its process has died of it {pool.loading_deaths} times "
                f"({event.detail or 'it hung, or was killed'}). If something else killed it, such as the system for "
                "want of memory, run the same command again"
            )

    # Dispatch

    def _dispatch(self) -> None:
        """Give blocks to free processes. Late stages come first; within a stage, the process that worked last, so that
        a superfluous one becomes idle."""
        now = self.cluster.now()
        for pool in self.pools.values():
            if due := [piece for piece in pool.later if piece.due <= now]:
                pool.later = [piece for piece in pool.later if piece.due > now]
                pool.queue.put_back(due)
        for pool in reversed(self.pools.values()):
            if pool.held and self.division.waiting(pool):
                free = [process for process in pool.staying if process.ready and process.block is None]
                for process in sorted(free, key=lambda process: -process.free_since):
                    self._give(pool, process)
        for pool in reversed(self.pools.values()):
            if not pool.held and not pool.probing and self.division.waiting(pool):
                while self.division.slots(pool) > pool.blocks and self.division.fits(pool) and self._give(pool, None):
                    pass

    def _give(self, pool: StagePool, process: Process | None) -> bool:
        """Give the process, or a task, a block, if one is worth sending."""
        waiting, follower, head = self.division.waiting(pool), pool.next, pool.queue.head
        if not waiting or (
            follower is not None and (follower.queue.bytes > QUEUE_BYTES or follower.queue.rows > QUEUE_ROWS)
        ):
            return False
        if head is not None and head.suspect:
            rows = len(head)
            if process is not None and process.node == head.avoid and any(p.node != head.avoid for p in pool.staying):
                return False
        else:
            rows = self._rows(pool, waiting)
        pieces = pool.queue.take(rows)
        if not pieces:
            taken = self.flow.take(pool.stage.name, rows) if rows else None
            if taken is None:
                return False
            pieces = [Piece(taken.route, taken.rows)]
        pool.waiting_since = None
        self._send(pool, pieces[0].route, pieces, process)
        return True

    def _rows(self, pool: StagePool, waiting: int) -> int:
        """Rows of the next block: `block_seconds` of work, fewer if the waiting rows must be shared, and none if it is
        better to wait for more."""
        each, processes = pool.row_seconds, max(1, self.division.slots(pool))
        if each is None:
            return 1 if pool.blocks < processes else 0
        now, full = self.cluster.now(), self.settings.block_seconds
        if pool.waiting_since is None:
            pool.waiting_since = now
        coming = max(0.0, self.flow.remaining(pool.stage.name) - pool.working - waiting)
        least = min(full / 8, each * (waiting + coming) / (4 * processes))
        others_work = len(self._blocks) > pool.blocks
        if each * waiting < least and coming >= 1 and others_work and now - pool.waiting_since < full / 4:
            return 0
        seconds = min(full, max(least, each * waiting / (2 * processes)))
        rows = min(seconds / max(each, 1e-9), GROWTH * pool.largest, self.settings.rows_per_part)
        if pool.bytes_per_row:
            rows = min(rows, BLOCK_BYTES / pool.bytes_per_row)
        batch = pool.stage.pool.batch
        return max(1, int(rows) if rows < batch else int(rows) // batch * batch)

    def _send(
        self,
        pool: StagePool,
        route: Route,
        pieces: Sequence[Piece],
        process: Process | None = None,
        error: Exception | None = None,
    ) -> None:
        """Send a block: without pieces, to see whether the stage can be loaded; with an error, to record the rows
        with it, through a process that does not touch them."""
        spans = [(0, len(piece)) if piece.data is None else (piece.first, piece.first + len(piece)) for piece in pieces]
        last = route.stages[-1] == pool.stage.name
        final = max((piece.attempt for piece in pieces), default=0) >= self.settings.attempts
        block = Sent(pool, route, pieces, Order(spans, last, final, error), process, self.cluster.now())
        self._blocks.add(block)
        pool.blocks += error is None
        pool.working += block.rows
        if process is not None:
            process.block = block
        self.cluster.send(block)
