"""Sprites: objects drawn with their shadow, ready to be inserted into a photograph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import objects
from crispedit.compositor.render import Geometry, Light, Rgb, ground_shade, shade, trace

_MAX_TRACED_PX = 400
"""Sprites are traced at most this high and wide, and enlarged beyond: photographs are softer anyway."""
PITCH = 16.0
"""Degrees by which the camera looks down on objects."""


@dataclass(frozen=True)
class Sprite:
    """A drawn object: `rgb` [h, w, 3] linear, `alpha` [h, w] and `shade` [h, w] (0 no shadow - 1 dark), all float32.

    `foot` is the (x, y) pixel of the ground point that it stands on (for what floats: of its lowest point).
    """

    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32]
    shade: NDArray[np.float32]
    foot: tuple[float, float]


@lru_cache(maxsize=8)
def _traced(kind: str, yaw: float, pitch: float, height_px: int) -> Geometry:
    return trace(objects.shape(kind), yaw, pitch, height_px)


def sprite(
    kind: str, colour: Rgb, yaw: float, height_px: int, light: Light, soft: float = 0.4, pitch: float = PITCH
) -> Sprite:
    """An object of the library drawn `height_px` high (its own height, before the camera's pitch foreshortens it)."""
    shape = objects.shape(kind)
    widest_px = _MAX_TRACED_PX * shape.top / max(shape.top, 2 * shape.radius)
    traced_px = int(np.clip(height_px, 24, widest_px))
    g = _traced(kind, yaw, pitch, traced_px)
    rgb = shade(shape, g, colour, light, yaw, pitch)
    alpha = g.alpha
    scale = height_px / traced_px
    size = max(1, round(alpha.shape[1] * scale)), max(1, round(alpha.shape[0] * scale))
    if scale != 1:
        # Colours are spread past the edge by premultiplying, so that the enlarged rim stays clean.
        premultiplied = cv2.resize(
            rgb * alpha[..., None], size, interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
        )
        alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA)
        rgb = premultiplied / np.maximum(alpha, 1e-3)[..., None]
    sx, sy = size[0] / g.alpha.shape[1], size[1] / g.alpha.shape[0]
    foot = g.foot[0] * sx, g.foot[1] * sy
    if objects.KINDS[kind].air:
        return Sprite(rgb, alpha, np.zeros_like(alpha), foot)
    dark, (left, top, right, bottom) = ground_shade(shape, yaw, pitch, light, soft)
    unit = height_px / shape.top
    pad_left = max(0, int(np.ceil(-left * unit - foot[0])))
    pad_right = max(0, int(np.ceil(right * unit - (size[0] - foot[0]))))
    pad_top = max(0, int(np.ceil(-top * unit - foot[1])))
    pad_bottom = max(0, int(np.ceil(bottom * unit - (size[1] - foot[1]))))
    rgb = np.pad(rgb, ((pad_top, pad_bottom), (pad_left, pad_right), (0, 0)))
    alpha = np.pad(alpha, ((pad_top, pad_bottom), (pad_left, pad_right)))
    foot = foot[0] + pad_left, foot[1] + pad_top
    wide, high = max(1, round((right - left) * unit)), max(1, round((bottom - top) * unit))
    small = cv2.resize(dark, (wide, high), interpolation=cv2.INTER_LINEAR)
    layer = np.zeros_like(alpha)
    x0, y0 = max(0, round(foot[0] + left * unit)), max(0, round(foot[1] + top * unit))
    piece = small[: layer.shape[0] - y0, : layer.shape[1] - x0]
    layer[y0 : y0 + piece.shape[0], x0 : x0 + piece.shape[1]] = piece
    return Sprite(rgb, alpha, layer, foot)
