"""Resizes images of any size to the model's size and back, and restores unedited pixels.

The model works on about resolution x resolution pixels. An image is resized; its aspect ratio changes only because
sides are rounded to the token grid. Nothing is cropped or random. The edited image is resized back.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.record import Image, Mask

FEATHER_TOKENS = 0.5  # width of the blended seam, inside the edited tokens, in tokens


def working_size(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """The model's working width and height in pixels: area about resolution^2, sides multiples of `multiple`."""
    scale = resolution / math.sqrt(width * height)
    across, down = (max(1, round(side * scale / multiple)) * multiple for side in (width, height))
    return across, down


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """[height, width, 3], by area averages when shrinking, cubic when enlarging; the same array if the size fits."""
    if image.shape[:2] == (height, width):
        return image
    smaller = width * height < image.shape[0] * image.shape[1]
    out = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.asarray(out, dtype=np.uint8)


def mask_to_tokens(mask: Mask, rows: int, columns: int) -> NDArray[np.bool_]:
    """[rows, columns]: the tokens that a mask of any size touches."""
    height, width = mask.shape
    return (_overlap(rows, height) @ mask.astype(np.float32) @ _overlap(columns, width).T) > 0


def tokens_to_pixels(edited: NDArray[np.bool_], width: int, height: int) -> Mask:
    """[height, width]: the pixels that an edited token touches, in an image of that size."""
    return mask_to_tokens(edited, height, width)


def _overlap(cells: int, others: int) -> NDArray[np.float32]:
    """[cells, others]: 1 where cell i of one division of a length overlaps cell j of another; of equal cells."""
    cell, other = np.arange(cells)[:, None], np.arange(others)
    return ((cell * others < (other + 1) * cells) & (other * cells < (cell + 1) * others)).astype(np.float32)


def paste(source: Image, answer: Image, edited: NDArray[np.bool_]) -> Image:
    """The answer in edited tokens [rows, columns], the source's pixels elsewhere.

    The seam is blended over half a token inside the edited tokens, so every pixel outside them is bit-exact.
    """
    height, width = source.shape[:2]
    inside = tokens_to_pixels(edited, width, height)
    if inside.all():
        return answer
    feather = FEATHER_TOKENS * max(height / edited.shape[0], width / edited.shape[1])
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    alpha = np.clip(distance / max(feather, 1.0), 0.0, 1.0)[..., None]
    blend = source + alpha * (answer.astype(np.float32) - source)
    return np.where(inside[..., None], np.rint(blend), source).astype(np.uint8)
