"""Scenery: what landscapes are made of: sky, hills, ground, water, grass and trees, painted into a float picture.

Pictures are [H, W, 3], 0-1, sRGB; everything is painted in place, from far to near.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import terrain
from crispedit.compositor.terrain import Plane, View

Picture = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]


def rgb(colour: Colour) -> NDArray[np.float32]:
    return np.asarray(colour, np.float32)


def between(weight: Plane, low: Colour, high: Colour) -> Picture:
    w = np.clip(weight, 0, 1)[..., None]
    return rgb(low) + w * (rgb(high) - rgb(low))


@dataclass(frozen=True)
class Sky:
    """Colours overhead and at the horizon, the sun's place as fractions of the picture, how much cloud 0-1."""

    top: Colour
    low: Colour
    sun: tuple[float, float]
    glow: Colour = (0.0, 0.0, 0.0)
    cloud: float = 0.5
    cloud_light: Colour = (0.98, 0.98, 0.97)
    cloud_dark: Colour = (0.62, 0.66, 0.72)


def paint_sky(rng: np.random.Generator, view: View, sky: Sky) -> Picture:
    w, h, horizon = view.width, view.height, max(view.horizon, 8.0)
    rows = np.arange(h, dtype=np.float32)
    t = np.clip(rows / horizon, 0, 1) ** 1.3
    out = np.empty((h, w, 3), np.float32)
    out[:] = (rgb(sky.top) * (1 - t[:, None]) + rgb(sky.low) * t[:, None])[:, None]
    x = (np.arange(w, dtype=np.float32) - sky.sun[0] * w) / view.focal
    y = (rows - sky.sun[1] * h) / view.focal
    off = np.sqrt(x[None] ** 2 + y[:, None] ** 2)
    if any(sky.glow):
        out += np.exp(-off * 4.5)[..., None] * rgb(sky.glow) * 0.55
        out += np.clip((0.028 - off) * 160, 0, 1)[..., None]
    if sky.cloud > 0:
        stop = min(h, int(horizon) + 2)
        noise = terrain.tile(rng, 1.55)
        # A cloud deck in perspective: what is near the horizon is far, flat and small.
        far = 1 / (np.clip((horizon - rows[:stop]) / horizon, 0, 1) + 0.16)
        u = (np.arange(w, dtype=np.float32)[None] - w / 2) / w * far[:, None] * 130 + 256
        v = np.broadcast_to(far[:, None] * np.float32(95), u.shape)
        thick = terrain.sample(noise, u, v) + np.float32(sky.cloud * 2.6 - 1.6)
        fine = terrain.sample(terrain.fine_noise(1.0), u * 6, v * 6)
        thick += 0.13 * fine
        lean = np.float32(7 if sky.sun[0] > 0.5 else -7)
        side = thick - terrain.sample(noise, u + lean, v - 5) - np.float32(sky.cloud * 2.6 - 1.6)
        cover = np.clip(thick * 1.1, 0, 1)
        cover = (
            cover * cover * (3 - 2 * cover) * np.clip((horizon - rows[:stop]) / horizon * 9, 0.15, 1)[:, None]
        )
        colour = between(
            0.72 + 0.45 * side - 0.22 * np.clip(thick - 0.7, 0, 2), sky.cloud_dark, sky.cloud_light
        )
        out[:stop] += cover[..., None] * 0.94 * (colour - out[:stop])
    return out


def lay(picture: Picture, ground: terrain.Ground, colour: Picture) -> None:
    """Sets ground colours [rows, W, 3] into the picture where ground is seen."""
    part = picture[ground.top :]
    np.copyto(part, colour, where=ground.seen[..., None])


def hazed(colour: Picture, z: Plane, haze: Colour, reach: float) -> Picture:
    clear = np.exp(-z / np.float32(reach))[..., None]
    return rgb(haze) + clear * (colour - rgb(haze))


def hills(
    rng: np.random.Generator,
    picture: Picture,
    view: View,
    sun: tuple[float, float, float],
    *,
    relief: float,
    near: float,
    far: float,
    cell: float,
    haze: Colour,
    rock: Callable[[Plane, Plane, Plane], Picture],
    ridged: bool = False,
    slope: float = 1.9,
    reach: float = 0.6,
) -> None:
    """A range of hills from `near` to `far` metres; `rock` colours by (altitude 0-1, shading 0-1, detail)."""
    heights = terrain.tile(rng, slope)
    if ridged:
        heights = 1.2 - 1.6 * np.abs(heights) ** 0.8
        heights += 0.12 * terrain.tile(rng, 1.3)
    depths = np.geomspace(near, far, 300).astype(np.float32)
    rise = np.clip((depths - near) / (0.25 * (far - near)), 0, 1)
    ground = terrain.look(view, heights + 0.6, cell, (relief * rise).astype(np.float32), depths)
    lit = terrain.sample(terrain.slopes(heights, cell, relief, sun), ground.x / cell, ground.z / cell)
    fine = terrain.detail(view, ground.x, ground.z, 1.6)
    colour = rock(ground.altitude / relief, lit, fine) * (0.35 + 0.8 * lit + 0.055 * fine)[..., None]
    lay(picture, ground, hazed(colour, ground.z, haze, far * reach))


def flat(
    picture: Picture,
    view: View,
    low: Colour,
    high: Colour,
    haze: Colour,
    reach: float,
    *,
    rough: float = 0.2,
    size: float = 2.0,
    patches: Plane | None = None,
    patch: float = 6.0,
) -> terrain.Ground:
    """Flat textured ground up to the horizon; `patches` are larger light and dark areas `patch` metres a cell."""
    ground = terrain.plane(view)
    fine = terrain.detail(view, ground.x, ground.z, size)
    weight = 0.5 + rough * fine
    if patches is not None:
        weight += 0.16 * terrain.sample(patches, ground.x / patch, ground.z / patch)
    lay(picture, ground, hazed(between(weight, low, high), ground.z, haze, reach))
    return ground


def water(
    picture: Picture,
    view: View,
    deep: Colour,
    *,
    wave: float = 1.0,
    glitter: Colour | None = None,
    at: float = 0.5,
) -> None:
    """Water up to the horizon that mirrors what is painted above it."""
    ground = terrain.plane(view)
    ripple = terrain.detail(view, ground.x, ground.z, 2.4, 1.0, 2.2)
    swell = terrain.sample(terrain.fine_noise(2.2), ground.x * 1.3, ground.z * 2.3) * np.exp(-ground.z / 60)
    rough = (ripple + 0.8 * swell) * wave
    rows, w = ground.x.shape
    steep = np.clip(view.eye / ground.z, 0, 1)
    line = np.clip(
        view.horizon - np.arange(1, rows + 1)[:, None] * 0.8 - rough * (3 + 26 * steep), 0, view.height - 1
    )
    column = np.clip(np.arange(w, dtype=np.float32)[None] + rough * (2 + 8 * steep), 0, w - 1)
    mirror = cv2.remap(picture, column.astype(np.float32), line.astype(np.float32), cv2.INTER_LINEAR)
    strength = np.clip(0.78 - 1.7 * steep - 0.1 * rough, 0.08, 0.9)[..., None]
    colour = rgb(deep) * (1 + 0.16 * rough[..., None]) + strength * (mirror - rgb(deep))
    if glitter is not None:
        aim = np.exp(-(((np.arange(w) / w - at) / (0.05 + 0.35 * steep)) ** 2)).astype(np.float32)
        colour += (np.clip(rough - 0.9, 0, 2) * aim)[..., None] * rgb(glitter)
    lay(picture, ground, colour)


def blades(
    rng: np.random.Generator,
    picture: Picture,
    view: View,
    count: int,
    dark: Colour,
    light: Colour,
    tall: float = 0.16,
) -> None:
    """Blades of grass, drawn from far to near, a few pixels wide."""
    rows = view.height - view.horizon
    at = np.sort(rng.random(count) ** 0.75)
    y = view.horizon + 2 + at * rows * 1.12
    size = view.focal * tall * at * rows / (view.focal * view.eye) * rng.uniform(0.5, 1.3, count)
    x = rng.uniform(-10, view.width + 10, count)
    bend = rng.normal(0.1, 0.35, count) * size
    shade = np.clip(rng.normal(0.5, 0.28, count) + 0.1 * np.sin(x / 90), 0, 1)
    colour = rgb(dark) + shade[:, None] * (rgb(light) - rgb(dark))
    colour *= rng.uniform(0.85, 1.1, (count, 1))
    tip_x, tip_y = x + bend, y - size
    points = np.stack([x, y, x + bend * 0.3, y - size * 0.6, tip_x, tip_y], 1).reshape(count, 3, 2)
    points = np.round(points * 8).astype(np.int32)
    thick = np.clip(size / 26, 1, 5).astype(int)
    for i in range(count):
        cv2.polylines(picture, [points[i]], False, colour[i].tolist(), int(thick[i]), cv2.LINE_AA, 3)


def flowers(
    rng: np.random.Generator, picture: Picture, view: View, count: int, colours: list[Colour]
) -> None:
    rows = view.height - view.horizon
    for d in np.sort(rng.random(count) ** 0.6):
        x, y = rng.uniform(0, view.width), view.horizon + d * rows * 0.98
        r = max(1.0, d * rows * rng.uniform(0.008, 0.018))
        colour = rgb(colours[int(rng.integers(len(colours)))]) * np.float32(rng.uniform(0.75, 1.05))
        for a in np.arange(5) * 1.2566 + rng.uniform(0, 1.2):
            at = (round((x + r * np.cos(a)) * 8), round((y + 0.7 * r * np.sin(a)) * 8))
            cv2.circle(
                picture,
                at,
                round(r * 5.5),
                (colour * np.float32(rng.uniform(0.85, 1.1))).tolist(),
                -1,
                cv2.LINE_AA,
                3,
            )
        cv2.circle(
            picture, (round(x * 8), round(y * 8)), round(r * 3.6), (0.85, 0.65, 0.1), -1, cv2.LINE_AA, 3
        )


def tree(
    rng: np.random.Generator,
    picture: Picture,
    x: float,
    y: float,
    size: float,
    dark: Colour,
    light: Colour,
    sun: float,
) -> None:
    """A leafy tree of `size` pixels standing at (x, y): a trunk, and leaves as dabs lit from the sun's side."""
    w = max(1, int(size * 0.035))
    cv2.line(picture, (int(x), int(y)), (int(x), int(y - size * 0.5)), (0.16, 0.11, 0.08), w, cv2.LINE_AA)
    cv2.ellipse(
        picture,
        (int(x), int(y)),
        (int(size * 0.36), max(1, int(size * 0.035))),
        0,
        0,
        360,
        (0.1, 0.14, 0.07),
        -1,
        cv2.LINE_AA,
    )
    blobs = rng.normal(0, 1, (7, 2)) * (0.16, 0.13) * size + (x, y - size * 0.66)
    count = int(np.clip(size * 7, 120, 2400))
    which = rng.integers(0, 7, count)
    off = rng.normal(0, 0.085, (count, 2)) * size
    spots = blobs[which] + off
    lit = np.clip(0.45 + (off[:, 0] * sun - off[:, 1]) / size * 3.2 + rng.normal(0, 0.16, count), 0, 1)
    order = np.argsort(
        lit, kind="stable"
    )  # many are equal, and the default order of those depends on the processor
    colour = rgb(dark) + lit[:, None] * (rgb(light) - rgb(dark))
    r = max(5, int(size * 0.017 * 8))
    for i in order:
        cv2.circle(
            picture, (int(spots[i, 0] * 8), int(spots[i, 1] * 8)), r, colour[i].tolist(), -1, cv2.LINE_AA, 3
        )


def stars(rng: np.random.Generator, picture: Picture, below: float) -> None:
    w = picture.shape[1]
    count = int(w * below / 900)
    x, y = rng.integers(0, w, count), (rng.random(count) * below).astype(int)
    bright = (rng.pareto(2.2, count) * 0.22).clip(0.1, 1)
    for i in range(count):
        colour = np.array([0.9, 0.93, 1.0]) * bright[i]
        cv2.circle(
            picture, (int(x[i]), int(y[i])), 1 if bright[i] > 0.6 else 0, colour.tolist(), -1, cv2.LINE_AA
        )


def jitter(rng: np.random.Generator, colour: Colour, much: float = 0.05) -> Colour:
    r, g, b = (float(np.clip(c + v, 0, 1)) for c, v in zip(colour, rng.normal(0, much, 3), strict=True))
    return r, g, b


def day(
    rng: np.random.Generator, view: View, cloud: tuple[float, float] = (0.25, 0.75)
) -> tuple[Sky, tuple[float, float, float]]:
    side = float(rng.uniform(-0.8, 0.8))
    sky = Sky(
        jitter(rng, (0.2, 0.42, 0.78)),
        jitter(rng, (0.78, 0.87, 0.94), 0.03),
        (0.5 + side / 2, -0.2),
        cloud=float(rng.uniform(*cloud)),
    )
    return sky, (side, 0.8, -0.35)
