"""Metrics: distances of an edited image from its target and its source, over pixels and embeddings.

Distances follow MagicBrush's published evaluation (Zhang et al. 2023): RGB in [0, 1], the answer resized to its
reference by Pillow's bicubic filter, one number per pair, averaged over pairs. `where` limits a measure to a region; it
is None if the region is empty. Measures of embeddings take unit vectors from `crispedit.clip` and `crispedit.dino`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from crispedit import change
from crispedit.record import Image, Mask

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2
"""Raise this when a definition here changes: stored scores of another version are not reused."""

PSNR_LIMIT_DB = 10 * math.log10(12 * 255**2)
"""58.9 dB, the noise of rounding to 8 bits (a variance of 1/12). Equal images get this value."""

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5

LOOK_SHORT_SIDE_PX = 256
"""The short side at which visible change is judged, over averages of `change.LOOK_PX`: half a token of a 16 x 16
grid."""

SHORT = 1e-4
"""Differences of unit vectors shorter than this are rounding and have no direction."""


def resized(image: Image, like: Image) -> Image:
    """The image at the size of another, by Pillow's default (bicubic) filter, as MagicBrush's evaluation does it."""
    height, width = like.shape[:2]
    return image if image.shape == like.shape else np.asarray(Pillow.fromarray(image).resize((width, height)))


def black(image: Image) -> bool:
    """Whether every pixel is (0, 0, 0), as a safety checker returns for a withheld answer."""
    return not image.any()


def l1(a: Image, b: Image, where: Mask | None = None) -> float | None:
    """Mean absolute difference, 0-1, of two images of one size."""
    return _mean(np.abs(_difference(a, b)), where, 255.0)


def l2(a: Image, b: Image, where: Mask | None = None) -> float | None:
    """Mean squared difference, 0-1: the "L2" of MagicBrush's tables, which has no root."""
    return _mean(np.square(_difference(a, b), dtype=np.int32), where, 255.0**2)


def psnr(a: Image, b: Image, where: Mask | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB, at most `PSNR_LIMIT_DB`."""
    error = l2(a, b, where)
    if error is None:
        return None
    return min(PSNR_LIMIT_DB, -10 * math.log10(error)) if error > 0 else PSNR_LIMIT_DB


def ssim(a: Image, b: Image, where: Mask | None = None) -> float | None:
    """Structural similarity (Wang et al. 2004, eq. 13; Gaussian window of 11 px, sigma 1.5), mean over RGB and pixels.

    With `where`, only pixels count whose whole window lies in the region. Equals torchmetrics' up to rounding, and is
    much faster on a CPU because the window is separated.
    """
    _check(a, b)
    similarity = _ssim_map(a, b)
    if where is None:
        return float(similarity.mean())
    window = np.ones((SSIM_WINDOW_PX, SSIM_WINDOW_PX), np.uint8)
    inner = cv2.erode(where.astype(np.uint8), window, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0
    return float(similarity[inner].mean()) if inner.any() else None


def leakage(source: Image, edited: Image, mask: Mask) -> float | None:
    """The share, 0-1, of the area outside the edit that visibly changed (`changed`). None if nothing lies outside.

    A place is outside if its averaging window holds no pixel of the mask, so an edit never counts as its own leakage.
    """
    seen = changed(source, edited)
    # Area averages: any edited pixel in a block makes it positive.
    small = cv2.resize(mask.astype(np.float32), seen.shape[::-1], interpolation=cv2.INTER_AREA) > 0
    window = np.ones((change.LOOK_PX, change.LOOK_PX), np.uint8)
    outside = cv2.dilate(small.view(np.uint8), window) == 0
    return change.share(seen, outside) if outside.any() else None


def changed(source: Image, edited: Image) -> Mask:
    """[h, w]: where a viewer of the whole picture sees a difference, at a short side of 256 px or less.

    Both are averaged over 9 x 9 px there and compared in CIE Lab: grain, resampling, JPEG error and a tokenizer's
    redrawn texture average out; changes of colour, light or content do not. A change of texture with the same mean
    colour is missed.
    """
    _check(source, edited)
    height, width = source.shape[:2]
    scale = min(1.0, LOOK_SHORT_SIDE_PX / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    a, b = (change.lab(cv2.resize(image, size, interpolation=cv2.INTER_AREA)) for image in (source, edited))
    return np.asarray(change.distance(a - b, change.LOOK_PX) > change.VISIBLE)


def cosine(a: Tensor, b: Tensor) -> float | None:
    """The cosine of two [D] vectors, -1 to 1; None if one of them has no direction.

    For two images it is CLIP-I or DINO; for an image and a text, CLIP-T (not times 100); for the differences edited -
    source and target caption - source caption, CLIP-dir (Gal et al. 2022).
    """
    lengths = float(a.norm()), float(b.norm())
    return None if min(lengths) < SHORT else float(a @ b) / (lengths[0] * lengths[1])


def _check(a: Image, b: Image) -> None:
    if a.shape != b.shape:
        raise ValueError(f"sizes differ: {a.shape[:2]} and {b.shape[:2]}; make them equal with `resized`")


def _difference(a: Image, b: Image) -> NDArray[np.int16]:
    _check(a, b)
    return a.astype(np.int16) - b.astype(np.int16)  # uint8 would wrap


def _mean(values: NDArray[np.int16] | NDArray[np.int32], where: Mask | None, scale: float) -> float | None:
    chosen = values if where is None else values[where]
    return float(chosen.mean(dtype=np.float64) / scale) if chosen.size else None


def _ssim_map(a: Image, b: Image) -> NDArray[np.float64]:
    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        size = SSIM_WINDOW_PX, SSIM_WINDOW_PX
        blurred = cv2.GaussianBlur(values, size, SSIM_SIGMA_PX, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(blurred, np.float64)

    x, y = (np.multiply(image, 1 / 255, dtype=np.float64) for image in (a, b))
    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x * mean_x + mean(y * y) - mean_y * mean_y
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return np.asarray(similarity / ((mean_x**2 + mean_y**2 + c1) * (variances + c2)), np.float64)
