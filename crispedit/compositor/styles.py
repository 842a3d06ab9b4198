"""Styles: repaints a whole photograph (oil, pencil, halftone ...), with every edge of its composition kept in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.record import Image

Plane = NDArray[np.floating[Any]]
Colours = NDArray[np.floating[Any]]
"""[H, W, 3], 0-1."""


@dataclass(frozen=True)
class Style:
    """How a style is said, and how a picture [H, W, 3] 0-1 is painted in it; the last argument is a fine length in
    pixels, 1 where the short side is 1024."""

    names: tuple[str, ...]
    paint: Callable[[Colours, np.random.Generator, float], Colours]


def restyle(image: Image, style: str, seed: int) -> Image:
    """The photograph in a style, same size. ValueError for an unknown one."""
    if style not in STYLES:
        raise ValueError(f"there is no style {style!r}; choose from {', '.join(STYLES)}")
    rng = np.random.Generator(np.random.PCG64(seed))
    unit = min(image.shape[:2]) / 1024
    painted = STYLES[style].paint(image.astype(np.float32) / 255, rng, unit)
    return (np.clip(painted, 0, 1) * 255 + 0.5).astype(np.uint8)


# --- what paintings are made of


def _gray(p: Colours) -> Plane:
    return cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)


def _blur(p: Colours, sigma: float) -> Colours:
    return cv2.GaussianBlur(p, (0, 0), max(sigma, 0.3))


def _levelled(gray: Plane) -> Plane:
    """Stretched between its 2nd and 98th percentile."""
    low, high = np.percentile(gray[::4, ::4], (2, 98))
    return np.clip((gray - low) / max(float(high - low), 0.08), 0, 1).astype(np.float32)


def _lines(gray: Plane, sigma: float, sharp: float = 18.0, level: float = 0.5, push: float = 19.0) -> Plane:
    """Ink lines, 0 ink - 1 paper: extended difference of Gaussians (Winnemöller et al. 2012)."""
    near, far = _blur(gray, sigma), _blur(gray, sigma * 1.6)
    d = (1 + push) * near - push * far
    return np.where(d >= level, 1, 1 + np.tanh(sharp * (d - level) / push * 2.2)).astype(np.float32)


def _kuwahara(p: Colours, radius: int) -> Colours:
    """Kuwahara filter: each pixel takes the mean of whichever of four windows about it varies least."""
    # An odd window has a centre; an even one would move the picture by half a pixel.
    side = radius | 1
    mean = cv2.blur(p, (side, side))
    gray = _gray(p)
    g = cv2.blur(gray, (side, side))
    vary = cv2.blur(gray * gray, (side, side)) - g * g
    h, w = gray.shape
    r = side // 2 + 1
    pad_m = cv2.copyMakeBorder(mean, r, r, r, r, cv2.BORDER_REFLECT)
    pad_v = cv2.copyMakeBorder(vary, r, r, r, r, cv2.BORDER_REFLECT)
    best, out = None, None
    for dy in (0, 2 * r):
        for dx in (0, 2 * r):
            v, m = pad_v[dy : dy + h, dx : dx + w], pad_m[dy : dy + h, dx : dx + w]
            if best is None or out is None:
                best, out = v.copy(), m.copy()
            else:
                better = v < best
                np.copyto(out, m, where=better[..., None])
                np.minimum(best, v, out=best)
    assert out is not None
    return out


def _paper(rng: np.random.Generator, h: int, w: int, unit: float) -> Plane:
    """The tooth of paper, zero mean, unit deviation."""
    size = max(0.6, 1.3 * unit)
    noise = (
        _blur(rng.standard_normal((h, w), np.float32), size)
        - _blur(rng.standard_normal((h, w), np.float32), 3 * size) * 0.5
    )
    return noise / noise.std()


def _brushed(gray: Plane, rng: np.random.Generator, length: float) -> Plane:
    """Noise smeared along the picture's contours, zero mean, unit deviation: the direction of strokes.

    Line integral convolution with a few steps, along the minor axis of the smoothed structure tensor.
    """
    h, w = gray.shape
    soft = _blur(gray, 1.5)
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    sigma = max(2.0, length / 2)
    xx, yy, xy = _blur(gx * gx, sigma), _blur(gy * gy, sigma), _blur(gx * gy, sigma)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.float32(np.pi / 2)
    ux, uy = np.cos(angle), np.sin(angle)
    noise = _blur(rng.standard_normal((h, w), np.float32), max(0.6, length / 14))
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    out = noise.copy()
    for step in (-1.0, -0.6, -0.3, 0.3, 0.6, 1.0):
        shift = np.float32(step * length)
        out += cv2.remap(
            noise, x + ux * shift, y + uy * shift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    return out / out.std()


def _cells(
    rng: np.random.Generator, h: int, w: int, size: float
) -> tuple[NDArray[np.int32], Plane, NDArray[np.int32]]:
    """A jittered grid of points about `size` apart: each pixel's nearest point, its distance, and the points [N, 2]."""
    rows, columns = max(1, int(h / size)), max(1, int(w / size))
    gy, gx = np.mgrid[0:rows, 0:columns]
    y = np.clip((gy + rng.uniform(0.1, 0.9, gy.shape)) * h / rows, 0, h - 1).astype(np.int32).ravel()
    x = np.clip((gx + rng.uniform(0.1, 0.9, gx.shape)) * w / columns, 0, w - 1).astype(np.int32).ravel()
    seeds = np.full((h, w), 255, np.uint8)
    seeds[y, x] = 0
    away, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    points = np.zeros((int(label.max()) + 1, 2), np.int32)
    points[label[y, x]] = np.stack([y, x], axis=1)
    return label, away, points


# --- the styles


def _oil(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    flat = _kuwahara(p, max(2, round(7 * unit)))
    strokes = _brushed(_gray(flat), rng, max(3.0, 11 * unit))
    relief = strokes - np.roll(strokes, (1, 1), (0, 1))
    vivid = flat + 0.22 * (flat - _gray(flat)[..., None])
    return vivid * (1 + 0.05 * strokes + 0.09 * relief)[..., None] + 0.01


def _watercolour(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    flat = _kuwahara(_kuwahara(p, max(2, round(6 * unit))), max(2, round(9 * unit)))
    gray = _gray(flat)
    pooled = np.clip((_blur(gray, 4 * unit) - gray) * 1.2, -0.05, 0.2)
    edge = np.clip(
        np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)) - 0.03, 0, 0.5
    )
    wash = cv2.resize(rng.standard_normal((9, 9)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    density = 0.86 + 0.1 * wash + 1.5 * pooled + 0.5 * edge + 0.045 * _paper(rng, h, w, unit)
    pigment = -np.log(np.clip(flat * 0.86 + 0.12, 0.03, 1))
    return np.exp(-pigment * np.clip(density, 0.3, 1.6)[..., None] * 0.85).astype(np.float32) * np.array(
        [1, 0.995, 0.97], np.float32
    )


def _pencil(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _levelled(_gray(p))
    dodge = np.clip(gray / np.maximum(_blur(gray, 9 * unit), 0.03), 0, 1)
    h, w = gray.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float32) / np.float32(max(unit, 0.3))
    wobble = 6 * cv2.resize(
        rng.standard_normal((12, 12)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC
    )
    hatch = 0.5 + 0.5 * np.sin((x + y + wobble) * 1.25)
    cross = 0.5 + 0.5 * np.sin((x - 0.8 * y + wobble) * 1.15)
    tooth = _paper(rng, h, w, unit)
    tone = np.clip(0.66 - gray, 0, 1) * (0.35 + 0.9 * hatch) + np.clip(0.34 - gray, 0, 1) * 1.2 * cross
    sketch = dodge**1.6 * (1 - 0.75 * np.clip(tone, 0, 1)) - 0.035 * tooth * (1.2 - gray)
    return np.repeat(np.clip(sketch * 0.92 + 0.05, 0, 1)[..., None], 3, axis=2) * np.array(
        [1, 0.995, 0.975], np.float32
    )


def _coloured_pencil(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _gray(p)
    strokes = _brushed(gray, rng, max(3.0, 16 * unit))
    dodge = np.clip(gray / np.maximum(_blur(gray, 8 * unit), 0.03), 0, 1)
    tooth = _paper(rng, gray.shape[0], gray.shape[1], unit)
    cover = np.clip(0.62 + 0.2 * strokes + 0.13 * tooth + 0.25 * (0.6 - gray), 0.08, 1)[..., None]
    soft = _blur(p, 1.6 * unit)
    vivid = np.clip(soft + 0.25 * (soft - gray[..., None]), 0, 1)
    return (1 - cover * (1 - vivid)) * (0.35 + 0.65 * dodge**1.3)[..., None]


def _charcoal(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _levelled(_gray(p))
    strokes = _brushed(gray, rng, max(3.0, 18 * unit))
    ink = _lines(gray, max(0.7, 2.2 * unit), push=12)
    tooth = _paper(rng, gray.shape[0], gray.shape[1], unit * 1.4)
    smudge = np.clip(0.16 + 0.86 * _blur(gray, 3 * unit) ** 0.9, 0, 1)
    tone = smudge + (0.07 * strokes + 0.09 * tooth) * (1.15 - smudge)
    return (
        np.repeat((np.clip(tone, 0, 1) * (0.25 + 0.75 * _blur(ink, 0.8 * unit)))[..., None], 3, axis=2) * 0.97
    )


def _cartoon(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    flat = _kuwahara(p, max(2, round(8 * unit)))
    hsv = cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)
    steps = hsv[..., 2] * 6
    base = np.floor(steps)
    hsv[..., 2] = np.clip((base + 1 / (1 + np.exp(-(steps - base - 0.5) * 14))) / 6 * 1.04 + 0.03, 0, 1)
    hsv[..., 1] = np.clip(hsv[..., 1] * 1.35, 0, 1)
    ink = _lines(_gray(flat), max(0.8, 2.0 * unit), level=0.2, push=22)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * ink[..., None]


def _comic(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    flat = _kuwahara(p, max(2, round(6 * unit)))
    gray = _gray(flat)
    level = _levelled(gray)
    bright = flat * (0.5 + 0.5 * level / np.maximum(gray, 0.08))[..., None]
    vivid = np.clip(bright + 0.6 * (bright - _gray(bright.astype(np.float32))[..., None]) + 0.12, 0, 1)
    vivid = np.round(vivid * 4) / 4
    dots = _screen(gray.shape, max(4.0, 9 * unit), 45)
    shade = (np.clip(0.5 - level, 0, 1) * 1.4)[..., None]
    printed = np.where(dots[..., None] < shade, vivid * 0.68, vivid)
    ink = _lines(level, max(0.8, 2.2 * unit), level=0.26, push=20)
    return printed * ink[..., None] * np.array([1, 0.98, 0.92], np.float32)


def _screen(shape: tuple[int, ...], pitch: float, degrees: float) -> Plane:
    """A halftone screen, 0-1 uniform: below t the dots cover the part t of the area."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    u, v = (c * x + s * y) * (2 * np.pi / pitch), (-s * x + c * y) * (2 * np.pi / pitch)
    return (0.5 - 0.25 * (np.cos(u) + np.cos(v))).astype(np.float32)


def _halftone(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    """A print in cyan, magenta, yellow and black dots at the usual screen angles."""
    soft = _blur(p, 2 * unit)
    vivid = np.clip(soft + 0.3 * (soft - _gray(soft)[..., None]), 0, 1)
    key = 1 - vivid.max(axis=2)
    out = np.full(p.shape, 0.97, np.float32)
    pitch = max(4.0, 10 * unit)
    for channel, degrees in ((0, 15), (1, 75), (2, 0)):
        amount = (1 - vivid[..., channel] - key) / np.maximum(1 - key, 0.05)
        ink = np.clip((amount - _screen(key.shape, pitch, degrees)) * 5 + 0.5, 0, 1)
        out[..., channel] *= 1 - 0.9 * ink
    black = np.clip((key * 0.95 - _screen(key.shape, pitch, 45)) * 5 + 0.5, 0, 1)
    return out * (1 - 0.9 * black)[..., None]


def _pop(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    """Flat poster colours by lightness, with dots in the second darkest."""
    palettes = (
        ((0.10, 0.06, 0.30), (0.90, 0.12, 0.42), (1.00, 0.62, 0.10), (1.00, 0.95, 0.55)),
        ((0.05, 0.12, 0.30), (0.05, 0.50, 0.72), (0.98, 0.42, 0.38), (1.00, 0.92, 0.72)),
        ((0.16, 0.04, 0.22), (0.45, 0.15, 0.70), (0.15, 0.78, 0.70), (0.98, 0.96, 0.60)),
    )
    palette = np.array(palettes[int(rng.integers(len(palettes)))], np.float32)
    level = _levelled(_gray(_kuwahara(p, max(2, round(8 * unit)))))
    dots = _screen(level.shape, max(4.0, 11 * unit), 30)
    index = np.digitize(level, np.percentile(level[::4, ::4], (24, 50, 76)))
    index = np.where((index == 1) & (dots < 0.3), 0, index)
    return palette[index]


def _woodcut(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _levelled(_blur(_gray(p), 1.2 * unit))
    grain = _brushed(gray, rng, max(4.0, 20 * unit))
    ink = _lines(gray, max(0.8, 2.2 * unit), push=18)
    cut = 1 / (1 + np.exp(-(gray - 0.47 + 0.17 * grain) * 22))
    block = np.clip(cut * np.where(ink < 0.5, 0.0, 1.0), 0, 1).astype(np.float32)[..., None]
    dark, light = np.array([0.11, 0.09, 0.09], np.float32), np.array([0.95, 0.91, 0.82], np.float32)
    return dark + block * (light - dark)


def _neon(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    soft = _blur(p, 1.5 * unit)
    gray = _gray(soft)
    edge = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    edge = np.clip(edge / max(float(np.percentile(edge[::4, ::4], 97)), 0.01), 0, 1.3)
    hsv = cv2.cvtColor(_blur(p, 5 * unit), cv2.COLOR_RGB2HSV)
    turn = float(rng.uniform(0, 360))
    h, w = gray.shape
    drift = cv2.resize(rng.uniform(-70, 70, (4, 4)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    hue = (hsv[..., 0] * 1.5 + drift + turn) % 360
    tube = cv2.cvtColor(
        np.stack([hue, np.full_like(hue, 0.85), np.ones_like(hue)], axis=2), cv2.COLOR_HSV2RGB
    )
    line = tube * edge[..., None]
    glow = _blur(line, 5 * unit) * 1.3 + cv2.resize(
        _blur(cv2.resize(line, None, fx=0.25, fy=0.25), 6 * unit), (w, h)
    )
    return (
        line
        + glow * 0.8
        + 0.3 * np.clip(edge - 0.6, 0, 1)[..., None]
        + soft * np.array([0.03, 0.03, 0.07], np.float32)
    )


def _sepia(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    gray = _levelled(_gray(_blur(p, 0.7 * unit))) * 0.86 + 0.07
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None]
    fade = 1 - 0.38 * np.clip(x * x + y * y - 0.35, 0, 2)
    tone = np.clip(gray * fade + 0.02 * _paper(rng, h, w, unit), 0, 1)[..., None]
    out = (
        np.array([0.2, 0.12, 0.06], np.float32) * (1 - tone) + np.array([1.0, 0.92, 0.74], np.float32) * tone
    )
    for _ in range(int(rng.integers(3, 9))):
        at = int(rng.integers(0, w))
        drift = int(rng.integers(-w // 60 - 1, w // 60 + 2))
        top = int(rng.integers(0, h))
        line = np.zeros((h, w), np.float32)
        cv2.line(
            line,
            (at, top),
            (at + drift, min(h, top + int(h * rng.uniform(0.1, 0.6)))),
            float(rng.uniform(0.1, 0.25)),
            1,
            cv2.LINE_AA,
        )
        out = out + line[..., None]
    return out.astype(np.float32)


def _film(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _levelled(_gray(p))
    tone = gray * gray * (3 - 2 * gray) * 0.6 + gray * 0.4
    noise = _blur(rng.standard_normal(gray.shape, np.float32), max(0.5, 0.8 * unit))
    tone = tone + 0.085 * noise * (0.35 + np.sqrt(np.clip(tone * (1 - tone), 0, 1)))
    return np.repeat(tone[..., None], 3, axis=2).astype(np.float32)


def _blueprint(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    gray = _levelled(_gray(p))
    h, w = gray.shape
    ink = 1 - _lines(gray, max(0.8, 1.7 * unit), push=20)
    pitch = max(8, round(32 * unit))
    grid = np.zeros((h, w), np.float32)
    grid[::pitch] = grid[:, ::pitch] = 0.13
    line = np.clip(ink * 0.9 + grid + 0.1 * gray + 0.012 * _paper(rng, h, w, unit), 0, 1)[..., None]
    return (
        np.array([0.04, 0.18, 0.46], np.float32) * (1 - line) + np.array([0.92, 0.96, 1.0], np.float32) * line
    )


def _pixels(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    cell = max(2, round(min(h, w) / 88))
    small = cv2.resize(p, (max(2, w // cell), max(2, h // cell)), interpolation=cv2.INTER_AREA)
    small = np.clip(small + 0.25 * (small - _gray(small)[..., None]), 0, 1)
    flat = small.reshape(-1, 3).astype(np.float32)
    cv2.setRNGSeed(int(rng.integers(1, 2**30)))
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, 6, 0.01)
    count = min(22, len(flat))
    _, label, centre = cv2.kmeans(flat, count, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    drawn = centre[label.ravel()].reshape(small.shape)
    return cv2.resize(drawn, (w, h), interpolation=cv2.INTER_NEAREST)


def _cross_stitch(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    cell = max(4, round(min(h, w) / 90))
    small = cv2.resize(p, (max(2, w // cell), max(2, h // cell)), interpolation=cv2.INTER_AREA)
    small = np.clip(small + 0.3 * (small - _gray(small)[..., None]), 0, 1)
    small = np.round(small * 9) / 9
    big = cv2.resize(small.astype(np.float32), (w, h), interpolation=cv2.INTER_NEAREST)
    y = (np.arange(h, dtype=np.float32) * (small.shape[0] / h) % 1)[:, None]
    x = (np.arange(w, dtype=np.float32) * (small.shape[1] / w) % 1)[None]
    off = np.minimum(np.abs(x - y), np.abs(x + y - 1))
    thread = np.clip((0.36 - off) * 7, 0, 1)
    round_ = 0.72 + 0.4 * np.sqrt(np.clip(1 - (off / 0.36) ** 2, 0, 1)) + 0.12 * (x - y > 0)
    cloth = np.float32(0.74) + 0.06 * np.sin(x * 12.6) * np.sin(y * 12.6)
    return (big * round_[..., None]) * thread[..., None] + (cloth * (1 - thread))[..., None] * 0.9


def _points(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    vivid = np.clip(p + 0.45 * (p - _gray(p)[..., None]), 0, 1)
    out = _blur(vivid, 8 * unit) * 0.6 + 0.36
    for size in (11.0, 8.0):
        pitch = max(3.0, size * unit)
        label, away, points = _cells(rng, h, w, pitch)
        colour = vivid[points[:, 0], points[:, 1]] + rng.normal(0, 0.055, (len(points), 3)).astype(np.float32)
        radius = pitch * rng.uniform(0.42, 0.6, len(points)).astype(np.float32)
        dot = np.clip(radius[label] - away, 0, 1)[..., None]
        out = out + dot * (np.clip(colour, 0, 1)[label] - out)
    return out.astype(np.float32)


def _stained_glass(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    label, _, points = _cells(rng, h, w, max(6.0, 34 * unit))
    flat = label.ravel()
    count = np.maximum(np.bincount(flat, minlength=len(points)), 1)
    mean = np.stack(
        [np.bincount(flat, p[..., c].ravel(), len(points)) / count for c in range(3)], axis=1
    ).astype(np.float32)
    mean = np.clip(mean + 0.6 * (mean - mean.mean(axis=1, keepdims=True)), 0, 1) * 1.1
    edge = (label != np.roll(label, 1, 0)) | (label != np.roll(label, 1, 1))
    away = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 3)
    lead = np.clip((away - 1.6 * unit) / max(1.0, 1.4 * unit), 0, 1)[..., None]
    ripple = _blur(rng.standard_normal((h, w), np.float32), 5 * unit)
    light = (0.94 + 0.09 * ripple / ripple.std() + 0.1 * np.clip(away / (18 * unit), 0, 1))[..., None]
    return np.float32(0.06) + lead * (mean[label] * light - np.float32(0.06))


def _low_poly(p: Colours, rng: np.random.Generator, unit: float) -> Colours:
    h, w = p.shape[:2]
    gray = _gray(_blur(p, 2 * unit))
    edge = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    wanted = 1300
    chance = edge.ravel() / max(float(edge.sum()), 1e-6)
    sums = np.cumsum(chance * 0.75 + 0.25 / chance.size)
    at = np.searchsorted(sums / sums[-1], rng.random(wanted)).clip(0, h * w - 1)
    mesh = cv2.Subdiv2D((0, 0, w, h))
    rim = [
        (x, y)
        for t in np.linspace(0, 1, 9)
        for x, y in ((t * (w - 1), 0), (t * (w - 1), h - 1), (0, t * (h - 1)), (w - 1, t * (h - 1)))
    ]
    for x, y in [*rim, *zip(at % w, at // w, strict=True)]:
        mesh.insert((float(x), float(y)))
    out = p.copy()
    soft = _blur(p, 4 * unit)
    for x0, y0, x1, y1, x2, y2 in mesh.getTriangleList():
        corners = np.array([[x0, y0], [x1, y1], [x2, y2]])
        if corners.min() < -1 or corners[:, 0].max() > w or corners[:, 1].max() > h:
            continue
        cx, cy = corners.mean(axis=0).astype(int).clip(0, (w - 1, h - 1))
        cv2.fillConvexPoly(out, np.round(corners).astype(np.int32), soft[cy, cx].tolist(), cv2.LINE_8)
    return np.clip(out + 0.15 * (out - _gray(out)[..., None]), 0, 1)


STYLES: dict[str, Style] = {
    "oil": Style(
        (
            "an oil painting",
            "a painting in oil on canvas",
            "a classic oil painting with visible brushstrokes",
        ),
        _oil,
    ),
    "watercolour": Style(
        ("a watercolour painting", "a soft watercolour", "a watercolour on textured paper"), _watercolour
    ),
    "pencil": Style(
        ("a pencil sketch", "a graphite pencil drawing", "a black-and-white pencil sketch"), _pencil
    ),
    "coloured pencil": Style(
        ("a coloured-pencil drawing", "a drawing in coloured pencils", "a crayon drawing"), _coloured_pencil
    ),
    "charcoal": Style(
        ("a charcoal drawing", "a smudged charcoal sketch", "a drawing in charcoal"), _charcoal
    ),
    "cartoon": Style(("a cartoon", "a cartoon with bold outlines", "a cel-shaded cartoon"), _cartoon),
    "comic": Style(
        ("a comic-book panel", "a comic-book drawing with inked outlines", "a vintage comic print"), _comic
    ),
    "halftone": Style(
        ("a halftone print", "a CMYK halftone print", "a newspaper print with visible dots"), _halftone
    ),
    "pop art": Style(
        ("a pop-art poster", "a screen print in pop-art colours", "a flat-coloured pop-art print"), _pop
    ),
    "woodcut": Style(("a woodcut print", "a linocut", "a black-and-cream woodcut"), _woodcut),
    "neon": Style(
        ("glowing neon lines on black", "a neon sign in the dark", "neon outlines on a dark background"),
        _neon,
    ),
    "sepia": Style(("an old sepia photograph", "a faded sepia photograph", "a vintage sepia print"), _sepia),
    "film": Style(
        (
            "a black-and-white film photograph",
            "a grainy black-and-white photograph",
            "a monochrome photograph with film grain",
        ),
        _film,
    ),
    "blueprint": Style(
        ("a blueprint", "a technical blueprint drawing", "white lines on blueprint paper"), _blueprint
    ),
    "pixel art": Style(("pixel art", "8-bit pixel art", "a retro game in pixel art"), _pixels),
    "cross-stitch": Style(
        ("a cross-stitch embroidery", "embroidered cross-stitch", "a piece of cross-stitch"), _cross_stitch
    ),
    "pointillism": Style(
        ("a pointillist painting", "a painting made of small dots of colour", "a pointillist picture"),
        _points,
    ),
    "stained glass": Style(
        ("a stained-glass window", "stained glass with lead lines", "a window of coloured glass pieces"),
        _stained_glass,
    ),
    "low poly": Style(
        ("low-poly art", "a low-poly illustration", "a picture made of flat triangles"), _low_poly
    ),
}
