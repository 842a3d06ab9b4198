"""The scene: what a photograph tells about its light, its grain, its horizon and where there is room for an object."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor.render import Light, Rgb
from crispedit.record import Image

SMALLEST_PX = 48
"""Below this side there is no room for anything that a person would recognise."""
_STUDY_PX = 320


@dataclass(frozen=True)
class Place:
    """Where an object goes: the foot (x, y) as fractions of width and height, its height as one of the short side."""

    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """What a photograph tells. `clutter` [h, w] is its detail at study size; `grain` is a standard deviation, 0-255."""

    width: int
    height: int
    light: Light
    horizon: float
    clutter: NDArray[np.float32]
    grain: float
    softness: float

    @property
    def short(self) -> int:
        return min(self.width, self.height)


def study(image: Image) -> Scene:
    """Reads a photograph; deterministic, some 20 ms whatever its size."""
    height, width = image.shape[:2]
    scale = min(1.0, _STUDY_PX / max(height, width))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = np.abs(gray - cv2.GaussianBlur(gray, (0, 0), 2.0))
    clutter = cv2.GaussianBlur(detail, (0, 0), 3.0)
    return Scene(width, height, _light(small), _horizon(small), clutter, _grain(image), 0.5)


def _light(small: Image) -> Light:
    """Sun from the brighter side; sky and bounce in the colours of the photograph's upper and lower parts."""
    lin = (small.astype(np.float32) / 255) ** 2.2
    luma = lin @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    third = max(1, luma.shape[1] // 3)
    left, right = float(luma[:, :third].mean()), float(luma[:, -third:].mean())
    lean = float(np.clip((right - left) / (right + left + 1e-4) * 1.2, -0.65, 0.65))
    if abs(lean) < 0.18:
        lean = 0.3 if right >= left else -0.3
    direction = np.array([lean, 0.8, 0.45])
    direction /= np.linalg.norm(direction)
    bright = float(np.clip(np.percentile(luma, 95), 0.06, 0.95))
    mean = float(np.clip(luma.mean(), 0.02, 0.8))
    exposure = float(np.clip(0.65 * bright + 0.6 * mean, 0.16, 1.0))
    cast = _tint(lin.reshape(-1, 3).mean(axis=0), 0.12)
    half = max(1, lin.shape[0] // 2)
    sky = _tint(lin[:half].reshape(-1, 3).mean(axis=0), 0.3)
    ground = _tint(lin[half:].reshape(-1, 3).mean(axis=0), 0.5)

    def rgb(values: NDArray[np.float64], strength: float) -> Rgb:
        r, g, b = (round(float(v) * strength * exposure, 4) for v in values)
        return r, g, b

    x, y, z = (round(float(v), 4) for v in direction)
    return Light((x, y, z), rgb(cast * [1.04, 1.0, 0.95], 0.85), rgb(sky, 0.5), rgb(ground, 0.28))


def _tint(mean: NDArray[np.float32], strength: float) -> NDArray[np.float64]:
    """A colour of unit brightness, `strength` of the way from white to the hue of the mean."""
    hue = mean / max(float(mean.mean()), 1e-4)
    return 1 + strength * (np.clip(hue, 0.3, 2.2).astype(np.float64) - 1)


def _horizon(small: Image) -> float:
    """The height (0 top - 1 bottom) of the strongest change between rows; 0.45 where there is none."""
    rows = small.astype(np.float32).mean(axis=1)
    n = rows.shape[0]
    reach = max(2, n // 12)
    sums = np.vstack([np.zeros((1, 3), np.float32), np.cumsum(rows, axis=0)])
    at = np.arange(max(reach, n // 5), min(n - reach, n * 7 // 10))
    if not at.size:
        return 0.45
    jump = np.abs((sums[at + reach] - sums[at]) - (sums[at] - sums[at - reach])).sum(axis=1) / reach
    best = int(jump.argmax())
    return float(at[best] / n) if jump[best] > 40 else 0.45


def _grain(image: Image) -> float:
    """Noise of the sensor: the median absolute deviation of a second difference in the flattest tenth of the picture."""
    step = max(1, min(image.shape[:2]) // 400)
    green = image[: image.shape[0] // 4 * 4, : image.shape[1] // 4 * 4, 1].astype(np.float32)
    second = np.abs(green[::step, 2:] - 2 * green[::step, 1:-1] + green[::step, :-2])
    rows = second.reshape(-1)[: second.size // 64 * 64].reshape(-1, 64).mean(axis=1)
    return float(np.clip(np.percentile(rows, 10) / 1.96, 0, 6)) if rows.size else 0.0


def find_place(
    scene: Scene,
    rng: np.random.Generator,
    floats: bool,
    aspect: float,
    sizes: tuple[float, float],
    tries: int = 60,
) -> Place | None:
    """A free, uncluttered place for an object `aspect` times as wide as high; None where there is no room."""
    integral = cv2.integral(scene.clutter)
    h, w = scene.clutter.shape
    best, best_cost = None, np.inf
    for _ in range(tries):
        size = float(rng.uniform(*sizes))
        high = size * scene.short / scene.height
        wide = aspect * size * scene.short / scene.width
        if floats:
            y = float(rng.uniform(high + 0.03, max(high + 0.04, 0.72)))
        else:
            y = float(rng.uniform(max(scene.horizon + 0.08, high + 0.02, 0.5), 0.95))
        x = float(rng.uniform(wide / 2 + 0.02, 1 - wide / 2 - 0.02)) if wide < 0.9 else 0.5
        if y - high < 0.01 or y > 0.97 or wide > 0.9:
            continue
        x0, x1 = int((x - wide / 2) * w), max(int((x + wide / 2) * w), int((x - wide / 2) * w) + 1)
        y0, y1 = int((y - high) * h), max(int(y * h), int((y - high) * h) + 1)
        cost = (integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]) / (
            (x1 - x0) * (y1 - y0)
        )
        cost *= float(rng.uniform(0.7, 1.3))
        if cost < best_cost:
            best, best_cost = Place(round(x, 4), round(y, 4), round(size, 4)), cost
    return best
