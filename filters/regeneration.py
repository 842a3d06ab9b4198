"""Regeneration: was the part that nobody asked to edit left as it was, or drawn anew?

Most editors decode every pixel afresh. That is their nature and no defect: nothing is rejected for it. Other filters
judge relative to it (`crispedit.change.Noise`), and a recipe that wants pixel-exact pairs sets
`regeneration: {bounds: {noise_floor: {max: 0.5}}}`.

Assumes that at least a quarter of the image was not edited; where none was left as it was, the regime is `global`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score


class Regeneration(Filter):
    """`noise_floor`: the CIE Lab distance that the least changed quarter of the aligned pair stays below, over means of
    3x3 px of the small grid (`crispedit.change`); 0 is exact. `regime`: `exact` (below 0.5: intact, or a re-encoding),
    `regenerated`, or `global` (even that quarter visibly changed)."""

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {"noise_floor": float}
    notes: ClassVar[tuple[str, ...]] = ("regime",)
    bounds: ClassVar[Mapping[str, Bound]] = {}
    cost: ClassVar[float] = 0.5

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score | str]]:
        return [{"noise_floor": sample.noise.floor, "regime": sample.noise.regime} for sample in samples]
