"""Change: where a viewer sees two images of one scene differ, and how much of that is only re-rendering.

An editor that redraws the whole image changes every pixel a little, most where there is texture; the real edit stands
out from that. So images are compared as local means in CIE Lab, where noise, JPEG error and redrawn texture average
out. The difference in the quietest part of the image is the pair's own noise. A change counts where it is both visible
and well above that noise.

All maps are on the small grid of a pair: block means of the source, shrunk by the power of two that leaves a short side
of 192 to 383 px (not shrunk below 384 px). Sizes in pixels of that grid therefore scale with the image.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
"""[h, w] CIE 1976 Lab distances (L 0-100)."""

SMALL_SIDE_PX = 192
"""The smallest short side of the small grid."""
VISIBLE = 5.0
"""The Lab distance of two local means that a viewer notices. 2.3 is just noticeable side by side (Mahy et al. 1994)."""
LOOK_PX = 9
"""The window of a `look`, the coarser local mean: about 1/28 of the short side."""
MARGIN = 3
"""Pixels around an edit that belong to neither side: soft edges, JPEG blocks, halos."""

Regime = Literal["exact", "regenerated", "global"]
EXACT = 0.5
"""The noise floor below which the rest of the image counts as untouched; re-encoding as a good JPEG stays below it."""


Level = TypeVar("Level", np.uint8, np.float32)


def factor(shape: tuple[int, ...]) -> int:
    """The power of two by which an image of this [H, W, ...] shape is shrunk to the small grid."""
    short, by = min(shape[:2]), 1
    while short // (2 * by) >= SMALL_SIDE_PX:
        by *= 2
    return by


def shrink(image: NDArray[Level], factor: int, like: NDArray[Any] | None = None) -> NDArray[Level]:
    """[H // factor, W // factor, ...] block means, for a factor that is a power of two; or the image resized to
    the grid of `like`, where that is another."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if like is not None and like.shape[:2] != (height, width):
        return resize(image, like.shape)
    if not height or not width:
        raise ValueError(f"an image of {image.shape[1]}x{image.shape[0]} px is too small to compare")
    # Repeated halving takes OpenCV's fast path; the last few rows and columns are cut so that the factor is whole.
    image = image[: height * factor, : width * factor]
    while factor > 1:
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
        factor //= 2
    return image


def resize(image: NDArray[Level], shape: tuple[int, ...]) -> NDArray[Level]:
    """The image at another [H, W, ...]: area averages where it shrinks, Lanczos where it grows."""
    if image.shape[:2] == shape[:2]:
        return image
    smaller = shape[0] <= image.shape[0] and shape[1] <= image.shape[1]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=kind), image.dtype)


def lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[h, w, 3]: CIE Lab (L 0-100) of RGB."""
    return np.asarray(cv2.cvtColor(np.multiply(image, 1 / 255, dtype=np.float32), cv2.COLOR_RGB2Lab), np.float32)


def distance(difference: NDArray[np.float32], window: int) -> Map:
    """[h, w] distance of the means over `window` x `window` px of two Lab images, from their difference."""
    means = cv2.blur(difference, (window, window))
    return np.asarray(cv2.sqrt(_sum_of_channels(cv2.multiply(means, means))), np.float32)


def _sum_of_channels(image: NDArray[np.float32]) -> Map:
    return np.asarray(cv2.transform(image, np.ones((1, 3), np.float32)), np.float32)


def quantile(values: NDArray[np.float32], share: float) -> float:
    """`np.quantile(values, share, method="lower")`, ten times faster."""
    at = int(share * (values.size - 1))
    return float(np.partition(values, at, axis=None)[at])


@dataclass(frozen=True)
class Noise:
    """How much the part of a pair that was not edited differs: what re-encoding or drawing the image anew did to it.

    Measured on the least changed quarter of the image, which is unedited unless the edit covers more than three
    quarters.
    """

    floor: float
    """Lab distance of means over 3 px: 0 is pixel-exact."""
    look: float
    """Lab distance of means over `LOOK_PX`; at `VISIBLE` or more, no quarter of the image was left as it was."""
    plain: float
    """The floor without texture."""
    slope: float
    """The increase of the floor per unit of `texture`: redrawn texture differs more."""

    @property
    def regime(self) -> Regime:
        if self.look >= VISIBLE:
            return "global"
        return "exact" if self.floor < EXACT else "regenerated"

    def expected(self, texture: Map) -> Map:
        """[h, w]: the floor at each place; 0 in the `global` regime, where no unedited part is left to measure it
        on."""
        if self.regime == "global":
            return np.zeros_like(texture)
        return np.asarray(self.plain + self.slope * texture, np.float32)


QUIET = 0.25
"""The share of the image that is taken as unedited."""
BINS = 8
"""Bins of texture; noise is measured in each."""
OUTSTANDING = 4.0
"""How many floors a change must reach to stand out: the lower quartile of noise of three channels is 1.1 standard
deviations, the 99.9th percentile 4.0, and redrawn texture has longer tails."""


def texture(source: NDArray[np.float32]) -> Map:
    """[h, w] standard deviation of the source's Lab values over `LOOK_PX`, at half the grid's resolution and back."""
    height, width = source.shape[:2]
    half = cv2.resize(source, (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_AREA)
    window = (LOOK_PX // 2, LOOK_PX // 2)
    mean = cv2.blur(half, window)
    variance = _sum_of_channels(np.maximum(cv2.blur(half * half, window) - mean * mean, 0))
    return np.asarray(cv2.resize(cv2.sqrt(variance), (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def noise(fine: Map, look: Map, texture: Map, where: NDArray[np.bool_] | None = None) -> Noise:
    """The noise of a pair from its distances over 3 px and over `LOOK_PX`, and its source's texture; in a region."""
    fine, look, texture = (values[::2, ::2] for values in (fine, look, texture))
    chosen = slice(None) if where is None else where[::2, ::2]
    fine, look, texture = (values[chosen].ravel() for values in (fine, look, texture))
    bins = min(BINS, len(texture))
    order = np.argsort(texture)[: len(texture) // bins * bins].reshape(bins, -1)
    x = texture[order].mean(axis=1)
    at = int(QUIET * (order.shape[1] - 1))
    y = np.partition(fine[order], at, axis=1)[:, at]
    # A bin that the edit fills does not show the noise, so the line follows the lower envelope of the bins.
    slope = max(0.0, float(np.median(np.diff(y) / np.maximum(np.diff(x), 1e-3)))) if bins > 1 else 0.0
    slope = min(slope, 1.0)
    plain = max(0.0, float(np.quantile(y - slope * x, 0.4)))
    return Noise(quantile(fine, QUIET), quantile(look, QUIET), plain, slope)


def stands_out(distances: Map, expected: Map) -> NDArray[np.bool_]:
    """[h, w]: where a viewer sees a change that is more than re-rendering."""
    return np.asarray(distances > np.maximum(VISIBLE, OUTSTANDING * expected))


def share(mask: NDArray[np.bool_], where: NDArray[np.bool_] | None = None) -> float:
    """The share, 0-1, of a mask (within a region, if given) that is true. Ten times as fast as `mean`."""
    if where is None:
        return np.count_nonzero(mask) / mask.size
    return np.count_nonzero(mask & where) / np.count_nonzero(where)


def grow(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask, dilated by this many pixels."""
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return cv2.dilate(mask.view(np.uint8), kernel) > 0


def onto(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask on another grid of the image, of this [H, W, ...]: the nearest pixel of each."""
    return cv2.resize(mask.view(np.uint8), shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0


def coverage(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """[H, W] of `shape`: how much of each cell of another grid the mask covers; 255 is all of it."""
    return np.asarray(cv2.resize(mask.view(np.uint8) * 255, shape[1::-1], interpolation=cv2.INTER_AREA))


def regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """[h, w] label of each pixel's 8-connected region (0: none); [n] the regions' areas in pixels, from label 1 on."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    return labels, stats[1:, cv2.CC_STAT_AREA]


def chosen(labels: NDArray[np.int32], which: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[h, w]: whether a pixel belongs to one of these regions; `which` [n] starts at label 1."""
    return np.take(np.concatenate([[False], which]), labels)


def estimate(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The edit region that a map of visible change suggests, with a margin.

    Regions at least a tenth as large as the largest are the edit; smaller ones elsewhere are not, they are leakage.
    Gaps up to 5 pixels wide and enclosed holes (an object partly of its background's colour) belong to the edit.
    """
    closed = cv2.morphologyEx(changed.view(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
    labels, areas = regions(closed)
    if not len(areas):
        return closed
    edit = chosen(labels, areas * 10 >= areas.max())
    contours, _ = cv2.findContours(edit.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros(edit.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return grow(filled > 0, MARGIN)


BLOCK = 8
"""Pixels of a side of the blocks of `Moments`."""


@dataclass(frozen=True)
class Moments:
    """First and second moments of two [H, W] images over blocks of `BLOCK` x `BLOCK` px; each is [H // 8, W // 8]."""

    means: tuple[Map, Map]
    variances: Map
    """The sum of the two images' variances."""
    covariance: Map

    @classmethod
    def of(cls, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Self:
        a, b = whole_blocks(a), whole_blocks(b)
        mean_a, mean_b = (block_means(image.astype(np.float32)) for image in (a, b))
        aa, bb, ab = (block_means(cv2.multiply(x, y, dtype=cv2.CV_32F)) for x, y in ((a, a), (b, b), (a, b)))
        variances = aa + bb - (mean_a * mean_a + mean_b * mean_b)
        return cls((mean_a, mean_b), variances, ab - mean_a * mean_b)


def whole_blocks(image: NDArray[Any]) -> NDArray[Any]:
    """The part of an [H, W] image that blocks fill, or all of it where not even one does."""
    height, width = (max(side // BLOCK, 1) * BLOCK for side in image.shape)
    return image[:height, :width]


def block_means(values: Map) -> Map:
    """[H // 8, W // 8] means over blocks of `whole_blocks`."""
    for _ in range(BLOCK.bit_length() - 1):  # by halves, which is OpenCV's quick path
        half = [max(side // 2, 1) for side in values.shape[::-1]]
        values = np.asarray(cv2.resize(values, half, interpolation=cv2.INTER_AREA), np.float32)
    return values
