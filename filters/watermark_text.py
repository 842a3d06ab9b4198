"""Watermark and text: lettering laid over the edited image that its source does not have.

An overlay is thin strokes of change on otherwise unchanged ground, spread over the image, and nearly all in one
direction (white ink brightens, black ink darkens), which an edit's own details are not. That finds large overlays, a
tiled watermark, a stamp or a caption, in any script; it does not read, and it does not know small logos. A detector of
another kind is another filter: a file with the same scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np

from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score

STROKE_PX = 13
"""Half-resolution pixels: strokes are thinner."""
STROKE_LEVELS, GROUND_LEVELS = 8, 6
"""The least change of a stroke, and the most of the ground it lies on."""
CELLS = 12
"""The image is divided into so many cells along each side."""
FULL = 0.08
"""The share of a cell that strokes must cover for the cell to count in full: more tells no more of an overlay."""


class WatermarkText(Filter):
    """`overlay`: share of a 12x12 grid's cells that bear strokes of the one direction, less the share that bear strokes
    of the other (0-1). `ground`: share of the image that is unchanged but for strokes. Inside the true mask nothing
    counts: an edit may add lettering. `overlay` is null where `ground` is under `least_ground`: strokes cannot be told
    from the edit there."""

    least_ground: float = 0.3

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {"overlay": float, "ground": float}
    # Of compositor pairs without their masks, 99 % measure under 0.03, 98 % of those with a watermark over 0.04.
    bounds: ClassVar[Mapping[str, Bound]] = {"overlay": Bound(max=0.035)}
    cost: ClassVar[float] = 2.0

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        source, edited = sample.source_half, sample.edited_half
        brighter, darker = cv2.subtract(edited, source), cv2.subtract(source, edited)
        either = cv2.max(brighter, darker)
        wide = cv2.morphologyEx(either, cv2.MORPH_OPEN, np.ones((STROKE_PX, STROKE_PX), np.uint8))
        # The rim of something wide is thin, but no stroke: keep away from it.
        ground = cv2.dilate((wide > GROUND_LEVELS).view(np.uint8), np.ones((11, 11), np.uint8)) == 0
        if sample.mask is not None:
            size = (ground.shape[1], ground.shape[0])
            ground &= cv2.resize(sample.outside.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        share = float(ground.mean())
        if share < self.least_ground:
            return {"overlay": None, "ground": share}
        spread = []
        for change in (brighter, darker):
            strokes = ((cv2.subtract(change, wide) >= STROKE_LEVELS) & ground).astype(np.float32)
            cells = cv2.resize(strokes, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
            spread.append(float(np.minimum(cells / FULL, 1).mean()))
        return {"overlay": abs(spread[0] - spread[1]), "ground": share}
