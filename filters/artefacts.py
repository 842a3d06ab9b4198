"""Artefacts: faults of an encoder or decoder in the edited image that its source does not have.

Banding, and a uniform frame along a border; `patches` measures faults in a grid. Each is measured on both images and
reported as the increase, so a photograph's own faults do not count.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change
from crispedit.parts import Bound, Filter, Image, Sample, Score

Gray = NDArray[np.uint8]
FLAT_LEVELS, STEP_LEVELS = 4.0, 8.0
"""Within a frame, a row varies and drifts by less than FLAT_LEVELS; at its end, most of a row jumps by STEP_LEVELS."""


ENOUGH_PIXELS = 2**16
"""Histograms are of about this many pixels, in evenly spread rows."""


class Artefacts(Filter):
    """`banding`: share of the pixels that must change level to make the channels' histograms smooth. `border_px`: width
    of the widest side of a uniform frame. Each is the edited image's value minus the source's, at least 0."""

    version = 3
    scores = {"banding": float, "border_px": int}
    # From compositor pairs and their defects (`crispedit calibrate`). banding: 24 levels a channel bring in 0.12 at
    # least, even on rendered backgrounds, good edits 0.04 at most. The others are far from both sides.
    bounds = {"banding": Bound(max=0.07), "border_px": Bound(max=3)}
    cost = 3.0

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        return {
            "banding": max(0.0, banding(sample.edited) - banding(sample.source)),
            "border_px": max(0, border_px(sample.edited_gray) - border_px(sample.source_gray)),
        }


def banding(image: Image) -> float:
    """0-1: how far the channels' histograms are from smooth. A quantised channel has a comb.

    Counts are clipped at their 90th percentile: a comb has many teeth, while a single tall one is a plain
    background.
    """
    rows = np.ascontiguousarray(image[:: max(1, image.shape[0] * image.shape[1] // ENOUGH_PIXELS)])
    excess = []
    for channel in range(3):
        counts = cv2.calcHist([rows], [channel], None, [256], [0, 256]).ravel()[1:-1]  # the ends are clipping
        low, high = np.searchsorted(counts.cumsum(), np.array([0.01, 0.99]) * counts.sum())
        used = counts[low : high + 1]
        if len(used) < 16:
            continue
        used = np.minimum(used, change.quantile(used, 0.9))
        smooth = cv2.blur(used[:, None], (1, 15)).ravel()
        excess.append(np.abs(used - smooth).sum() / (2 * max(used.sum(), 1)))
    return float(np.mean(excess)) if excess else 0.0


def border_px(gray: Gray) -> int:
    """The width of the widest frame side: uniform rows from the border inwards that end in a straight step, up to an
    eighth of the image."""
    return max(_frame(view) for view in (gray, gray[::-1], gray.T, gray.T[::-1]))


def _frame(gray: Gray) -> int:
    if len(gray) < 64 or gray[0].std() >= FLAT_LEVELS:
        return 0
    strip = gray[: len(gray) // 8].astype(np.float32)
    mean, spread = strip.mean(axis=1), strip.std(axis=1)
    uniform = (spread < FLAT_LEVELS) & (np.abs(mean - mean[0]) < FLAT_LEVELS)
    width = len(strip) if uniform.all() else int(np.argmin(uniform))
    if width > len(strip) - 3:
        return 0
    # An even sky is uniform too, but it ends gradually or at an outline, not in a step across most of a row.
    step = np.abs(strip[width + 2] - mean[0])
    return width if np.median(step) > STEP_LEVELS else 0
