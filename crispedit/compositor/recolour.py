"""Recolouring: turns one hue of a photograph into another, with its shading kept (rotation in the Lab colour plane)."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import colours
from crispedit.record import Image, Mask

_REACH = 24.0
"""Degrees of hue around the centre that count as one colour; beyond them it fades out over half as many."""


@dataclass(frozen=True)
class Hue:
    """A hue that covers enough of a photograph, but not all: its name and its angle in Lab (degrees)."""

    name: str
    angle: float


def _membership(image: Image, angle: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lab [H, W, 3], and each pixel's degree of having the hue, 0-1."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    chroma, hue = cv2.cartToPolar(lab[..., 1], lab[..., 2], angleInDegrees=True)
    off = np.abs((hue - np.float32(angle) + 180) % 360 - 180)
    near = np.clip((_REACH * 1.5 - off) / (_REACH * 0.5), 0, 1)
    vivid = np.clip((chroma - 16) / 14, 0, 1)
    weight = cv2.GaussianBlur(near * vivid, (0, 0), max(0.8, min(image.shape[:2]) / 900))
    return lab, np.where(weight < 0.04, 0, weight).astype(np.float32)


def tone_of(small: Image) -> Hue | None:
    """The photograph's recolourable hue: vivid, not dark, and on 4 to 70 % of it. None where there is no such hue."""
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    chroma, hue = cv2.cartToPolar(lab[..., 1], lab[..., 2], angleInDegrees=True)
    vivid = chroma > 26
    if vivid.mean() < 0.04:
        return None
    counts = np.bincount((hue[vivid] / 5).astype(int) % 72, chroma[vivid], minlength=72).astype(np.float64)
    window = sum(np.roll(counts, k) for k in range(-4, 5))
    angle = float(np.argmax(window) * 5 + 2.5)
    _, weight = _membership(small, angle)
    inside = weight > 0.5
    # A hue that fades into others would be turned only in part.
    if ((weight > 0) & ~inside).sum() > 0.2 * inside.sum():
        return None
    if not 0.04 < inside.mean() < 0.7 or np.median(lab[..., 0][inside]) < 35:
        return None
    name = colours.name_of(small[inside])
    return None if name in ("black", "white", "gray") else Hue(name, angle)


def turn_tone(image: Image, angle: float, by: float) -> tuple[Image, Mask]:
    """The photograph with its hue around `angle` rotated `by` degrees, with unchanged lightness; and the mask of pixels
    that may differ."""
    lab, weight = _membership(image, angle)
    turn = np.radians(weight * np.float32(by))
    c, s = np.cos(turn), np.sin(turn)
    a, b = lab[..., 1].copy(), lab[..., 2].copy()
    lab[..., 1], lab[..., 2] = a * c - b * s, a * s + b * c
    out = np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255 + 0.5, 0, 255).astype(np.uint8)
    mask = weight > 0
    return np.where(mask[..., None], out, image), mask


TARGETS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")


def reachable(small: Image, tone: Hue) -> dict[str, float]:
    """The named colours at least 55 degrees away that a hue can be turned to, with the degrees (-180 to 180).

    Not every colour exists at every lightness, so each result is named again to check it.
    """
    out = {}
    _, weight = _membership(small, tone.angle)
    for name in TARGETS:
        lab = cv2.cvtColor(np.array([[colours.NAMED[name]]], np.float32), cv2.COLOR_RGB2LAB)[0, 0]
        angle = float(np.degrees(np.arctan2(lab[2], lab[1])))
        by = round((angle - tone.angle + 180) % 360 - 180, 1)
        if abs(by) < 55 or name == tone.name:
            continue
        turned, _ = turn_tone(small, tone.angle, by)
        if colours.name_of(turned[weight > 0.5]) == name:
            out[name] = by
    return out
