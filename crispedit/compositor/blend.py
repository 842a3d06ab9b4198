"""Blending: inserts a drawn object into a photograph, in linear light, with its shadow and the photograph's grain."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor.render import encoded
from crispedit.compositor.scene import Scene, Spot
from crispedit.compositor.sprites import Sprite
from crispedit.record import Image, Mask

_TO_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
_FAINT = 0.05
"""Invisible shadow below this is cut off, so that the mask ends."""


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
    alpha, rgb = soften(sprite.alpha, sprite.rgb, scene.softness)
    alpha, rgb = alpha[inside], rgb[inside]
    alpha = np.where(alpha < 0.02, 0, alpha)[..., None]
    shade = np.clip((sprite.shade[inside] - _FAINT) / (1 - _FAINT), 0, 1)[..., None]
    under = _TO_LINEAR[image[at]]
    sun, sky = np.asarray(scene.light.sun), np.asarray(scene.light.sky)
    kept = (0.16 + 0.5 * sky / (sun + sky)).astype(np.float32)
    shadowed = under * (1 - shade * (1 - kept))
    mixed = shadowed + (rgb - shadowed) * alpha
    ys, xs = np.arange(at[0].start, at[0].stop) % 256, np.arange(at[1].start, at[1].stop) % 256
    grain = noise[np.ix_(ys, xs)][..., None] * (alpha * scene.grain)
    pixels = np.clip(encoded(mixed) * 255 + grain + 0.5, 0, 255).astype(np.uint8)
    touched = (alpha > 0)[..., 0] | (shade > 0)[..., 0]
    out[at] = np.where(touched[..., None], pixels, image[at])
    mask[at] = touched
    return out, mask


def soften(
    alpha: NDArray[np.float32], rgb: NDArray[np.float32], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Blurs a sprite with premultiplied colours, which avoids a dark rim."""
    if sigma < 0.3:
        return alpha, rgb
    blurred = cv2.GaussianBlur(alpha, (0, 0), sigma)
    colour = cv2.GaussianBlur(rgb * alpha[..., None], (0, 0), sigma) / np.maximum(blurred, 1e-3)[..., None]
    return blurred, colour


def over(front: Image, alpha: NDArray[np.float32], behind: Image) -> Image:
    """The subject of a photograph before another picture. Its colour is first spread outwards into its soft edge, where
    the old background shines through."""
    solid = (alpha > 0.97).astype(np.float32)
    sigma = max(1.0, min(alpha.shape) / 160)
    near = cv2.GaussianBlur(solid, (0, 0), sigma)
    spread = cv2.GaussianBlur(front.astype(np.float32) * solid[..., None], (0, 0), sigma)
    own = np.where((near > 0.02)[..., None], spread / np.maximum(near, 0.02)[..., None], front)
    a = alpha[..., None]
    rim = np.clip((1 - a) * 1.5, 0, 1)
    mixed = (front * (1 - rim) + own * rim) * a + behind * (1 - a)
    return np.where(a >= 1, front, np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def grained(picture: Image, scene: Scene, noise: NDArray[np.float32]) -> Image:
    h, w = picture.shape[:2]
    tiled = np.tile(noise * np.float32(scene.grain), (-(-h // 256), -(-w // 256)))[:h, :w]
    return np.clip(picture + tiled[..., None] + 0.5, 0, 255).astype(np.uint8)
