"""Divides a cluster among the stages of a flow: starts processes, and stops some to make room."""

import math
from collections.abc import Mapping, Sequence

from crispedit.pipelines.scheduling.cluster import Cluster
from crispedit.pipelines.scheduling.flow import Flow
from crispedit.pipelines.scheduling.pool import Process, StagePool
from crispedit.pipelines.scheduling.room import SLACK, Node, Room

WORTH = 1.5
"""A process is started if its stage has work for this many times the loading time."""
MEASURING_SECONDS = 300.0
"""How long to wait for the first rows of a stage."""


class Division:
    """The number of processes of each stage, and their nodes."""

    def __init__(self, flow: Flow, cluster: Cluster, pools: Mapping[str, StagePool]) -> None:
        self.flow, self.cluster, self.pools = flow, cluster, pools
        self._nodes: Sequence[Node] = ()
        self._free = Room(())
        """The resources that the processes leave free."""

    def look(self, passed: float) -> None:
        """Update the nodes, `passed` seconds after the last time, and divide them again."""
        self._nodes = self.cluster.nodes()
        names = {node.name for node in self._nodes}
        for pool in self.pools.values():
            pool.held_seconds += passed * len(pool.processes)
            for process in [process for process in pool.processes if process.node not in names]:
                self._leave(process)
        self._divide()

    def waiting(self, pool: StagePool) -> int:
        """Rows that a stage could work on now."""
        return pool.queue.rows + self.flow.waiting(pool.stage.name)

    def rest(self, pool: StagePool) -> float:
        """Rows that a stage has still to process."""
        return max(self.flow.remaining(pool.stage.name), self.waiting(pool) + pool.working)

    def slots(self, pool: StagePool) -> int:
        """How many processes of a stage can exist, or how many of its tasks fit beside the existing processes."""
        return len(pool.staying) if pool.held else self._free.slots(pool.need)

    @property
    def tasks_cpus(self) -> float:
        """CPUs of the blocks that run as tasks."""
        return sum(pool.blocks * pool.need.cpus for pool in self.pools.values() if not pool.held)

    def fits(self, pool: StagePool) -> bool:
        """Whether one more task of a stage fits."""
        return self.tasks_cpus + pool.need.cpus <= self._free.free_cpus() + SLACK

    def stop(self, process: Process) -> None:
        self.pools[process.stage.name].processes.remove(process)
        self.cluster.stop(process)

    def _room(self, without: Sequence[Process] = ()) -> Room:
        room = Room(self._nodes)
        for pool in self.pools.values():
            for process in pool.processes:
                if process not in without:
                    room.take(process.node, pool.need)
        return room

    def _divide(self) -> None:
        """Start processes where there is room; else make room by stopping idle ones, or those of a stage with too
        many."""
        room = self._room()
        held = [pool for pool in self.pools.values() if pool.held]
        tasks = [pool for pool in self.pools.values() if not pool.held]
        short = []
        for pool in sorted(held, key=lambda pool: not self.waiting(pool)):
            while self.rest(pool) and self._count(pool) < (pool.stage.pool.actors or 1):
                if not self._start(pool, room):
                    short.append(pool)
                    break
        if tasks:  # keeps room for at least one task
            largest = max((pool.need for pool in tasks), key=lambda need: need.cpus)
            if (node := room.node_for(largest)) is not None:
                room.take(node, largest)
        wanting = [] if self._measuring() else [pool for pool in held if self._wants_more(pool)]
        while wanting:
            pool = max(wanting, key=self._work_each)
            if not (started := self._start(pool, room)):
                short.append(pool)
            if not started or not self._wants_more(pool):
                wanting.remove(pool)
        self._free = self._room()
        starving = [p for p in tasks if self.waiting(p) and not self.tasks_cpus and not self.slots(p)]
        for pool in [*starving, *short]:
            if self._make_room(pool):
                break

    def _count(self, pool: StagePool) -> int:
        """Processes of a stage, including those that others make room for."""
        heirs = sum(p.heir is pool for other in self.pools.values() for p in other.processes if p.leaving)
        return len(pool.staying) + heirs

    def _work_each(self, pool: StagePool) -> float:
        """Seconds of work left for each process of a stage."""
        return self._seconds(pool) * self.rest(pool) / max(1, self._count(pool))

    def _seconds(self, pool: StagePool) -> float:
        """Seconds per row; if unmeasured, those of other stages."""
        if pool.row_seconds is not None:
            return pool.row_seconds
        known = [other.row_seconds for other in self.pools.values() if other.row_seconds is not None]
        return sum(known) / len(known) if known else 1.0

    def _wants_more(self, pool: StagePool) -> bool:
        """Whether another process would have more work than its loading costs."""
        known = pool.row_seconds is not None or self.waiting(pool)
        if pool.stage.pool.actors is not None or not pool.staying or not known:
            return False
        return self._work_each(pool) > WORTH * pool.load and self.rest(pool) > self._count(pool)

    def _start(self, pool: StagePool, room: Room) -> bool:
        node = room.node_for(pool.need)
        if node is None:
            return False
        room.take(node, pool.need)
        process = Process(pool.stage, node, self.cluster.now())
        pool.processes.append(process)
        self.cluster.start(process)
        return True

    def _make_room(self, pool: StagePool) -> bool:
        """Stop processes so that this stage gets one more: idle ones, else one of a stage with less work."""
        first = not self._count(pool)
        # Enough rows must wait already to keep another process busy for longer than its loading.
        busy = self._seconds(pool) * self.waiting(pool) / (self._count(pool) + 1)
        enough = busy > WORTH * pool.load if pool.staying else self.waiting(pool) > 0
        if not enough or (not first and self._measuring()):
            return False
        idle = [
            process
            for other in self.pools.values()
            if other is not pool
            for process in other.staying
            if process.ready and process.block is None and self._can_go(other, process, pool, first)
        ]
        idle.sort(key=lambda process: process.free_since)
        leaving = self._clearing(pool, idle) or self._clearing(pool, self._too_many(pool))
        for process in leaving:
            process.heir = pool
            self._leave(process)
        if leaving and pool.held and not any(process.block for process in leaving):
            self._start(pool, self._room())
        self._free = self._room()
        return bool(leaving)

    def _can_go(self, pool: StagePool, process: Process, to: StagePool, first: bool) -> bool:
        """Whether an idle process may make room for another stage; any may for that stage's `first` process.

        If its stage has more than its share, it goes soon. Otherwise it first waits a few times the cost of the
        exchange, because its stage will want it back.
        """
        idle = self.cluster.now() - process.free_since
        if first:
            return idle > to.load
        if pool.stage.pool.actors is not None or (len(pool.staying) == 1 and self.rest(pool)):
            return False
        return idle > to.load * (0.25 if len(pool.staying) > self._share(pool) + 0.5 else 0.5)

    def _share(self, pool: StagePool) -> float:
        """The number of processes of a stage if GPUs (or CPUs, for stages without GPUs) were divided by work."""
        kind = "gpus" if pool.need.gpus else "cpus"
        whole = sum(getattr(node, kind) for node in self._nodes)
        total = sum(
            self.rest(other) * self._seconds(other) * getattr(other.need, kind)
            for other in self.pools.values()
            if other.held
        )
        return self.rest(pool) * self._seconds(pool) * whole / total if total else 0.0

    def _measuring(self) -> bool:
        """Whether one of several stages has just received its first rows: the division waits a little for its speed."""
        now = self.cluster.now()
        rivals = [pool for pool in self.pools.values() if pool.held and (pool.blocks or self.waiting(pool))]
        return len(rivals) > 1 and any(
            pool.row_seconds is None
            and any(p.block is not None and now - p.block.since < MEASURING_SECONDS for p in pool.staying)
            for pool in rivals
        )

    def _too_many(self, pool: StagePool) -> list[Process]:
        """Processes of stages that, even with one process fewer, would finish well before this one."""
        ours, mine = self._work_each(pool), self._count(pool)
        spare = []
        for other in self.pools.values():
            count = len(other.staying)
            if other is pool or other.stage.pool.actors is not None or count < 2 or other.row_seconds is None:
                continue
            then = self._work_each(other) * count / (count - 1)
            gain = math.inf if not mine else ours - max(then, ours * mine / (mine + 1))
            if (then * 1.25 < ours or not mine) and gain > WORTH * pool.load:
                worked = [p for p in other.staying if self.cluster.now() - p.started > 2 * other.load]
                spare += [(then, process) for process in worked]
        return [process for _, process in sorted(spare, key=lambda item: item[0])]

    def _clearing(self, pool: StagePool, candidates: Sequence[Process]) -> list[Process]:
        """The fewest of these processes, on one node, whose end makes room for one of the stage; empty if there are
        none."""
        by_node = [[process for process in candidates if process.node == node.name] for node in self._nodes]
        for count in range(1, max(map(len, by_node), default=0) + 1):
            for ending in (there[:count] for there in by_node if len(there) >= count):
                if self._room(without=ending).node_for(pool.need) == ending[0].node:
                    return ending
        return []

    def _leave(self, process: Process) -> None:
        process.leaving = True
        if process.ready and process.block is None:
            self.stop(process)
