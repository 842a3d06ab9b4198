"""Artefacts: what a bad encoder or decoder leaves in the edited image and not in its source.

JPEG blocks, banding, a uniform frame along a border, and the checkerboard of a transposed convolution. Each is
measured on both images and reported as what the edit brought in, so that a photograph's own flaws do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Image, Sample, Score

Gray = NDArray[np.uint8]
FLAT_LEVELS, STEP_LEVELS = 4.0, 8.0
"""A border row varies and drifts by less than the first; where the frame ends, most of the row jumps by the second."""


class Artefacts(Filter):
    """`blocking`: relative excess of steps on the 8 px grid over steps off it. `banding`: share of the pixels that
    would have to change level to smooth the channels' histograms. `border_px`: width of the widest uniform frame side.
    `checkerboard`: amplitude in levels of the pattern of period two. Each is the edited image's value less the
    source's, never under 0."""

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {
        "blocking": float,
        "banding": float,
        "border_px": int,
        "checkerboard": float,
    }
    # From compositor pairs and their defects (`crispedit calibrate`). blocking: quality 70 brings in 0.9 at most,
    # quality 18 and below 1.3 at least. banding: 24 levels a channel bring in 0.12 at least, even on rendered
    # backgrounds, good edits 0.04 at most. The others are far from both sides.
    bounds: ClassVar[Mapping[str, Bound]] = {
        "blocking": Bound(max=1.0),
        "banding": Bound(max=0.07),
        "border_px": Bound(max=3),
        "checkerboard": Bound(max=0.5),
    }
    cost: ClassVar[float] = 3.0

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        before, after = sample.source_gray, sample.edited_gray
        return {
            "blocking": max(0.0, blocking(after) - blocking(before)),
            "banding": max(0.0, banding(sample.edited) - banding(sample.source)),
            "border_px": max(0, border_px(after) - border_px(before)),
            "checkerboard": max(0.0, checkerboard(after) - checkerboard(before)),
        }


def blocking(gray: Gray) -> float:
    """Mean step between pixels on the strongest phase of an 8 px grid, over that on the other phases, less one.

    After Wang, Sheikh and Bovik 2002 ("No-reference perceptual quality assessment of JPEG compressed images").
    """
    return float(np.mean([_on_grid(gray, 1), _on_grid(gray, 0)]))


def _on_grid(gray: Gray, axis: int) -> float:
    steps = cv2.absdiff(gray[:, 1:], gray[:, :-1]) if axis else cv2.absdiff(gray[1:], gray[:-1])
    profile = cv2.reduce(steps, 1 - axis, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
    if len(profile) < 16:
        return 0.0
    phases = profile[: len(profile) // 8 * 8].reshape(-1, 8).mean(axis=0)
    others = (phases.sum() - phases.max()) / 7
    return float(phases.max() / max(others, 0.25) - 1)


def banding(image: Image) -> float:
    """0-1: how far the channels' histograms are from smooth ones. A quantised channel's is a comb.

    Counts are clipped at their 90th percentile: teeth are many, and a single tall one is a plain background.
    """
    rows = np.ascontiguousarray(image[::8])
    excess = []
    for channel in range(3):
        counts = cv2.calcHist([rows], [channel], None, [256], [0, 256]).ravel()[1:-1]  # the ends are clipping
        low, high = np.searchsorted(counts.cumsum(), np.array([0.01, 0.99]) * counts.sum())
        used = counts[low : high + 1]
        if len(used) < 16:
            continue
        used = np.minimum(used, np.percentile(used, 90))
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
    # An even sky is uniform too, but it ends gradually or in an outline, not in a step across most of the row.
    step = np.abs(strip[width + 2] - mean[0])
    return width if np.median(step) > STEP_LEVELS else 0


def checkerboard(gray: Gray) -> float:
    """Amplitude, in levels, of the pattern (-1)^(x + y): the mean over large blocks of its absolute correlation.
    Two rows of every four are looked at."""
    height, width = gray.shape[0] // 4 * 4, gray.shape[1] // 2 * 2
    if not height or not width:
        return 0.0
    # Rows y and y + 1 are in opposite phase: their difference has twice the pattern, and less of the image.
    rows = cv2.subtract(gray[:height:4, :width], gray[1:height:4, :width], dtype=cv2.CV_16S)
    pattern = cv2.subtract(rows[:, ::2], rows[:, 1::2])
    size = (max(pattern.shape[1] // 32, 1), max(pattern.shape[0] // 16, 1))
    blocks = cv2.resize(pattern.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return float(np.abs(blocks).mean() / 4)
