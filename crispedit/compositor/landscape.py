"""Landscapes: procedural photo-like scenes with detail up to the pixel, for backgrounds, demos, tests, benchmarks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from crispedit.compositor import terrain
from crispedit.compositor.scenery import (
    Colour,
    Picture,
    Sky,
    between,
    blades,
    day,
    flat,
    flowers,
    hazed,
    hills,
    jitter,
    lay,
    paint_sky,
    rgb,
    stars,
    tree,
    water,
)
from crispedit.compositor.terrain import Plane, View
from crispedit.record import Image


def landscape(
    seed: int, width: int, height: int, kind: str | None = None, horizon: float | None = None
) -> Image:
    """A scene of [height, width]; the same arguments give the same pixels.

    `horizon` is its height in the picture as a fraction from the top, where the scene has one; by default the seed
    chooses it, and the kind. ValueError for an unknown kind or a side below 16 pixels.
    """
    if min(width, height) < 16:
        raise ValueError(f"a landscape of {width}x{height} is too small; it needs 16 pixels a side")
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen = KINDS[int(rng.integers(len(KINDS)))]
    level = float(rng.uniform(0.36, 0.58)) if horizon is None else horizon
    if kind is not None:
        if kind not in KINDS:
            raise ValueError(f"there is no landscape {kind!r}; choose from {', '.join(KINDS)}")
        chosen = kind
    view = View(width, height, level * height, 0.95 * max(width, height), 1.7)
    picture = _PAINT[chosen](rng, view)
    if chosen not in _DIM:
        # Exposed as a camera would: the brightest parts just below white.
        picture *= np.float32(
            np.clip(0.93 / max(float(np.percentile(picture[::8, ::8], 98)), 0.05), 0.8, 1.7)
        )
    return _developed(rng, picture)


def _developed(rng: np.random.Generator, picture: Picture) -> Image:
    """As a camera gives it: a little vignetting, a little tone, sensor noise."""
    h, w = picture.shape[:2]
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, w, dtype=np.float32)[None]
    gain = (1 - 0.1 * (x * x + y * y)) * np.float32(rng.uniform(0.94, 1.06))
    picture *= gain[..., None]
    picture += rng.standard_normal((h, w), np.float32)[..., None] * np.float32(0.009)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _meadow(rng: np.random.Generator, view: View) -> Picture:
    sky, sun = day(rng, view)
    p = paint_sky(rng, view, sky)
    tint = jitter(rng, (0.22, 0.36, 0.14), 0.04)
    hills(
        rng,
        p,
        view,
        sun,
        relief=60,
        near=500,
        far=3000,
        cell=9,
        haze=sky.low,
        slope=2.1,
        rock=lambda a, s, f: between(0.5 + 0.25 * f, tint, (0.32, 0.44, 0.2)),
    )
    low, high = jitter(rng, (0.16, 0.3, 0.07), 0.03), jitter(rng, (0.52, 0.64, 0.24), 0.05)
    flat(p, view, low, high, sky.low, 700, patches=terrain.tile(rng, 1.6), patch=0.25)
    rows = view.height - view.horizon
    for d in np.sort(rng.uniform(0.015, 0.16, int(rng.integers(3, 12)))):
        tree(
            rng,
            p,
            rng.uniform(0, view.width),
            view.horizon + d * rows,
            view.focal * rng.uniform(4, 7) * d * rows / (view.focal * view.eye),
            (0.06, 0.12, 0.04),
            jitter(rng, (0.38, 0.52, 0.18)),
            float(np.sign(sun[0])),
        )
    blades(rng, p, view, 9000, low, high)
    if rng.random() < 0.6:
        flowers(
            rng,
            p,
            view,
            int(rng.integers(60, 300)),
            [
                [(0.85, 0.15, 0.1)],
                [(0.95, 0.85, 0.2), (0.95, 0.95, 0.95)],
                [(0.55, 0.3, 0.75), (0.9, 0.5, 0.7)],
            ][int(rng.integers(3))],
        )
    return p


def _desert(rng: np.random.Generator, view: View) -> Picture:
    sky, sun = day(rng, view, (0.0, 0.3))
    p = paint_sky(rng, view, sky)
    sand = jitter(rng, (0.93, 0.72, 0.46), 0.04)
    dark = (sand[0] * 0.62, sand[1] * 0.55, sand[2] * 0.5)
    dunes = View(view.width, view.height, view.horizon, view.focal, 7.0)
    sun = (float(np.sign(sun[0] + 1e-9)) * 0.9, 0.5, -0.15)
    for near, far, relief, cell in ((90, 3000, 48, 2.4), (9, 200, 4.5, 0.22)):
        heights = 1.1 - np.abs(terrain.tile(rng, 2.3, 1.5)) ** 0.75
        depths = np.geomspace(near, far, 320).astype(np.float32)
        rise = np.clip((depths - near) / (0.12 * (far - near)), 0, 1)
        ground = terrain.look(dunes, heights, cell, (relief * rise).astype(np.float32), depths)
        lit = terrain.sample(terrain.slopes(heights, cell, relief, sun), ground.x / cell, ground.z / cell)
        fine = terrain.detail(dunes, ground.x, ground.z, 1.5)
        phase = ground.z * 9 + 4 * terrain.sample(heights, ground.x * 3, ground.z * 3)
        ripple = np.sin(phase) * np.exp(-ground.z / 30)
        weight = 0.12 + 1.15 * (lit - 0.12) + 0.05 * fine + 0.06 * ripple
        lay(p, ground, hazed(between(weight, dark, sand), ground.z, sky.low, 2200))
    return p


def _beach(rng: np.random.Generator, view: View) -> Picture:
    sky, sun = day(rng, view, (0.1, 0.6))
    p = paint_sky(rng, view, sky)
    if rng.random() < 0.6:
        hills(
            rng,
            p,
            view,
            sun,
            relief=50,
            near=1500,
            far=4000,
            cell=12,
            haze=sky.low,
            reach=0.5,
            rock=lambda a, s, f: between(0.5 + 0.25 * f, (0.2, 0.3, 0.18), (0.42, 0.44, 0.33)),
        )
    water(p, view, jitter(rng, (0.05, 0.34, 0.42)), wave=1.0)
    sand = jitter(rng, (0.88, 0.79, 0.64), 0.03)
    ground = terrain.plane(view)
    shore = 9 + 2.5 * terrain.sample(terrain.tile(rng, 1.9), ground.x * 4 + 90, np.zeros_like(ground.x))
    fine = terrain.detail(view, ground.x, ground.z, 1.5)
    dry = between(
        0.55 + 0.13 * fine + 0.1 * terrain.sample(terrain.tile(rng, 1.7), ground.x * 40, ground.z * 40),
        (sand[0] * 0.72, sand[1] * 0.68, sand[2] * 0.62),
        sand,
    )
    wet = np.clip((shore - ground.z) / 1.6, 0, 1)[..., None]
    sandy = dry * (0.68 + 0.32 * wet)
    foam = np.exp(-(((ground.z - shore) / 0.5) ** 2)) * np.clip(0.8 + 0.5 * fine, 0, 1)
    part = p[ground.top :]
    on_land = (1 / (1 + np.exp(np.clip((ground.z - shore) * 8, -30, 30))))[..., None]
    part += on_land * (sandy - part)
    part += np.clip(foam, 0, 1)[..., None] * (np.float32(0.95) - part)
    return p


def _lake(rng: np.random.Generator, view: View) -> Picture:
    sky, sun = day(rng, view, (0.2, 0.75))
    p = paint_sky(rng, view, sky)
    snow = float(rng.uniform(0.45, 1.3))

    def rock(a: Plane, s: Plane, f: Plane) -> Picture:
        cold = np.clip((a - snow) * 5 + 0.5 * f, 0, 1)[..., None]
        green = np.clip((0.35 - a) * 4 + 0.2 * f, 0, 1)[..., None]
        stone = between(0.5 + 0.2 * f, (0.36, 0.33, 0.31), (0.55, 0.5, 0.45))
        return (
            stone * (1 - cold) * (1 - green)
            + cold * rgb((0.93, 0.95, 0.98))
            + green * (1 - cold) * rgb((0.2, 0.28, 0.14))
        )

    hills(rng, p, view, sun, relief=420, near=1500, far=6000, cell=22, haze=sky.low, ridged=True, rock=rock)
    water(p, view, jitter(rng, (0.05, 0.18, 0.2), 0.03), wave=float(rng.uniform(0.25, 0.8)))
    return p


def _mountains(rng: np.random.Generator, view: View) -> Picture:
    sky, sun = day(rng, view, (0.2, 0.8))
    p = paint_sky(rng, view, sky)
    snow = float(rng.uniform(0.3, 1.2))
    wood = jitter(rng, (0.18, 0.27, 0.12), 0.03)

    def rock(a: Plane, s: Plane, f: Plane) -> Picture:
        cold = np.clip((a - snow) * 5 + 0.4 * f, 0, 1)[..., None]
        stone = between(0.5 + 0.2 * f, (0.34, 0.32, 0.31), (0.56, 0.52, 0.48))
        return stone * (1 - cold) + cold * rgb((0.94, 0.96, 0.99))

    hills(rng, p, view, sun, relief=560, near=2500, far=9000, cell=26, haze=sky.low, ridged=True, rock=rock)
    hills(
        rng,
        p,
        view,
        sun,
        relief=42,
        near=260,
        far=1600,
        cell=6,
        haze=sky.low,
        slope=2.0,
        rock=lambda a, s, f: between(0.4 + 0.35 * f, (wood[0] * 0.5, wood[1] * 0.55, wood[2] * 0.5), wood),
    )
    low, high = jitter(rng, (0.2, 0.27, 0.1), 0.03), jitter(rng, (0.5, 0.55, 0.28), 0.04)
    flat(p, view, low, high, sky.low, 900, patches=terrain.tile(rng, 1.7), patch=0.2)
    rows = view.height - view.horizon
    for d in np.sort(rng.uniform(0.02, 0.2, int(rng.integers(4, 16)))):
        _fir(
            rng,
            p,
            rng.uniform(0, view.width),
            view.horizon + d * rows,
            rng.uniform(4, 8) * d * rows / view.eye,
            (0.08, 0.14, 0.08),
            (0.25, 0.36, 0.18),
        )
    blades(rng, p, view, 5000, low, high, 0.1)
    return p


def _fir(
    rng: np.random.Generator, picture: Picture, x: float, y: float, size: float, dark: Colour, light: Colour
) -> None:
    """A fir of `size` pixels: boughs drawn from the bottom up."""
    cv2.line(
        picture,
        (int(x), int(y)),
        (int(x), int(y - size * 0.3)),
        (0.15, 0.1, 0.07),
        max(1, int(size * 0.03)),
        cv2.LINE_AA,
    )
    tiers = int(np.clip(size / 5, 8, 34))
    for i in range(tiers):
        t = i / tiers
        half = size * 0.2 * (1 - t) * rng.uniform(0.75, 1.15)
        top, low = y - size * (0.14 + 0.86 * t) - size * 0.1, y - size * (0.1 + 0.86 * t)
        count = max(6, int(half))
        ends = np.linspace(-half, half, count) + rng.normal(0, half * 0.06, count)
        for e in ends:
            shade = float(np.clip(rng.normal(0.4, 0.25) + 0.25 * e / max(half, 1), 0, 1))
            colour = rgb(dark) + shade * (rgb(light) - rgb(dark))
            tip = low + abs(e) * 0.35 + rng.normal(0, size * 0.008)
            cv2.line(
                picture,
                (int(x + e * 0.15), int(top)),
                (int(x + e), int(tip)),
                colour.tolist(),
                max(1, int(size * 0.008)),
                cv2.LINE_AA,
            )


def _snow(rng: np.random.Generator, view: View) -> Picture:
    sky, sun = day(rng, view, (0.1, 0.9))
    p = paint_sky(rng, view, sky)
    hills(
        rng,
        p,
        view,
        sun,
        relief=260,
        near=1500,
        far=6000,
        cell=22,
        haze=sky.low,
        ridged=True,
        rock=lambda a, s, f: between(0.75 + 0.3 * f, (0.5, 0.54, 0.6), (0.93, 0.95, 0.98)),
    )
    heights = terrain.tile(rng, 2.3)
    depths = np.geomspace(2.2, 1500, 340).astype(np.float32)
    ground = terrain.look(view, heights, 0.6, np.clip(depths * 0.05, 0.1, 0.9).astype(np.float32), depths)
    lit = terrain.sample(
        terrain.slopes(heights, 0.6, 1.1, (sun[0] * 1.3, 0.4, -0.2)), ground.x / 0.6, ground.z / 0.6
    )
    fine = terrain.detail(view, ground.x, ground.z, 1.4)
    lay(
        p,
        ground,
        hazed(
            between(0.95 * (lit - 0.28) / 0.6 + 0.07 * fine, (0.5, 0.62, 0.8), (0.97, 0.97, 0.98)),
            ground.z,
            sky.low,
            1200,
        ),
    )
    rows = view.height - view.horizon
    for d in np.sort(rng.uniform(0.02, 0.2, int(rng.integers(3, 16)))):
        _fir(
            rng,
            p,
            rng.uniform(0, view.width),
            view.horizon + d * rows,
            rng.uniform(4, 8) * d * rows / view.eye,
            (0.12, 0.2, 0.17),
            (0.85, 0.9, 0.95),
        )
    return p


def _sunset(rng: np.random.Generator, view: View) -> Picture:
    at = float(rng.uniform(0.2, 0.8))
    low = jitter(rng, (0.98, 0.62, 0.3), 0.05)
    sky = Sky(
        jitter(rng, (0.22, 0.2, 0.42), 0.06),
        low,
        (at, view.horizon / view.height - 0.07),
        (1.0, 0.6, 0.25),
        float(rng.uniform(0.35, 0.7)),
        (0.98, 0.6, 0.42),
        (0.36, 0.22, 0.36),
    )
    p = paint_sky(rng, view, sky)
    sun = (at - 0.5, 0.25, 0.8)
    hills(
        rng,
        p,
        view,
        sun,
        relief=130,
        near=2500,
        far=7000,
        cell=22,
        haze=(0.7, 0.42, 0.36),
        reach=0.5,
        rock=lambda a, s, f: between(0.5 + 0.2 * f, (0.12, 0.08, 0.12), (0.25, 0.16, 0.18)),
    )
    water(p, view, (0.1, 0.09, 0.16), wave=float(rng.uniform(0.6, 1.1)), glitter=(0.5, 0.28, 0.1), at=at)
    return p


def _night(rng: np.random.Generator, view: View) -> Picture:
    sky = Sky(
        jitter(rng, (0.015, 0.025, 0.08), 0.01),
        jitter(rng, (0.1, 0.14, 0.26), 0.02),
        (0.5, -1.0),
        cloud=0.0,
    )
    p = paint_sky(rng, view, sky)
    band = terrain.tile(rng, 1.7)
    y, x = np.mgrid[0 : view.height, 0 : view.width].astype(np.float32) / view.focal
    lean = float(rng.uniform(-0.8, 0.8))
    away = (y - 0.2 - lean * (x - 0.5)) / 0.12
    dust = np.clip(0.5 + 0.35 * terrain.sample(band, x * 300, y * 300), 0, 1) * np.exp(-away * away)
    p += dust[..., None] * rgb((0.14, 0.13, 0.2))
    stars(rng, p, view.horizon)
    moon = (int(rng.uniform(0.15, 0.85) * view.width), int(rng.uniform(0.1, 0.3) * view.height))
    r = view.focal * float(rng.uniform(0.018, 0.035))
    off = np.sqrt((x * view.focal - moon[0]) ** 2 + (y * view.focal - moon[1]) ** 2)
    p += np.exp(-off / (r * 3))[..., None] * rgb((0.16, 0.17, 0.2))
    disc = np.clip(r - off, 0, 1)[..., None]
    p += disc * (
        rgb((0.95, 0.94, 0.88)) * (0.9 + 0.06 * terrain.sample(band, x * 3000, y * 3000))[..., None] - p
    )
    sun = (moon[0] / view.width - 0.5, 0.7, 0.4)
    hills(
        rng,
        p,
        view,
        sun,
        relief=170,
        near=700,
        far=3500,
        cell=14,
        haze=(0.07, 0.1, 0.19),
        ridged=True,
        rock=lambda a, s, f: between(0.5 + 0.25 * f, (0.04, 0.06, 0.1), (0.15, 0.19, 0.26)),
    )
    flat(
        p,
        view,
        (0.02, 0.04, 0.05),
        (0.17, 0.22, 0.26),
        (0.07, 0.1, 0.19),
        300,
        patches=terrain.tile(rng, 1.7),
        patch=0.2,
    )
    blades(rng, p, view, 5000, (0.02, 0.04, 0.05), (0.17, 0.23, 0.26), 0.12)
    return p


def _city(rng: np.random.Generator, view: View) -> Picture:
    """A skyline at dusk over a river."""
    sky = Sky(
        jitter(rng, (0.1, 0.12, 0.3), 0.03),
        jitter(rng, (0.62, 0.42, 0.46), 0.05),
        (0.5, 0.4),
        (0.25, 0.14, 0.1),
        float(rng.uniform(0.2, 0.55)),
        (0.66, 0.46, 0.5),
        (0.22, 0.2, 0.32),
    )
    p = paint_sky(rng, view, sky)
    base = int(view.horizon)
    for row, (tone, tall) in enumerate(
        (((0.3, 0.26, 0.36), 0.19), ((0.17, 0.16, 0.24), 0.13), ((0.08, 0.08, 0.13), 0.07))
    ):
        x = -20.0
        while x < view.width:
            wide = view.focal * float(rng.uniform(0.03, 0.08))
            high = min(view.focal * tall * float(rng.gamma(3.0, 0.33)), base * float(rng.uniform(0.6, 0.85)))
            x0, x1, y0 = int(x), int(x + wide), int(base - high)
            cv2.rectangle(
                p, (x0, y0), (x1, base), (rgb(tone) * np.float32(rng.uniform(0.85, 1.15))).tolist(), -1
            )
            if rng.random() < 0.3:
                cv2.line(
                    p,
                    ((x0 + x1) // 2, y0),
                    ((x0 + x1) // 2, int(y0 - high * 0.15)),
                    tone,
                    max(1, int(wide / 30)),
                    cv2.LINE_AA,
                )
            step = max(4, int(view.focal * 0.0065))
            for wy in range(y0 + step, base - step, step):
                for wx in range(x0 + step // 2, x1 - step, step):
                    if rng.random() < 0.16 + 0.1 * row:
                        glow = np.array([1.0, 0.8, 0.45]) * rng.uniform(0.45, 1.0)
                        cv2.rectangle(
                            p, (wx, wy), (wx + step // 2, wy + max(1, step // 2)), glow.tolist(), -1
                        )
            x += wide * float(rng.uniform(0.8, 1.25))
    water(p, view, (0.05, 0.06, 0.12), wave=float(rng.uniform(0.5, 0.9)))
    return p


def _forest(rng: np.random.Generator, view: View) -> Picture:
    """Trunks in mist above fallen leaves."""
    mist = jitter(
        rng, [(0.78, 0.84, 0.72), (0.86, 0.78, 0.62), (0.74, 0.8, 0.84)][int(rng.integers(3))], 0.02
    )
    autumn = bool(rng.random() < 0.5)
    leaf = (0.72, 0.4, 0.12) if autumn else (0.3, 0.45, 0.14)
    p = np.empty((view.height, view.width, 3), np.float32)
    p[:] = rgb(mist)
    noise = terrain.tile(rng, 1.2)
    y, x = np.mgrid[0 : view.height, 0 : view.width].astype(np.float32) / view.focal
    crown = np.clip(0.5 + 0.5 * terrain.sample(noise, x * 260, y * 260) + (0.25 - y) * 1.6, 0, 1)[..., None]
    p += crown * 0.75 * (rgb(leaf) * 0.75 - p)
    flat(
        p,
        view,
        (leaf[0] * 0.35, leaf[1] * 0.38, leaf[2] * 0.4),
        (min(1, leaf[0] * 1.15), leaf[1] * 1.1, leaf[2] * 1.2),
        mist,
        28,
        rough=0.3,
        size=3.5,
        patches=terrain.tile(rng, 1.5),
        patch=0.05,
    )
    bark = terrain.tile(rng, 1.0)
    for z in np.sort(rng.uniform(4, 45, 34))[::-1]:
        x0 = rng.uniform(-0.05, 1.05) * view.width
        half = max(1.0, view.focal * rng.uniform(0.1, 0.24) / z)
        foot = min(view.horizon + view.focal * view.eye / z, view.height + 20)
        a, b = int(max(0, x0 - half)), int(min(view.width, x0 + half))
        if b <= a:
            continue
        stop = int(min(foot, view.height))
        across = (np.arange(a, b, dtype=np.float32) - x0) / half
        rows = np.arange(stop, dtype=np.float32)
        u = np.broadcast_to(across * 30 + np.float32(z * 31), (stop, b - a))
        v = np.broadcast_to(rows[:, None] * np.float32(0.25 + 5 / half), u.shape)
        rind = terrain.sample(bark, u.astype(np.float32), v.astype(np.float32))
        tone = (0.42 - 0.28 * across[None] + 0.16 * rind)[..., None] * rgb((0.6, 0.48, 0.38))
        clear = np.float32(np.exp(-z / 24))
        p[:stop, a:b] = rgb(mist) * (0.85 if z > 25 else 0.9) * (1 - clear) + tone * clear
    count = 4200
    xs, ys, near = (
        rng.uniform(0, view.width, count),
        rng.random(count) ** 1.6 * view.horizon * 0.75,
        rng.random(count),
    )
    for i in range(count):
        colour = rgb(leaf) * np.float32(rng.uniform(0.5, 1.25)) * np.float32(0.7 + 0.3 * near[i]) + rgb(
            mist
        ) * np.float32(0.3 * (1 - near[i]))
        cv2.ellipse(
            p,
            (int(xs[i]), int(ys[i])),
            (
                max(1, int(view.focal * 0.004 * (0.5 + near[i]))),
                max(1, int(view.focal * 0.002 * (0.5 + near[i]))),
            ),
            float(rng.uniform(0, 180)),
            0,
            360,
            colour.tolist(),
            -1,
            cv2.LINE_AA,
        )
    return p


def _garden(rng: np.random.Generator, view: View) -> Picture:
    """A garden far out of focus, behind sharp dew-grey ground: discs of light."""
    base = jitter(rng, (0.16, 0.3, 0.12), 0.05)
    p = np.empty((view.height, view.width, 3), np.float32)
    p[:] = rgb(base)
    blooms = [(0.9, 0.35, 0.5), (0.95, 0.75, 0.2), (0.6, 0.45, 0.85), (0.9, 0.9, 0.85), (0.85, 0.25, 0.15)]
    chosen = [blooms[int(i)] for i in rng.permutation(5)[:2]] + [(0.5, 0.7, 0.3), (0.3, 0.5, 0.2)]
    for _ in range(110):
        r = view.focal * float(rng.uniform(0.015, 0.06))
        at = (int(rng.uniform(0, view.width)), int(rng.uniform(0, view.horizon * 1.25)))
        layer = rgb(chosen[int(rng.integers(4))]) * np.float32(rng.uniform(0.6, 1.1))
        x0, y0, q = at[0] - int(r) - 2, at[1] - int(r) - 2, int(r) * 2 + 5
        yy, xx = np.mgrid[y0 : y0 + q, x0 : x0 + q]
        ok = (yy >= 0) & (yy < view.height) & (xx >= 0) & (xx < view.width)
        off = np.hypot(yy - at[1], xx - at[0])[ok]
        weight = (
            np.clip((r - off) / (0.08 * r), 0, 1)
            * np.float32(rng.uniform(0.25, 0.6))
            * (0.75 + 0.25 * off / r)
        )[:, None]
        ys, xs = yy[ok], xx[ok]
        p[ys, xs] += weight.astype(np.float32) * (layer - p[ys, xs])
    soft = cv2.GaussianBlur(
        cv2.resize(p, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), (0, 0), view.focal * 0.0012
    )
    p = cv2.resize(soft, (view.width, view.height), interpolation=cv2.INTER_CUBIC)
    stone = jitter(rng, (0.62, 0.6, 0.56), 0.03)
    ledge = View(view.width, view.height, view.horizon, view.focal, 0.35)
    top = int(view.horizon + (view.height - view.horizon) * 0.3)
    ground = terrain.plane(ledge)
    fine = terrain.detail(ledge, ground.x, ground.z, 1.5) * 0.09 + 0.12 * terrain.sample(
        terrain.tile(rng, 1.4), ground.x * 300, ground.z * 300
    )
    colour = between(0.6 + fine, (stone[0] * 0.45, stone[1] * 0.45, stone[2] * 0.45), stone)
    skip = top - ground.top
    p[top:] = colour[skip:]
    p[top : top + 3] *= 0.8
    return p


def _room(rng: np.random.Generator, view: View) -> Picture:
    """A bare room: floorboards before a wall."""
    wall = jitter(
        rng,
        [(0.72, 0.7, 0.66), (0.4, 0.5, 0.55), (0.75, 0.62, 0.5), (0.5, 0.56, 0.46)][int(rng.integers(4))],
        0.04,
    )
    wood = jitter(
        rng,
        [(0.72, 0.52, 0.34), (0.5, 0.33, 0.2), (0.8, 0.68, 0.52), (0.42, 0.36, 0.32)][int(rng.integers(4))],
        0.03,
    )
    y, x = np.mgrid[0 : view.height, 0 : view.width].astype(np.float32) / view.focal
    light = float(rng.uniform(0, 1))
    glow = np.exp(-((x - light) ** 2 + (y - 0.15) ** 2) / 0.3)
    p = (
        rgb(wall)
        * (0.6 + 0.5 * glow + 0.02 * terrain.sample(terrain.tile(rng, 1.6), x * 90, y * 90))[..., None]
    )
    near = View(view.width, view.height, view.horizon - 0.2 * view.height, view.focal, 0.5)
    ground = terrain.plane(near)
    plank = ground.x / 0.14 + 40
    number = np.floor(plank)
    edge = np.minimum(plank - number, 1 - (plank - number)) * 0.14
    tone = np.sin(number * 12.9898) * 43758.5453
    tone = tone - np.floor(tone)
    grain = terrain.tile(rng, 1.1, 0.12)
    u, v = ground.x * 900 + tone * 200, ground.z * 60 + tone * 300
    rings = terrain.sample(grain, u, v)
    fine = terrain.detail(near, ground.x, ground.z, 1.2, 0.15)
    weight = 0.5 + 0.15 * rings + 0.06 * fine + 0.3 * (tone - 0.5)
    colour = between(
        weight,
        (wood[0] * 0.5, wood[1] * 0.46, wood[2] * 0.42),
        (min(1, wood[0] * 1.2), min(1, wood[1] * 1.2), min(1, wood[2] * 1.2)),
    )
    colour *= np.clip(edge / 0.003, 0.25, 1)[..., None]
    sheen = np.exp(-((x[ground.top :] - light) ** 2) / 0.12) * np.exp(
        -(y[ground.top :] - view.horizon / view.focal) / 0.2
    )
    colour = colour * (0.8 + 0.25 * sheen[..., None]) + 0.06 * sheen[..., None]
    start = int(view.horizon) - ground.top
    p[int(view.horizon) :] = colour[start:]
    seam = cv2.GaussianBlur(p[int(view.horizon) - 6 : int(view.horizon) + 6], (0, 0), 1.5)
    p[int(view.horizon) - 6 : int(view.horizon) + 6] = seam
    return p


def _bricks(rng: np.random.Generator, view: View) -> Picture:
    """A brick wall above a paved floor."""
    base = jitter(rng, [(0.6, 0.3, 0.22), (0.72, 0.68, 0.62), (0.45, 0.28, 0.24)][int(rng.integers(3))], 0.03)
    y, x = np.mgrid[0 : view.height, 0 : view.width].astype(np.float32) / view.focal
    course = np.float32(rng.uniform(0.026, 0.04))
    line = y / course
    row = np.floor(line)
    along = x / (course * 2.9) + 0.5 * (row % 2)
    brick = np.floor(along)
    hash_ = np.sin(brick * 12.9898 + row * 78.233) * 43758.5453
    hash_ -= np.floor(hash_)
    warp = terrain.sample(terrain.fine_noise(1.0), x * view.focal * 0.12, y * view.focal * 0.12) * 0.0012
    edge = (
        np.minimum(
            np.minimum(line - row, 1 - (line - row)) * course,
            np.minimum(along - brick, 1 - (along - brick)) * course * 2.9,
        )
        + warp
    )
    rough = terrain.sample(terrain.fine_noise(1.0), x * view.focal * 0.7, y * view.focal * 0.7)
    tone = 0.5 + 0.55 * (hash_ - 0.5) + 0.13 * rough
    face = between(
        tone,
        (base[0] * 0.62, base[1] * 0.6, base[2] * 0.6),
        (min(1, base[0] * 1.3), min(1, base[1] * 1.3), min(1, base[2] * 1.3)),
    )
    mortar = rgb((0.66, 0.63, 0.58)) * (0.85 + 0.08 * rough)[..., None]
    inside = np.clip((edge - 0.0025) / 0.0012, 0, 1)[..., None]
    side = np.float32(rng.choice([-1, 1]))
    p = (mortar + inside * (face - mortar)) * (0.92 + 0.2 * side * (x - 0.5 * view.width / view.focal))[
        ..., None
    ]
    floor = View(view.width, view.height, view.horizon - 0.22 * view.height, view.focal, 1.5)
    ground = terrain.plane(floor)
    sx, sz = ground.x / 0.6, ground.z / 0.6
    joint = np.minimum(np.abs(sx - np.round(sx)), np.abs(sz - np.round(sz))) * 0.6
    tone = np.sin(np.round(sx - 0.5) * 39.3 + np.round(sz - 0.5) * 17.7) * 4358.5
    tone -= np.floor(tone)
    fine = terrain.detail(floor, ground.x, ground.z, 1.5)
    colour = (
        between(0.5 + 0.14 * fine + 0.3 * (tone - 0.5), (0.36, 0.35, 0.34), (0.68, 0.66, 0.63))
        * np.clip(joint / 0.012, 0.45, 1)[..., None]
    )
    start = int(view.horizon)
    p[start:] = colour[start - ground.top :]
    shade = np.exp(-np.arange(view.height - start, dtype=np.float32) / (0.02 * view.height))
    p[start:] *= (1 - 0.45 * shade)[:, None, None]
    return p


_PAINT: dict[str, Callable[[np.random.Generator, View], Picture]] = {
    "meadow": _meadow,
    "desert": _desert,
    "beach": _beach,
    "lake": _lake,
    "mountains": _mountains,
    "snow": _snow,
    "sunset": _sunset,
    "night": _night,
    "city": _city,
    "forest": _forest,
    "garden": _garden,
    "room": _room,
    "bricks": _bricks,
}
KINDS = tuple(_PAINT)
_DIM = frozenset({"sunset", "night", "city"})
