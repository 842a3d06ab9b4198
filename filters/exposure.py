"""Exposure: did the edit change the brightness, contrast or colours of the whole image?

Assumes that outside the edit one tone (gain and offset) leads from source to edited image (`crispedit.tone`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from crispedit import tone
from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score
from crispedit.tone import Pixels

LEAST_SPREAD, LEAST_COLOUR = 12.0, 6.0
"""Least standard deviation of luma, and root mean square of colour, in levels, to measure a gain."""


class Exposure(Filter):
    """`drift` is the mean change of brightness, `cast` the largest departure of a channel from it, both 0-1; `contrast`
    and `saturation` are the relative changes of the spread of luma and of colour (0.08: 8 % more); `explained` is the
    share of the pixels that the tone explains. All others are null if `explained` is under `least_explained`; contrast
    and saturation also if it is under half, or if the image has too little contrast or colour."""

    least_explained: float = 0.25

    version: ClassVar[int] = 3
    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {
        "drift": float,
        "cast": float,
        "contrast": float,
        "saturation": float,
        "explained": float,
    }
    # Of 76 good pairs of 9 real editors. Those left intact measure 0.00 to 0.01 of each. Drawn anew, brightness drifts
    # by 0.032 and a channel by 0.020 at most, contrast falls by up to 0.11 but never rises by more than 0.03 (a decoder
    # flattens), and colours lose up to 0.13 or gain up to 0.08.
    bounds: ClassVar[Mapping[str, Bound]] = {
        "drift": Bound(max=0.035),
        "cast": Bound(max=0.021),
        "contrast": Bound(min=-0.11, max=0.04),
        "saturation": Bound(min=-0.15, max=0.1),
    }
    cost: ClassVar[float] = 1.6

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        scores: dict[str, Score] = dict.fromkeys(self.scores)
        outside = None if sample.mask is None else sample.outside
        fitted = tone.fit(sample.source_small, sample.edited_small, outside, sample.noise.look)
        if fitted is None:
            return scores
        scores["explained"] = fitted.explained
        if fitted.explained < self.least_explained:
            return scores
        shift = fitted.shift
        brightness = shift.mean(axis=0)
        scores["drift"] = float(np.abs(brightness).mean() / 255)
        scores["cast"] = float(np.abs(shift - brightness).mean(axis=1).max() / 255)
        scores["contrast"], saturation = _gains(fitted.source, fitted.edited)
        if fitted.explained >= 0.5:
            scores["saturation"] = saturation
        return scores


def _gains(x: Pixels, y: Pixels) -> tuple[float | None, float | None]:
    """The relative increase of luma and colour gain (0.08: 8 %); None if there is too little of either."""
    luma_x, luma_y = x.mean(axis=0), y.mean(axis=0)
    colour_x, colour_y = x - luma_x, y - luma_y
    deviation = luma_x - luma_x.mean()
    contrast = saturation = None
    if deviation.std() >= LEAST_SPREAD:
        contrast = float(deviation @ (luma_y - luma_y.mean()) / (deviation @ deviation)) - 1
    # A cast shifts all colours equally; saturation scales each of them.
    moved = colour_y - colour_x
    moved -= np.median(moved, axis=1, keepdims=True)
    centred = colour_x - colour_x.mean(axis=1, keepdims=True)
    power = float((centred**2).sum())
    strong = np.sqrt((colour_x**2).sum(axis=0).mean()) >= LEAST_COLOUR
    if strong and power / len(luma_x) >= (LEAST_COLOUR / 2) ** 2:
        saturation = float((centred * moved).sum() / power)
    return contrast, saturation
