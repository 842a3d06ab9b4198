"""Forecast: estimates the rows that a stage has left, from what became of earlier rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crispedit.pipelines.scheduling.flow import Route


class Forecast:
    """Counts rows by route, and estimates how many are to come."""

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
        """Rows left for a stage, if each step keeps its present ratio of rows to the step before."""
        left = 0.0
        for (step, stages), offered in self._offered.items():
            if stage in stages:
                done = self._done[step, stages]
                left += max(offered - done, self._expected(step, stages, photographs, order) - done)
        return left

    def _expected(self, step: str, stages: tuple[str, ...], photographs: int, order: Sequence[str]) -> float:
        """Rows on this route in the whole build."""
        if step not in order:
            return 0.0
        place = order.index(step)
        if place == 0:
            return float(photographs)
        before = order[place - 1]
        finished = self.photographs if place == 1 else sum(n for (s, _), n in self._done.items() if s == before)
        share = self._offered[step, stages] / finished if finished else 0.0
        return share * self._total(before, photographs, order)

    def _total(self, step: str, photographs: int, order: Sequence[str]) -> float:
        ways = [stages for name, stages in self._offered if name == step]
        return sum(self._expected(step, way, photographs, order) for way in ways) or float(photographs)
