"""Solids: signed distance functions over points, from which every object of the compositor is built.

A point set is a tuple (x, y, z) of equally long float32 arrays; y is up, z points to the viewer, and an object stands
on y = 0 and is about 1 high. A solid maps points to signed distances (negative inside), or a bound below them.
Formulas: Inigo Quilez, "Distance functions" (iquilezles.org/articles/distfunctions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]
Points = tuple[Values, Values, Values]
Solid = Callable[[Points], Values]
Outline = NDArray[np.float64] | Sequence[tuple[float, float]]
"""[N, 2] points of a curve, which are joined by straight lines."""

_TABLE = 192
_REACH = 1.3
"""Tables of distances cover [-_REACH, _REACH] in both directions."""


def ball(radius: float, x: float = 0.0, y: float | None = None, z: float = 0.0) -> Solid:
    """A ball; by default it rests on the ground."""
    cy = radius if y is None else y
    return lambda p: np.sqrt((p[0] - x) ** 2 + (p[1] - cy) ** 2 + (p[2] - z) ** 2) - radius


def ellipsoid(radii: tuple[float, float, float], center: tuple[float, float, float]) -> Solid:
    """An ellipsoid (a lower bound of its distance)."""

    def distance(p: Points) -> Values:
        q = [(p[i] - center[i]) / radii[i] for i in range(3)]
        k0 = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
        k1 = np.sqrt(sum((q[i] / radii[i]) ** 2 for i in range(3)))
        return k0 * (k0 - 1.0) / np.maximum(k1, 1e-6)

    return distance


def box(half: tuple[float, float, float], center: tuple[float, float, float], round_: float = 0.02) -> Solid:
    inner = [np.float32(h - round_) for h in half]

    def distance(p: Points) -> Values:
        # Boxes are most of what is traced: temporaries are reused.
        x, y, z = (np.abs(p[i] - np.float32(center[i])) - inner[i] for i in range(3))
        out = np.maximum(np.maximum(x, y), z)
        np.minimum(out, 0, out=out)
        for q in (x, y, z):
            np.maximum(q, 0, out=q)
            np.multiply(q, q, out=q)
        x += y
        x += z
        out += np.sqrt(x, out=x)
        out -= np.float32(round_)
        return out

    return distance


def rod(a: tuple[float, float, float], b: tuple[float, float, float], radius: float, end: float | None = None) -> Solid:
    """A round-ended rod from a to b, whose radius goes linearly to `end` at b."""
    last = radius if end is None else end
    ab = np.subtract(b, a)
    length2 = float(ab @ ab)

    def distance(p: Points) -> Values:
        d = [p[i] - a[i] for i in range(3)]
        h = np.clip((d[0] * ab[0] + d[1] * ab[1] + d[2] * ab[2]) / length2, 0.0, 1.0)
        away = np.sqrt((d[0] - ab[0] * h) ** 2 + (d[1] - ab[1] * h) ** 2 + (d[2] - ab[2] * h) ** 2)
        return (away - (radius + (last - radius) * h)) * np.float32(0.9 if last != radius else 1.0)

    return distance


def ring(major: float, minor: float, center: tuple[float, float, float], axis: int = 1, squash: float = 1.0) -> Solid:
    """A torus around the given axis; `squash` < 1 flattens it along the axis."""

    def distance(p: Points) -> Values:
        q = [p[i] - center[i] for i in range(3)]
        along = q.pop(axis) / squash
        radial = np.sqrt(q[0] ** 2 + q[1] ** 2) - major
        return (np.sqrt(radial**2 + along**2) - minor) * min(1.0, squash)

    return distance


def curve(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """[N, 2] Catmull-Rom curve from the first point to the last."""
    knots = np.asarray(points, np.float64)
    return _spline(np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]]))


def closed(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """[N, 2] closed Catmull-Rom curve through the points."""
    knots = np.asarray(points, np.float64)
    return _spline(np.vstack([knots[-1:], knots, knots[:2]]))


def _spline(knots: NDArray[np.float64]) -> NDArray[np.float64]:
    t = np.linspace(0, 1, 6, endpoint=False)[:, None]
    out = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False)
    ]
    return np.vstack([*out, knots[-2:-1]])


@lru_cache(maxsize=128)
def _table(outline: tuple[tuple[float, float], ...]) -> Values:
    """[_TABLE, _TABLE] signed distances to a closed polygon; row is y, column is x."""
    axis = np.linspace(-_REACH, _REACH, _TABLE, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    nearest = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(outline, outline[1:] + outline[:1], strict=True):
        ex, ey = bx - ax, by - ay
        length2 = ex * ex + ey * ey
        if length2 < 1e-12:
            continue
        h = np.clip(((x - ax) * ex + (y - ay) * ey) / length2, 0, 1)
        nearest = np.minimum(nearest, (x - ax - ex * h) ** 2 + (y - ay - ey * h) ** 2)
        crosses = (ay > y) != (by > y)
        if ay != by:
            inside ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance).astype(np.float32)


def _look_up(table: Values, x: Values, y: Values) -> Values:
    """Bilinear look-up; beyond the table the distance to the table is added, which stays a lower bound."""
    scale = (_TABLE - 1) / (2 * _REACH)
    cx, cy = np.clip(x, -_REACH, _REACH), np.clip(y, -_REACH, _REACH)
    u, v = ((cx + _REACH) * scale).astype(np.float32), ((cy + _REACH) * scale).astype(np.float32)
    shape = u.shape
    # remap wants images below 32768 a side, so a long list of points is folded.
    rows = -(-u.size // 4096)
    pad = rows * 4096 - u.size
    if pad:
        u, v = np.pad(u, (0, pad)), np.pad(v, (0, pad))
    values = cv2.remap(table, u.reshape(rows, 4096), v.reshape(rows, 4096), cv2.INTER_LINEAR)
    beyond = np.maximum(np.abs(x - cx), np.abs(y - cy))
    return values.ravel()[: shape[0]] + beyond


def lathe(profile: Outline) -> Solid:
    """The solid of revolution about the y axis of a profile [N, 2] of (radius, y), closed along the axis."""
    right = [(float(r), float(h)) for r, h in profile]
    outline = tuple(right) + tuple((-r, h) for r, h in reversed(right))
    return lambda p: _look_up(_table(outline), np.sqrt(p[0] ** 2 + p[2] ** 2), p[1])


def slab(outline: Outline, half: float, round_: float = 0.02, z: float = 0.0) -> Solid:
    """A flat outline [N, 2] of (x, y), made 2 * `half` thick along z, with rounded edges."""
    closed = tuple((float(a), float(b)) for a, b in outline)

    def distance(p: Points) -> Values:
        flat = _look_up(_table(closed), p[0], p[1]) + round_
        deep = np.abs(p[2] - z) - (half - round_)
        outside = np.sqrt(np.maximum(flat, 0) ** 2 + np.maximum(deep, 0) ** 2)
        return outside + np.minimum(np.maximum(flat, deep), 0) - round_

    return distance


def puffed(outline: Outline, depth: float) -> Solid:
    """A flat outline blown up like a cushion, `depth` thick in the middle: hearts, stars, foil balloons."""
    closed = tuple((float(a), float(b)) for a, b in outline)
    thickest = -float(_table(closed).min())

    def distance(p: Points) -> Values:
        flat = _look_up(_table(closed), p[0], p[1])
        inner = np.clip(-flat / thickest, 0, 1)
        bulge = depth * np.sqrt(inner * (2 - inner) + 1e-6)
        return np.maximum(np.hypot(np.maximum(flat, 0), np.maximum(np.abs(p[2]) - bulge, 0)), -0.05) * 0.55 + np.where(
            (flat < 0) & (np.abs(p[2]) < bulge), np.abs(p[2]) - bulge, 0
        ) * np.float32(0.5)

    return distance


def joined(*solids: Solid) -> Solid:
    def distance(p: Points) -> Values:
        out = solids[0](p)
        for solid in solids[1:]:
            out = np.minimum(out, solid(p))
        return out

    return distance


def smooth(width: float, *solids: Solid) -> Solid:
    """The union with filleted seams (polynomial smooth minimum)."""

    def distance(p: Points) -> Values:
        out = solids[0](p)
        for solid in solids[1:]:
            other = solid(p)
            h = np.maximum(width - np.abs(out - other), 0) / width
            out = np.minimum(out, other) - h * h * (width * 0.25)
        return out

    return distance


def mirrored(solid: Solid) -> Solid:
    """A solid and its mirror image, left and right exchanged."""
    return lambda p: np.minimum(solid(p), solid((-p[0], p[1], p[2])))


def carved(solid: Solid, *holes: Solid) -> Solid:
    def distance(p: Points) -> Values:
        out = solid(p)
        for hole in holes:
            out = np.maximum(out, -hole(p))
        return out

    return distance


def turned(solid: Solid, axis: int, degrees: float, pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Solid:
    """A solid rotated about an axis through the pivot."""
    c, s = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    i, j = [k for k in range(3) if k != axis]

    def distance(p: Points) -> Values:
        q = list(p)
        a, b = p[i] - pivot[i], p[j] - pivot[j]
        q[i], q[j] = c * a + s * b + pivot[i], -s * a + c * b + pivot[j]
        return solid((q[0], q[1], q[2]))

    return distance


def moved(solid: Solid, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
    return lambda p: solid((p[0] - np.float32(x), p[1] - np.float32(y), p[2] - np.float32(z)))
