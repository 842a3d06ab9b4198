"""Sharpness: is the edited image blurrier than its source? Ratios of fine detail, by block."""

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

BLOCK = 16
"""Pixels."""
FLAT_LEVELS = 1.0
"""A source block with less detail than this shows noise and JPEG error, no edges whose sharpness could change."""


class Sharpness(Filter):
    """Detail of the edited image over that of the source (1 is equal, 0.5 half as sharp, above 1 sharper).

    `outside` is the median over the textured blocks outside the edit, `overall` over those of the whole image.
    `inside` compares the sharpest tenth of the edited blocks inside the edit with the sharpest tenth of all source
    blocks: new content need not have the old texture, but some edge of it should be as crisp as the photograph's. Null
    where fewer than `least_blocks` blocks can be compared.
    """

    least_blocks: int = 12

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {
        "overall": float,
        "outside": float,
        "inside": float,
    }
    # From compositor pairs and their defects (`crispedit calibrate`): good edits leave 0.99 or more outside, the
    # faintest enlargement (twofold) and blur (1.5 px) at most 0.8. Re-encoding at quality 75 leaves about 0.8 too, at
    # 85 over 0.9: an editor that answers in poor JPEG is an editor that blurs.
    bounds: ClassVar[Mapping[str, Bound]] = {"outside": Bound(min=0.8)}
    cost: ClassVar[float] = 1.6

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        source = _detail(sample.source_gray)
        edited = _detail(sample.edited_gray)
        if edited.shape != source.shape:
            edited = cv2.resize(edited, source.shape[::-1], interpolation=cv2.INTER_LINEAR)
        share = cv2.resize(
            sample.outside.view(np.uint8) * 255, source.shape[::-1], interpolation=cv2.INTER_AREA
        )
        textured = source > FLAT_LEVELS
        ratio = (edited / np.maximum(source, FLAT_LEVELS)).astype(np.float32)
        return {
            "overall": self._typical(ratio[textured]),
            "outside": self._typical(ratio[textured & (share == 255)]),
            "inside": self._inside(source[textured], edited[share == 0]),
        }

    def _typical(self, ratio: NDArray[np.float32]) -> float | None:
        return float(np.median(ratio)) if len(ratio) >= self.least_blocks else None

    def _inside(self, source: NDArray[np.float32], edited: NDArray[np.float32]) -> float | None:
        if min(len(source), len(edited)) < self.least_blocks:
            return None
        return float(np.percentile(edited, 90) / np.percentile(source, 90))


def _detail(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H // 16, W // 16] mean detail of each block, in levels."""
    # 8-bit output keeps the positive half of the Laplacian, which has the same mean as the negative half.
    small = change.shrink(cv2.Laplacian(gray, cv2.CV_8U), 4).astype(np.float32)
    height, width = (max(side * 4 // BLOCK, 1) for side in small.shape)
    small = small[: height * BLOCK // 4, : width * BLOCK // 4]
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
