"""Shapes: how each object of the library is built from solids and paints."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from crispedit.compositor import paints
from crispedit.compositor.paints import Albedo
from crispedit.compositor.render import Paint, Part, Shape
from crispedit.compositor.solids import (
    Points,
    Solid,
    Values,
    ball,
    box,
    carved,
    ellipsoid,
    joined,
    lathe,
    moved,
    puffed,
    ring,
    rod,
    slab,
    spline,
    turned,
)


def _ball(paint: Paint, gloss: float, bump: float = 0.0) -> Shape:
    return Shape((Part(ball(0.5), paint, gloss, bump=bump),), 0.5)


def _turned_profile(points: list[tuple[float, float]], steps: int = 6) -> Solid:
    return lathe(spline(points, steps))


def _leaf(at: tuple[float, float, float], degrees: float, size: float = 0.16) -> Solid:
    outline = (
        spline([(0, 0), (0.25, 0.16), (0.6, 0.2), (1.0, 0.0), (0.6, -0.17), (0.25, -0.14)], 4, closed=True)
        * size
    )
    return moved(turned(turned(slab(outline, 0.012, 0.01), 0, 60), 2, degrees), *at)


def _apple() -> Shape:
    body = _turned_profile(
        [
            (0, 0.06),
            (0.14, 0.02),
            (0.3, 0.07),
            (0.46, 0.36),
            (0.47, 0.6),
            (0.34, 0.83),
            (0.16, 0.86),
            (0, 0.74),
        ]
    )
    stem = rod((0, 0.72, 0), (0.07, 1.0, 0.02), 0.018, 0.026)
    return Shape(
        (
            Part(body, paints.apple_skin, 0.5),
            Part(stem, paints.fixed(0.3, 0.2, 0.1), 0.1),
            Part(_leaf((0.03, 0.86, 0), 25, 0.24), paints.fixed(0.3, 0.5, 0.14), 0.35),
        ),
        0.48,
    )


def _orange() -> Shape:
    body = ellipsoid((0.5, 0.47, 0.5), (0, 0.47, 0))
    stem = ellipsoid((0.05, 0.025, 0.05), (0, 0.935, 0))
    leaf = _leaf((0.02, 0.94, 0), 12, 0.4)
    return Shape(
        (
            Part(body, paints.fixed(0.96, 0.52, 0.05), 0.4, bump=0.09),
            Part(stem, paints.fixed(0.32, 0.4, 0.12)),
            Part(leaf, paints.fixed(0.25, 0.48, 0.13), 0.4),
        ),
        0.5,
    )


def _pear() -> Shape:
    body = _turned_profile(
        [
            (0, 0.03),
            (0.13, 0.0),
            (0.3, 0.1),
            (0.355, 0.29),
            (0.28, 0.5),
            (0.17, 0.68),
            (0.13, 0.8),
            (0.07, 0.86),
            (0, 0.855),
        ]
    )
    stem = rod((0, 0.82, 0), (0.06, 1.0, 0.01), 0.014, 0.022)
    return Shape((Part(body, paints.speckled, 0.4), Part(stem, paints.fixed(0.32, 0.22, 0.1), 0.1)), 0.37)


def _pumpkin() -> Shape:
    def body(p: Points) -> Values:
        angle = np.arctan2(p[2], p[0])
        groove = 0.045 * (1 - np.abs(np.sin(angle * 6))) ** 1.5
        r = np.hypot(p[0], p[2])
        core = ellipsoid((0.52, 0.4, 0.52), (0, 0.4, 0))(p)
        dimple = 0.16 * np.exp(-((r / 0.2) ** 2)) * np.clip((p[1] - 0.5) * 4, 0, 1)
        return (core + groove * np.clip(r * 4, 0, 1) + dimple) * np.float32(0.75)

    stem = joined(
        rod((0, 0.66, 0), (0.02, 0.86, 0.02), 0.06, 0.04),
        rod((0.02, 0.86, 0.02), (0.1, 0.97, 0.04), 0.04, 0.045),
        smooth=0.03,
    )
    return Shape((Part(body, paints.plain, 0.3), Part(stem, paints.fixed(0.38, 0.42, 0.16), 0.1)), 0.54)


def _mushroom() -> Shape:
    cap = _turned_profile(
        [(0, 0.58), (0.3, 0.55), (0.46, 0.52), (0.47, 0.58), (0.38, 0.8), (0.2, 0.96), (0, 1.0)]
    )
    stem = _turned_profile([(0, 0.0), (0.17, 0.0), (0.19, 0.06), (0.12, 0.3), (0.11, 0.6), (0, 0.62)])
    skirt = _turned_profile([(0, 0.46), (0.12, 0.47), (0.2, 0.38), (0.21, 0.39), (0.13, 0.5), (0, 0.5)])
    return Shape(
        (
            Part(cap, paints.toadstool, 0.5),
            Part(stem, paints.fixed(0.93, 0.9, 0.8), 0.1),
            Part(skirt, paints.fixed(0.95, 0.92, 0.84), 0.1),
        ),
        0.48,
    )


def _cactus() -> Shape:
    def ribbed(solid: Solid, x: float, z: float) -> Solid:
        return lambda p: solid(p) + 0.012 * np.abs(np.sin(6 * np.arctan2(p[2] - z, p[0] - x)))

    trunk = ribbed(rod((0, 0.25, 0), (0, 0.86, 0), 0.135), 0, 0)
    left = joined(
        rod((-0.1, 0.5, 0), (-0.24, 0.54, 0), 0.06),
        rod((-0.24, 0.54, 0), (-0.25, 0.72, 0), 0.065),
        smooth=0.04,
    )
    right = joined(
        rod((0.1, 0.42, 0), (0.22, 0.46, 0), 0.055), rod((0.22, 0.46, 0), (0.225, 0.6, 0), 0.06), smooth=0.04
    )
    pot = carved(
        lathe(np.array([(0, 0), (0.19, 0), (0.235, 0.25), (0.26, 0.25), (0.265, 0.33), (0, 0.33)])),
        lathe(np.array([(0, 0.28), (0.215, 0.28), (0.22, 0.4), (0, 0.4)])),
    )
    flower = joined(*(ball(0.035, 0.045 * np.cos(a), 0.995, 0.045 * np.sin(a)) for a in np.arange(5) * 1.257))
    soil = lathe(np.array([(0, 0.2), (0.22, 0.2), (0.22, 0.29), (0, 0.29)]))
    return Shape(
        (
            Part(joined(trunk, left, right, smooth=0.03), paints.fixed(0.24, 0.52, 0.24), 0.15),
            Part(pot, paints.fixed(0.76, 0.4, 0.26), 0.1),
            Part(flower, paints.fixed(0.95, 0.35, 0.6), 0.1),
            Part(soil, paints.fixed(0.25, 0.17, 0.12), 0.0),
        ),
        0.33,
        1.03,
    )


def _donut() -> Shape:
    dough = ring(0.62, 0.36, (0, 0.36, 0), squash=0.95)
    icing = ring(0.62, 0.385, (0, 0.385, 0), squash=0.95)
    iced = carved(icing, lambda p: p[1] - 0.42 - 0.06 * np.sin(np.arctan2(p[2], p[0]) * 9))
    crumbs = []
    colours = (paints.fixed(0.95, 0.9, 0.3), paints.fixed(0.3, 0.75, 0.9), paints.fixed(0.95, 0.95, 0.95))
    for c in range(3):
        grains = []
        for k in range(4):
            a, b, t = (k * 3 + c) * 0.349 + c, 0.9 + 0.75 * np.sin((k * 3 + c) * 2.4), (k + c) * 1.9
            x, z, y = (
                np.cos(a) * (0.62 + 0.385 * np.cos(b + 0.6)),
                np.sin(a) * (0.62 + 0.385 * np.cos(b + 0.6)),
                0.385 + 0.375 * np.sin(b + 0.6),
            )
            grains.append(
                rod(
                    (x - 0.05 * np.cos(t), y, z - 0.05 * np.sin(t)),
                    (x + 0.05 * np.cos(t), y, z + 0.05 * np.sin(t)),
                    0.02,
                )
            )
        crumbs.append(Part(joined(*grains), colours[c], 0.3))
    return Shape(
        (Part(dough, paints.fixed(0.8, 0.55, 0.28), 0.1), Part(iced, paints.plain, 0.5), *crumbs), 1.02, 0.79
    )


def _cupcake() -> Shape:
    def pleats(p: Points) -> Values:
        cup = lathe(np.array([(0, 0), (0.25, 0), (0.36, 0.42), (0, 0.42)]))(p)
        return (cup + 0.012 * np.abs(np.sin(14 * np.arctan2(p[2], p[0])))).astype(np.float32)

    swirl = joined(
        *(ring(0.3 - 0.085 * i, 0.11 - 0.012 * i, (0, 0.5 + 0.13 * i, 0)) for i in range(4)), smooth=0.06
    )
    cake = ellipsoid((0.36, 0.12, 0.36), (0, 0.44, 0))
    cherry = ball(0.075, 0, 0.98, 0)
    return Shape(
        (
            Part(pleats, paints.fixed(0.85, 0.8, 0.7), 0.15),
            Part(
                joined(
                    swirl, lathe(np.array([(0, 0.42), (0.28, 0.45), (0.03, 0.95), (0, 0.96)])), smooth=0.05
                ),
                paints.plain,
                0.35,
            ),
            Part(cake, paints.fixed(0.5, 0.3, 0.15)),
            Part(cherry, paints.fixed(0.75, 0.05, 0.08), 0.8),
        ),
        0.43,
        1.06,
    )


def _mug() -> Shape:
    outer = lathe(
        spline([(0, 0), (0.36, 0), (0.4, 0.03), (0.42, 0.5), (0.42, 0.97), (0.4, 1.0), (0, 1.0)], 8)
    )
    inner = lathe(np.array([(0, 0.1), (0.37, 0.1), (0.375, 1.1), (0, 1.1)]))
    handle = ring(0.24, 0.055, (0.46, 0.5, 0), axis=2)
    hollow = carved(joined(outer, handle, smooth=0.06), inner)
    coffee = lathe(np.array([(0, 0.5), (0.38, 0.5), (0.38, 0.84), (0, 0.84)]))
    return Shape((Part(hollow, paints.plain, 0.5), Part(coffee, paints.fixed(0.2, 0.1, 0.05), 0.6)), 0.76)


def _teapot() -> Shape:
    body = _turned_profile(
        [(0, 0), (0.24, 0), (0.3, 0.04), (0.46, 0.3), (0.44, 0.52), (0.28, 0.7), (0.2, 0.74), (0, 0.74)]
    )
    lid = _turned_profile(
        [
            (0, 0.72),
            (0.23, 0.73),
            (0.2, 0.79),
            (0.08, 0.85),
            (0.045, 0.88),
            (0.07, 0.94),
            (0.05, 0.99),
            (0, 1.0),
        ]
    )
    spout = joined(
        rod((0.36, 0.28, 0), (0.56, 0.42, 0), 0.11, 0.075),
        rod((0.56, 0.42, 0), (0.7, 0.7, 0), 0.07, 0.045),
        smooth=0.08,
    )
    handle = ring(0.22, 0.042, (-0.46, 0.42, 0), axis=2)
    return Shape(
        (Part(joined(body, spout, handle, smooth=0.05), paints.plain, 0.6), Part(lid, paints.plain, 0.6)),
        0.76,
    )


def _vase() -> Shape:
    body = _turned_profile(
        [
            (0, 0),
            (0.16, 0),
            (0.2, 0.02),
            (0.32, 0.3),
            (0.33, 0.46),
            (0.2, 0.7),
            (0.12, 0.83),
            (0.13, 0.92),
            (0.2, 1.0),
            (0, 0.99),
        ]
    )
    inner = lathe(np.array([(0, 0.6), (0.1, 0.7), (0.09, 0.84), (0.1, 0.92), (0.17, 1.02), (0, 1.05)]))
    return Shape((Part(carved(body, inner), paints.plain, 0.55),), 0.35)


def _bottle() -> Shape:
    body = _turned_profile(
        [
            (0, 0),
            (0.15, 0),
            (0.17, 0.02),
            (0.17, 0.5),
            (0.16, 0.6),
            (0.07, 0.72),
            (0.06, 0.8),
            (0.06, 0.92),
            (0, 0.93),
        ]
    )
    label = lathe(np.array([(0, 0.16), (0.174, 0.16), (0.174, 0.44), (0, 0.44)]))
    cap = lathe(np.array([(0, 0.9), (0.072, 0.9), (0.072, 0.995), (0, 0.995)]))
    return Shape(
        (
            Part(body, paints.plain, 0.85),
            Part(
                label,
                lambda p, own: paints.mix(
                    np.clip((0.018 - np.abs(np.abs(p[1] - 0.3) - 0.11)) * 200, 0, 1),
                    paints.plain(p, paints.WHITE),
                    paints.DARK * 5,
                ),
                0.1,
            ),
            Part(cap, paints.fixed(0.82, 0.74, 0.5), 0.4, 0.6),
        ),
        0.19,
    )


def _bucket() -> Shape:
    outer = lathe(np.array([(0, 0), (0.3, 0), (0.42, 0.84), (0.45, 0.85), (0.45, 0.9), (0, 0.9)]))
    inner = lathe(np.array([(0, 0.05), (0.27, 0.05), (0.4, 1.0), (0, 1.0)]))
    bail = ring(0.43, 0.014, (0, 0.86, 0), axis=2)
    upper = turned(carved(bail, lambda p: 0.86 - p[1]), 0, 62, (0, 0.86, 0))
    return Shape(
        (Part(carved(outer, inner), paints.plain, 0.45), Part(upper, paints.fixed(0.7, 0.7, 0.72), 0.8, 0.8)),
        0.47,
        1.08,
    )


def _watering_can() -> Shape:
    outer = lathe(np.array([(0, 0), (0.32, 0), (0.34, 0.02), (0.3, 0.62), (0, 0.62)]))
    inner = lathe(np.array([(0, 0.2), (0.26, 0.2), (0.24, 0.8), (0, 0.8)]))
    spout = rod((0.26, 0.14, 0), (0.72, 0.78, 0), 0.07, 0.035)
    rose = rod((0.7, 0.76, 0), (0.76, 0.84, 0), 0.05, 0.11)
    handle = ring(0.26, 0.032, (-0.22, 0.58, 0), axis=2)
    return Shape(
        (
            Part(carved(joined(outer, handle, spout, smooth=0.03), inner), paints.plain, 0.5),
            Part(rose, paints.plain, 0.5),
        ),
        0.86,
        0.97,
    )


def _flower_pot() -> Shape:
    pot = carved(
        lathe(np.array([(0, 0), (0.17, 0), (0.21, 0.27), (0.235, 0.27), (0.24, 0.35), (0, 0.35)])),
        lathe(np.array([(0, 0.3), (0.19, 0.3), (0.2, 0.4), (0, 0.4)])),
    )
    stem = rod((0, 0.28, 0), (0.01, 0.74, 0), 0.018)
    leaves = joined(
        turned(ellipsoid((0.16, 0.035, 0.07), (0.15, 0.5, 0)), 2, -28, (0, 0.5, 0)),
        turned(ellipsoid((0.15, 0.035, 0.07), (-0.14, 0.46, 0)), 2, 32, (0, 0.46, 0)),
    )
    petals = []
    for i in range(9):
        a = i * 2 * np.pi / 9
        petals.append(
            turned(ellipsoid((0.1, 0.055, 0.03), (0.13, 0.8, 0.0)), 2, float(np.degrees(a)), (0, 0.8, 0))
        )
    face = ellipsoid((0.075, 0.075, 0.05), (0, 0.8, 0.02))
    flower = turned(joined(*petals), 0, 24, (0, 0.8, 0))
    return Shape(
        (
            Part(pot, paints.plain, 0.15),
            Part(joined(stem, leaves), paints.fixed(0.25, 0.5, 0.16), 0.2),
            Part(moved(flower, z=0.02), paints.fixed(0.96, 0.93, 0.9), 0.1),
            Part(moved(turned(face, 0, 24, (0, 0.8, 0)), z=0.02), paints.fixed(0.92, 0.66, 0.08), 0.1),
            Part(
                lathe(np.array([(0, 0.2), (0.2, 0.2), (0.2, 0.31), (0, 0.31)])),
                paints.fixed(0.22, 0.15, 0.1),
                0.0,
            ),
        ),
        0.33,
        1.02,
    )


def _gift() -> Shape:
    def ribbon(p: Points, own: Albedo) -> Albedo:
        return paints.plain(p, own * np.float32(0.12) + paints.WHITE * np.float32(0.88))

    body = box((0.42, 0.34, 0.42), (0, 0.34, 0), 0.02)
    lid = box((0.45, 0.08, 0.45), (0, 0.72, 0), 0.02)
    band = joined(
        box((0.075, 0.345, 0.428), (0, 0.34, 0), 0.01),
        box((0.428, 0.345, 0.075), (0, 0.34, 0), 0.01),
        box((0.075, 0.088, 0.458), (0, 0.72, 0), 0.01),
        box((0.458, 0.088, 0.075), (0, 0.72, 0), 0.01),
    )
    loops = []
    for degrees in (0, 90, 180, 270):
        loop = turned(ellipsoid((0.15, 0.1, 0.06), (0.13, 0.9, 0)), 2, 22, (0, 0.82, 0))
        hole = turned(ellipsoid((0.1, 0.055, 0.09), (0.15, 0.9, 0)), 2, 22, (0, 0.82, 0))
        loops.append(turned(carved(loop, hole), 1, degrees + 45))
    bow = joined(*loops, ball(0.06, 0, 0.83, 0))
    return Shape(
        (
            Part(body, paints.plain, 0.2),
            Part(lid, paints.plain, 0.2),
            Part(band, ribbon, 0.6),
            Part(bow, ribbon, 0.6),
        ),
        0.66,
        1.02,
    )


def _crate() -> Shape:
    body = box((0.46, 0.46, 0.46), (0, 0.5, 0), 0.015)
    posts = joined(
        *(box((0.06, 0.5, 0.06), (x, 0.5, z), 0.012) for x in (-0.44, 0.44) for z in (-0.44, 0.44))
    )
    rails = joined(
        *(box((0.5, 0.06, 0.06), (0, y, z), 0.012) for y in (0.06, 0.94) for z in (-0.44, 0.44)),
        *(box((0.06, 0.06, 0.5), (x, y, 0), 0.012) for y in (0.06, 0.94) for x in (-0.44, 0.44)),
    )
    braces = joined(
        *(turned(box((0.05, 0.56, 0.03), (0, 0.5, z), 0.01), 2, 45, (0, 0.5, 0)) for z in (0.46, -0.46)),
        *(turned(box((0.03, 0.56, 0.05), (x, 0.5, 0), 0.01), 0, 45, (0, 0.5, 0)) for x in (0.46, -0.46)),
    )
    return Shape(
        (
            Part(body, paints.planks, 0.1),
            Part(joined(posts, rails, braces), paints.fixed(0.62, 0.43, 0.25), 0.12),
        ),
        0.72,
    )


def _suitcase() -> Shape:
    body = box((0.58, 0.4, 0.19), (0, 0.42, 0), 0.06)
    straps = joined(
        box((0.045, 0.405, 0.2), (-0.32, 0.42, 0), 0.06), box((0.045, 0.405, 0.2), (0.32, 0.42, 0), 0.06)
    )
    handle = joined(
        rod((-0.13, 0.8, 0), (-0.13, 0.93, 0), 0.025),
        rod((0.13, 0.8, 0), (0.13, 0.93, 0), 0.025),
        rod((-0.13, 0.93, 0), (0.13, 0.93, 0), 0.03),
    )
    feet = joined(*(box((0.04, 0.03, 0.06), (x, 0.03, 0), 0.01) for x in (-0.45, 0.45)))
    locks = joined(*(box((0.05, 0.035, 0.015), (x, 0.68, 0.19), 0.008) for x in (-0.17, 0.17)))
    return Shape(
        (
            Part(body, paints.plain, 0.25),
            Part(straps, paints.fixed(0.5, 0.3, 0.14), 0.2),
            Part(joined(handle, feet), paints.fixed(0.3, 0.18, 0.1), 0.2),
            Part(locks, paints.fixed(*paints.GOLD), 0.8, 0.8),
        ),
        0.62,
        0.96,
    )


def _book_stack() -> Shape:
    covers, leaves = [], []
    tints = ((0.68, 0.16, 0.14), (0.14, 0.32, 0.56), (0.82, 0.62, 0.18), (0.18, 0.45, 0.28))
    low = 0.0
    for i, (half, thick, angle) in enumerate(
        ((0.72, 0.16, 8), (0.66, 0.12, -14), (0.6, 0.14, 22), (0.5, 0.1, -4))
    ):
        deep = half * 0.72
        cover = carved(
            box((half, thick, deep), (0, low + thick, 0), 0.02),
            box((half, thick - 0.032, deep), (0.05, low + thick, 0.05), 0.005),
            box((half, thick - 0.032, deep), (0.05, low + thick, -0.05), 0.005),
        )
        covers.append(Part(turned(cover, 1, angle), paints.fixed(*tints[i]), 0.25))
        leaves.append(
            turned(box((half - 0.03, thick - 0.03, deep - 0.03), (-0.0, low + thick, 0), 0.005), 1, angle)
        )
        low += 2 * thick
    return Shape((*covers, Part(joined(*leaves), paints.pages, 0.0)), 0.92, low)


def _barrel() -> Shape:
    body = _turned_profile(
        [
            (0, 0),
            (0.29, 0),
            (0.3, 0.02),
            (0.36, 0.3),
            (0.375, 0.5),
            (0.36, 0.7),
            (0.3, 0.98),
            (0.29, 1.0),
            (0, 1.0),
        ]
    )
    top = lathe(np.array([(0, 0.96), (0.265, 0.96), (0.265, 1.1), (0, 1.1)]))
    hoops = joined(
        *(
            lathe(np.array([(0, y - 0.03), (r, y - 0.03), (r, y + 0.03), (0, y + 0.03)]))
            for y, r in ((0.08, 0.324), (0.3, 0.368), (0.7, 0.368), (0.92, 0.324))
        )
    )
    return Shape(
        (
            Part(carved(body, top), paints.staves, 0.2),
            Part(carved(hoops, top), paints.fixed(0.4, 0.4, 0.42), 0.6, 0.8),
        ),
        0.39,
    )


def _cone() -> Shape:
    foot = box((0.34, 0.03, 0.34), (0, 0.03, 0), 0.02)
    body = lathe(np.array([(0, 0.05), (0.27, 0.05), (0.05, 0.99), (0, 1.0)]))
    return Shape((Part(foot, paints.plain, 0.15), Part(body, paints.cone_bands, 0.2)), 0.49)


def _candle() -> Shape:
    wax = carved(
        _turned_profile([(0, 0), (0.2, 0), (0.21, 0.02), (0.2, 0.4), (0.2, 0.7), (0.18, 0.74), (0, 0.72)]),
        ellipsoid((0.15, 0.05, 0.15), (0, 0.74, 0)),
    )
    drips = joined(
        rod((0.19, 0.7, 0.06), (0.2, 0.5, 0.07), 0.02, 0.028),
        rod((0.03, 0.7, 0.19), (0.03, 0.58, 0.2), 0.018, 0.026),
    )
    wick = rod((0, 0.68, 0), (0.01, 0.78, 0), 0.012)
    flame = _turned_profile([(0, 0.75), (0.035, 0.78), (0.05, 0.84), (0.03, 0.92), (0, 1.0)])

    def fire(p: Points, own: Albedo) -> Albedo:
        hot = np.clip(1.3 - np.abs(p[1] - 0.83) * 6, 0, 1)
        return paints.mix(
            hot, np.array([[1.0, 0.38, 0.03]], np.float32), np.array([[1.3, 1.05, 0.5]], np.float32)
        )

    plate = lathe(np.array([(0, 0), (0.32, 0), (0.34, 0.05), (0.3, 0.035), (0, 0.03)]))
    return Shape(
        (
            Part(joined(wax, drips, smooth=0.03), paints.plain, 0.35),
            Part(wick, paints.fixed(0.1, 0.08, 0.07)),
            Part(flame, fire, 0.0, glow=1.0),
            Part(plate, paints.fixed(*paints.GOLD), 0.7, 0.8),
        ),
        0.36,
    )


def _lantern() -> Shape:
    base = joined(box((0.26, 0.03, 0.26), (0, 0.03, 0), 0.015), box((0.22, 0.03, 0.22), (0, 0.08, 0), 0.015))
    posts = joined(
        *(box((0.022, 0.26, 0.022), (x, 0.36, z), 0.006) for x in (-0.19, 0.19) for z in (-0.19, 0.19))
    )
    bars = joined(
        *(box((0.2, 0.012, 0.012), (0, 0.36, z), 0.004) for z in (-0.19, 0.19)),
        *(box((0.012, 0.012, 0.2), (x, 0.36, 0), 0.004) for x in (-0.19, 0.19)),
    )

    def roof(p: Points) -> Values:
        side = np.maximum(np.abs(p[0]), np.abs(p[2]))
        return np.maximum(
            np.maximum(side - 0.26 + 0.62 * (p[1] - 0.62), 0.62 - p[1]), p[1] - 0.86
        ) * np.float32(0.8)

    top = joined(
        roof, box((0.25, 0.02, 0.25), (0, 0.63, 0), 0.01), box((0.08, 0.03, 0.08), (0, 0.85, 0), 0.01)
    )
    loop = ring(0.07, 0.014, (0, 0.93, 0), axis=2)
    pane = box((0.175, 0.25, 0.175), (0, 0.36, 0), 0.01)

    def warm(p: Points, own: Albedo) -> Albedo:
        near = np.exp(-((p[0] ** 2 + p[2] ** 2) * 6 + (p[1] - 0.32) ** 2 * 14))
        return paints.mix(
            near, np.array([[0.62, 0.3, 0.06]], np.float32), np.array([[1.3, 0.95, 0.4]], np.float32)
        )

    return Shape(
        (
            Part(joined(base, posts, bars, top, loop), paints.plain, 0.4, 0.2),
            Part(pane, warm, 0.3, glow=0.75),
        ),
        0.38,
        1.01,
    )


def _top_hat() -> Shape:
    crown = _turned_profile(
        [(0, 0.04), (0.44, 0.04), (0.42, 0.3), (0.45, 0.8), (0.47, 0.97), (0.45, 1.0), (0, 1.0)]
    )
    band = lathe(np.array([(0, 0.1), (0.446, 0.1), (0.436, 0.28), (0, 0.28)]))

    def brim(p: Points) -> Values:
        curl = 0.09 * (p[0] / 0.75) ** 2
        flat = lathe(np.array([(0, 0), (0.72, 0), (0.75, 0.03), (0.72, 0.06), (0, 0.06)]))
        return flat((p[0], p[1] - curl, p[2])) * np.float32(0.9)

    return Shape(
        (
            Part(joined(crown, brim, smooth=0.03), paints.plain, 0.3),
            Part(band, paints.fixed(0.75, 0.7, 0.65), 0.4),
        ),
        0.78,
    )


def _straw_hat() -> Shape:
    crown = _turned_profile([(0, 0.05), (0.5, 0.05), (0.47, 0.4), (0.42, 0.6), (0.2, 0.68), (0, 0.67)])
    band = lathe(np.array([(0, 0.12), (0.56, 0.12), (0.525, 0.32), (0, 0.32)]))

    def brim(p: Points) -> Values:
        wave = 0.03 * np.sin(2 * np.arctan2(p[2], p[0]))
        flat = lathe(np.array([(0, 0.0), (1.08, 0.0), (1.1, 0.03), (1.08, 0.06), (0, 0.06)]))
        return flat((p[0], p[1] - wave - 0.03, p[2])) * np.float32(0.85)

    return Shape(
        (Part(joined(crown, brim, smooth=0.06), paints.straw, 0.05), Part(band, paints.plain, 0.3)), 1.14, 0.7
    )


def _block() -> Shape:
    return Shape((Part(box((0.5, 0.5, 0.5), (0, 0.5, 0), 0.05), paints.letters, 0.3),), 0.72)


def _pawn() -> Shape:
    body = _turned_profile(
        [
            (0, 0),
            (0.3, 0),
            (0.32, 0.05),
            (0.29, 0.1),
            (0.3, 0.15),
            (0.2, 0.24),
            (0.13, 0.42),
            (0.1, 0.6),
            (0.19, 0.65),
            (0.1, 0.7),
            (0, 0.7),
        ]
    )
    return Shape((Part(joined(body, ball(0.17, 0, 0.83, 0), smooth=0.03), paints.plain, 0.6),), 0.34)


def _trophy() -> Shape:
    cup = carved(
        _turned_profile(
            [
                (0, 0.24),
                (0.05, 0.26),
                (0.045, 0.4),
                (0.12, 0.48),
                (0.27, 0.62),
                (0.3, 0.8),
                (0.32, 0.98),
                (0.3, 1.0),
                (0, 1.0),
            ]
        ),
        _turned_profile([(0, 0.6), (0.2, 0.65), (0.26, 0.8), (0.29, 1.05), (0, 1.1)]),
    )
    foot = _turned_profile([(0, 0.14), (0.17, 0.14), (0.15, 0.19), (0.06, 0.24), (0, 0.3)])
    handles = joined(*(ring(0.14, 0.03, (x, 0.77, 0), axis=2) for x in (-0.34, 0.34)))
    plinth = box((0.2, 0.08, 0.2), (0, 0.08, 0), 0.015)
    gold = joined(
        joined(cup, foot),
        carved(handles, lathe(np.array([(0, 0.6), (0.24, 0.65), (0.29, 0.8), (0.31, 1.05), (0, 1.1)]))),
    )
    return Shape(
        (
            Part(gold, paints.fixed(*paints.GOLD), 0.85, 0.9),
            Part(plinth, paints.fixed(0.12, 0.09, 0.08), 0.5),
        ),
        0.52,
    )


def _bell() -> Shape:
    body = carved(
        _turned_profile(
            [
                (0, 0.02),
                (0.44, 0.0),
                (0.46, 0.04),
                (0.36, 0.18),
                (0.29, 0.45),
                (0.24, 0.7),
                (0.13, 0.82),
                (0, 0.84),
            ]
        ),
        lathe(np.array([(0, -0.1), (0.4, -0.1), (0.3, 0.2), (0, 0.3)])),
    )
    loop = ring(0.075, 0.025, (0, 0.9, 0), axis=2)
    return Shape((Part(joined(body, loop, smooth=0.02), paints.fixed(*paints.GOLD), 0.85, 0.9),), 0.48, 1.0)


def _snowman() -> Shape:
    snow = joined(ball(0.27, 0, 0.24, 0), ball(0.19, 0, 0.57, 0), ball(0.135, 0, 0.8, 0), smooth=0.04)
    coal = joined(
        *(ball(0.017, x, 0.835, 0.125) for x in (-0.05, 0.05)),
        *(ball(0.02, 0, y, z) for y, z in ((0.5, 0.18), (0.58, 0.19), (0.65, 0.175))),
        *(
            ball(0.011, 0.06 * np.sin(t), 0.775 - 0.018 * np.cos(2.2 * t), 0.128)
            for t in (-0.8, -0.4, 0.0, 0.4, 0.8)
        ),
    )
    nose = rod((0, 0.8, 0.12), (0.02, 0.79, 0.26), 0.024, 0.006)
    hat = joined(
        lathe(np.array([(0, 0.9), (0.11, 0.9), (0.115, 1.06), (0, 1.06)])),
        lathe(np.array([(0, 0.885), (0.18, 0.885), (0.18, 0.905), (0, 0.905)])),
    )
    arms = joined(
        rod((0.17, 0.6, 0), (0.4, 0.74, 0.03), 0.014, 0.01),
        rod((-0.17, 0.6, 0), (-0.4, 0.7, 0.05), 0.014, 0.01),
    )
    scarf = joined(ring(0.125, 0.035, (0, 0.69, 0)), box((0.035, 0.09, 0.015), (0.07, 0.6, 0.175), 0.012))
    return Shape(
        (
            Part(snow, paints.fixed(0.95, 0.96, 0.98), 0.1, bump=0.03),
            Part(joined(coal, hat), paints.fixed(0.1, 0.1, 0.11), 0.2),
            Part(nose, paints.fixed(0.95, 0.5, 0.1)),
            Part(arms, paints.fixed(0.3, 0.2, 0.12)),
            Part(scarf, paints.fixed(0.78, 0.12, 0.14), 0.05),
        ),
        0.43,
        1.07,
    )


def _duck() -> Shape:
    body = joined(
        ellipsoid((0.42, 0.28, 0.31), (-0.04, 0.28, 0)),
        rod((-0.34, 0.4, 0), (-0.5, 0.56, 0), 0.12, 0.03),
        ball(0.24, 0.2, 0.73, 0),
        rod((0.14, 0.42, 0), (0.19, 0.6, 0), 0.17),
        smooth=0.1,
    )
    wings = joined(
        *(
            turned(ellipsoid((0.22, 0.13, 0.05), (-0.1, 0.36, s * 0.29)), 2, 18, (-0.1, 0.36, 0))
            for s in (1, -1)
        )
    )
    beak = joined(
        ellipsoid((0.13, 0.035, 0.1), (0.46, 0.7, 0)),
        ellipsoid((0.1, 0.025, 0.08), (0.44, 0.655, 0)),
        smooth=0.02,
    )
    eyes = joined(*(ball(0.04, 0.35, 0.8, s * 0.15) for s in (1, -1)))
    return Shape(
        (
            Part(joined(body, wings, smooth=0.04), paints.plain, 0.5),
            Part(beak, paints.fixed(0.96, 0.42, 0.06), 0.4),
            Part(eyes, paints.fixed(0.06, 0.06, 0.07), 0.9),
        ),
        0.6,
        0.98,
    )


def _car() -> Shape:
    side = spline(
        [
            (-0.95, 0.2),
            (-0.96, 0.42),
            (-0.86, 0.5),
            (-0.5, 0.54),
            (-0.3, 0.84),
            (0.0, 0.9),
            (0.35, 0.84),
            (0.58, 0.56),
            (0.9, 0.5),
            (0.97, 0.38),
            (0.96, 0.2),
        ],
        5,
        closed=True,
    )
    hull = slab(side, 0.42, 0.1)
    arches = joined(
        *(turned(lathe(np.array([(0, -0.5), (0.23, -0.5), (0.23, 0.5), (0, 0.5)])), 0, 90) for _ in range(1))
    )
    wells = joined(moved(arches, x=-0.56, y=0.2), moved(arches, x=0.56, y=0.2))
    tyre = turned(
        lathe(np.array([(0, -0.44), (0.17, -0.44), (0.2, -0.4), (0.2, 0.4), (0.17, 0.44), (0, 0.44)])), 0, 90
    )
    tyres = joined(moved(tyre, x=-0.56, y=0.2), moved(tyre, x=0.56, y=0.2))
    hub = turned(lathe(np.array([(0, -0.455), (0.1, -0.455), (0.1, 0.455), (0, 0.455)])), 0, 90)
    hubs = joined(moved(hub, x=-0.56, y=0.2), moved(hub, x=0.56, y=0.2))

    def paint(p: Points, own: Albedo) -> Albedo:
        x, y, z = p
        windows = (
            (y > 0.57)
            & (y < 0.82)
            & (np.abs(x - 0.02 - (0.7 - y) * 0.1) < 0.62 - (y - 0.5) * 0.9)
            & (np.abs(np.abs(x - 0.04) - 0.0) > 0.03)
        )
        glass = windows & ((np.abs(z) > 0.36) | (np.abs(x) > 0.3))
        lamp = (np.abs(y - 0.4) < 0.06) & (x > 0.86) & (np.abs(z) > 0.18)
        tail = (np.abs(y - 0.42) < 0.05) & (x < -0.88) & (np.abs(z) > 0.18)
        out = np.where(glass[:, None], np.array([0.03, 0.045, 0.06], np.float32), own)
        out = np.where(lamp[:, None], np.array([0.95, 0.9, 0.7], np.float32), out)
        return np.where(tail[:, None], np.array([0.5, 0.02, 0.02], np.float32), out).astype(np.float32)

    return Shape(
        (
            Part(carved(hull, wells), paint, 0.7),
            Part(tyres, paints.fixed(0.1, 0.1, 0.1), 0.1),
            Part(hubs, paints.fixed(0.75, 0.75, 0.77), 0.7, 0.7),
        ),
        1.0,
        0.9,
    )


_STRING = paints.fixed(0.78, 0.78, 0.78)


def _balloon() -> Shape:
    body = _turned_profile(
        [
            (0, 0.3),
            (0.03, 0.31),
            (0.16, 0.43),
            (0.3, 0.62),
            (0.34, 0.76),
            (0.28, 0.91),
            (0.14, 0.985),
            (0, 1.0),
        ],
        10,
    )
    knot = lathe(np.array([(0, 0.325), (0.018, 0.31), (0.04, 0.275), (0, 0.27)]))
    string = joined(rod((0, 0.28, 0), (0.02, 0.14, 0), 0.004), rod((0.02, 0.14, 0), (-0.005, 0.0, 0), 0.004))
    return Shape(
        (Part(body, paints.plain, 0.75), Part(knot, paints.plain, 0.4), Part(string, _STRING, 0.0)), 0.36
    )


def _heart_balloon() -> Shape:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    outline = np.stack([x / 34, 0.66 + y / 38], axis=1)
    string = joined(rod((0, 0.22, 0), (0.02, 0.1, 0), 0.004), rod((0.02, 0.1, 0), (0, 0.0, 0), 0.004))
    return Shape((Part(puffed(outline, 0.2), paints.plain, 0.75), Part(string, _STRING, 0.0)), 0.5)


def _star_balloon() -> Shape:
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 0.42, 0.21)
    outline = np.stack([radius * np.sin(angle), 0.58 + radius * np.cos(angle)], axis=1)
    string = joined(rod((0, 0.3, 0), (0.02, 0.15, 0), 0.004), rod((0.02, 0.15, 0), (0, 0.0, 0), 0.004))
    return Shape((Part(puffed(outline, 0.17), paints.plain, 0.75), Part(string, _STRING, 0.0)), 0.44)


def _hot_air_balloon() -> Shape:
    body = _turned_profile(
        [
            (0, 0.3),
            (0.07, 0.3),
            (0.14, 0.38),
            (0.3, 0.58),
            (0.35, 0.72),
            (0.3, 0.89),
            (0.15, 0.985),
            (0, 1.0),
        ],
        10,
    )
    basket = box((0.07, 0.055, 0.07), (0, 0.06, 0), 0.012)
    ropes = joined(
        *(
            rod((0.06 * a, 0.1, 0.06 * b), (0.075 * a, 0.32, 0.075 * b), 0.004)
            for a in (-1, 1)
            for b in (-1, 1)
        )
    )
    return Shape(
        (
            Part(body, paints.gores, 0.2),
            Part(basket, paints.fixed(0.5, 0.33, 0.17), 0.05),
            Part(ropes, paints.fixed(0.3, 0.26, 0.2)),
        ),
        0.37,
    )


def _paper_lantern() -> Shape:
    def body(p: Points) -> Values:
        return (ellipsoid((0.36, 0.33, 0.36), (0, 0.52, 0))(p) + 0.006 * np.cos(p[1] * 107)).astype(
            np.float32
        )

    caps = joined(
        *(
            lathe(np.array([(0, y - 0.025), (0.15, y - 0.025), (0.15, y + 0.025), (0, y + 0.025)]))
            for y in (0.2, 0.84)
        )
    )
    tassel = joined(rod((0, 0.18, 0), (0, 0.1, 0), 0.01), rod((0, 0.1, 0), (0, 0.0, 0), 0.018, 0.028))
    hook = rod((0, 0.86, 0), (0, 1.0, 0), 0.008)
    return Shape(
        (
            Part(body, paints.ribs, 0.1, glow=0.28),
            Part(caps, paints.fixed(0.1, 0.08, 0.07), 0.3),
            Part(joined(tassel, hook), paints.fixed(0.85, 0.62, 0.15)),
        ),
        0.38,
    )


def _kite_shape() -> Shape:
    outline = np.array([(0, 1.0), (0.34, 0.62), (0, 0.2), (-0.34, 0.62)])
    sail = slab(outline, 0.012, 0.008)
    spars = joined(
        rod((0, 0.21, 0.014), (0, 0.99, 0.014), 0.008), rod((-0.33, 0.62, 0.014), (0.33, 0.62, 0.014), 0.008)
    )
    path = [(0.0, 0.2), (0.05, 0.13), (-0.03, 0.07), (0.04, 0.0)]
    tail = joined(*(rod((a[0], a[1], 0), (b[0], b[1], 0), 0.005) for a, b in pairwise(path)))
    bows = joined(*(ellipsoid((0.04, 0.016, 0.012), (x, y, 0)) for x, y in path[1:]))
    return Shape(
        (
            Part(sail, paints.kite, 0.15),
            Part(joined(spars, tail), paints.fixed(0.3, 0.22, 0.15)),
            Part(bows, paints.plain, 0.1),
        ),
        0.36,
    )


def _butterfly() -> Shape:
    fore = spline(
        [(0.01, 0.45), (0.12, 0.7), (0.38, 0.96), (0.56, 0.97), (0.55, 0.8), (0.42, 0.55), (0.2, 0.43)],
        5,
        closed=True,
    )
    hind = spline(
        [(0.01, 0.42), (0.22, 0.44), (0.42, 0.36), (0.42, 0.18), (0.28, 0.05), (0.14, 0.1), (0.04, 0.3)],
        5,
        closed=True,
    )
    right = joined(slab(fore, 0.008, 0.006), slab(hind, 0.008, 0.006, z=-0.012))
    spread = 28.0
    wings = joined(turned(right, 1, -spread), lambda p: turned(right, 1, -spread)((-p[0], p[1], p[2])))
    body = joined(rod((0, 0.26, 0.01), (0, 0.58, 0.02), 0.02, 0.03), ball(0.036, 0, 0.63, 0.025), smooth=0.02)
    feelers = joined(*(rod((s * 0.01, 0.65, 0.03), (s * 0.1, 0.84, 0.05), 0.005) for s in (-1, 1)))
    return Shape(
        (Part(wings, paints.wing, 0.12), Part(joined(body, feelers), paints.fixed(0.1, 0.08, 0.07), 0.1)),
        0.55,
    )


BUILD: dict[str, Callable[[], Shape]] = {
    "beach_ball": lambda: _ball(paints.striped, 0.4),
    "basketball": lambda: _ball(paints.basketball, 0.12, 0.06),
    "soccer_ball": lambda: _ball(paints.soccer, 0.3),
    "tennis_ball": lambda: _ball(paints.tennis, 0.0),
    "yarn": lambda: _ball(paints.threads, 0.0),
    "apple": _apple,
    "orange": _orange,
    "pear": _pear,
    "pumpkin": _pumpkin,
    "mushroom": _mushroom,
    "cactus": _cactus,
    "donut": _donut,
    "cupcake": _cupcake,
    "mug": _mug,
    "teapot": _teapot,
    "vase": _vase,
    "bottle": _bottle,
    "bucket": _bucket,
    "watering_can": _watering_can,
    "flower_pot": _flower_pot,
    "gift_box": _gift,
    "crate": _crate,
    "suitcase": _suitcase,
    "book_stack": _book_stack,
    "barrel": _barrel,
    "traffic_cone": _cone,
    "candle": _candle,
    "lantern": _lantern,
    "top_hat": _top_hat,
    "straw_hat": _straw_hat,
    "cube": _block,
    "pawn": _pawn,
    "trophy": _trophy,
    "bell": _bell,
    "snowman": _snowman,
    "rubber_duck": _duck,
    "toy_car": _car,
    "balloon": _balloon,
    "heart_balloon": _heart_balloon,
    "star_balloon": _star_balloon,
    "hot_air_balloon": _hot_air_balloon,
    "paper_lantern": _paper_lantern,
    "kite": _kite_shape,
    "butterfly": _butterfly,
}
