"""Tone: the gain and offset per channel between a source and its edited image, outside the edit.

A robust fit (least trimmed squares; Rousseeuw 1984) on local means: only the half of the pixels that fits best counts,
which leaves out the edit. Redrawing an image adds noise but no tone.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change

Pixels = NDArray[np.float64]
"""[3, n] RGB levels."""
GRID = 32
"""The fit uses at most GRID x GRID pixels."""
EXPLAINED_LEVELS, LEVELS_PER_NOISE = 6.0, 2.5
"""A pixel within this many levels of the fitted tone counts as explained by it; one Lab unit of the pair's noise is
about 2.5 levels."""
LEAST_PIXELS = 64


@dataclass(frozen=True)
class Tone:
    """edited = gain * source + offset, per channel, over the pixels that nothing else changed."""

    gain: NDArray[np.float64]
    """[3] RGB."""
    offset: NDArray[np.float64]
    """[3] levels."""
    source: Pixels
    """The source's pixels that the tone explains."""
    edited: Pixels
    """The same pixels of the edited image."""
    explained: float
    """Their share of all pixels outside the edit, 0-1."""

    @property
    def shift(self) -> Pixels:
        """[3, n] levels that the tone adds to each of those pixels."""
        return self.source * (self.gain - 1)[:, None] + self.offset[:, None]


def fit(
    source: NDArray[np.uint8], edited: NDArray[np.uint8], outside: NDArray[np.bool_] | None = None, noise: float = 0.0
) -> Tone | None:
    """The tone between two [h, w, 3] images of one size, some hundred pixels a side; None for too few usable pixels.
    `outside` is the area outside the edit, if known; `noise` is the Lab distance by which it differs."""
    window = (change.LOOK_PX, change.LOOK_PX)
    x, y = (_grid(cv2.blur(image, window)).astype(np.float64) for image in (source, edited))
    if outside is not None:
        where = _grid(outside.view(np.uint8))[0] > 0
        if change.share(where) < 0.02:
            return None
        x, y = x[:, where], y[:, where]
    # Clipped pixels do not follow a line; black is clipped only if it became black.
    keep = ((x < 251) & (y > 2) & (y < 251)).all(axis=0)
    if keep.sum() < LEAST_PIXELS:
        return None
    x, y = x[:, keep], y[:, keep]
    near = EXPLAINED_LEVELS + LEVELS_PER_NOISE * min(noise, change.VISIBLE)
    line = _best(x, y, near)
    explained = _explained(line, x, y, near)
    return Tone(*line, x[:, explained], y[:, explained], change.share(explained))


def _grid(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[channels, GRID * GRID] pixels of an image, evenly spread."""
    sampled = cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_NEAREST)
    return np.ascontiguousarray(sampled.reshape(GRID * GRID, -1).T)


Line = tuple[NDArray[np.float64], NDArray[np.float64]]
UNCHANGED: Line = (np.ones(3), np.zeros(3))


def _best(x: Pixels, y: Pixels, near: float) -> Line:
    """The gain and offset, per channel, that best explain the better half of the pixels."""
    moments = np.stack([x, y, x * x, x * y])
    best, least = UNCHANGED, np.inf
    for line in (UNCHANGED, _line(moments, np.ones(x.shape[1], bool))):
        for _ in range(3):  # each step reduces the trimmed sum of squares
            line = _line(moments, _better_half(_error(line, x, y)))
        error = _error(line, x, y)
        trimmed = error[_better_half(error)].mean()
        if trimmed < least:
            best, least = line, trimmed
    # An edit of over half the image may have its own tone: no change wins if it explains nearly as many pixels.
    alike = _explained(UNCHANGED, x, y, near)
    if alike.sum() >= LEAST_PIXELS:
        stayed = _line(moments, alike)
        shares = [change.share(_explained(line, x, y, near)) for line in (stayed, best)]
        if shares[0] >= shares[1] - 0.2:
            return stayed
    return best


def _residual(line: Line, x: Pixels, y: Pixels) -> Pixels:
    return x * line[0][:, None] + line[1][:, None] - y


def _error(line: Line, x: Pixels, y: Pixels) -> NDArray[np.float64]:
    """[n]: sum of squared errors over the channels."""
    residual = _residual(line, x, y)
    return np.asarray(np.square(residual, out=residual).sum(axis=0))


def _better_half(error: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n]: whether an error is at most the median."""
    middle = (len(error) - 1) // 2
    return np.asarray(error <= np.partition(error, middle)[middle])


def _explained(line: Line, x: Pixels, y: Pixels, near: float) -> NDArray[np.bool_]:
    """[n]: whether the tone alone explains the pixel."""
    return np.asarray(np.abs(_residual(line, x, y)).max(axis=0) < near)


def _line(moments: NDArray[np.float64], keep: NDArray[np.bool_]) -> Line:
    """Gain and offset of the least-squares line of each channel over the kept pixels, from [4, 3, n] x, y, x^2, xy."""
    mean_x, mean_y, mean_xx, mean_xy = moments @ keep.astype(np.float64) / np.count_nonzero(keep)
    variance = mean_xx - mean_x * mean_x
    # A spread of two levels gives no slope: a flat image says nothing about gain.
    slope = 1 + (mean_xy - mean_x * mean_y - variance) / (variance + 4)
    return slope, mean_y - slope * mean_x
