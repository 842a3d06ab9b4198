"""Forecast: estimates the rows that a stage has left, from what became of earlier rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crispedit.pipelines.scheduling.flow import Route


class Forecast:
    """Counts rows by step and stages, and estimates how many are to come."""

    def __init__(self) -> None:
        self.photographs = 0
        """Photographs of judged waves."""
        self._offered: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self._done: Counter[tuple[str, tuple[str, ...]]] = Counter()

    def offered(self, route: Route) -> None:
        self._offered[route.step, route.stages] += 1

    def done(self, route: Route, rows: int) -> None:
        self._done[route.step, route.stages] += rows

    def remaining(self, stage: str, photographs: int, order: Sequence[str]) -> float:
        """Rows left for a stage, if each of these steps keeps its present ratio of rows to the step before."""
        expected: dict[tuple[str, tuple[str, ...]], float] = {}
        before, finished = 0.0, 0
        for place, step in enumerate(order):
            ways = [way for way in self._offered if way[0] == step]
            for way in ways:
                ratio = self._offered[way] / finished if finished else 0.0
                expected[way] = ratio * before if place else photographs
            before = sum(expected[way] for way in ways) or photographs
            finished = sum(self._done[way] for way in ways) if place else self.photographs
        return sum(
            max(offered, expected.get(way, 0.0)) - self._done[way]
            for way, offered in self._offered.items()
            if stage in way[1]
        )
