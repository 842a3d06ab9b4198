"""The scene: a photograph's light, grain, ground and free places, estimated from its pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor.render import Light, Rgb
from crispedit.images import fitted
from crispedit.record import Image

SMALLEST_PX = 48
"""Smaller images have no room for a recognisable object."""
_STUDY_PX = 320


@dataclass(frozen=True)
class Spot:
    """An object's place: its foot (x, y) as fractions of width and height, its height as a fraction of the short
    side."""

    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """A photograph's properties.

    `ground` says whether an object can stand in its lower part: a field, a road, a table, but not a close-up in front
    of a blurred background. `horizon` is a fraction from the top. `clutter` [h, w] is detail at study size, in grey
    levels; `grain` is the standard deviation of the noise, in grey levels.
    """

    width: int
    height: int
    light: Light
    ground: bool
    horizon: float
    clutter: NDArray[np.float32]
    grain: float

    @property
    def short(self) -> int:
        return min(self.width, self.height)

    @property
    def softness(self) -> float:
        """Blur of what is drawn into the photograph: sigma in pixels."""
        return 0.35 + 0.35 * self.short / 1024


def reduced(image: Image) -> Image:
    """The photograph at study size, its longer side at most 320 pixels."""
    return fitted(image, _STUDY_PX)


def around(small: Image, scene: Scene, place: Spot) -> Image:
    """[N, M, 3]: the photograph, at study size, behind an object at the place."""
    h, w = small.shape[:2]
    half, high = place.size * scene.short / scene.width / 2, place.size * scene.short / scene.height
    x0, x1 = int(max(0, place.x - half) * w), int(min(1, place.x + half) * w)
    y0, y1 = int(max(0, place.y - high) * h), int(min(1, place.y) * h)
    return small[min(y0, h - 1) : max(y1, y0 + 1), min(x0, w - 1) : max(x1, x0 + 1)]


def study(image: Image) -> Scene:
    """The scene of a photograph; deterministic, about 20 ms for any size."""
    small = reduced(image)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = np.abs(gray - cv2.GaussianBlur(gray, (0, 0), 2.0))
    clutter = cv2.GaussianBlur(detail, (0, 0), 3.0)
    low = cv2.resize(small[int(small.shape[0] * 0.62) :], (8, 4), interpolation=cv2.INTER_AREA)
    # One colour from edge to edge is ground; flower, sky and shadow side by side are a close-up.
    ground = float(low.reshape(-1, 3).astype(np.float32).std(axis=0).mean()) < 24.5
    height, width = image.shape[:2]
    return Scene(width, height, _light(small), ground, _horizon(small), clutter, _grain(image))


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
    # The white level: the brightest channel of the brightest pixels.
    white = float(np.percentile(lin.max(axis=2), 96))
    exposure = float(np.clip(0.55 * white + 0.9 * float(luma.mean()), 0.09, 1.0))
    cast = _tint(lin.reshape(-1, 3).mean(axis=0), 0.12)
    half = max(1, lin.shape[0] // 2)
    sky = _tint(lin[:half].reshape(-1, 3).mean(axis=0), 0.2)
    ground = _tint(lin[half:].reshape(-1, 3).mean(axis=0), 0.4)

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
    """The height (0 top, 1 bottom) of the strongest change between rows, if it is similar across the whole width; else
    0.3."""
    n, w = small.shape[:2]
    reach = max(2, n // 14)
    at = np.arange(max(reach, n // 5), min(n - reach, n * 78 // 100))
    if not at.size or w < 8:
        return 0.3
    rows = []
    for strip in np.array_split(small.astype(np.float32), 4, axis=1):
        sums = np.vstack([np.zeros((1, 3), np.float32), np.cumsum(strip.mean(axis=1), axis=0)])
        jump = np.abs((sums[at + reach] - sums[at]) - (sums[at] - sums[at - reach])).sum(axis=1)
        rows.append(float(at[int(jump.argmax())] / n))
    return max(rows) if max(rows) - min(rows) < 0.12 else 0.3


def _grain(image: Image) -> float:
    """Noise of the sensor, grey levels: from second differences in the flattest tenth of the picture."""
    step = max(1, min(image.shape[:2]) // 400)
    green = image[: image.shape[0] // 4 * 4, : image.shape[1] // 4 * 4, 1].astype(np.float32)
    second = np.abs(green[::step, 2:] - 2 * green[::step, 1:-1] + green[::step, :-2])
    rows = second.reshape(-1)[: second.size // 64 * 64].reshape(-1, 64).mean(axis=1)
    return float(np.clip(np.percentile(rows, 10) / 1.96, 0, 6)) if rows.size else 0.0


def find_place(
    scene: Scene, rng: np.random.Generator, floats: bool, aspect: float, sizes: tuple[float, float]
) -> Spot | None:
    """A free, uncluttered place for an object `aspect` times as wide as high; None where there is no room.

    Objects stand on the ground below the horizon. Without ground they stand in front, with the foot at the lower edge
    of the frame. Floating objects hang in the air, above the horizon if possible.
    """
    integral = cv2.integral(scene.clutter)
    h, w = scene.clutter.shape
    best, best_cost = None, np.inf
    for _ in range(60):
        size = float(rng.uniform(*sizes))
        high = size * scene.short / scene.height
        if floats:
            low = max(high + 0.06, scene.horizon + 0.1 if scene.ground else 0.8)
            y = float(rng.uniform(high + 0.03, low))
        elif scene.ground:
            # Objects near the horizon are far away, so they are smaller and never tower over the background.
            y = float(rng.uniform(max(scene.horizon + 0.12, 0.52), 0.95))
            size *= 0.6 + 0.4 * (y - scene.horizon) / (0.95 - scene.horizon)
            high = size * scene.short / scene.height
        else:
            y = float(rng.uniform(0.995, 1.035))
            size *= 1.2
            high *= 1.2
        wide = aspect * size * scene.short / scene.width
        if scene.ground and not floats and y < scene.horizon + 0.65 * high:
            continue
        if wide > 0.8 or y - high < 0.01 or y > 1.04 or ((floats or scene.ground) and y > 0.955):
            continue
        x = float(rng.uniform(wide / 2 + 0.02, 1 - wide / 2 - 0.02))
        x0, y0 = int((x - wide / 2) * w), int((y - high) * h)
        x1, y1 = max(int((x + wide / 2) * w), x0 + 1), min(max(int(y * h), y0 + 1), h)
        sums = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
        cost = sums / ((x1 - x0) * (y1 - y0)) * float(rng.uniform(0.75, 1.3))
        if cost < best_cost:
            best, best_cost = Spot(round(x, 4), round(y, 4), round(size, 4)), cost
    return best
