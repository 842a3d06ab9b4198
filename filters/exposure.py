"""Exposure: did the edit drag the whole image's brightness or colour along? A robust tone fit of what it left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score

Pixels = NDArray[np.float64]
"""[n, 3] RGB levels."""
EXPLAINED_LEVELS = 8.0
"""A pixel that the fitted tone curve misses by less than this was changed by nothing else."""
GRID = 32
"""The fit needs no more pixels than this many squared."""


class Exposure(Filter):
    """A gain and an offset per channel take the source to the edited image wherever the edit itself is not: outside the
    true mask, or else on the half of the pixels that fit best (least trimmed squares; Rousseeuw 1984).

    `drift` is the mean change of brightness that they make there, `cast` the largest departure of a channel from it,
    both 0-1; `explained` is the share of those pixels that they explain. Null where no tone explains `least_explained`.
    """

    least_explained: float = 0.4

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {
        "drift": float,
        "cast": float,
        "explained": float,
    }
    # Five levels of 255, or three of hue, on a whole image are seen at once when the two are flipped between.
    bounds: ClassVar[Mapping[str, Bound]] = {"drift": Bound(max=0.02), "cast": Bound(max=0.012)}
    cost: ClassVar[float] = 1.3

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        unknown: dict[str, Score] = dict.fromkeys(self.scores)
        shape = (GRID, GRID)
        source = cv2.resize(sample.source_quarter, shape, interpolation=cv2.INTER_NEAREST).reshape(-1, 3)
        edited = cv2.resize(sample.edited_quarter, shape, interpolation=cv2.INTER_NEAREST).reshape(-1, 3)
        if sample.mask is not None:
            outside = cv2.resize(sample.outside.view(np.uint8), shape, interpolation=cv2.INTER_NEAREST)
            keep = outside.ravel() > 0
            if keep.mean() < 0.02:
                return unknown
            source, edited = source[keep], edited[keep]
        # What is clipped follows no line; black is clipped only when it became black.
        keep = ((source < 251) & (edited > 2) & (edited < 251)).all(axis=1)
        if keep.sum() < 64:
            return unknown
        x, y = source[keep].astype(np.float64), edited[keep].astype(np.float64)
        fitted = _tone(x, y)
        explained = _explained(fitted, y)
        if explained.mean() < self.least_explained:
            return {**unknown, "explained": float(explained.mean())}
        shift = (fitted - x)[explained]
        brightness = shift.mean(axis=1)
        return {
            "drift": float(np.abs(brightness).mean() / 255),
            "cast": float(np.abs(shift - brightness[:, None]).mean(axis=0).max() / 255),
            "explained": float(explained.mean()),
        }


def _tone(x: Pixels, y: Pixels) -> Pixels:
    """[n, 3] what x becomes under the gain and offset, per channel, that best explain the better half of the pixels."""
    best, least = x, np.inf
    for start in (x, _line(x, y, np.ones(len(x), bool))):
        fitted = start
        for _ in range(3):  # each step lowers the trimmed sum of squares
            error = ((fitted - y) ** 2).sum(axis=1)
            fitted = _line(x, y, error <= np.median(error))
        error = ((fitted - y) ** 2).sum(axis=1)
        trimmed = error[error <= np.median(error)].mean()
        if trimmed < least:
            best, least = fitted, trimmed
    # An edit of over half the image may follow a tone of its own: what stayed alike wins where it explains nearly as
    # many pixels.
    alike = _explained(x, y)
    if alike.sum() >= 64:
        stayed = _line(x, y, alike)
        if _explained(stayed, y).mean() >= _explained(best, y).mean() - 0.2:
            return stayed
    return best


def _explained(fitted: Pixels, y: Pixels) -> NDArray[np.bool_]:
    """[n] whether the tone alone made the pixel what it is."""
    return np.abs(fitted - y).max(axis=1) < EXPLAINED_LEVELS


def _line(x: Pixels, y: Pixels, keep: NDArray[np.bool_]) -> Pixels:
    """The least-squares line of each channel over the kept pixels, at every pixel."""
    mean_x, mean_y = x[keep].mean(axis=0), y[keep].mean(axis=0)
    deviation = x[keep] - mean_x
    # Ten levels of spread count for no slope: a flat image says nothing about gain.
    slope = 1 + ((deviation * (y[keep] - mean_y - deviation)).mean(axis=0)) / (
        (deviation**2).mean(axis=0) + 4
    )
    return mean_y + slope * (x - mean_x)
