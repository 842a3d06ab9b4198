"""The objects that the compositor can put into a photograph, by name: how each is built, coloured and said."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import solids
from crispedit.compositor.render import Paint, Part, Shape
from crispedit.compositor.solids import Points, Values

Stance = Literal["ground", "air"]


@dataclass(frozen=True)
class Kind:
    """What is known of an object without drawing it. `sizes` are heights as fractions of the short side of a photograph.

    `colours` are the names that it is painted in; empty where its colours are its own (a soccer ball) and unsaid.
    `turns` says that turning it about the vertical shows.
    """

    noun: str
    stance: Stance
    sizes: tuple[float, float]
    colours: tuple[str, ...]
    turns: bool = False


_BRIGHT = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
_ANY = (*_BRIGHT, "white", "black")

KINDS: dict[str, Kind] = {
    "beach_ball": Kind("beach ball", "ground", (0.18, 0.34), _BRIGHT),
    "basketball": Kind("basketball", "ground", (0.16, 0.3), ()),
    "apple": Kind("apple", "ground", (0.14, 0.26), ("red", "green", "yellow")),
    "mug": Kind("mug", "ground", (0.18, 0.3), _ANY, turns=True),
    "vase": Kind("vase", "ground", (0.24, 0.42), _ANY),
    "bottle": Kind("bottle", "ground", (0.26, 0.44), _BRIGHT),
    "gift_box": Kind("gift box", "ground", (0.18, 0.32), _BRIGHT, turns=True),
    "traffic_cone": Kind("traffic cone", "ground", (0.22, 0.38), ("orange", "green", "blue", "pink")),
    "donut": Kind("donut", "ground", (0.1, 0.16), ("pink", "brown", "white", "yellow")),
    "balloon": Kind("balloon", "air", (0.24, 0.4), _BRIGHT),
    "cube": Kind("cube", "ground", (0.16, 0.28), _ANY, turns=True),
    "star": Kind("star", "air", (0.18, 0.3), _BRIGHT, turns=True),
}


def floats(kind: str) -> bool:
    return KINDS[kind].stance == "air"


def _plain(p: Points, own: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.broadcast_to(own, (p[0].size, 3))


def _fixed(r: float, g: float, b: float) -> Paint:
    value = np.array([r, g, b], np.float32) ** np.float32(2.2)
    return lambda p, own: np.broadcast_to(value, (p[0].size, 3))


def _mix(weight: Values, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return a + np.clip(weight, 0, 1)[:, None] * (b - a)


_WHITE = np.array([0.86, 0.86, 0.84], np.float32)
_DARK = np.array([0.02, 0.02, 0.022], np.float32)


def _panels(p: Points, own: NDArray[np.float32]) -> NDArray[np.float32]:
    angle = np.arctan2(p[2], p[0]) * (3 / np.pi)
    stripe = np.clip((np.abs((angle % 2) - 1) - 0.5) * 25 + 0.5, 0, 1)
    cap = np.clip((np.abs(p[1] - 0.5) - 0.46) * 60, 0, 1)
    return _mix(cap, _mix(stripe, own, _WHITE), _WHITE)


def _basketball(p: Points, own: NDArray[np.float32]) -> NDArray[np.float32]:
    y = p[1] - 0.5
    skin = np.array([0.62, 0.2, 0.05], np.float32)
    curve = np.abs(np.abs(p[0]) - 0.24 - 0.5 * y * y)
    seam = np.minimum(np.minimum(np.abs(p[0]), np.abs(y)), curve)
    return _mix(np.clip((0.016 - seam) * 120, 0, 1), np.broadcast_to(skin, (y.size, 3)), _DARK)


def _ribbon(p: Points, own: NDArray[np.float32]) -> NDArray[np.float32]:
    return _plain(p, own * 0.15 + _WHITE * 0.85)


def _apple_skin(p: Points, own: NDArray[np.float32]) -> NDArray[np.float32]:
    angle = np.arctan2(p[2], p[0])
    streak = 0.5 + 0.25 * np.sin(angle * 17 + 2 * np.sin(angle * 5)) + 0.25 * np.sin(angle * 41)
    pale = np.clip(0.35 - 0.5 * np.abs(p[1] - 0.8), 0, 1) * streak
    return _mix(pale, np.broadcast_to(own, (angle.size, 3)), np.array([0.75, 0.6, 0.15], np.float32))


def _cone_bands(p: Points, own: NDArray[np.float32]) -> NDArray[np.float32]:
    band = np.clip((0.09 - np.abs(p[1] - 0.56)) * 60, 0, 1)
    return _mix(band, np.broadcast_to(own, (p[0].size, 3)), _WHITE)


@lru_cache(maxsize=64)
def shape(kind: str) -> Shape:
    """The built object. ValueError for a name that is not in the library."""
    if kind not in KINDS:
        raise ValueError(f"there is no object {kind!r}; choose from {', '.join(KINDS)}")
    return _BUILD[kind]()


def _ball(paint: Paint, gloss: float) -> Shape:
    return Shape((Part(solids.ball(0.5), paint, gloss),), 0.5)


def _apple() -> Shape:
    body = solids.lathe(
        solids.spline(
            [
                (0.0, 0.06),
                (0.14, 0.02),
                (0.3, 0.07),
                (0.46, 0.36),
                (0.47, 0.6),
                (0.34, 0.83),
                (0.16, 0.86),
                (0.0, 0.74),
            ]
        )
    )
    stem = solids.rod((0, 0.72, 0), (0.07, 1.0, 0.02), 0.018, 0.026)
    return Shape((Part(body, _apple_skin, 0.5), Part(stem, _fixed(0.3, 0.2, 0.1), 0.1)), 0.48)


def _mug() -> Shape:
    outer = solids.lathe(
        solids.spline([(0, 0), (0.36, 0), (0.4, 0.03), (0.42, 0.5), (0.42, 0.97), (0.4, 1.0), (0, 1.0)], 8)
    )
    inner = solids.lathe(np.array([(0, 0.1), (0.37, 0.1), (0.375, 1.1), (0, 1.1)]))
    handle = solids.ring(0.24, 0.055, (0.46, 0.5, 0), axis=2)
    hollow = solids.carved(solids.joined(outer, handle, smooth=0.06), inner)
    return Shape((Part(hollow, _plain, 0.55),), 0.76)


def _vase() -> Shape:
    body = solids.lathe(
        solids.spline(
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
    )
    inner = solids.lathe(np.array([(0, 0.6), (0.1, 0.7), (0.09, 0.84), (0.1, 0.92), (0.17, 1.02), (0, 1.05)]))
    return Shape((Part(solids.carved(body, inner), _plain, 0.6),), 0.35)


def _bottle() -> Shape:
    body = solids.lathe(
        solids.spline(
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
    )
    cap = solids.lathe(np.array([(0, 0.9), (0.075, 0.9), (0.075, 0.995), (0, 0.995)]))
    return Shape((Part(body, _plain, 0.8), Part(cap, _fixed(0.85, 0.82, 0.7), 0.4)), 0.19)


def _gift() -> Shape:
    body = solids.box((0.42, 0.34, 0.42), (0, 0.34, 0), 0.02)
    lid = solids.box((0.45, 0.08, 0.45), (0, 0.72, 0), 0.02)
    band = solids.joined(
        solids.box((0.075, 0.345, 0.428), (0, 0.34, 0), 0.01),
        solids.box((0.428, 0.345, 0.075), (0, 0.34, 0), 0.01),
        solids.box((0.075, 0.088, 0.458), (0, 0.72, 0), 0.01),
        solids.box((0.458, 0.088, 0.075), (0, 0.72, 0), 0.01),
    )
    bow = solids.joined(
        solids.turned(solids.ring(0.085, 0.035, (0.11, 0.88, 0), axis=2), 2, 15, (0.11, 0.88, 0)),
        solids.turned(solids.ring(0.085, 0.035, (-0.11, 0.88, 0), axis=2), 2, -15, (-0.11, 0.88, 0)),
        solids.ball(0.05, 0, 0.83, 0),
    )
    return Shape(
        (Part(body, _plain, 0.2), Part(lid, _plain, 0.2), Part(band, _ribbon, 0.6), Part(bow, _ribbon, 0.6)),
        0.66,
    )


def _cone() -> Shape:
    foot = solids.box((0.34, 0.03, 0.34), (0, 0.03, 0), 0.02)
    body = solids.lathe(np.array([(0, 0.05), (0.27, 0.05), (0.05, 0.99), (0, 1.0)]))
    return Shape((Part(foot, _plain, 0.15), Part(body, _cone_bands, 0.2)), 0.49)


def _donut() -> Shape:
    dough = solids.ring(0.62, 0.36, (0, 0.36, 0), squash=0.95)
    icing = solids.ring(0.62, 0.385, (0, 0.385, 0), squash=0.95)
    wave = solids.carved(icing, lambda p: p[1] - 0.42 - 0.05 * np.sin(np.arctan2(p[2], p[0]) * 9))
    return Shape((Part(dough, _fixed(0.78, 0.52, 0.26), 0.1), Part(wave, _plain, 0.55)), 1.02, 0.77)


def _balloon() -> Shape:
    body = solids.lathe(
        solids.spline(
            [
                (0, 0.3),
                (0.03, 0.31),
                (0.16, 0.43),
                (0.3, 0.62),
                (0.34, 0.76),
                (0.28, 0.91),
                (0.14, 0.985),
                (0, 1.0),
            ]
        )
    )
    knot = solids.lathe(np.array([(0, 0.325), (0.018, 0.31), (0.04, 0.275), (0, 0.27)]))
    string = solids.rod((0, 0.28, 0), (0.02, 0.0, 0), 0.004)
    return Shape(
        (Part(body, _plain, 0.75), Part(knot, _plain, 0.4), Part(string, _fixed(0.8, 0.8, 0.8), 0.0)), 0.36
    )


def _star_outline(points: int, inner: float) -> NDArray[np.float64]:
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 0.5, 0.5 * inner)
    return np.stack([radius * np.sin(angle), 0.5 + radius * np.cos(angle)], axis=1)


def _star() -> Shape:
    return Shape((Part(solids.puffed(_star_outline(5, 0.5), 0.16), _plain, 0.7),), 0.5)


_BUILD = {
    "beach_ball": lambda: _ball(_panels, 0.4),
    "basketball": lambda: _ball(_basketball, 0.1),
    "apple": _apple,
    "mug": _mug,
    "vase": _vase,
    "bottle": _bottle,
    "gift_box": _gift,
    "traffic_cone": _cone,
    "donut": _donut,
    "balloon": _balloon,
    "cube": lambda: Shape((Part(solids.box((0.5, 0.5, 0.5), (0, 0.5, 0), 0.04), _plain, 0.3),), 0.72),
    "star": _star,
}
