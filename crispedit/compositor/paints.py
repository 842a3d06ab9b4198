"""Paints: how the surfaces of objects are coloured; each gives albedo [N, 3] (linear) at points of the object."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from crispedit.compositor.render import Paint
from crispedit.compositor.solids import Points, Values

Albedo = NDArray[np.float32]


def plain(p: Points, own: Albedo) -> Albedo:
    return np.broadcast_to(own, (p[0].size, 3))


def fixed(r: float, g: float, b: float) -> Paint:
    value = np.array([r, g, b], np.float32) ** np.float32(2.2)
    return lambda p, own: np.broadcast_to(value, (p[0].size, 3))


def mix(weight: Values, a: Albedo, b: Albedo) -> Albedo:
    return (a + np.clip(weight, 0, 1).astype(np.float32)[:, None] * (b - a)).astype(np.float32)


WHITE = np.array([0.84, 0.84, 0.82], np.float32)
DARK = np.array([0.018, 0.018, 0.02], np.float32)
GOLD = (0.95, 0.72, 0.25)
_WOOD = np.array([0.4, 0.22, 0.09], np.float32)


def striped(p: Points, own: Albedo) -> Albedo:
    """Six gores around a slanting axis, with white between and white caps: a beach ball of radius 0.5 on the ground."""
    x, y, z = p[0], p[1] - 0.5, p[2]
    y, z = y * 0.86 - z * 0.5, y * 0.5 + z * 0.86
    angle = np.arctan2(z, x) * (3 / np.pi)
    stripe = np.clip((np.abs((angle % 2) - 1) - 0.5) * 25 + 0.5, 0, 1)
    cap = np.clip((np.abs(y) - 0.475) * 90, 0, 1)
    return mix(cap, mix(stripe, plain(p, own), WHITE), WHITE)


def basketball(p: Points, own: Albedo) -> Albedo:
    x, y = p[0], p[1] - 0.5
    x, y = x * 0.94 - y * 0.34, x * 0.34 + y * 0.94
    skin = np.array([0.58, 0.19, 0.055], np.float32)
    curve = np.abs(np.abs(x) - 0.22 - 0.6 * y * y)
    seam = np.minimum(np.minimum(np.abs(x), np.abs(y)), curve)
    return mix(np.clip((0.014 - seam) * 130, 0, 1), np.broadcast_to(skin, (x.size, 3)), DARK)


@lru_cache(maxsize=1)
def _soccer_faces() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit normals [32, 3] of a truncated icosahedron's faces, 12 pentagons first, and their distances [32]."""
    g = (1 + 5**0.5) / 2
    corners = [v for s in (1, -1) for t in (g, -g) for v in ((0, s, t), (s, t, 0), (t, 0, s))]
    pent = np.array(corners, np.float64)
    dots = pent @ pent.T
    faces = [
        pent[i] + pent[j] + pent[k]
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if min(dots[i, j], dots[i, k], dots[j, k]) > 0.1
    ]
    normals = np.vstack([pent, np.array(faces)])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    turn = np.array([[0.8, -0.6, 0], [0.54, 0.72, -0.436], [0.2616, 0.3488, 0.9]])
    return (normals @ turn).astype(np.float32), np.repeat([2.3273, 2.2673], [12, 20]).astype(np.float32)


def soccer(p: Points, own: Albedo) -> Albedo:
    normals, away = _soccer_faces()
    score = np.stack([p[0], p[1] - 0.5, p[2]], axis=1) @ (normals / away[:, None]).T
    face = score.argmax(axis=1)
    two = np.partition(score, -2, axis=1)[:, -2:]
    seam = np.clip((0.0032 - (two[:, 1] - two[:, 0])) * 600, 0, 1)
    base = np.where((face < 12)[:, None], DARK, WHITE)
    return mix(seam, base, np.float32(0.25) * WHITE)


def tennis(p: Points, own: Albedo) -> Albedo:
    x, y, z = p[0] * 2, (p[1] - 0.5) * 2, p[2] * 2
    seam = np.abs(y * 0.9 - 1.3 * (x * x - z * z) * np.clip(1 - 0.35 * y * y, 0, 1)) / (
        1 + np.abs(x) + np.abs(z)
    )
    fuzz = 0.5 + 0.5 * np.sin(p[0] * 311 + 9 * np.sin(p[1] * 270)) * np.sin(
        p[2] * 290 + 7 * np.sin(p[0] * 330)
    )
    felt = mix(fuzz, np.array([[0.5, 0.68, 0.05]], np.float32), np.array([[0.66, 0.82, 0.1]], np.float32))
    return mix(np.clip((0.045 - seam) * 60, 0, 1), felt, WHITE)


def threads(p: Points, own: Albedo) -> Albedo:
    """Windings of yarn in three directions."""
    x, y, z = p[0], p[1] - 0.5, p[2]
    patch = np.sin(7 * x + 3 * z) + np.sin(6 * y - 4 * x) + np.sin(5 * z + 5 * y)
    a, b, c = 0.9 * x + 0.4 * y, 0.8 * y - 0.5 * z, 0.7 * z + 0.6 * x - 0.3 * y
    along = np.where(patch > 0.6, a, np.where(patch > -0.6, b, c))
    groove = 0.5 + 0.5 * np.cos(along * 150)
    return mix(groove**0.7, plain(p, own) * np.float32(0.28), plain(p, own))


def apple_skin(p: Points, own: Albedo) -> Albedo:
    angle = np.arctan2(p[2], p[0])
    streak = 0.5 + 0.3 * np.sin(angle * 13 + 2 * np.sin(angle * 5)) + 0.25 * np.sin(angle * 37 + 3 * p[1])
    pale = np.clip(0.34 - 0.75 * np.abs(p[1] - 0.8), 0, 0.5) * streak
    dots = np.sin(angle * 40 + 8 * np.sin(p[1] * 30)) * np.sin(p[1] * 90 + 5 * np.sin(angle * 11)) > 0.93
    return mix(pale + 0.12 * dots, plain(p, own), np.array([0.8, 0.62, 0.16], np.float32))


def speckled(p: Points, own: Albedo) -> Albedo:
    dots = (
        np.sin(p[0] * 97 + 3 * np.sin(p[1] * 61))
        * np.sin(p[1] * 103 + 3 * np.sin(p[2] * 57))
        * np.sin(p[2] * 89)
    )
    return mix(
        np.clip((np.abs(dots) - 0.72) * 4, 0, 0.35), plain(p, own), np.array([0.2, 0.13, 0.05], np.float32)
    )


@lru_cache(maxsize=1)
def _spots() -> NDArray[np.float32]:
    """34 unit vectors spread evenly over a sphere (Fibonacci lattice)."""
    i = np.arange(34) + 0.5
    polar, turn = np.arccos(1 - 2 * i / 34), np.pi * (1 + 5**0.5) * i
    spots = [np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)]
    return np.stack(spots, 1).astype(np.float32)


def toadstool(p: Points, own: Albedo) -> Albedo:
    at = np.stack([p[0], (p[1] - 0.55) * 1.1, p[2]], axis=1)
    at /= np.maximum(np.linalg.norm(at, axis=1, keepdims=True), 1e-6)
    near = at @ _spots().T
    size = 0.975 + 0.012 * np.sin(np.arange(34) * 2.4)
    return mix(((near - size) * 260).max(axis=1), plain(p, own), WHITE)


def planks(p: Points, own: Albedo) -> Albedo:
    """Boards of wood lying one above another, 6 to the unit."""
    board = p[1] * 6
    gap = np.abs(board - np.round(board))
    tone = np.sin(np.floor(board) * 12.9 + np.sign(p[0]) + 2 * np.sign(p[2])) * 0.5
    grain = np.sin((p[1] * 160) + 6 * np.sin(p[0] * 5 + tone * 9) + 5 * np.sin(p[2] * 6))
    wood = _WOOD * np.clip(1 + 0.22 * tone + 0.13 * grain, 0.3, 2).astype(np.float32)[:, None]
    return mix(np.clip((0.05 - gap) * 30, 0, 1), wood, _WOOD * np.float32(0.2))


def staves(p: Points, own: Albedo) -> Albedo:
    angle = np.arctan2(p[2], p[0]) * (20 / (2 * np.pi))
    gap = np.abs(angle - np.round(angle))
    tone = 1 + 0.15 * np.sin(np.floor(angle + 0.5) * 7.7) + 0.08 * np.sin(p[1] * 90 + 9 * angle)
    return mix(np.clip((0.06 - gap) * 16, 0, 0.8), plain(p, own) * tone.astype(np.float32)[:, None], DARK)


def straw(p: Points, own: Albedo) -> Albedo:
    turn = np.sin(np.hypot(p[0], p[2]) * 190 + p[1] * 120) * 0.12
    weave = np.sin(np.arctan2(p[2], p[0]) * 70) * 0.1
    return np.array([0.7, 0.52, 0.24], np.float32) * (1 + turn + weave).astype(np.float32)[:, None]


def cone_bands(p: Points, own: Albedo) -> Albedo:
    band = np.clip((0.085 - np.abs(p[1] - 0.56)) * 60, 0, 1)
    return mix(band, plain(p, own), WHITE)


def gores(p: Points, own: Albedo) -> Albedo:
    """Vertical stripes of a hot-air balloon, with a bright belt."""
    angle = np.arctan2(p[2], p[0]) * (6 / np.pi)
    stripe = np.clip((np.abs((angle % 2) - 1) - 0.5) * 12 + 0.5, 0, 1)
    seam = np.clip((0.06 - np.abs(angle - np.round(angle))) * 12, 0, 0.3)
    belt = np.clip((0.035 - np.abs(p[1] - 0.66)) * 70, 0, 1)
    light = mix(stripe, plain(p, own), own * np.float32(0.35) + WHITE * np.float32(0.65))
    return mix(seam, mix(belt, light, np.array([0.9, 0.62, 0.08], np.float32)), DARK)


def ribs(p: Points, own: Albedo) -> Albedo:
    wire = p[1] * 17
    gap = np.abs(wire - np.round(wire))
    glow = 0.75 + 0.5 * np.clip(1 - np.abs(p[1] - 0.5) * 2, 0, 1)
    return mix(
        np.clip((0.1 - gap) * 8, 0, 0.5),
        plain(p, own) * glow.astype(np.float32)[:, None],
        own * np.float32(0.3),
    )


def kite(p: Points, own: Albedo) -> Albedo:
    quarter = (p[0] > 0) ^ (p[1] > 0.62)
    other = own * np.float32(0.25) + WHITE * np.float32(0.75)
    return np.where(quarter[:, None], own, other).astype(np.float32)


def wing(p: Points, own: Albedo) -> Albedo:
    """A butterfly's wing, spread about the y axis: own colour, dark veins and margin, pale spots in the margin."""
    r = np.hypot(p[0], p[2])
    y = p[1]
    fore = np.clip((y - 0.42) * 40, 0, 1)
    radial = np.where(
        y > 0.42, np.hypot(r - 0.02, (y - 0.45) * 1.0) / 0.68, np.hypot(r, (y - 0.45) * 1.05) / 0.5
    )
    angle = np.arctan2(y - 0.43, r + 1e-6)
    vein = np.clip((0.09 - np.abs(np.sin(angle * 5.0))) * 9, 0, 1) * np.clip((radial - 0.25) * 6, 0, 1)
    margin = np.clip((radial - 0.8 + 0.03 * np.sin(angle * 20)) * 22, 0, 1)
    spot = np.clip((np.cos(angle * 13) - 0.55) * 5, 0, 1) * np.clip(
        (0.035 - np.abs(radial - 0.92)) * 60, 0, 1
    )
    root = own * np.float32(0.55)
    base = mix(np.clip(radial * 2.2, 0, 1), np.broadcast_to(root, (r.size, 3)), plain(p, own))
    dark = mix(np.maximum(margin, 0.8 * vein), base, DARK)
    return mix(spot * (0.6 + 0.4 * fore), dark, WHITE)


def pages(p: Points, own: Albedo) -> Albedo:
    leaf = 0.9 + 0.1 * np.sin(p[1] * 420)
    return (WHITE * np.array([0.95, 0.9, 0.75], np.float32)) * leaf.astype(np.float32)[:, None]


def letters(p: Points, own: Albedo) -> Albedo:
    """A toy block: white faces framed in the block's colour, a coloured disc in each."""
    q = np.sort(np.abs(np.stack([p[0], p[1] - 0.5, p[2]])), axis=0)
    frame = np.clip((q[1] - 0.39) * 60, 0, 1)
    disc = np.clip((0.24 - np.hypot(q[0], q[1])) * 60, 0, 1)
    wood = np.broadcast_to(np.array([0.8, 0.68, 0.47], np.float32), (p[0].size, 3))
    return mix(np.maximum(frame, disc), wood, plain(p, own))
