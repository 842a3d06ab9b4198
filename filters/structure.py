"""Structure: is the scene still recognisable after an edit of its whole look?

For `style` and `background`, where colours may change: lines and shapes of the source must remain in place in the whole
result (style), or in a part of it (the subject before a new background). A black, stained or posterised image keeps few
of them. New lines where the source is smooth, such as hatching, do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change
from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score

LEAST_DETAIL = 4.0
"""Variance of lightness (of 100) below which a place has no structure to keep."""

BEST = 0.03
"""The least share of structured places that a kept subject covers; small subjects count too."""


class Structure(Filter):
    """`kept`: the median, over the places where the source has structure, of the absolute correlation of lightness in
    source and edited image (over `crispedit.change.LOOK_PX`), because a blueprint or a negative swaps light and dark;
    `kept_best`: the correlation that 3 % of these places exceed. For a background edit, only places outside the true
    mask count, if there is one. `tones`: the spread of the edited image's lightness over the source's. All are 0 or
    more, and null if the source has no structure. Bounds are in the category files."""

    version: ClassVar[int] = 4

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {
        "kept": float,
        "kept_best": float,
        "tones": float,
    }
    bounds: ClassVar[Mapping[str, Bound]] = {}
    cost: ClassVar[float] = 1.2

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        before, after = (cv2.extractChannel(lab, 0) for lab in (sample.source_lab, sample.edited_lab))
        subject = sample.outside if sample.category == "background" and sample.mask is not None else None
        kept = correlation(before, after, subject)
        if kept.size < 50:
            return dict.fromkeys(self.scores)
        return {
            "kept": abs(change.quantile(kept, 0.5)),
            "kept_best": max(0.0, change.quantile(kept, 1 - BEST)),
            "tones": float(after.std() / max(before.std(), 1.0)),
        }


def correlation(
    a: NDArray[np.float32], b: NDArray[np.float32], where: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """[n] local correlation of two [h, w] images of lightness, at the places (of a region) where the first has
    structure."""
    window = (change.LOOK_PX, change.LOOK_PX)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(values, window), np.float32)

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a * mean_a, mean(b * b) - mean_b * mean_b
    both = np.sqrt(np.maximum(variance_a, 0) * np.maximum(variance_b, 0))
    covariance = mean(a * b) - mean_a * mean_b
    structured = variance_a > LEAST_DETAIL
    return np.asarray(
        (covariance / (both + 1e-3))[structured if where is None else structured & where], np.float32
    )
