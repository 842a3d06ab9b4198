"""Free resources of a cluster's nodes, per GPU, because Ray places a fraction of a GPU on one GPU."""

import math
from collections.abc import Sequence
from typing import NamedTuple

SLACK = 1e-6
"""Sums of fractions such as 0.1 are not exact."""


class Node(NamedTuple):
    """A node that takes work, with the resources that we may use."""

    name: str
    cpus: float
    gpus: float = 0.0
    memory_gb: float = 0.0


class Need(NamedTuple):
    """The resources of one process."""

    cpus: float
    gpus: float = 0.0
    memory_gb: float = 0.0


class Room:
    """The free part of each node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._cpus = {node.name: node.cpus for node in nodes}
        self._memory = {node.name: node.memory_gb for node in nodes}
        self._gpus = {node.name: [1.0] * round(node.gpus) for node in nodes}

    def node_for(self, need: Need) -> str | None:
        """The node where this fits and leaves the least of the GPUs that it would use, then the most CPU."""
        fitting = []
        for name, cpus in self._cpus.items():
            taken = self._gpus_for(name, need)
            if taken is not None and cpus + SLACK >= need.cpus and self._memory[name] + SLACK >= need.memory_gb:
                left = sum(self._gpus[name][gpu] - amount for gpu, amount in taken)
                fitting.append((left, -cpus, name))
        return min(fitting)[-1] if fitting else None

    def take(self, name: str, need: Need) -> None:
        """Reserve this on a node, even if it does not fit."""
        if name not in self._cpus:
            return
        self._cpus[name] -= need.cpus
        self._memory[name] -= need.memory_gb
        for gpu, amount in self._gpus_for(name, need) or []:
            self._gpus[name][gpu] -= amount

    def free_cpus(self) -> float:
        return sum(max(0.0, cpus) for cpus in self._cpus.values())

    def slots(self, need: Need) -> int:
        count = 0
        for name, cpus in self._cpus.items():
            by_memory = self._memory[name] / need.memory_gb if need.memory_gb else math.inf
            count += max(0, int(min(cpus / need.cpus, by_memory) + SLACK))
        return count

    def _gpus_for(self, name: str, need: Need) -> list[tuple[int, float]] | None:
        """The (GPU, share) that this need would take; None if they are not free."""
        share = min(need.gpus, 1.0)
        free = sorted((left, gpu) for gpu, left in enumerate(self._gpus[name]) if left + SLACK >= share)
        count = 1 if 0 < need.gpus < 1 else round(need.gpus)
        return [(gpu, share) for _, gpu in free[:count]] if len(free) >= count else None
