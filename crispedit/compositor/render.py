"""Rendering: draws an object by sphere tracing (Hart 1996) at sprite size, lit as the photograph is.

The camera is orthographic and looks down by `PITCH` degrees. Geometry is cached separately from shading, so that
another colour of the same object costs little.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crispedit.compositor.solids import Points, Solid, Values, joined

Rgb = tuple[float, float, float]
PITCH = 16.0
_REACH = 2.2
"""Rays start this far from the object's axis."""
_SHADOW_PX = 110


@dataclass(frozen=True)
class Surface:
    """One solid of an object and how its surface looks.

    `gloss` 0-1 is the strength of highlights and reflections, `metal` 0-1 tints them with the albedo and darkens
    the diffuse part, `glow` 0-1 shines by itself.
    """

    solid: Solid
    paint: Rgb | Literal["gores"] | None = None
    """sRGB 0-1. None: the object's own colour. "gores": stripes about the vertical axis, own and pale."""
    gloss: float = 0.25
    metal: float = 0.0
    glow: float = 0.0

    def albedo(self, p: Points, own: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, 3] or [3], linear, 0-1, for the object's own colour [3] (linear)."""
        if self.paint is None:
            return own
        if self.paint != "gores":
            return np.array(self.paint, np.float32) ** np.float32(2.2)
        angle = np.arctan2(p[2], p[0]) * (6 / np.pi)
        stripe = np.clip((np.abs((angle % 2) - 1) - 0.5) * 12 + 0.5, 0, 1).astype(np.float32)[:, None]
        return own + stripe * (own * np.float32(0.35) + np.float32(0.54) - own)


@dataclass(frozen=True)
class Shape:
    """An object's parts, with its extent: |x|, |z| <= `radius`, 0 <= y <= `top`."""

    parts: tuple[Surface, ...]
    radius: float
    top: float = 1.0

    def distance(self, p: Points) -> Values:
        return joined(p, *(part.solid for part in self.parts))


@dataclass(frozen=True)
class Light:
    """Light of a scene, linear RGB: a sun from `direction` (unit, towards the light), sky above and bounce below."""

    direction: Rgb
    sun: Rgb
    sky: Rgb
    ground: Rgb


@dataclass(frozen=True)
class Geometry:
    """Where rays hit an object: `alpha` [rows, columns], and for its N pixels their place, point, normal, part and
    openness. `foot` is the pixel (x, y) of the object's origin."""

    alpha: NDArray[np.float32]
    pixels: tuple[NDArray[np.intp], NDArray[np.intp]]
    points: Points
    normals: NDArray[np.float32]
    part: NDArray[np.intp]
    open_: NDArray[np.float32]
    foot: tuple[float, float]


def _camera(yaw: float, pitch: float) -> NDArray[np.float32]:
    """Rows right, up, back of the camera in object space, for an object turned by `yaw` degrees."""
    a, b = np.radians(-yaw), np.radians(pitch)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    view = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return (view @ turn.T).astype(np.float32)


def _on_rays(screen: Values, t: Values, camera: NDArray[np.float32]) -> Points:
    """Points at distance t along the rays of the screen points [2, N] (right, up)."""
    away = _REACH - t
    return np.stack([screen[0] * right + screen[1] * up + away * back for right, up, back in camera.T])


def _march(
    shape: Shape, screen: Values, start: Values, camera: NDArray[np.float32], near: float, steps: int
) -> tuple[Values, Values]:
    """Sphere tracing: per ray the distance travelled at the closest approach, and that approach."""
    best, best_t, t = np.full_like(start, np.inf), start.copy(), start.copy()
    live = np.arange(t.size)
    for _ in range(steps):
        d = shape.distance(_on_rays(screen[:, live], t[live], camera))
        closer = d < best[live]
        best[live[closer]] = d[closer]
        best_t[live[closer]] = t[live][closer]
        t[live] += np.maximum(d, near * 0.5) * np.float32(0.95)
        live = live[(d > near) & (t[live] < 2 * _REACH)]
        if not live.size:
            break
    return best_t, best


def trace(shape: Shape, yaw: float, height_px: int) -> Geometry:
    """Where each pixel's ray hits the object; points and normals are in object space."""
    pixel = shape.top / height_px
    camera = _camera(yaw, PITCH)
    down, level = np.sin(np.radians(PITCH)), np.cos(np.radians(PITCH))
    low = -shape.radius * down - 2 * pixel
    high = shape.top * level + shape.radius * down + 2 * pixel
    columns, rows = int(2 * shape.radius / pixel) + 6, int((high - low) / pixel) + 2
    right = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * pixel
    up = np.float32(high) - (np.arange(rows, dtype=np.float32) + 0.5) * pixel

    # Rays of blocks of pixels tell where those of single pixels start, and which of them miss.
    block = 6
    middle = (block - 1) / 2 * pixel
    coarse = np.stack(np.meshgrid(right[::block] + middle, up[::block] - middle))
    cone = np.float32(block * pixel * 0.75)
    first, closest = _march(shape, coarse.reshape(2, -1), np.zeros(coarse[0].size, np.float32), camera, float(cone), 48)
    first = np.where(closest <= cone * 1.5, np.maximum(first - 2 * cone, 0), -1).astype(np.float32)
    full = np.repeat(np.repeat(first.reshape(coarse[0].shape), block, 0), block, 1)[:rows, :columns]
    at = np.nonzero(full >= 0)
    screen = np.stack([right[at[1]], up[at[0]]])
    t, best = _march(shape, screen, full[at], camera, pixel * 0.15, 40)
    cover = np.clip(1.0 - (best - 0.15 * pixel) / pixel, 0, 1).astype(np.float32)
    hit = cover > 0.02
    points = _on_rays(screen[:, hit], t[hit], camera)
    pixels = at[0][hit], at[1][hit]
    alpha = np.zeros((rows, columns), np.float32)
    alpha[pixels] = cover[hit]
    part = np.stack([part.solid(points) for part in shape.parts]).argmin(axis=0)
    normals = _normals(shape, points, max(pixel * 0.8, 0.006))
    foot = columns / 2, high / pixel
    return Geometry(alpha, pixels, points, normals, part, _openness(shape, points, normals), foot)


def _normals(shape: Shape, p: Points, step: float) -> NDArray[np.float32]:
    """[N, 3] unit normals by four taps (a tetrahedron) of the distance."""
    out = np.zeros(p.T.shape, np.float32)
    for k in np.array([(1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)], np.float32):
        out += shape.distance(p + k[:, None] * step)[:, None] * k
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)


def _openness(shape: Shape, p: Points, n: NDArray[np.float32]) -> Values:
    """Ambient occlusion from 0 (enclosed) to 1 (open); the ground at y = 0 occludes too."""
    shut = np.zeros_like(p[0])
    for step, weight in ((0.04, 1.0), (0.1, 0.7), (0.22, 0.45)):
        q = p + n.T * step
        d = np.minimum(shape.distance(q), np.maximum(q[1], 0) + 0.35 * step)
        shut += weight * np.clip((step - d) / step, 0, 1)
    return np.clip(1 - 0.5 * shut, 0.12, 1).astype(np.float32)


def shade(shape: Shape, g: Geometry, colour: Rgb, light: Light, yaw: float) -> NDArray[np.float32]:
    """[rows, columns, 3] linear colours of a traced object."""
    back = _camera(yaw, PITCH)[2]
    towards = (np.asarray(light.direction, np.float32) @ _camera(yaw, 0.0)).astype(np.float32)
    own = np.asarray(colour, np.float32) ** np.float32(2.2)
    n = g.normals
    albedo = np.zeros_like(n)
    material = np.zeros((n.shape[0], 3), np.float32)
    for i, part in enumerate(shape.parts):
        of = np.nonzero(g.part == i)[0]
        albedo[of] = part.albedo(g.points[:, of], own)
        material[of] = part.gloss, part.metal, part.glow
    gloss, metal, glow = np.split(material, 3, axis=1)
    sun, sky, ground = (np.asarray(v, np.float32) for v in (light.sun, light.sky, light.ground))
    # 0 in the object's own shadow, 1 in the sun
    facing = np.nonzero(n @ towards > 0)[0]
    sunlit = np.ones(n.shape[0], np.float32)
    sunlit[facing] = _unblocked(shape, g.points[:, facing] + n[facing].T * 0.02, towards, 9, 9.0)
    lit = np.clip((n @ towards)[:, None], 0, 1) * sunlit[:, None]
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
    out = np.zeros((*g.alpha.shape, 3), np.float32)
    out[g.pixels] = diffuse + gloss * spark * sun * 0.55 * tint + reflect + glow * albedo * 1.1
    return out


def _unblocked(shape: Shape, origin: Points, towards: NDArray[np.float32], steps: int, sharpness: float) -> Values:
    """From 0 (in the shadow) to 1 (in the sun): soft shadows from the closest approach on the way to the light
    (Quilez)."""
    lit = np.ones(origin.shape[1], np.float32)
    t = np.full(lit.size, 0.03, np.float32)
    live = np.arange(lit.size)
    for _ in range(steps):
        d = shape.distance(origin[:, live] + towards[:, None] * t[live])
        lit[live] = np.minimum(lit[live], np.clip(0.5 + sharpness * d / (2 * t[live]), 0, 1))
        t[live] += np.clip(d, 0.03, 0.25)
        live = live[(t[live] < 1.9) & (lit[live] > 0.01)]
        if not live.size:
            break
    return lit * lit * (3 - 2 * lit)


def ground_shade(
    shape: Shape, yaw: float, light: Light
) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
    """Shadow on the ground y = 0 as the camera sees it, 0-1, and its (left, top, right, bottom) in object heights
    about the foot, x to the right and y down."""
    direction = np.asarray(light.direction, np.float64)
    throw = -direction[[0, 2]] / direction[1] * shape.top
    reach = shape.radius + 0.25
    left, far = -reach + np.minimum(throw, 0)
    right, near = reach + np.maximum(throw, 0)
    sides = ((left, right), (far, near))
    x, z = np.meshgrid(*(np.linspace(*ends, _SHADOW_PX, dtype=np.float32) for ends in sides))
    flat = _camera(yaw, 0.0)
    world = [x.ravel(), np.full(x.size, 0.004, np.float32), z.ravel()]
    origin = np.stack([sum(world[k] * flat[k, i] for k in range(3)) for i in range(3)])
    towards = (np.asarray(light.direction, np.float32) @ flat).astype(np.float32)
    lit = _unblocked(shape, origin, towards, 26, 7.6)
    contact = np.ones(x.size, np.float32)
    for height, weight in ((0.03, 0.35), (0.1, 0.35), (0.25, 0.3)):
        above = origin + np.array([[0], [height], [0]], np.float32)
        contact -= weight * np.clip(1 - shape.distance(above) / height, 0, 1)
    dark = 1 - (1 - (1 - lit) * 0.81) * (0.1 + 0.9 * contact)
    edge = np.ones(_SHADOW_PX, np.float32)
    edge[:6] = np.linspace(0, 1, 6)
    edge[-6:] = edge[:6][::-1]
    slope = np.sin(np.radians(PITCH))
    return dark.reshape(x.shape).astype(np.float32) * edge * edge[:, None], (left, far * slope, right, near * slope)
