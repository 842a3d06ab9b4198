"""Blending: sets a drawn object into a photograph, in linear light, with its shadow and the photograph's grain."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor.render import encoded
from crispedit.compositor.scene import Place, Scene
from crispedit.compositor.sprites import Sprite
from crispedit.record import Image, Mask

_TO_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
_FAINT = 0.05
"""Shadow weaker than this cannot be seen; it is cut off so that the mask has an end."""


def set_in(
    image: Image, sprite: Sprite, place: Place, scene: Scene, noise: NDArray[np.float32]
) -> tuple[Image, Mask]:
    """The photograph with the sprite standing at the place, and exactly which pixels may differ.

    `noise` [256, 256] is standard normal; it is tiled by image position: one object in two colours has one grain.
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
    alpha = alpha * _not_overgrown(image[at], alpha, sprite, top)
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


def _not_overgrown(under: Image, alpha: NDArray[np.float32], sprite: Sprite, top: int) -> NDArray[np.float32]:
    """0-1: less where bright blades of a rough ground (grass, straw) stand in front of an object's foot."""
    rows = np.nonzero(alpha.max(axis=1) > 0.5)[0]
    if not sprite.shade.any() or rows.size < 24:
        return np.ones_like(alpha)
    high = rows[-1] - rows[0]
    gray = cv2.cvtColor(under, cv2.COLOR_RGB2GRAY).astype(np.float32)
    strip = np.s_[max(0, rows[-1] - high // 5) : rows[-1]]
    inside = alpha[strip] > 0.5
    upright = cv2.GaussianBlur(gray, (0, 0), max(0.6, high / 90))
    across, along = (np.abs(np.gradient(upright[strip], axis=axis))[inside].mean() for axis in (1, 0))
    sigma = high / 14
    blade = cv2.GaussianBlur(gray, (0, 0), max(0.6, sigma / 8)) - cv2.GaussianBlur(gray, (0, 0), sigma)
    rough = float(np.abs(blade[strip][inside]).mean())
    hue, vivid, _ = np.median(cv2.cvtColor(under, cv2.COLOR_RGB2HSV)[strip][inside], axis=0)
    # Grass and straw are green to yellow and stand upright; boards, tiles and roads grow over nothing.
    if rough < 6.5 or across < 0.95 * along or not 17 <= hue <= 75 or vivid < 90:
        return np.ones_like(alpha)
    # A blade hides what is behind it near the ground; higher up only the brightest reach.
    up = (rows[-1] - np.arange(alpha.shape[0], dtype=np.float32)) / (0.2 * high)
    reach = np.clip(1 - up, -1, 1)[:, None]
    hidden = np.clip((blade / rough - 1.6 + 2.6 * reach) * 0.9, 0, 1) * np.clip(reach * 4, 0, 1)
    return (1 - hidden).astype(np.float32)


def soften(
    alpha: NDArray[np.float32], rgb: NDArray[np.float32], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Blurs a sprite with premultiplied colours, so that no dark rim creeps in."""
    if sigma < 0.3:
        return alpha, rgb
    blurred = cv2.GaussianBlur(alpha, (0, 0), sigma)
    colour = cv2.GaussianBlur(rgb * alpha[..., None], (0, 0), sigma) / np.maximum(blurred, 1e-3)[..., None]
    return blurred, colour


def over(front: Image, alpha: NDArray[np.float32], behind: Image) -> Image:
    """The subject of a photograph before another picture. In its soft edge, where the old background shines through,
    the subject's own colour is spread outwards first."""
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
    """A picture with the photograph's grain."""
    h, w = picture.shape[:2]
    tiled = np.tile(noise * np.float32(scene.grain), (-(-h // 256), -(-w // 256)))[:h, :w]
    return np.clip(picture + tiled[..., None] + 0.5, 0, 255).astype(np.uint8)
