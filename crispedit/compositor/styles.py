"""Styles: repaints a whole photograph (oil, pencil, halftone ...) with its composition kept in place."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from crispedit.record import Image

Style = Callable[[Image, np.random.Generator], Image]


def _oil(image: Image, rng: np.random.Generator) -> Image:
    smooth = cv2.medianBlur(image, 9)
    return cv2.convertScaleAbs(smooth, alpha=1.08, beta=4)


def _pencil(image: Image, rng: np.random.Generator) -> Image:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    blur = cv2.GaussianBlur(255 - gray, (0, 0), max(image.shape[:2]) / 120)
    sketch = cv2.divide(gray, 255 - blur, scale=250)
    return cv2.cvtColor(sketch, cv2.COLOR_GRAY2RGB)


def _sepia(image: Image, rng: np.random.Generator) -> Image:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    return np.clip(gray * np.array([1.05, 0.86, 0.62], np.float32) + 18, 0, 255).astype(np.uint8)


def _mosaic(image: Image, rng: np.random.Generator) -> Image:
    h, w = image.shape[:2]
    cell = max(2, min(h, w) // 64)
    small = cv2.resize(image, (max(1, w // cell), max(1, h // cell)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small // 24 * 24 + 12, (w, h), interpolation=cv2.INTER_NEAREST)


def _cartoon(image: Image, rng: np.random.Generator) -> Image:
    flat = cv2.bilateralFilter(image, 7, 60, 7) // 32 * 32 + 16
    lines = cv2.adaptiveThreshold(
        cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 5),
        255,
        cv2.ADAPTIVE_THRESH_MEAN_C,
        cv2.THRESH_BINARY,
        9,
        4,
    )
    return cv2.bitwise_and(flat, flat, mask=lines)


STYLES: dict[str, Style] = {
    "oil painting": _oil,
    "pencil sketch": _pencil,
    "sepia photograph": _sepia,
    "pixel art": _mosaic,
    "cartoon": _cartoon,
}


def restyle(image: Image, style: str, seed: int) -> Image:
    """The photograph in a style, same size. ValueError for an unknown one."""
    if style not in STYLES:
        raise ValueError(f"there is no style {style!r}; choose from {', '.join(STYLES)}")
    return STYLES[style](image, np.random.Generator(np.random.PCG64(seed)))
