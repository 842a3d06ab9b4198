"""Solids: signed distance functions over points, from which every object of the compositor is built.

Points are [3, N] float32: x, y up, z to the viewer; an object stands on y = 0 and is about 1 high. The distance [N] is
negative inside, and may be a lower bound. Formulas: Inigo Quilez, "Distance functions"
(iquilezles.org/articles/distfunctions). Each function takes the points, then its arguments in `objects.yaml`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]
Points = NDArray[np.float32]
Solid = Callable[[Points], Values]
Xyz = tuple[float, float, float]
Outline = tuple[tuple[float, float], ...]
"""Points of a curve, which are joined by straight lines."""

_TABLE = 192
_REACH = 1.3
"""Tables of distances cover [-_REACH, _REACH] in both directions."""


def _column(xyz: Sequence[float]) -> NDArray[np.float32]:
    return np.array(xyz, np.float32)[:, None]


def _length(q: Values) -> Values:
    return np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)


def ball(p: Points, radius: float, x: float = 0.0, y: float | None = None, z: float = 0.0) -> Values:
    """A ball; by default it rests on the ground."""
    return _length(p - _column((x, radius if y is None else y, z))) - radius


def ellipsoid(p: Points, radii: Xyz, center: Xyz) -> Values:
    q = (p - _column(center)) / _column(radii)
    k0 = _length(q)
    return k0 * (k0 - 1.0) / np.maximum(_length(q / _column(radii)), 1e-6)


def box(p: Points, half: Xyz, center: Xyz, round_: float = 0.02) -> Values:
    # Boxes are most of what is traced: temporaries are reused.
    q = np.abs(p - _column(center))
    q -= _column([h - round_ for h in half])
    out = q.max(axis=0)
    np.minimum(out, 0, out=out)
    np.maximum(q, 0, out=q)
    np.multiply(q, q, out=q)
    q[0] += q[1]
    q[0] += q[2]
    out += np.sqrt(q[0], out=q[0])
    out -= np.float32(round_)
    return out


def rod(p: Points, a: Xyz, b: Xyz, radius: float, end: float | None = None) -> Values:
    """A round-ended rod from a to b, whose radius goes linearly to `end` at b."""
    last = radius if end is None else end
    ab = np.subtract(b, a)[:, None]
    d = p - _column(a)
    h = np.clip((d * ab).sum(axis=0) / float((ab * ab).sum()), 0.0, 1.0)
    return (_length(d - ab * h) - (radius + (last - radius) * h)) * np.float32(0.9 if last != radius else 1.0)


def ring(p: Points, major: float, minor: float, center: Xyz, axis: int = 1) -> Values:
    """A torus around the given axis."""
    q = p - _column(center)
    a, b = np.delete(q, axis, axis=0)
    return np.sqrt((np.sqrt(a**2 + b**2) - major) ** 2 + q[axis] ** 2) - minor


def curve(points: Outline) -> Outline:
    """A Catmull-Rom curve from the first point to the last."""
    knots = np.asarray(points, np.float64)
    return _spline(np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]]))


def closed(points: Outline) -> Outline:
    """A closed Catmull-Rom curve through the points."""
    return _spline(np.asarray([points[-1], *points, *points[:2]], np.float64))


def _spline(knots: NDArray[np.float64]) -> Outline:
    t = np.linspace(0, 1, 6, endpoint=False)[:, None]
    out = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False)
    ]
    return tuple((x, y) for x, y in np.vstack([*out, knots[-2:-1]]).tolist())


@lru_cache(maxsize=128)
def _table(outline: Outline, lathed: bool = False) -> Values:
    """[_TABLE, _TABLE] signed distances to a closed polygon; row is y, column is x. A lathed one is the outline and its
    mirror image."""
    if lathed:
        outline += tuple((-r, h) for r, h in reversed(outline))
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
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance).astype(np.float32)


def _look_up(table: Values, x: Values, y: Values) -> Values:
    """Bilinear look-up; beyond the table the distance to the table is added, which stays a lower bound."""
    cx, cy = np.clip(x, -_REACH, _REACH), np.clip(y, -_REACH, _REACH)
    # remap wants images below 32768 a side, so a long list of points is folded.
    rows = -(-x.size // 4096)
    scale = (_TABLE - 1) / (2 * _REACH)
    u, v = (
        np.pad(((c + _REACH) * scale).astype(np.float32), (0, rows * 4096 - x.size)).reshape(rows, 4096)
        for c in (cx, cy)
    )
    values = cv2.remap(table, u, v, cv2.INTER_LINEAR)
    return values.ravel()[: x.size] + np.maximum(np.abs(x - cx), np.abs(y - cy))


def lathe(p: Points, profile: Outline) -> Values:
    """The solid of revolution about the y axis of a profile of (radius, y), closed along the axis."""
    return _look_up(_table(profile, lathed=True), np.sqrt(p[0] ** 2 + p[2] ** 2), p[1])


def slab(p: Points, outline: Outline, half: float, round_: float = 0.02, z: float = 0.0) -> Values:
    """A flat outline of (x, y), made 2 * `half` thick along z, with rounded edges."""
    flat = _look_up(_table(outline), p[0], p[1]) + round_
    deep = np.abs(p[2] - z) - (half - round_)
    outside = np.sqrt(np.maximum(flat, 0) ** 2 + np.maximum(deep, 0) ** 2)
    return outside + np.minimum(np.maximum(flat, deep), 0) - round_


def puffed(p: Points, outline: Outline, depth: float) -> Values:
    """A flat outline blown up like a cushion, `depth` thick in the middle: hearts, stars, foil balloons."""
    table = _table(outline)
    flat, deep = _look_up(table, p[0], p[1]), np.abs(p[2])
    inner = np.clip(-flat / -float(table.min()), 0, 1)
    bulge = depth * np.sqrt(inner * (2 - inner) + 1e-6)
    outside = np.maximum(np.hypot(np.maximum(flat, 0), np.maximum(deep - bulge, 0)), -0.05)
    return outside * 0.55 + np.where((flat < 0) & (deep < bulge), deep - bulge, 0) * np.float32(0.5)


def joined(p: Points, *solids: Solid) -> Values:
    return reduce(np.minimum, (solid(p) for solid in solids))


def smooth(p: Points, width: float, *solids: Solid) -> Values:
    """The union with filleted seams (polynomial smooth minimum)."""
    out = solids[0](p)
    for solid in solids[1:]:
        other = solid(p)
        h = np.maximum(width - np.abs(out - other), 0) / width
        out = np.minimum(out, other) - h * h * (width * 0.25)
    return out


def mirrored(p: Points, solid: Solid) -> Values:
    """A solid and its mirror image, left and right exchanged."""
    return np.minimum(solid(p), solid(p * _column((-1, 1, 1))))


def carved(p: Points, solid: Solid, *holes: Solid) -> Values:
    return np.maximum(solid(p), -joined(p, *holes))


def turned(p: Points, solid: Solid, axis: int, degrees: float, pivot: Xyz = (0.0, 0.0, 0.0)) -> Values:
    """A solid rotated about an axis through the pivot."""
    c, s = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    i, j = [k for k in range(3) if k != axis]
    a, b = p[i] - pivot[i], p[j] - pivot[j]
    q = p.copy()
    q[i], q[j] = c * a + s * b + pivot[i], -s * a + c * b + pivot[j]
    return solid(q)


def moved(p: Points, solid: Solid, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Values:
    return solid(p - _column((x, y, z)))
