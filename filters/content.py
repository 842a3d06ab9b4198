"""Content: finds photographs with hardly any content, such as blank, monotone or two-tone images.

There are two scores, because each misses the other's case. `entropy` of the luma histogram is low for line art, scanned
text and masks, which have few grey levels. `dominant_share` is the part of the image that one colour fills, including
noise and slow gradients: a wall, a lens cap, a frosted pane.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.parts import Bound, Filter, Image, Sample, Score

BIN_BITS = 5
TOLERANCE = 16
"""Grey levels, in each channel, by which a pixel may differ from the dominant colour and still count as
it."""
GRID = 256
"""The dominant colour is found on about GRID x GRID evenly spaced pixels."""


class Content(Filter):
    """`entropy`: of the luma histogram, in bits, 0-8; photographs have 5 to 8. `dominant_share`: the share of
    pixels, 0-1, within 16 levels of the commonest colour in all three channels."""

    scope = frozenset({"source"})
    scores = {"entropy": float, "dominant_share": float}
    bounds = {"entropy": Bound(min=2.5), "dominant_share": Bound(max=0.9)}
    cost = 3.0

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        return {"entropy": entropy(sample.source_gray), "dominant_share": dominant_share(sample.source)}


def entropy(gray: NDArray[np.uint8]) -> float:
    """Bits per pixel of the histogram of a grey image [H, W]."""
    counts = cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel()
    shares = counts[counts > 0].astype(np.float64) / gray.size
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def dominant_share(image: Image) -> float:
    """The share of an RGB image [H, W, 3] that lies around its commonest colour."""
    step = max(1, min(image.shape[:2]) // GRID)
    pixels = image[::step, ::step].reshape(-1, 3)
    levels = (pixels >> (8 - BIN_BITS)).astype(np.int32)
    bins = (levels[:, 0] << 2 * BIN_BITS) | (levels[:, 1] << BIN_BITS) | levels[:, 2]
    # The mean of the fullest bin, not its corner, so that a colour across two bins counts as one.
    colour = pixels[bins == np.bincount(bins).argmax()].mean(axis=0)
    near = np.abs(pixels - colour.astype(np.float32)) <= TOLERANCE
    return float(near.all(axis=1).mean())
