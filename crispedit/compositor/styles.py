"""Styles: repaints a whole photograph (oil, pencil, neon ...), with every edge of its composition kept in place."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import catalogue
from crispedit.record import Image

Plane = NDArray[np.floating[Any]]
Colours = NDArray[np.floating[Any]]
"""[H, W, 3], 0-1."""
Painting = Callable[[Colours, np.random.Generator, float], Colours]
"""Paints a picture in a style; the last argument is a unit of length in pixels, 1 for a short side of 1024."""


def restyle(image: Image, style: str, seed: int) -> Image:
    """The photograph in a style, same size. ValueError for an unknown one."""
    if style not in STYLES:
        raise ValueError(f"there is no style {style!r}; choose from {', '.join(STYLES)}")
    rng = np.random.Generator(np.random.PCG64(seed))
    painted = STYLES[style](image.astype(np.float32) / 255, rng, min(image.shape[:2]) / 1024)
    return (np.clip(painted, 0, 1) * 255 + 0.5).astype(np.uint8)


# --- what paintings are made of


def _gray(p: Colours) -> Plane:
    return cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)


def _blur(p: Colours, sigma: float) -> Colours:
    return cv2.GaussianBlur(p, (0, 0), max(sigma, 0.3))


def _vivid(p: Colours, much: float) -> Colours:
    return np.clip(p + much * (p - _gray(p)[..., None]), 0, 1)


def _painted_light(p: Colours) -> Colours:
    """The tonal range of paint: brighter highlights, and no black."""
    gain = np.clip(0.92 / np.percentile(_gray(p)[::4, ::4], 98), 1, 2)
    return p * np.float32(0.9 * gain) + _rgb(0.11, 0.09, 0.12)


def _levelled(gray: Plane) -> Plane:
    """The plane, stretched between its 2nd and 98th percentile."""
    low, high = np.percentile(gray[::4, ::4], (2, 98))
    return np.clip((gray - low) / max(float(high - low), 0.08), 0, 1).astype(np.float32)


def _outlines(p: Colours, thickness: float) -> Plane:
    """Lines along the edges of large shapes: 1 on a line, 0 elsewhere."""
    levels = (np.clip(p, 0, 1) * 255).astype(np.uint8)
    edges = np.max([cv2.Canny(levels[..., channel], 45, 110) for channel in range(3)], axis=0)
    side = max(2, round(thickness))
    thick = cv2.dilate(edges, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return _blur(thick.astype(np.float32) / 255, side / 6)


def _kuwahara(p: Colours, *radii: float) -> Colours:
    """Kuwahara filter by each radius in turn: a pixel takes the mean of the least varied of four windows around it."""
    for radius in radii:
        # An odd window has a centre; an even one would move the picture by half a pixel.
        side = max(2, round(radius)) | 1
        mean, gray = cv2.blur(p, (side, side)), _gray(p)
        vary = cv2.blur(gray * gray, (side, side)) - cv2.blur(gray, (side, side)) ** 2
        h, w = gray.shape
        r = side // 2 + 1
        mean, vary = (cv2.copyMakeBorder(plane, r, r, r, r, cv2.BORDER_REFLECT) for plane in (mean, vary))
        best, p = np.full_like(gray, np.inf), np.empty_like(p)
        for dy in (0, 2 * r):
            for dx in (0, 2 * r):
                window = np.s_[dy : dy + h, dx : dx + w]
                np.copyto(p, mean[window], where=(vary[window] < best)[..., None])
                np.minimum(best, vary[window], out=best)
    return p


def _paper(rng: np.random.Generator, h: int, w: int, unit: float) -> Plane:
    """The tooth of paper, zero mean, unit deviation."""
    size = max(0.6, 1.3 * unit)
    fine, coarse = (_blur(rng.standard_normal((h, w), np.float32), sigma) for sigma in (size, 3 * size))
    noise = fine - coarse * 0.5
    return noise / noise.std()


def _clouds(cells: NDArray[np.float64], h: int, w: int) -> Plane:
    """A few values, enlarged smoothly to a plane."""
    return cv2.resize(cells.astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)


def _steepness(gray: Plane) -> Plane:
    return np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))


def _rgb(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def _printed(tone: Plane, ink: NDArray[np.float32], paper: NDArray[np.float32]) -> Colours:
    """Tones from 0 (ink) to 1 (paper), in their colours."""
    return ink * (1 - tone[..., None]) + paper * tone[..., None]


def _along(gray: Plane, sigma: float) -> tuple[Plane, Plane]:
    """(x, y) of the unit vector along the picture's contours: the minor axis of the smoothed structure tensor."""
    soft = _blur(gray, 1.5)
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    xx, yy, xy = _blur(gx * gx, sigma), _blur(gy * gy, sigma), _blur(gx * gy, sigma)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.float32(np.pi / 2)
    return np.cos(angle), np.sin(angle)


def _brushed(gray: Plane, rng: np.random.Generator, length: float) -> Plane:
    """Noise smeared along the contours, zero mean, unit deviation (line integral convolution with a few steps)."""
    h, w = gray.shape
    ux, uy = _along(gray, max(2.0, length / 2))
    noise = _blur(rng.standard_normal((h, w), np.float32), max(0.6, length / 14))
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    out = noise.copy()
    for step in (-1.0, -0.6, -0.3, 0.3, 0.6, 1.0):
        at = x + ux * np.float32(step * length), y + uy * np.float32(step * length)
        out += cv2.remap(noise, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return out / out.std()


def _scattered(rng: np.random.Generator, h: int, w: int, size: float) -> NDArray[np.int64]:
    """[N, 2]: (y, x) of a random point in each square of about `size` pixels, in random order."""
    rows, columns = max(1, int(h / size)), max(1, int(w / size))
    gy, gx = np.mgrid[0:rows, 0:columns]
    y, x = (gy + rng.random(gy.shape)) * h / rows, (gx + rng.random(gx.shape)) * w / columns
    points = np.stack([y.ravel(), x.ravel()], axis=1).astype(np.int64)
    return points[rng.permutation(len(points))]


# --- the styles


def _oil(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    """Strokes along the contours, from a broad brush to a fine one where there is detail (Hertzmann 1998)."""
    h, w = p.shape[:2]
    ux, uy = _along(_gray(p), max(2.0, 8 * unit))
    p = _painted_light(p)
    out = np.ascontiguousarray(_blur(p, 20 * unit), np.float32)
    for brush in (24.0, 13.0, 8.0):
        width = max(2.0, brush * unit)
        wanted = _vivid(_blur(p, width / 3), 0.5)
        wrong = _blur(np.abs(wanted - out).sum(axis=2), width / 2)
        for y, x in _scattered(rng, h, w, width):
            if brush < 24 and wrong[y, x] < 0.1:
                continue
            half = width * rng.uniform(1.0, 2.6)
            start, end = ((round(x + s * ux[y, x] * half), round(y + s * uy[y, x] * half)) for s in (-1, 1))
            colour = wanted[y, x] * rng.normal(1, 0.12) + rng.normal(0, 0.025)
            cv2.line(out, start, end, colour.tolist(), int(width), cv2.LINE_AA)
    strokes = _brushed(_gray(out), rng, max(3.0, 14 * unit))
    relief = strokes - np.roll(strokes, (1, 1), (0, 1))
    return out * (1 + 0.03 * strokes + 0.06 * relief)[..., None]


def _watercolour(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    flat = _kuwahara(p, 6 * unit, 9 * unit)
    gray = _gray(flat)
    pooled = np.clip((_blur(gray, 4 * unit) - gray) * 1.2, -0.05, 0.2)
    edge = np.clip(_steepness(gray) - 0.03, 0, 0.5)
    wash = _clouds(rng.standard_normal((9, 9)), h, w)
    density = 0.86 + 0.1 * wash + 1.5 * pooled + 0.5 * edge + 0.045 * _paper(rng, h, w, unit)
    pigment = -np.log(np.clip(flat * 0.86 + 0.12, 0.03, 1))
    washed = np.exp(-pigment * np.clip(density, 0.3, 1.6)[..., None] * 0.85).astype(np.float32)
    return washed * _rgb(1, 0.995, 0.97)


def _pencil(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _levelled(_gray(p))
    dodge = np.clip(gray / np.maximum(_blur(gray, 9 * unit), 0.03), 0, 1)
    h, w = gray.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float32) / np.float32(max(unit, 0.3))
    wobble = 6 * _clouds(rng.standard_normal((12, 12)), h, w)
    hatch = 0.5 + 0.5 * np.sin((x + y + wobble) * 1.25)
    cross = 0.5 + 0.5 * np.sin((x - 0.8 * y + wobble) * 1.15)
    tooth = _paper(rng, h, w, unit)
    tone = np.clip(0.66 - gray, 0, 1) * (0.35 + 0.9 * hatch) + np.clip(0.34 - gray, 0, 1) * 1.2 * cross
    sketch = dodge**1.6 * (1 - 0.75 * np.clip(tone, 0, 1)) - 0.035 * tooth * (1.2 - gray)
    return np.clip(sketch * 0.92 + 0.05, 0, 1)[..., None] * _rgb(1, 0.995, 0.975)


def _coloured_pencil(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _gray(p)
    strokes = _brushed(gray, rng, max(3.0, 16 * unit))
    dodge = np.clip(gray / np.maximum(_blur(gray, 8 * unit), 0.03), 0, 1)
    tooth = _paper(rng, gray.shape[0], gray.shape[1], unit)
    cover = np.clip(0.62 + 0.2 * strokes + 0.13 * tooth + 0.25 * (0.6 - gray), 0.08, 1)[..., None]
    soft = _blur(p, 1.6 * unit)
    vivid = np.clip(soft + 0.25 * (soft - gray[..., None]), 0, 1)
    return (1 - cover * (1 - vivid)) * (0.35 + 0.65 * dodge**1.3)[..., None]


def _cartoon(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    flat = _kuwahara(p, 8 * unit, 12 * unit)
    hsv = cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)
    steps = hsv[..., 2] * 5
    hsv[..., 2] = np.clip((np.floor(steps) + np.clip((steps % 1 - 0.5) * 8 + 0.5, 0, 1)) / 5 + 0.04, 0, 1)
    hsv[..., 1] = np.clip(hsv[..., 1] * 1.4, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * (1 - 0.95 * _outlines(flat, 6 * unit))[..., None]


def _pop_art(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    """Flat poster colours by lightness."""
    palettes = (
        ((0.10, 0.06, 0.30), (0.90, 0.12, 0.42), (1.00, 0.62, 0.10), (1.00, 0.95, 0.55)),
        ((0.05, 0.12, 0.30), (0.05, 0.50, 0.72), (0.98, 0.42, 0.38), (1.00, 0.92, 0.72)),
        ((0.16, 0.04, 0.22), (0.45, 0.15, 0.70), (0.15, 0.78, 0.70), (0.98, 0.96, 0.60)),
    )
    palette = np.array(palettes[int(rng.integers(len(palettes)))], np.float32)
    level = _levelled(_gray(_kuwahara(p, 8 * unit)))
    return palette[np.digitize(level, np.percentile(level[::4, ::4], (24, 50, 76)))]


def _neon(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    soft = _blur(p, 1.5 * unit)
    gray = _gray(soft)
    edge = _steepness(gray)
    edge = np.clip(edge / max(float(np.percentile(edge[::4, ::4], 97)), 0.01), 0, 1.3)
    hsv = cv2.cvtColor(_blur(p, 5 * unit), cv2.COLOR_RGB2HSV)
    turn = float(rng.uniform(0, 360))
    h, w = gray.shape
    drift = _clouds(rng.uniform(-70, 70, (4, 4)), h, w)
    hue = (hsv[..., 0] * 1.5 + drift + turn) % 360
    tube = cv2.cvtColor(np.stack([hue, np.full_like(hue, 0.85), np.ones_like(hue)], axis=2), cv2.COLOR_HSV2RGB)
    line = tube * edge[..., None]
    glow = _blur(line, 5 * unit) * 1.3 + cv2.resize(_blur(cv2.resize(line, None, fx=0.25, fy=0.25), 6 * unit), (w, h))
    return line + glow * 0.8 + 0.3 * np.clip(edge - 0.6, 0, 1)[..., None] + soft * _rgb(0.03, 0.03, 0.07)


def _sepia(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _levelled(_gray(_blur(p, 0.7 * unit))) * 0.86 + 0.07
    h, w = gray.shape
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None]
    fade = 1 - 0.38 * np.clip(x * x + y * y - 0.35, 0, 2)
    tone = np.clip(gray * fade + 0.02 * _paper(rng, h, w, unit), 0, 1)
    return _printed(tone, _rgb(0.2, 0.12, 0.06), _rgb(1.0, 0.92, 0.74))


def _film(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _levelled(_gray(p))
    tone = gray * gray * (3 - 2 * gray) * 0.6 + gray * 0.4
    noise = _blur(rng.standard_normal(gray.shape, np.float32), max(0.5, 0.8 * unit))
    tone = tone + 0.085 * noise * (0.35 + np.sqrt(np.clip(tone * (1 - tone), 0, 1)))
    return np.repeat(tone[..., None], 3, axis=2).astype(np.float32)


def _blueprint(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    pitch = max(8, round(32 * unit))
    grid = np.zeros((h, w), np.float32)
    grid[::pitch] = grid[:, ::pitch] = 0.16
    ink = _outlines(_kuwahara(p, 12 * unit), 2.5 * unit)
    line = np.clip(0.9 * ink + grid + 0.3 * _levelled(_gray(p)), 0, 1)
    return _printed(line, _rgb(0.04, 0.18, 0.46), _rgb(0.92, 0.96, 1.0))


def _pixel_art(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    cell = max(2, round(min(h, w) / 72))
    small = cv2.resize(p, (max(2, w // cell), max(2, h // cell)), interpolation=cv2.INTER_AREA)
    drawn = np.round(_vivid(_painted_light(small), 0.6) * 6) / 6
    return cv2.resize(drawn.astype(np.float32), (w, h), interpolation=cv2.INTER_NEAREST)


def _pointillism(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    out = np.full(p.shape, (0.96, 0.94, 0.88), np.float32)
    for size in (22.0, 15.0):
        pitch = max(3.0, size * unit)
        colour = _vivid(_blur(p, pitch / 4), 0.5)
        for y, x in _scattered(rng, h, w, pitch * 0.8):
            dab = np.clip(colour[y, x] + rng.normal(0, 0.09, 3), 0, 1).tolist()
            cv2.circle(out, (int(x), int(y)), max(1, int(pitch * rng.uniform(0.34, 0.5))), dab, -1, cv2.LINE_AA)
    return out


NAMES: dict[str, list[str]] = catalogue("styles")
"""The names of each style."""
STYLES: dict[str, Painting] = {style: globals()[f"_{style.replace(' ', '_')}"] for style in NAMES}
