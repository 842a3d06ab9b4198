"""Colours by name: the compositor's paints, and names for the colours that it finds."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

NAMED: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.09, 0.08),
    "orange": (0.95, 0.45, 0.04),
    "yellow": (0.97, 0.82, 0.08),
    "green": (0.13, 0.58, 0.16),
    "turquoise": (0.08, 0.70, 0.68),
    "blue": (0.08, 0.25, 0.80),
    "purple": (0.45, 0.13, 0.68),
    "pink": (0.96, 0.45, 0.66),
    "white": (0.93, 0.92, 0.90),
    "black": (0.07, 0.07, 0.08),
    "gray": (0.48, 0.48, 0.49),
    "brown": (0.42, 0.24, 0.11),
}
"""sRGB 0-1 of each colour that an object can be painted."""

_HUES = (
    (8, "red"),
    (19, "orange"),
    (34, "yellow"),
    (80, "green"),
    (97, "turquoise"),
    (128, "blue"),
    (152, "purple"),
    (169, "pink"),
    (181, "red"),
)
"""The upper hue (OpenCV: 0-180) of each name."""


def name_of(rgb: NDArray[np.uint8]) -> str:
    """The everyday name of the median colour of pixels [N, 3]."""
    pixel = np.median(rgb.reshape(-1, 3), axis=0).astype(np.uint8).reshape(1, 1, 3)
    hue, saturation, value = (int(v) for v in cv2.cvtColor(pixel, cv2.COLOR_RGB2HSV)[0, 0])
    if value < 45:
        return "black"
    if saturation < 38:
        return "white" if value > 190 else "gray"
    name = next(name for upper, name in _HUES if hue < upper)
    if name in ("red", "orange") and value < 130 and saturation < 215 and 3 < hue:
        return "brown"
    if name == "red" and saturation < 120 and value > 170:
        return "pink"
    return name


def apart(name: str, rgb: NDArray[Any]) -> float:
    """How far (CIE76) a named colour is from the mean of sRGB pixels 0-255 [N, 3]; above 40 it stands out."""
    pair = np.array([[NAMED[name], rgb.reshape(-1, 3).mean(axis=0) / 255]], np.float32)
    lab = cv2.cvtColor(pair, cv2.COLOR_RGB2LAB)[0]
    return float(np.linalg.norm(lab[0] - lab[1]))
