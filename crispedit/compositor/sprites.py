"""Sprites: objects drawn with their shadow, and inserted into a photograph in linear light, with its grain."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import objects
from crispedit.compositor.render import Geometry, Light, Rgb, ground_shade, shade, trace
from crispedit.compositor.scene import Scene, Spot
from crispedit.record import Image, Mask

_MAX_TRACED_PX = 400
"""Sprites are traced at most this high and wide, and enlarged beyond: photographs are softer anyway."""
_TO_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
_FAINT = 0.05
"""Invisible shadow below this is cut off, so that the mask ends."""


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
def _traced(kind: str, yaw: float, height_px: int) -> Geometry:
    return trace(objects.shape(kind), yaw, height_px)


def sprite(kind: str, colour: Rgb, yaw: float, height_px: int, light: Light) -> Sprite:
    """An object of the library drawn `height_px` high (its own height, before the camera's pitch foreshortens it)."""
    shape = objects.shape(kind)
    widest_px = _MAX_TRACED_PX * shape.top / max(shape.top, 2 * shape.radius)
    traced_px = int(np.clip(height_px, 24, widest_px))
    g = _traced(kind, yaw, traced_px)
    rgb, alpha = shade(shape, g, colour, light, yaw), g.alpha
    scale = height_px / traced_px
    high, wide = (max(1, round(side * scale)) for side in alpha.shape)
    if scale != 1:
        # Colours are spread past the edge by premultiplying, so that the enlarged rim stays clean.
        how = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
        premultiplied = cv2.resize(rgb * alpha[..., None], (wide, high), interpolation=how)
        alpha = cv2.resize(alpha, (wide, high), interpolation=how)
        rgb = premultiplied / np.maximum(alpha, 1e-3)[..., None]
    x, y = g.foot[0] * (wide / g.alpha.shape[1]), g.foot[1] * (high / g.alpha.shape[0])
    if objects.KINDS[kind].air:
        return Sprite(rgb, alpha, np.zeros_like(alpha), (x, y))
    dark, (left, top, right, bottom) = ground_shade(shape, yaw, light)
    unit = height_px / shape.top
    size = max(1, round((right - left) * unit)), max(1, round((bottom - top) * unit))
    dark = cv2.resize(dark, size, interpolation=cv2.INTER_LINEAR)
    missing = -top * unit - y, bottom * unit - (high - y), -left * unit - x, right * unit - (wide - x)
    above, below, before, after = (max(0, int(np.ceil(pixels))) for pixels in missing)
    pad = (above, below), (before, after)
    rgb, alpha = np.pad(rgb, (*pad, (0, 0))), np.pad(alpha, pad)
    x, y = x + before, y + above
    layer = np.zeros_like(alpha)
    corner = layer[max(0, round(y + top * unit)) :, max(0, round(x + left * unit)) :]
    piece = dark[: corner.shape[0], : corner.shape[1]]
    corner[: piece.shape[0], : piece.shape[1]] = piece
    return Sprite(rgb, alpha, layer, (x, y))


def set_in(image: Image, sprite: Sprite, place: Spot, scene: Scene, noise: NDArray[np.float32]) -> tuple[Image, Mask]:
    """The photograph with the sprite standing at the place, and exactly which pixels may differ.

    `noise` [256, 256] is standard normal; it is tiled by image position, so that one object in two colours has the same
    grain.
    """
    out = image.copy()
    mask = np.zeros(image.shape[:2], bool)
    x0 = round(place.x * scene.width - sprite.foot[0])
    y0 = round(place.y * scene.height - sprite.foot[1])
    h, w = sprite.alpha.shape
    top, left = max(0, -y0), max(0, -x0)
    bottom, right = min(h, scene.height - y0), min(w, scene.width - x0)
    if bottom <= top or right <= left:
        return out, mask
    inside = np.s_[top:bottom, left:right]
    at = np.s_[y0 + top : y0 + bottom, x0 + left : x0 + right]
    # Premultiplied colours are blurred, which avoids a dark rim.
    alpha = cv2.GaussianBlur(sprite.alpha, (0, 0), scene.softness)
    rgb = cv2.GaussianBlur(sprite.rgb * sprite.alpha[..., None], (0, 0), scene.softness)
    rgb = (rgb / np.maximum(alpha, 1e-3)[..., None])[inside]
    alpha = alpha[inside]
    alpha = np.where(alpha < 0.02, 0, alpha)[..., None]
    shade = np.clip((sprite.shade[inside] - _FAINT) / (1 - _FAINT), 0, 1)[..., None]
    under = _TO_LINEAR[image[at]]
    sun, sky = np.asarray(scene.light.sun), np.asarray(scene.light.sky)
    kept = (0.16 + 0.5 * sky / (sun + sky)).astype(np.float32)
    shadowed = under * (1 - shade * (1 - kept))
    mixed = np.clip(shadowed + (rgb - shadowed) * alpha, 0, 1) ** np.float32(1 / 2.2)
    ys, xs = np.arange(at[0].start, at[0].stop) % 256, np.arange(at[1].start, at[1].stop) % 256
    grain = noise[np.ix_(ys, xs)][..., None] * (alpha * scene.grain)
    touched = (alpha > 0)[..., 0] | (shade > 0)[..., 0]
    pixels = np.clip(mixed * 255 + grain + 0.5, 0, 255).astype(np.uint8)
    out[at] = np.where(touched[..., None], pixels, image[at])
    mask[at] = touched
    return out, mask
