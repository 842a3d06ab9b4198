"""The scheduling of a flow: which stage gets a process, and which rows a process gets. docs/engine.md tells the rules.

This module decides and nothing else. Time, nodes and processes are a `Cluster`: Ray (`pipelines.on_ray`), this process
(`pipelines.here`), or a simulation (`benchmarks.engine`). What the driver does for a block depends neither on the
number of processes nor on the length of the run.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from crispedit.pipelines.flow import Flow, Quarantined, Route, Row, Stage
from crispedit.pipelines.recipe import Engine
from crispedit.pipelines.room import SLACK, Need, Node, Room
from crispedit.pipelines.worker import Order, Report

LOOK_SECONDS = 2.0
"""How often, at most, nodes and the division of processes are looked at."""
BLOCK_BYTES = 64 * 2**20
"""Bytes that a block may pass on to the next stage: what a node fetches at once."""
QUEUE_BYTES = 2 * 2**30
"""Bytes that may wait between two stages; a stage whose next one has so much waiting gets no block."""
QUEUE_ROWS = 20_000
GROWTH = 4
"""A block has at most so many times the rows of the largest before it: one slow first row, or a fast one, misleads."""
DEATHS_ALONE = 2
LOADING_DEATHS = 3
UNKNOWN_LOAD_SECONDS = 10.0
WORTH = 1.5
"""A process is started for a stage that has so many times the seconds of its loading to do."""
MEASURING_SECONDS = 300.0
"""How long the division waits for the first rows of a stage."""
PAUSES = (2.0, 15.0, 60.0)
"""Seconds before the second, third and later attempts at a row whose result was transient."""


@dataclass(frozen=True)
class Piece:
    """Rows of one route that wait for a stage."""

    route: Route
    plan: Sequence[Row]
    """The rows as the flow gave them: what is left if their data is lost with a node."""
    data: Any = None
    """Reference to a table of what the stage before made of them; None: the plan is the data."""
    first: int = 0
    """Place of these rows in the data."""
    bytes_per_row: float = 0.0
    attempt: int = 1
    due: float = 0.0
    deaths: int = 0
    suspect: bool = False
    """One of these rows may have killed a process: they share a block with no others."""
    avoid: str | None = None
    """The node where that happened."""

    def __len__(self) -> int:
        return len(self.plan)

    def part(self, start: int, end: int) -> Piece:
        return replace(self, plan=self.plan[start:end], first=self.first + start)


@dataclass(eq=False)
class Process:
    """A process of a stage, from its start on."""

    stage: Stage
    node: str
    started: float
    ready: bool = False
    free_since: float = 0.0
    block: Sent | None = None
    leaving: bool = False
    """It gets no more blocks."""
    heir: _Pool | None = None
    """The stage for which it makes room."""


@dataclass(eq=False)
class Sent:
    """A block in the hands of a process, or of a task where the stage has no processes of its own."""

    pool: _Pool
    route: Route
    pieces: Sequence[Piece]
    order: Order
    process: Process | None
    since: float
    hung: bool = False
    """Its process is killed for taking too long."""

    @property
    def stage(self) -> Stage:
        return self.pool.stage

    @property
    def rows(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    @property
    def avoid(self) -> str | None:
        return self.pieces[0].avoid if self.pieces else None


@dataclass(frozen=True)
class Ready:
    """A process has loaded its stage."""

    process: Process


@dataclass(frozen=True)
class Done:
    """A block is done; `data` refers to the rows that are passed on."""

    block: Sent
    report: Report
    data: Any


@dataclass(frozen=True)
class Died:
    """A process died: while it loaded (`block` is None), or at work."""

    process: Process | None
    block: Sent | None
    node_lives: bool
    detail: str


@dataclass(frozen=True)
class Lost:
    """The data of a block was lost with a node before it could be read."""

    block: Sent


Event = Ready | Done | Died | Lost


class Cluster(Protocol):
    """Where processes run."""

    def now(self) -> float: ...

    def nodes(self) -> Sequence[Node]:
        """The nodes that take work: alive, and not being drained."""
        ...

    def holds(self, stage: Stage) -> bool:
        """Whether the stage has processes of its own. Others run as tasks, in processes that all stages share."""
        ...

    def start(self, process: Process) -> None:
        """Start and load it; an event follows."""
        ...

    def stop(self, process: Process) -> None: ...

    def send(self, block: Sent) -> None:
        """Have a block worked on; an event follows."""
        ...

    def kill(self, block: Sent) -> None:
        """End the process that works on a block; `Died` follows."""
        ...

    def wait(self, seconds: float) -> Sequence[Event]:
        """What has happened; returns when something has, or after so long."""
        ...


class _Queue:
    """Pieces in order, with their rows and bytes counted."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.rows = 0
        self.bytes = 0.0

    def append(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._count(piece, 1)

    def put_back(self, pieces: Sequence[Piece]) -> None:
        for piece in reversed(pieces):
            self._pieces.appendleft(piece)
            self._count(piece, 1)

    @property
    def head(self) -> Piece | None:
        return self._pieces[0] if self._pieces else None

    def take(self, rows: int) -> list[Piece]:
        """The first rows, of one route; a suspect piece comes alone and whole."""
        taken: list[Piece] = []
        while rows > 0 and (head := self.head) is not None:
            if taken and (head.suspect or head.route is not taken[0].route):
                break
            self._pieces.popleft()
            self._count(head, -1)
            if not head.suspect and len(head) > rows:
                rest = head.part(rows, len(head))
                self.put_back([rest])
                head = head.part(0, rows)
            taken.append(head)
            rows -= len(head)
            if head.suspect:
                break
        return taken

    def _count(self, piece: Piece, sign: int) -> None:
        self.rows += sign * len(piece)
        self.bytes += sign * len(piece) * piece.bytes_per_row


@dataclass(eq=False)
class _Pool:
    """What the scheduler knows of one stage."""

    stage: Stage
    held: bool
    queue: _Queue = field(default_factory=_Queue)
    later: list[Piece] = field(default_factory=list)
    next: _Pool | None = None
    processes: list[Process] = field(default_factory=list)
    blocks: int = 0
    """In the hands of processes or tasks, with so many rows: """
    working: int = 0
    recent_seconds: float = 0.0
    recent_rows: float = 0.0
    largest: int = 0
    bytes_per_row: float = 0.0
    load_seconds: float | None = None
    loading_deaths: int = 0
    probing: bool = False
    waiting_since: float | None = None
    busy_seconds: float = 0.0
    held_seconds: float = 0.0
    loading_seconds: float = 0.0
    done_rows: int = 0
    again_rows: int = 0

    @property
    def need(self) -> Need:
        return Need.of(self.stage)

    @property
    def row_seconds(self) -> float | None:
        """Measured; None before the first block."""
        return self.recent_seconds / self.recent_rows if self.recent_rows else None

    @property
    def load(self) -> float:
        return UNKNOWN_LOAD_SECONDS if self.load_seconds is None else self.load_seconds

    @property
    def staying(self) -> list[Process]:
        return [process for process in self.processes if not process.leaving]

    def learn(self, report: Report) -> None:
        """What a block tells about the next ones; each block halves the weight of those before it."""
        self.recent_seconds = self.recent_seconds / 2 + report.seconds + report.commit_seconds
        self.recent_rows = self.recent_rows / 2 + report.rows
        self.largest = max(self.largest, report.rows)
        self.busy_seconds += report.seconds + report.commit_seconds
        self.loading_seconds += report.load_seconds
        if not self.held:  # a task holds its CPUs while it works
            self.held_seconds += report.load_seconds + report.seconds + report.commit_seconds
        self.load_seconds = max(report.load_seconds, self.load_seconds or 0.0)
        self.again_rows += len(report.again)
        self.done_rows += report.rows - len(report.again)
        if report.rows:
            self.bytes_per_row = max(self.bytes_per_row, report.bytes / report.rows)


class Scheduler:
    """Carries out a flow on a cluster."""

    def __init__(
        self,
        flow: Flow,
        cluster: Cluster,
        settings: Engine,
        tell: Callable[[Scheduler], object] = lambda scheduler: None,
    ) -> None:
        self.flow, self.cluster, self.settings, self._tell = flow, cluster, settings, tell
        self.pools = {stage.name: _Pool(stage, cluster.holds(stage)) for stage in flow.stages}
        if len(self.pools) != len(flow.stages):
            raise ValueError("two stages of a build have one name")
        self.committed: Counter[str] = Counter()
        """Rows by step."""
        self._blocks: set[Sent] = set()
        self._nodes: Sequence[Node] = ()
        self._looked = -math.inf
        self._free = Room(())
        self._tasks_cpus = 0.0

    def run(self) -> None:
        """Until the flow is finished. What a commit, a load or the flow raises is raised here."""
        try:
            while True:
                self._look()
                self._dispatch()
                if not self._blocks and not self._queued() and self.flow.finished():
                    return
                for event in self.cluster.wait(self._patience()):
                    self._handle(event)
                self._tell(self)
        finally:
            for pool in self.pools.values():
                for process in pool.processes:
                    self.cluster.stop(process)

    def waiting(self, pool: _Pool) -> int:
        """Rows that a stage could work on now."""
        return pool.queue.rows + self.flow.waiting(pool.stage.name)

    def left_seconds(self, pool: _Pool) -> float:
        """About how long a stage still has to work, as it is now."""
        return (pool.row_seconds or 0.0) * self._rest(pool) / max(1, self._slots(pool))

    def _queued(self) -> bool:
        return any(pool.queue.rows or pool.later for pool in self.pools.values())

    def _patience(self) -> float:
        """How long to wait for an event: to the next look, or the end of a pause."""
        now = self.cluster.now()
        due = [piece.due for pool in self.pools.values() for piece in pool.later]
        return max(0.001, min([self._looked + self._interval - now, *(at - now for at in due)]))

    @property
    def _interval(self) -> float:
        return min(LOOK_SECONDS, self.settings.block_seconds / 20)

    # What has happened

    def _handle(self, event: Event) -> None:
        if isinstance(event, Ready):
            process, now = event.process, self.cluster.now()
            process.ready, process.free_since = True, now
            pool = self.pools[process.stage.name]
            pool.load_seconds = now - process.started
            pool.loading_seconds += now - process.started
            pool.loading_deaths = 0
            if process.leaving:
                self._stop(process)
            return
        if isinstance(event, Died) and event.block is None:
            assert event.process is not None
            pool = self.pools[event.process.stage.name]
            pool.processes.remove(event.process)
            self._died_loading(pool, event)
            return
        assert event.block is not None
        block = self._ended(event.block)
        if isinstance(event, Done):
            self._done(block, event.report, event.data)
        elif isinstance(event, Lost):
            start = self.pools[block.route.stages[0]]
            start.queue.put_back([Piece(piece.route, piece.plan) for piece in block.pieces])
        else:
            if block.process is not None:
                block.pool.processes.remove(block.process)
            self._died_working(block, event)
        process_ = block.process
        if process_ is not None and process_.leaving and process_ in block.pool.processes:
            self._stop(process_)

    def _ended(self, block: Sent) -> Sent:
        self._blocks.remove(block)
        block.pool.blocks -= 1
        block.pool.working -= block.rows
        if block.process is not None:
            block.process.block, block.process.free_since = None, self.cluster.now()
        elif block.order.error is None:
            self._tasks_cpus -= block.pool.need.cpus
        return block

    def _done(self, block: Sent, report: Report, data: Any) -> None:
        pool = block.pool
        if not block.pieces:
            pool.probing, pool.load_seconds = False, report.load_seconds
            return
        if block.order.error is None:
            pool.learn(report)
        again = set(report.again)
        kept: list[Row] = []
        place = 0
        for piece in block.pieces:
            for at, row in enumerate(piece.plan):
                if place + at in again:
                    pool.later.append(self._another_attempt(piece.part(at, at + 1)))
                else:
                    kept.append(row)
            place += len(piece)
        if kept and block.order.last:
            self.committed[block.route.step] += len(kept)
            self.flow.done(block.route, report.committed)
        elif kept:
            pool.next = self._after(block.route, pool)
            pool.next.queue.append(Piece(block.route, kept, data, 0, report.bytes / len(kept)))

    def _another_attempt(self, piece: Piece) -> Piece:
        pause = PAUSES[min(piece.attempt, len(PAUSES)) - 1]
        return replace(piece, attempt=piece.attempt + 1, suspect=False, due=self.cluster.now() + pause)

    def _after(self, route: Route, pool: _Pool) -> _Pool:
        return self.pools[route.stages[route.stages.index(pool.stage.name) + 1]]

    def _died_working(self, block: Sent, event: Died) -> None:
        """Rows that may have killed a process are run again in smaller blocks, at last alone."""
        pool, pieces = block.pool, list(block.pieces)
        if block.order.error is not None or not event.node_lives:
            if block.order.error is not None:
                self._record(pool, pieces, block.order.error)
            elif pieces:
                pool.queue.put_back(pieces)
            else:
                self._probe(block)
            return
        if not pieces:
            self._died_loading(pool, event)
            self._probe(block)
            return
        if not pool.held and pool.load_seconds is None:
            # A task loads its stage itself: first see whether that is what kills its process.
            pool.queue.put_back(pieces)
            if not pool.probing:
                self._probe(block)
            return
        node = None if block.process is None else block.process.node
        if block.rows == 1:
            (piece,) = pieces
            piece = replace(piece, deaths=piece.deaths + 1, suspect=True, avoid=node)
            if piece.deaths < DEATHS_ALONE:
                pool.queue.put_back([piece])
            else:
                how = "hung and was killed" if block.hung else "died"
                said = f"its {pool.stage.name} process {how} {piece.deaths} times on it"
                self._record(pool, [piece], Quarantined(said))
            return
        batch = pool.stage.pool.batch
        size = batch if block.rows > batch else 1
        parts = [piece.part(at, at + size) for piece in pieces for at in range(0, len(piece), size)]
        pool.queue.put_back([replace(part, suspect=True, avoid=node) for part in parts])

    def _died_loading(self, pool: _Pool, event: Died) -> None:
        pool.loading_deaths += event.node_lives
        if pool.loading_deaths >= LOADING_DEATHS:
            raise RuntimeError(
                f"{pool.stage.name} cannot be loaded: its process has died of it {pool.loading_deaths} times\n"
                f"{event.detail}"
            )

    def _probe(self, block: Sent) -> None:
        """See whether a stage can be loaded, by a block of no rows."""
        block.pool.probing = True
        self._send(Sent(block.pool, block.route, [], Order([], False, True), None, self.cluster.now()))

    def _record(self, pool: _Pool, pieces: Sequence[Piece], error: Exception) -> None:
        """Have rows recorded with an error, in a process that does not touch them."""
        self._send(self._block(pool, pieces, None, error))

    # Which rows

    def _dispatch(self) -> None:
        """Give blocks to what is free. Late stages come first; of a stage, the process that has just been at work, so
        that one too many shows by being idle."""
        now = self.cluster.now()
        for pool in self.pools.values():
            if due := [piece for piece in pool.later if piece.due <= now]:
                pool.later = [piece for piece in pool.later if piece.due > now]
                pool.queue.put_back(due)
        for pool in reversed(self.pools.values()):
            if pool.held and self.waiting(pool):
                free = [process for process in pool.staying if process.ready and process.block is None]
                for process in sorted(free, key=lambda process: -process.free_since):
                    self._give(pool, process)
        for pool in reversed(self.pools.values()):
            if not pool.held and not pool.probing and self.waiting(pool):
                while self._slots(pool) > pool.blocks and self._fits(pool) and self._give(pool, None):
                    pass

    def _slots(self, pool: _Pool) -> int:
        """How many processes or tasks of a stage there can be, of tasks only beside the processes there are."""
        return len(pool.staying) if pool.held else self._free.slots(pool.need)

    def _fits(self, pool: _Pool) -> bool:
        return self._tasks_cpus + pool.need.cpus <= self._free.free_cpus() + SLACK

    def _give(self, pool: _Pool, process: Process | None) -> bool:
        """Give the process, or a task, a block, if there is one worth its while."""
        waiting = self.waiting(pool)
        follower = pool.next
        if not waiting or (
            follower is not None and (follower.queue.bytes > QUEUE_BYTES or follower.queue.rows > QUEUE_ROWS)
        ):
            return False
        head = pool.queue.head
        if head is not None and head.suspect:
            elsewhere = process is not None and any(p.node != head.avoid for p in pool.staying)
            if process is not None and elsewhere and process.node == head.avoid:
                return False
            pieces = pool.queue.take(len(head))
        else:
            rows = self._rows(pool, waiting)
            if not rows:
                return False
            pieces = pool.queue.take(rows)
            if not pieces:
                taken = self.flow.take(pool.stage.name, rows)
                if taken is None or not taken.rows:
                    return False
                pieces = [Piece(taken.route, taken.rows)]
        pool.waiting_since = None
        self._send(self._block(pool, pieces, process))
        return True

    def _rows(self, pool: _Pool, waiting: int) -> int:
        """Rows of the next block: `block_seconds` of work, less where the rows that wait have to be shared out; none
        where it is better to let more of them gather."""
        each, processes = pool.row_seconds, max(1, self._slots(pool))
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

    def _block(
        self, pool: _Pool, pieces: Sequence[Piece], process: Process | None, error: Exception | None = None
    ) -> Sent:
        spans = [
            (0, len(piece)) if piece.data is None else (piece.first, piece.first + len(piece))
            for piece in pieces
        ]
        route = pieces[0].route
        last = route.stages[-1] == pool.stage.name
        final = max(piece.attempt for piece in pieces) >= self.settings.attempts
        return Sent(pool, route, pieces, Order(spans, last, final, error), process, self.cluster.now())

    def _send(self, block: Sent) -> None:
        self._blocks.add(block)
        block.pool.blocks += 1
        block.pool.working += block.rows
        if block.process is not None:
            block.process.block = block
        elif block.order.error is None:
            self._tasks_cpus += block.pool.need.cpus
        self.cluster.send(block)

    # Which processes

    def _look(self) -> None:
        """Look at the nodes, at blocks that hang, and at the division of the nodes among the stages."""
        now = self.cluster.now()
        if now - self._looked < self._interval:
            return
        passed = 0.0 if math.isinf(self._looked) else now - self._looked
        self._looked = now
        self._nodes = self.cluster.nodes()
        names = {node.name for node in self._nodes}
        for pool in self.pools.values():
            pool.held_seconds += passed * len(pool.processes)
            for process in list(pool.processes):
                if process.node not in names:
                    self._leave(process)
        limit = self.settings.stall_minutes
        if limit is not None:
            for block in [block for block in self._blocks if now - block.since > 60 * limit]:
                block.since, block.hung = now, True
                self.cluster.kill(block)
        self._divide()

    def _room(self, without: Sequence[Process] = ()) -> Room:
        room = Room(self._nodes)
        for pool in self.pools.values():
            for process in pool.processes:
                if process not in without:
                    room.take(process.node, pool.need)
        return room

    def _divide(self) -> None:
        """Start processes where there is room; else have idle ones, or those of a stage that has too many, make it."""
        room = self._room()
        held = [pool for pool in self.pools.values() if pool.held]
        tasks = [pool for pool in self.pools.values() if not pool.held]
        firsts = [
            pool for pool in held if self._count(pool) < (pool.stage.pool.actors or 1) and self._rest(pool)
        ]
        short = []
        for pool in sorted(firsts, key=lambda pool: not self.waiting(pool)):
            while self._count(pool) < (pool.stage.pool.actors or 1):
                if not self._start(pool, room):
                    short.append(pool)
                    break
        if tasks:  # room for at least one task stays
            largest = max((pool.need for pool in tasks), key=lambda need: need.cpus)
            if (node := room.node_for(Need(largest.cpus, 0.0, largest.memory_gb))) is not None:
                room.take(node, Need(largest.cpus, 0.0, largest.memory_gb))
        wanting = [] if self._measuring() else [pool for pool in held if self._wants_more(pool)]
        while wanting:
            pool = max(wanting, key=self._work_each)
            if not self._start(pool, room):
                short.append(pool)
                wanting.remove(pool)
            elif not self._wants_more(pool):
                wanting.remove(pool)
        self._free = self._room()
        starving = [p for p in tasks if self.waiting(p) and not self._tasks_cpus and not self._slots(p)]
        for pool in [*starving, *short]:
            if self._make_room(pool):
                break

    def _count(self, pool: _Pool) -> int:
        """Processes of a stage, with those that others will make room for."""
        heirs = sum(p.heir is pool for other in self.pools.values() for p in other.processes if p.leaving)
        return len(pool.staying) + heirs

    def _rest(self, pool: _Pool) -> float:
        """Rows that a stage still has to do."""
        return max(self.flow.remaining(pool.stage.name), self.waiting(pool) + pool.working)

    def _work_each(self, pool: _Pool) -> float:
        """Seconds of work that are left for each process of a stage."""
        return self._seconds(pool) * self._rest(pool) / max(1, self._count(pool))

    def _seconds(self, pool: _Pool) -> float:
        """Seconds a row; where nothing is measured yet, as long as others take."""
        if pool.row_seconds is not None:
            return pool.row_seconds
        known = [other.row_seconds for other in self.pools.values() if other.row_seconds is not None]
        return sum(known) / len(known) if known else 1.0

    def _wants_more(self, pool: _Pool) -> bool:
        """Whether another process of a stage has more to do than its loading costs."""
        if pool.stage.pool.actors is not None or not pool.staying:
            return False
        if pool.row_seconds is None and not self.waiting(pool):
            return False
        return self._work_each(pool) > WORTH * pool.load and self._rest(pool) > self._count(pool)

    def _backlog(self, pool: _Pool) -> bool:
        """Whether enough rows wait, not only will come, to keep another process busy for more than its loading."""
        if not pool.staying:
            return self.waiting(pool) > 0
        return self._seconds(pool) * self.waiting(pool) / (self._count(pool) + 1) > WORTH * pool.load

    def _start(self, pool: _Pool, room: Room) -> bool:
        node = room.node_for(pool.need)
        if node is None:
            return False
        room.take(node, pool.need)
        process = Process(pool.stage, node, self.cluster.now())
        pool.processes.append(process)
        self.cluster.start(process)
        return True

    def _make_room(self, pool: _Pool) -> bool:
        """Have processes leave so that this stage gets one more: idle ones, else one of a stage with less work."""
        if not self._backlog(pool) or (self._count(pool) and self._measuring()):
            return False
        first = not self._count(pool)
        idle = [
            process
            for other in self.pools.values()
            if other is not pool
            for process in other.staying
            if process.ready and process.block is None and self._can_go(other, process, pool, first)
        ]
        leaving = self._clearing(pool, sorted(idle, key=lambda p: p.free_since))
        if not leaving:
            leaving = self._clearing(pool, self._too_many(pool))
        for process in leaving:
            process.heir = pool
            self._leave(process)
        if leaving and pool.held and not any(process.block for process in leaving):
            self._start(pool, self._room())
        self._free = self._room()
        return bool(leaving)

    def _can_go(self, pool: _Pool, process: Process, to: _Pool, first: bool) -> bool:
        """Whether an idle process of a stage may make room for another stage; for the `first` process of that, any may.

        Where its stage has more than its share it goes soon; else it waits a few times what the exchange would cost,
        for its stage will want it back.
        """
        idle = self.cluster.now() - process.free_since
        if first:
            return idle > to.load
        if pool.stage.pool.actors is not None or (len(pool.staying) == 1 and self._rest(pool)):
            return False
        return idle > to.load * (0.25 if len(pool.staying) > self._share(pool) + 0.5 else 0.5)

    def _share(self, pool: _Pool) -> float:
        """How many processes a stage would have if the GPUs (the CPUs, of stages without) were divided by work."""

        def held(need: Need) -> float:
            return need.gpus if pool.need.gpus else need.cpus

        rivals = [other for other in self.pools.values() if other.held and held(other.need)]
        work = {id(other): self._rest(other) * self._seconds(other) for other in rivals}
        whole = sum(held(Need(node.cpus, node.gpus)) for node in self._nodes)
        total = sum(work[id(other)] * held(other.need) for other in rivals)
        return work[id(pool)] * whole / total if total else 0.0

    def _measuring(self) -> bool:
        """Whether one of several stages with rows has just got its first: the division waits a little for its speed."""
        now = self.cluster.now()
        rivals = [pool for pool in self.pools.values() if pool.held and (pool.blocks or self.waiting(pool))]
        return len(rivals) > 1 and any(
            pool.row_seconds is None
            and any(p.block is not None and now - p.block.since < MEASURING_SECONDS for p in pool.staying)
            for pool in rivals
        )

    def _too_many(self, pool: _Pool) -> list[Process]:
        """Processes of stages that would finish well before this one even with one less."""
        found = []
        for other in self.pools.values():
            count = len(other.staying)
            if other is pool or other.stage.pool.actors is not None or count < 2 or other.row_seconds is None:
                continue
            then = self._work_each(other) * count / (count - 1)
            ours, mine = self._work_each(pool), self._count(pool)
            gain = math.inf if not mine else ours - max(then, ours * mine / (mine + 1))
            if (then * 1.25 < ours or not mine) and gain > WORTH * pool.load:
                worked = [p for p in other.staying if self.cluster.now() - p.started > 2 * other.load]
                found += [(then, process) for process in worked]
        return [process for _, process in sorted(found, key=lambda item: item[0])]

    def _clearing(self, pool: _Pool, candidates: Sequence[Process]) -> list[Process]:
        """The fewest of these, on one node, without which a process of the stage fits there. Empty: there are none."""
        best: list[Process] = []
        for node in self._nodes:
            there = [process for process in candidates if process.node == node.name]
            for count in range(1, len(there) + 1):
                if best and count >= len(best):
                    break
                room = Room([node])
                for other in self.pools.values():
                    for process in other.processes:
                        if process.node == node.name and process not in there[:count]:
                            room.take(node.name, other.need)
                if room.node_for(pool.need) is not None:
                    best = there[:count]
        return best

    def _leave(self, process: Process) -> None:
        process.leaving = True
        if process.ready and process.block is None:
            self._stop(process)

    def _stop(self, process: Process) -> None:
        self.pools[process.stage.name].processes.remove(process)
        self.cluster.stop(process)
