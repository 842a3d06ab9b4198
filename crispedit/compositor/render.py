"""Rendering: draws an object by sphere tracing (Hart 1996) at sprite size, lit as the photograph is.

The camera is orthographic and looks down by `pitch` degrees. Geometry is cached separately from shading, so that
another colour of the same object costs little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crispedit.compositor.solids import Points, Solid, Values

Rgb = tuple[float, float, float]
Paint = Callable[[Points, NDArray[np.float32]], NDArray[np.float32]]
"""Albedo [N, 3] (linear, 0-1) at points, for the object's own colour [3] (linear)."""

_SHADOW_PX = 110


@dataclass(frozen=True)
class Surface:
    """One solid of an object and how its surface looks.

    `gloss` 0-1 is the strength of highlights and reflections, `metal` 0-1 tints them with the albedo and darkens
    the diffuse part, `glow` 0-1 shines by itself.
    """

    solid: Solid
    paint: Paint
    gloss: float = 0.25
    metal: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True)
class Shape:
    """An object's parts, with its extent: |x|, |z| <= `radius`, 0 <= y <= `top`."""

    parts: tuple[Surface, ...]
    radius: float
    top: float = 1.0

    def distance(self, p: Points) -> Values:
        out = self.parts[0].solid(p)
        for part in self.parts[1:]:
            out = np.minimum(out, part.solid(p))
        return out


@dataclass(frozen=True)
class Light:
    """Light of a scene, linear RGB: a sun from `direction` (unit, towards the light), sky above and bounce below."""

    direction: Rgb
    sun: Rgb
    sky: Rgb
    ground: Rgb


@dataclass(frozen=True)
class Geometry:
    alpha: NDArray[np.float32]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    points: Points
    normals: NDArray[np.float32]
    part: NDArray[np.intp]
    open_: NDArray[np.float32]
    pixel: float
    foot: tuple[float, float]


def linear(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB 0-1 to linear light (2.2 power: close enough for pictures, and exactly invertible)."""
    return np.maximum(rgb, 0) ** np.float32(2.2)


def encoded(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(rgb, 0, 1) ** np.float32(1 / 2.2)


def _camera(yaw: float, pitch: float) -> NDArray[np.float32]:
    """Rows right, up, back of the camera in object space, for an object turned by `yaw` degrees."""
    a, b = np.radians(-yaw), np.radians(pitch)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    view = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return (view @ turn.T).astype(np.float32)


def _on_rays(right: Values, up: Values, t: Values, camera: NDArray[np.float32], reach: float) -> Points:
    """Points at distance t along the rays of the screen points (right, up)."""
    away = reach - t
    x, y, z = (right * camera[0, i] + up * camera[1, i] + away * camera[2, i] for i in range(3))
    return x, y, z


def _march(
    shape: Shape,
    right: Values,
    up: Values,
    t: Values,
    camera: NDArray[np.float32],
    reach: float,
    near: float,
    steps: int,
) -> tuple[Values, Values]:
    """Sphere tracing: per ray the distance travelled at the closest approach, and that approach."""
    best, best_t, t = np.full_like(t, np.inf), t.copy(), t.copy()
    live = np.arange(t.size)
    for _ in range(steps):
        d = shape.distance(_on_rays(right[live], up[live], t[live], camera, reach))
        closer = d < best[live]
        best[live[closer]] = d[closer]
        best_t[live[closer]] = t[live][closer]
        t[live] += np.maximum(d, near * 0.5) * np.float32(0.95)
        live = live[(d > near) & (t[live] < 2 * reach)]
        if not live.size:
            break
    return best_t, best


def trace(shape: Shape, yaw: float, pitch: float, height_px: int) -> Geometry:
    """Where each pixel's ray hits the object; points and normals are in object space."""
    pixel = shape.top / height_px
    camera = _camera(yaw, pitch)
    low = -shape.radius * np.sin(np.radians(pitch)) - 2 * pixel
    high = shape.top * np.cos(np.radians(pitch)) + shape.radius * np.sin(np.radians(pitch)) + 2 * pixel
    columns, rows = int(2 * shape.radius / pixel) + 6, int((high - low) / pixel) + 2
    reach = 2.2

    block = 6
    right = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * pixel
    up = np.float32(high) - (np.arange(rows, dtype=np.float32) + 0.5) * pixel
    coarse_right, coarse_up = np.meshgrid(
        right[::block][:None] + (block - 1) / 2 * pixel, up[::block] - (block - 1) / 2 * pixel
    )
    cone = np.float32(block * pixel * 0.75)
    flat_r, flat_u = coarse_right.ravel().astype(np.float32), coarse_up.ravel().astype(np.float32)
    start = np.zeros_like(flat_r)
    first, closest = _march(shape, flat_r, flat_u, start, camera, reach, float(cone), 48)
    shape_of_blocks = coarse_right.shape
    first = np.where(closest <= cone * 1.5, np.maximum(first - 2 * cone, 0), -1).astype(np.float32)
    full = np.repeat(np.repeat(first.reshape(shape_of_blocks), block, 0), block, 1)[:rows, :columns]
    at = np.nonzero(full >= 0)
    r, u = right[at[1]], up[at[0]]
    t, best = _march(shape, r, u, full[at], camera, reach, pixel * 0.15, 40)
    cover = np.clip(1.0 - (best - 0.15 * pixel) / pixel, 0, 1).astype(np.float32)
    hit = cover > 0.02
    points = _on_rays(r[hit], u[hit], t[hit], camera, reach)
    alpha = np.zeros((rows, columns), np.float32)
    rows_hit, columns_hit = at[0][hit], at[1][hit]
    alpha[rows_hit, columns_hit] = cover[hit]
    distances = np.stack([part.solid(points) for part in shape.parts])
    normals = _normals(shape, points, max(pixel * 0.8, 0.006))
    return Geometry(
        alpha,
        rows_hit,
        columns_hit,
        points,
        normals,
        distances.argmin(axis=0),
        _openness(shape, points, normals),
        pixel,
        (columns / 2, high / pixel),
    )


def _normals(shape: Shape, p: Points, step: float) -> NDArray[np.float32]:
    """[N, 3] unit normals by four taps (a tetrahedron) of the distance."""
    out = np.zeros((p[0].size, 3), np.float32)
    for k in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        k32 = np.asarray(k, np.float32)
        d = shape.distance((p[0] + k32[0] * step, p[1] + k32[1] * step, p[2] + k32[2] * step))
        out += d[:, None] * k32
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)


def _openness(shape: Shape, p: Points, n: NDArray[np.float32]) -> Values:
    """Ambient occlusion from 0 (enclosed) to 1 (open); the ground at y = 0 occludes too."""
    shut = np.zeros_like(p[0])
    for step, weight in ((0.04, 1.0), (0.1, 0.7), (0.22, 0.45)):
        q = (p[0] + n[:, 0] * step, p[1] + n[:, 1] * step, p[2] + n[:, 2] * step)
        d = np.minimum(shape.distance(q), np.maximum(q[1], 0) + 0.35 * step)
        shut += weight * np.clip((step - d) / step, 0, 1)
    return np.clip(1 - 0.5 * shut, 0.12, 1).astype(np.float32)


def shade(shape: Shape, g: Geometry, colour: Rgb, light: Light, yaw: float, pitch: float) -> NDArray[np.float32]:
    """[rows, columns, 3] linear colours of a traced object."""
    camera = _camera(yaw, pitch)
    flat = _camera(yaw, 0.0)
    towards = (np.asarray(light.direction, np.float32) @ flat).astype(np.float32)
    back = camera[2]
    own = linear(np.asarray(colour, np.float32))
    n = g.normals
    albedo = np.zeros_like(n)
    material = np.zeros((n.shape[0], 3), np.float32)
    for i, part in enumerate(shape.parts):
        of = np.nonzero(g.part == i)[0]
        if of.size:
            albedo[of] = part.paint((g.points[0][of], g.points[1][of], g.points[2][of]), own)
            material[of] = part.gloss, part.metal, part.glow
    gloss, metal, glow = material[:, 0:1], material[:, 1:2], material[:, 2:3]
    sun, sky, ground = (np.asarray(v, np.float32) for v in (light.sun, light.sky, light.ground))
    facing = np.clip((n @ towards)[:, None], 0, 1)
    lit = facing * _sunlit(shape, g, towards)[:, None]
    upness = 0.5 + 0.5 * n[:, 1:2]
    ambient = (sky * upness + ground * (1 - upness)) * g.open_[:, None]
    diffuse = albedo * (lit * sun + ambient) * (1 - 0.75 * metal)
    half = towards + back
    half /= np.linalg.norm(half)
    shine = 12 + 140 * gloss**2
    spark = np.clip((n @ half)[:, None], 0, 1) ** shine * lit.clip(0.0, 1) * (shine / 40 + 0.5)
    mirror = 2 * (n @ back)[:, None] * n - back
    horizon = np.clip(mirror[:, 1:2] * 3, -1, 1)
    surrounding = np.where(horizon > 0, sky * (0.75 + 0.6 * horizon), sky * 0.45 * (1 + horizon) - ground * horizon)
    fresnel = 0.04 + 0.96 * (1 - np.clip((n @ back)[:, None], 0, 1)) ** 5
    tint = 1 + metal * (albedo / max(float(albedo.max(initial=1e-3)), 1e-3) - 1)
    reflect = gloss * (fresnel + metal * 0.75) * surrounding * g.open_[:, None] * tint * 0.9
    radiance = diffuse + gloss * spark * sun * 0.55 * tint + reflect + glow * albedo * 1.1
    out = np.zeros((*g.alpha.shape, 3), np.float32)
    out[g.rows, g.columns] = radiance
    return out


def _sunlit(shape: Shape, g: Geometry, towards: NDArray[np.float32]) -> Values:
    """From 0 (in the object's own shadow) to 1 (in the sun)."""
    n = g.normals
    lit = np.ones(n.shape[0], np.float32)
    facing = np.nonzero(n @ towards > 0)[0]
    o = [g.points[i][facing] + n[facing, i] * 0.02 for i in range(3)]
    return _unblocked(shape, o, towards, facing, lit, 9, 9.0)


def _unblocked(
    shape: Shape,
    origin: list[Values],
    towards: NDArray[np.float32],
    index: NDArray[np.intp],
    lit: Values,
    steps: int,
    sharpness: float,
) -> Values:
    """Soft shadows from the closest approach on the way to the light (Quilez); writes lit[index]."""
    t = np.full(index.size, 0.03, np.float32)
    live = np.arange(index.size)
    for _ in range(steps):
        d = shape.distance(tuple(origin[i][live] + towards[i] * t[live] for i in range(3)))
        lit[index[live]] = np.minimum(lit[index[live]], np.clip(0.5 + sharpness * d / (2 * t[live]), 0, 1))
        t[live] += np.clip(d, 0.03, 0.25)
        live = live[(t[live] < 1.9) & (lit[index[live]] > 0.01)]
        if not live.size:
            break
    return lit * lit * (3 - 2 * lit)


def ground_shade(
    shape: Shape, yaw: float, pitch: float, light: Light, soft: float
) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
    """Shadow on the ground y = 0 as the camera sees it, 0-1, and its (left, top, right, bottom) in object heights
    about the foot, x to the right and y down."""
    direction = np.asarray(light.direction, np.float64)
    throw = -direction[[0, 2]] / direction[1] * shape.top
    slope = np.sin(np.radians(max(pitch, 4.0)))
    margin = 0.25
    left = -shape.radius - margin + min(throw[0], 0)
    right = shape.radius + margin + max(throw[0], 0)
    far = -shape.radius - margin + min(throw[1], 0)
    near = shape.radius + margin + max(throw[1], 0)
    x, z = np.meshgrid(
        np.linspace(left, right, _SHADOW_PX, dtype=np.float32), np.linspace(far, near, _SHADOW_PX, dtype=np.float32)
    )
    flat = _camera(yaw, 0.0)
    world = [x.ravel(), np.full(x.size, 0.004, np.float32), z.ravel()]
    origin = [sum(world[k] * flat[k, i] for k in range(3)).astype(np.float32) for i in range(3)]
    towards = (np.asarray(light.direction, np.float32) @ flat).astype(np.float32)
    lit = _unblocked(
        shape, origin, towards, np.arange(x.size), np.ones(x.size, np.float32), 26, 10.0 * (1 - soft) + 1.6
    )
    contact = np.ones(x.size, np.float32)
    for height, weight in ((0.03, 0.35), (0.1, 0.35), (0.25, 0.3)):
        above = [origin[0], origin[1] + np.float32(height), origin[2]]
        contact -= weight * np.clip(1 - shape.distance((above[0], above[1], above[2])) / height, 0, 1)
    dark = 1 - (1 - (1 - lit) * (0.95 - 0.35 * soft)) * (0.1 + 0.9 * contact)
    dark = dark.reshape(x.shape).astype(np.float32)
    edge = np.ones(_SHADOW_PX, np.float32)
    edge[:6] = np.linspace(0, 1, 6)
    edge[-6:] = edge[:6][::-1]
    return dark * edge * edge[:, None], (left, far * slope, right, near * slope)
