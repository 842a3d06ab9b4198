"""Change: where two images of one scene differ visibly, judged on 4x4 block means so that noise and JPEG drop out.

A block mean divides noise by four and hides most of a JPEG's error, which is largest in fine detail; a 3x3 mean of
the blocks hides the rest. On ten photographs, re-encoding at quality 75 (4:2:0) leaves at most 10 levels, noise of
2 levels leaves 2, so 12 is visible and theirs is not.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

VISIBLE_LEVELS = 12
"""The least change, of 255, that counts as visible."""
MARGIN = 3
"""Quarter-resolution pixels (of four) around an edit that belong to neither side: soft edges, JPEG blocks."""


def shrink(image: NDArray[np.uint8], factor: int, like: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """[H // factor, W // factor, ...] block means, for a factor that is a power of two; or the image resized to
    the grid of `like`, where that is another."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if like is not None and like.shape[:2] != (height, width):
        return cv2.resize(image, (like.shape[1], like.shape[0]), interpolation=cv2.INTER_AREA)
    if not height or not width:
        raise ValueError(f"an image of {image.shape[1]}x{image.shape[0]} px is too small to compare")
    # Halving again and again takes OpenCV's fast path, at a whole factor: the last few rows and columns are left out.
    image = image[: height * factor, : width * factor]
    while factor > 1:
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
        factor //= 2
    return image


def levels(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w] difference in levels of two [h, w, 3] images of block means, averaged over 3x3 blocks."""
    red, green, blue = cv2.split(cv2.absdiff(a, b))
    return cv2.blur(cv2.max(cv2.max(red, green), blue), (3, 3))


def grow(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask, grown by so many pixels in every direction."""
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return cv2.dilate(mask.view(np.uint8), kernel) > 0


def regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """[h, w] label of each pixel's 8-connected region (0: none); [n, 5] x, y, width, height, area, from label 1 on."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    return labels, stats[1:]


def estimate(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The edit region that a map of visible change suggests, with a margin.

    Regions at least a tenth as large as the largest are the edit; smaller ones elsewhere are not, they are leakage.
    Gaps up to 5 pixels wide and enclosed holes (an object partly of its background's colour) belong to the edit.
    """
    closed = cv2.morphologyEx(changed.view(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
    labels, stats = regions(closed)
    if not len(stats):
        return closed
    area = stats[:, cv2.CC_STAT_AREA]
    edit = np.concatenate([[False], area * 10 >= area.max()])[labels]
    contours, _ = cv2.findContours(edit.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros(edit.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return grow(filled > 0, MARGIN)
