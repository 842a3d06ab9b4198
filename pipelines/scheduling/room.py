"""Free resources of a cluster's nodes, per GPU, because Ray places a fraction of a GPU on one GPU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crispedit.pipelines.scheduling.flow import Stage, gpus_of

SLACK = 1e-6
"""Sums of fractions such as 0.1 are not exact."""


@dataclass(frozen=True)
class Node:
    """A node that takes work, with the resources that we may use."""

    name: str
    cpus: float
    gpus: float = 0.0
    memory_gb: float = 0.0


@dataclass(frozen=True)
class Need:
    """The resources of one process."""

    cpus: float
    gpus: float = 0.0
    memory_gb: float = 0.0

    @staticmethod
    def of(stage: Stage) -> Need:
        return Need(stage.pool.cpus, gpus_of(stage), stage.pool.memory_gb or 0.0)


class Room:
    """The free part of each node."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._cpus = {node.name: node.cpus for node in self._nodes.values()}
        self._memory = {node.name: node.memory_gb for node in self._nodes.values()}
        self._gpus = {node.name: [1.0] * round(node.gpus) for node in self._nodes.values()}

    def node_for(self, need: Need) -> str | None:
        """The node where this fits and leaves the least GPU, then the most CPU."""
        fitting = [(self._left(name, need), -self._cpus[name], name) for name in self._nodes if self._fits(name, need)]
        return min(fitting)[-1] if fitting else None

    def take(self, name: str, need: Need) -> None:
        """Reserve this on a node, even if it does not fit."""
        if name not in self._nodes:
            return
        self._cpus[name] -= need.cpus
        self._memory[name] -= need.memory_gb
        for gpu, amount in self._gpus_for(name, need) or []:
            self._gpus[name][gpu] -= amount

    def free_cpus(self) -> float:
        return sum(max(0.0, cpus) for cpus in self._cpus.values())

    def slots(self, need: Need) -> int:
        count = 0
        for name in self._nodes:
            limits = [self._cpus[name] / need.cpus + SLACK]
            if need.memory_gb:
                limits.append(self._memory[name] / need.memory_gb + SLACK)
            count += max(0, int(min(limits)))
        return count

    def _fits(self, name: str, need: Need) -> bool:
        enough = self._cpus[name] + SLACK >= need.cpus and self._memory[name] + SLACK >= need.memory_gb
        return enough and self._gpus_for(name, need) is not None

    def _left(self, name: str, need: Need) -> float:
        """The rest of the fullest GPU that would be used: the smaller, the tighter the fit. 0 without GPUs."""
        chosen = self._gpus_for(name, need) or []
        return sum(self._gpus[name][gpu] - amount for gpu, amount in chosen)

    def _gpus_for(self, name: str, need: Need) -> list[tuple[int, float]] | None:
        """The (GPU, share) that this need would take; None if they are not free."""
        free = self._gpus[name]
        if need.gpus <= 0:
            return []
        if need.gpus < 1:
            fitting = [(left, gpu) for gpu, left in enumerate(free) if left + SLACK >= need.gpus]
            return [(min(fitting)[1], need.gpus)] if fitting else None
        whole = [gpu for gpu, left in enumerate(free) if left + SLACK >= 1.0][: round(need.gpus)]
        return [(gpu, 1.0) for gpu in whole] if len(whole) == round(need.gpus) else None
