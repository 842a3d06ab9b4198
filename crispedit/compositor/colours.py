"""Colours by name: the compositor's paints, and names for the colours that it finds."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import catalogue

_CATALOGUE = catalogue("colours")
NAMED: dict[str, tuple[float, float, float]] = {name: tuple(rgb) for name, rgb in _CATALOGUE["named"].items()}
"""sRGB 0-1 of each colour that an object can be painted."""


def name_of(rgb: NDArray[np.uint8]) -> str:
    """The everyday name of the median colour of pixels [N, 3]."""
    pixel = np.median(rgb.reshape(-1, 3), axis=0).astype(np.uint8).reshape(1, 1, 3)
    hue, saturation, value = (int(v) for v in cv2.cvtColor(pixel, cv2.COLOR_RGB2HSV)[0, 0])
    if value < 45:
        return "black"
    if saturation < 38:
        return "white" if value > 190 else "gray"
    name = next(name for upper, name in _CATALOGUE["hues"].items() if hue < upper)
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
