"""Preservation: what changed where nothing should have, outside the edit region (L1, SSIM, share visibly
changed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score

BLOCK = 8
"""Half-resolution pixels."""


class Preservation(Filter):
    """Change outside the true edit mask, or outside an estimated one (`crispedit.change.estimate`), each with
    a margin.

    All scores are 0-1; `ssim` is Wang et al. 2004 on luma at half resolution, over 8x8 blocks. They are null
    where less than `least_outside` of the image lies outside the edit (a style edit has no outside).
    """

    least_outside: float = 0.02

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {
        "leakage": float,
        "outside_l1": float,
        "outside_p99": float,
        "outside_ssim": float,
        "outside_fraction": float,
    }
    # Starting values; `crispedit calibrate` proposes others. leakage: the share of the outside that visibly
    # changed. outside_ssim: re-encoding at quality 75 leaves 0.93 or more on photographs, a regenerated
    # outside less.
    bounds: ClassVar[Mapping[str, Bound]] = {"leakage": Bound(max=0.02), "outside_ssim": Bound(min=0.85)}
    cost: ClassVar[float] = 0.8

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        outside = sample.outside
        fraction = float(outside.mean())
        if fraction < self.least_outside:
            return {**dict.fromkeys(self.scores), "outside_fraction": fraction}
        levels = sample.change[outside]
        similarity = ssim(sample.source_half, sample.edited_half)
        share = cv2.resize(outside.view(np.uint8) * 255, similarity.shape[::-1], interpolation=cv2.INTER_AREA)
        whole = similarity[share == 255]
        return {
            "leakage": float(sample.changed[outside].mean()),
            "outside_l1": float(levels.mean() / 255),
            "outside_p99": float(np.percentile(levels, 99) / 255),
            "outside_ssim": float(whole.mean()) if len(whole) else None,
            "outside_fraction": fraction,
        }


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H // 8, W // 8] structural similarity of two [H, W] images (Wang et al. 2004, eq. 13), over 8x8 blocks."""
    height, width = (max(side // BLOCK, 1) for side in a.shape)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)

    x, y = (image[: height * BLOCK, : width * BLOCK].astype(np.float32) for image in (a, b))
    mean_x, mean_y = mean(x), mean(y)
    mean_xy = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    variances = mean(x * x + y * y) - squares
    covariance = mean(x * y) - mean_xy
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_xy + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.astype(np.float32)
