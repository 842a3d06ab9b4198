"""Tone: the gain and offset a channel that took a source to its edited image, wherever the edit itself is not.

A robust fit (least trimmed squares; Rousseeuw 1984) on local means: the half of the pixels that fit best decide, and
what was edited is left out by that. Drawing an image anew adds noise to it, and no tone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change

Pixels = NDArray[np.float64]
"""[n, 3] RGB levels."""
GRID = 32
"""The fit needs no more pixels than this many squared."""
EXPLAINED_LEVELS, LEVELS_PER_NOISE = 6.0, 2.5
"""A pixel that the fitted tone misses by less than this was changed by nothing else; a Lab distance of the pair's own
noise is about 2.5 levels."""
LEAST_PIXELS = 64


@dataclass(frozen=True)
class Tone:
    """edited = gain * source + offset, a channel, over the pixels that nothing else changed."""

    gain: NDArray[np.float64]
    """[3] RGB."""
    offset: NDArray[np.float64]
    """[3] levels."""
    source: Pixels
    """The source's pixels that the tone explains, and ..."""
    edited: Pixels
    """... what they became."""
    explained: float
    """They, of all pixels outside the edit: 0-1."""

    @property
    def shift(self) -> Pixels:
        """[n, 3] levels that the tone adds to each of those pixels."""
        return self.source * (self.gain - 1) + self.offset


def fit(
    source: NDArray[np.uint8],
    edited: NDArray[np.uint8],
    outside: NDArray[np.bool_] | None = None,
    noise: float = 0.0,
) -> Tone | None:
    """The tone between two [h, w, 3] images of one size, of some hundred pixels a side; None where too few pixels can
    tell. `outside` is where the edit is not, if that is known; `noise` the Lab distance by which the rest differs."""
    window = (change.LOOK_PX, change.LOOK_PX)
    x, y = (_grid(cv2.blur(image, window)).astype(np.float64) for image in (source, edited))
    if outside is not None:
        where = _grid(outside.view(np.uint8)).ravel() > 0
        if where.mean() < 0.02:
            return None
        x, y = x[where], y[where]
    # What is clipped follows no line; black is clipped only when it became black.
    keep = ((x < 251) & (y > 2) & (y < 251)).all(axis=1)
    if keep.sum() < LEAST_PIXELS:
        return None
    x, y = x[keep], y[keep]
    near = EXPLAINED_LEVELS + LEVELS_PER_NOISE * min(noise, change.VISIBLE)
    gain, offset = _best(x, y, near)
    explained = _explained(x * gain + offset, y, near)
    return Tone(gain, offset, x[explained], y[explained], float(explained.mean()))


def _grid(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[GRID * GRID, channels] pixels of an image, evenly spread."""
    sampled = cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_NEAREST)
    return sampled.reshape(GRID * GRID, -1)


Line = tuple[NDArray[np.float64], NDArray[np.float64]]


def _best(x: Pixels, y: Pixels, near: float) -> Line:
    """The gain and offset, per channel, that best explain the better half of the pixels."""
    everything = np.ones(len(x), bool)
    unchanged: Line = (np.ones(3), np.zeros(3))
    best, least = unchanged, np.inf
    for start in (unchanged, _line(x, y, everything)):
        line = start
        for _ in range(3):  # each step lowers the trimmed sum of squares
            error = ((x * line[0] + line[1] - y) ** 2).sum(axis=1)
            line = _line(x, y, error <= np.median(error))
        error = ((x * line[0] + line[1] - y) ** 2).sum(axis=1)
        trimmed = error[error <= np.median(error)].mean()
        if trimmed < least:
            best, least = line, trimmed
    # An edit of over half the image may follow a tone of its own: what stayed alike wins where it explains nearly as
    # many pixels.
    alike = _explained(x, y, near)
    if alike.sum() >= LEAST_PIXELS:
        stayed = _line(x, y, alike)
        if (
            _explained(x * stayed[0] + stayed[1], y, near).mean()
            >= _explained(x * best[0] + best[1], y, near).mean() - 0.2
        ):
            return stayed
    return best


def _explained(fitted: Pixels, y: Pixels, near: float) -> NDArray[np.bool_]:
    """[n] whether the tone alone made the pixel what it is."""
    return np.asarray(np.abs(fitted - y).max(axis=1) < near)


def _line(x: Pixels, y: Pixels, keep: NDArray[np.bool_]) -> Line:
    """Gain and offset of the least-squares line of each channel over the kept pixels."""
    mean_x, mean_y = x[keep].mean(axis=0), y[keep].mean(axis=0)
    deviation = x[keep] - mean_x
    # Two levels of spread count for no slope: a flat image says nothing about gain.
    slope = 1 + ((deviation * (y[keep] - mean_y - deviation)).mean(axis=0)) / (
        (deviation**2).mean(axis=0) + 4
    )
    return slope, mean_y - slope * mean_x
