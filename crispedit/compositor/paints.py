"""Paints: how the surfaces of objects are coloured; each gives albedo [N, 3] (linear) at points of the object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crispedit.compositor.render import Paint
from crispedit.compositor.solids import Points

Albedo = NDArray[np.float32]


def plain(p: Points, own: Albedo) -> Albedo:
    return np.broadcast_to(own, (p[0].size, 3))


def fixed(r: float, g: float, b: float) -> Paint:
    value = np.array([r, g, b], np.float32) ** np.float32(2.2)
    return lambda p, own: np.broadcast_to(value, (p[0].size, 3))


def gores(p: Points, own: Albedo) -> Albedo:
    """Stripes about the vertical axis, of the own colour and a pale one."""
    angle = np.arctan2(p[2], p[0]) * (6 / np.pi)
    stripe = np.clip((np.abs((angle % 2) - 1) - 0.5) * 12 + 0.5, 0, 1).astype(np.float32)[:, None]
    return (own + stripe * (own * np.float32(0.35) + np.float32(0.54) - own)).astype(np.float32)
