"""Terrain: periodic noise, and a height field seen in perspective, for `landscape`.

World units are metres: x to the right, z away from the viewer, the camera `eye` above 0 looking level.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
TILE = 512


@dataclass(frozen=True)
class View:
    """A level camera: picture size, the row of its horizon, focal length in pixels, height above 0 in metres."""

    width: int
    height: int
    horizon: float
    focal: float
    eye: float


@dataclass(frozen=True)
class Ground:
    """The visible part of a height field: (x, z) and altitude for the rows from `top` down, where `seen`."""

    top: int
    seen: NDArray[np.bool_]
    x: Plane
    z: Plane
    altitude: Plane


def tile(rng: np.random.Generator, slope: float, stretch: float = 1.0) -> Plane:
    """[TILE, TILE] periodic noise with amplitude spectrum 1 / frequency ** slope, zero mean, unit deviation."""
    fy = np.fft.fftfreq(TILE)[:, None] * TILE
    fx = np.fft.rfftfreq(TILE)[None] * TILE * stretch
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1
    phases = rng.random(radius.shape) * (2 * np.pi)
    spectrum = np.exp(1j * phases) / radius**slope
    spectrum[0, 0] = 0
    out = np.fft.irfft2(spectrum, (TILE, TILE)).astype(np.float32)
    return out / out.std()


@lru_cache(maxsize=4)
def fine_noise(stretch: float) -> Plane:
    """The fixed noise that gives surfaces their detail."""
    return tile(np.random.Generator(np.random.PCG64(7)), 0.75, stretch)


def sample(noise: Plane, u: Plane, v: Plane) -> Plane:
    """Bilinear look-up of a periodic tile at any coordinates, in tile cells."""
    return cv2.remap(noise, u % (TILE - 1), v % (TILE - 1), cv2.INTER_LINEAR)


def detail(view: View, x: Plane, z: Plane, size: float = 2.0, squash: float = 1.0, stretch: float = 1.0) -> Plane:
    """Noise on the ground whose features are about `size` pixels at any distance; unit deviation, roughly."""
    level = np.log2(np.maximum(z, 1e-3) * np.float32(size / view.focal))
    low = np.floor(level)
    part = (level - low).astype(np.float32)
    out = np.zeros_like(x)
    for step, weight in ((low, 1 - part), (low + 1, part)):
        cell = np.exp2(step).astype(np.float32)
        out += weight * sample(fine_noise(stretch), x / cell, z / cell * np.float32(squash))
    return out


def look(view: View, heights: Plane, cell: float, relief: Plane, depths: Plane) -> Ground:
    """Casts a height field. `cell` is metres per tile cell, `relief` [Z] metres of height per unit at each of `depths`.

    Per column, the running maximum of the projected height over depth gives the depth at which each row's ray hits.
    Rows are counted from the bottom, so one histogram and one cumulative sum solve all pixels.
    """
    columns = np.arange(view.width, dtype=np.float32)
    x = (columns[None] - view.width / 2) / view.focal * depths[:, None]
    z = np.broadcast_to(depths[:, None], x.shape)
    altitude = sample(heights, x / np.float32(cell), z / np.float32(cell)) * relief[:, None]
    row = view.horizon - (altitude - view.eye) / z * view.focal
    row = np.minimum.accumulate(row, axis=0)
    top = int(np.clip(np.floor(row[-1].min()), 0, view.height - 1))
    rows = view.height - top
    at = np.clip(np.ceil(row - top), 0, rows).astype(np.intp)
    counts = np.bincount((at * view.width + np.arange(view.width)).ravel(), minlength=(rows + 1) * view.width)
    counts = counts.reshape(rows + 1, view.width)[:rows]
    # Depths whose row is below pixel r: those that it looks over.
    met = len(depths) - np.cumsum(counts, axis=0)
    seen = met < len(depths)
    after = np.clip(met, 1, len(depths) - 1)
    here = np.arange(top, view.height, dtype=np.float32)[:, None]
    col = np.broadcast_to(np.arange(view.width), after.shape)
    low, high = row[after - 1, col], row[after, col]
    part = np.clip((low - here) / np.maximum(low - high, 1e-3), 0, 1).astype(np.float32)
    far = depths[after - 1] + (depths[after] - depths[after - 1]) * part
    x = ((col - view.width / 2) / view.focal * far).astype(np.float32)
    altitude = altitude[after - 1, col] * (1 - part) + altitude[after, col] * part
    return Ground(top, seen, x, far.astype(np.float32), altitude)


def plane(view: View) -> Ground:
    """The flat ground y = 0 below the horizon."""
    top = int(np.clip(np.ceil(view.horizon + 1), 0, view.height - 1))
    rows = np.arange(top, view.height, dtype=np.float32)[:, None]
    z = np.broadcast_to(view.eye * view.focal / (rows - view.horizon), (view.height - top, view.width))
    x = (np.arange(view.width, dtype=np.float32) - view.width / 2) / view.focal * z
    z = np.ascontiguousarray(z, np.float32)
    return Ground(top, np.ones(z.shape, bool), x.astype(np.float32), z, np.zeros_like(z))


def slopes(heights: Plane, cell: float, relief: float, sun: tuple[float, float, float]) -> Plane:
    """[TILE, TILE] Lambert shading 0-1 of a height tile by a sun from (x, y up, z away)."""
    gx = (np.roll(heights, -1, 1) - np.roll(heights, 1, 1)) * np.float32(relief / (2 * cell))
    gz = (np.roll(heights, -1, 0) - np.roll(heights, 1, 0)) * np.float32(relief / (2 * cell))
    lit = (-gx * sun[0] + sun[1] - gz * sun[2]) / np.sqrt(1 + gx * gx + gz * gz)
    return np.clip(lit / np.linalg.norm(sun), 0, 1).astype(np.float32)
