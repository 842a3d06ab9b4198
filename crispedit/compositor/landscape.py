"""Landscapes: procedural photo-like scenes with detail up to the pixel, for new backgrounds, demos, tests, benchmarks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.record import Image

KINDS = ("meadow", "desert", "sea", "mountains", "night", "sunset", "snow", "studio")


def landscape(seed: int, width: int, height: int, kind: str | None = None) -> Image:
    """A scene of [height, width]; the same seed, size and kind give the same pixels. ValueError for an unknown kind."""
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen = KINDS[int(rng.integers(len(KINDS)))]
    if kind is not None:
        if kind not in KINDS:
            raise ValueError(f"there is no landscape {kind!r}; choose from {', '.join(KINDS)}")
        chosen = kind
    picture = _PAINT[chosen](rng, width, height)
    picture += rng.standard_normal((height, width, 1), np.float32) * 0.012
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def fractal(
    rng: np.random.Generator,
    width: int,
    height: int,
    largest: float,
    rough: float = 0.5,
    stretch: float = 1.0,
) -> NDArray[np.float32]:
    """[height, width] noise, zero mean and unit deviation, in octaves from `largest` pixels down to one pixel."""
    out = np.zeros((height, width), np.float32)
    size, weight = float(largest), 1.0
    while size >= 1:
        rows, columns = int(height / size) + 3, int(width / (size * stretch)) + 3
        grid = rng.standard_normal((rows, columns), np.float32)
        up = cv2.resize(
            grid, (int(columns * size * stretch) + 1, int(rows * size) + 1), interpolation=cv2.INTER_CUBIC
        )
        out += (
            weight * up[:height, :width]
            if up.shape[0] >= height and up.shape[1] >= width
            else weight * cv2.resize(up, (width, height))
        )
        size, weight = size / 2, weight * rough
    return (out - out.mean()) / max(float(out.std()), 1e-6)


def _sky(
    rng: np.random.Generator,
    width: int,
    height: int,
    top: tuple[float, ...],
    low: tuple[float, ...],
    cloud: float,
) -> NDArray[np.float32]:
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 0.8
    sky = np.asarray(top, np.float32) * (1 - t) + np.asarray(low, np.float32) * t
    sky = np.broadcast_to(sky, (height, width, 3)).copy()
    if cloud:
        veil = fractal(rng, width, height, max(width, height) / 3, 0.55, 2.0)
        cover = (np.clip((veil + cloud - 1) * 0.8, 0, 1) ** 0.7)[..., None]
        sky += cover * (np.float32(0.97) - 0.12 * np.clip(veil - 1, 0, 1)[..., None] - sky) * 0.85
    return sky


def _ground(
    rng: np.random.Generator,
    picture: NDArray[np.float32],
    horizon: int,
    dark: tuple[float, ...],
    light: tuple[float, ...],
    grain: float = 1.0,
) -> None:
    """Paints a textured plane in perspective below the horizon."""
    height, width = picture.shape[:2]
    rows = height - horizon
    texture = fractal(rng, 1024, 1024, 64, 0.75)
    depth = (np.arange(rows, dtype=np.float32) + 4) / rows
    u = (np.arange(width, dtype=np.float32)[None] - width / 2) / depth[:, None] * 0.6
    v = np.broadcast_to((500 / depth)[:, None], u.shape)
    mapped = cv2.remap(texture, u % 1023, v % 1023, cv2.INTER_LINEAR)
    mapped = (
        mapped * np.clip(depth * 2.5, 0.15, 1)[:, None]
        + 0.35 * rng.standard_normal(mapped.shape, np.float32) * grain
    )
    weight = np.clip(0.5 + 0.22 * mapped, 0, 1)[..., None]
    picture[horizon:] = np.asarray(dark, np.float32) * (1 - weight) + np.asarray(light, np.float32) * weight


def _ridge(
    rng: np.random.Generator,
    picture: NDArray[np.float32],
    base: float,
    relief: float,
    near: tuple[float, ...],
    far: tuple[float, ...],
) -> None:
    height, width = picture.shape[:2]
    line = base + relief * fractal(rng, width, 1, width / 3, 0.5)[0]
    rock = fractal(rng, width, height, 90, 0.7)
    below = np.clip(np.arange(height, dtype=np.float32)[:, None] - line[None], 0, 1)[..., None]
    weight = np.clip(0.5 + 0.25 * rock, 0, 1)[..., None]
    colour = np.asarray(near, np.float32) * (1 - weight) + np.asarray(far, np.float32) * weight
    picture += below * (colour - picture)


def _meadow(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    p = _sky(rng, width, height, (0.25, 0.5, 0.85), (0.8, 0.9, 0.97), float(rng.uniform(0.4, 1.1)))
    horizon = int(height * rng.uniform(0.4, 0.6))
    _ridge(rng, p, horizon - height * 0.05, height * 0.03, (0.35, 0.5, 0.5), (0.45, 0.6, 0.6))
    _ground(rng, p, horizon, (0.12, 0.3, 0.06), (0.45, 0.65, 0.2))
    return p


def _desert(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    p = _sky(rng, width, height, (0.3, 0.55, 0.85), (0.95, 0.9, 0.8), 0.0)
    horizon = int(height * rng.uniform(0.4, 0.6))
    _ridge(rng, p, horizon - height * 0.06, height * 0.04, (0.75, 0.5, 0.3), (0.85, 0.6, 0.38))
    _ground(rng, p, horizon, (0.65, 0.42, 0.22), (0.95, 0.75, 0.48))
    return p


def _sea(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    p = _sky(rng, width, height, (0.2, 0.5, 0.85), (0.85, 0.93, 0.97), float(rng.uniform(0.3, 1.0)))
    horizon = int(height * rng.uniform(0.35, 0.55))
    _ground(rng, p, horizon, (0.02, 0.2, 0.38), (0.3, 0.6, 0.72))
    return p


def _mountains(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    p = _sky(rng, width, height, (0.3, 0.5, 0.8), (0.85, 0.9, 0.95), float(rng.uniform(0.3, 1.0)))
    for i in range(4):
        s = i / 3
        _ridge(
            rng,
            p,
            height * (0.35 + 0.13 * i),
            height * 0.07,
            (0.45 - 0.35 * s, 0.52 - 0.3 * s, 0.62 - 0.5 * s),
            (0.65 - 0.35 * s, 0.7 - 0.3 * s, 0.78 - 0.5 * s),
        )
    return p


def _night(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    p = _sky(rng, width, height, (0.01, 0.02, 0.08), (0.08, 0.1, 0.22), 0.0)
    stars = rng.random((height, width), np.float32) > 0.9985
    p[stars] += rng.uniform(0.2, 0.9, (int(stars.sum()), 1)).astype(np.float32)
    _ridge(rng, p, height * 0.7, height * 0.06, (0.01, 0.015, 0.03), (0.04, 0.05, 0.08))
    return p


def _sunset(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    p = _sky(rng, width, height, (0.25, 0.2, 0.45), (1.0, 0.55, 0.25), 0.0)
    horizon = int(height * 0.6)
    _ridge(rng, p, horizon, height * 0.04, (0.2, 0.1, 0.15), (0.3, 0.16, 0.2))
    _ground(rng, p, int(height * 0.68), (0.08, 0.05, 0.07), (0.4, 0.22, 0.18))
    return p


def _snow(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    p = _sky(rng, width, height, (0.55, 0.68, 0.85), (0.9, 0.93, 0.97), 0.6)
    _ridge(rng, p, height * 0.45, height * 0.05, (0.45, 0.52, 0.6), (0.75, 0.8, 0.86))
    _ground(rng, p, int(height * 0.52), (0.74, 0.8, 0.9), (0.95, 0.96, 0.99))
    return p


def _studio(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    hue = rng.uniform(0.3, 0.85, 3).astype(np.float32)
    p = _sky(rng, width, height, tuple(hue * 0.75), tuple(hue), 0.0)
    _ground(rng, p, int(height * 0.62), tuple(hue * 0.6), tuple(hue * 0.85), 0.4)
    return p


_PAINT = {
    "meadow": _meadow, "desert": _desert, "sea": _sea, "mountains": _mountains,
    "night": _night, "sunset": _sunset, "snow": _snow, "studio": _studio,
}  # fmt: skip
