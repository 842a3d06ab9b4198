"""Structure: is the scene still recognisable after an edit of its whole look?

For `style` and `background`, where colours may change: lines and shapes of the source must remain in place in the whole
result (style), or in a part of it (the subject before a new background). A black, stained or posterised image keeps few
of them. New lines where the source is smooth, such as hatching, do not count.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change
from crispedit.parts import Filter, Sample, Score

WINDOW = 5
"""Pixels of half the small grid of `crispedit.change`."""
LEAST_DETAIL, LEAST_PLACES = 4.0, 12
"""The variance of lightness (of 100) below which a place has no structure to keep; and the fewest places that are
measured."""

BEST = 0.03
"""The least share of structured places that a kept subject covers; small subjects count too."""


class Structure(Filter):
    """`kept`: the median, over the places where the source has structure, of the absolute correlation of lightness in
    source and edited image (over `WINDOW`), because a blueprint or a negative swaps light and dark;
    `kept_best`: the correlation that 3 % of these places exceed. For a background edit, only places outside the true
    mask count, if there is one. `tones`: the spread of the edited image's lightness over the source's. All are 0 or
    more, and null if the source has no structure. Bounds are in the category files."""

    version = 5

    scores = {"kept": float, "kept_best": float, "tones": float}
    cost = 1.2

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        before, after = (change.shrink(cv2.extractChannel(lab, 0), 2) for lab in (sample.source_lab, sample.edited_lab))
        where = np.ones(before.shape, bool)
        if sample.category == "background" and sample.mask is not None:
            where = change.onto(sample.outside, before.shape)
        kept = correlation(before, after, where)
        if kept.size < LEAST_PLACES:
            return dict.fromkeys(self.scores)
        return {
            "kept": abs(change.quantile(kept, 0.5)),
            "kept_best": max(0.0, change.quantile(kept, 1 - BEST)),
            "tones": float(after.std() / max(before.std(), 1.0)),
        }


def correlation(a: NDArray[np.float32], b: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[n] local correlation of two [h, w] images of lightness, at the places of a region where the first has
    structure."""

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(values, (WINDOW, WINDOW)), np.float32)

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a * mean_a, mean(b * b) - mean_b * mean_b
    both = np.sqrt(np.maximum(variance_a, 0) * np.maximum(variance_b, 0))
    covariance = mean(a * b) - mean_a * mean_b
    return np.asarray((covariance / (both + 1e-3))[where & (variance_a > LEAST_DETAIL)], np.float32)
