"""Scenery: the layers of a landscape (sky, hills, ground, water, trees ...), painted from far to near.

Pictures are [H, W, 3], 0-1, sRGB, and painted in place. A colour may be one of several choices; each use varies it a
little.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import terrain
from crispedit.compositor.terrain import Plane, View

Picture = NDArray[np.floating[Any]]
Colour = NDArray[np.float32]
Given = Sequence[float] | Sequence[Sequence[float]]
"""A colour in the catalogue: [r, g, b], or a list of them to choose from."""
Range = tuple[float, float]
"""(least, most)"""


def between(weight: Plane, low: Colour, high: Colour) -> Picture:
    w = np.clip(weight, 0, 1)[..., None]
    return low + w * (high - low)


class Painter:
    """Paints one landscape: `sky` first, then any layers."""

    def __init__(self, rng: np.random.Generator, view: View) -> None:
        self.rng, self.view = rng, view
        self.picture: Picture = np.empty((view.height, view.width, 3), np.float32)
        side = float(rng.uniform(-0.8, 0.8))
        self.sun = (side, 0.8, -0.35)
        """Where the light comes from: (right, up, away from us)."""
        self.below = view.height - view.horizon
        """Rows below the horizon."""

    def colour(self, given: Given, much: float = 0.04) -> Colour:
        """A slightly varied shade of a colour."""
        choices = np.atleast_2d(np.asarray(given, np.float64))
        chosen = choices[int(self.rng.integers(len(choices)))] if len(choices) > 1 else choices[0]
        lighter, hue = self.rng.normal(0, much), self.rng.normal(0, much / 2, 3)
        return np.clip(chosen + lighter + hue, 0, 1).astype(np.float32)

    def lay(self, ground: terrain.Ground, colour: Picture, haze: Colour, reach: float) -> None:
        """Paints ground colours [rows, W, 3] where ground is visible, fading into the haze over `reach` metres."""
        clear = np.exp(-ground.z / np.float32(reach))[..., None]
        part = self.picture[ground.top :]
        np.copyto(part, haze + clear * (colour - haze), where=ground.seen[..., None])

    # --- sky and land

    def sky(
        self, top: Given, low: Given, cloud: Range, glow: Given = (), lit: Given = (0.98, 0.98, 0.97),
        shaded: Given = (0.62, 0.66, 0.72),
    ) -> None:  # fmt: skip
        h, w, horizon = self.view.height, self.view.width, max(self.view.horizon, 8.0)
        self.low = self.colour(low, 0.03)
        rows = np.arange(h, dtype=np.float32)
        t = np.clip(rows / horizon, 0, 1)[:, None] ** 1.3
        self.picture[:] = (self.colour(top) * (1 - t) + self.low * t)[:, None]
        if len(glow):
            x = (np.arange(w, dtype=np.float32) - (0.5 + self.sun[0] / 3) * w) / self.view.focal
            y = (rows - horizon + 0.07 * h) / self.view.focal
            off = np.sqrt(x[None] ** 2 + y[:, None] ** 2)
            self.picture += np.exp(-off * 4.5)[..., None] * self.colour(glow, 0) * 0.55
            self.picture += np.clip((0.028 - off) * 160, 0, 1)[..., None]
        much = float(self.rng.uniform(*cloud))
        if not much:
            return
        noise, stop = terrain.tile(self.rng, 1.55), min(h, int(horizon) + 2)
        # A cloud deck in perspective: near the horizon clouds are far, flat and small.
        height = np.clip((horizon - rows[:stop]) / horizon, 0, 1)[:, None]
        u = (np.arange(w, dtype=np.float32)[None] - w / 2) / w / (height + 0.16) * 130 + 256
        v = np.broadcast_to(95 / (height + np.float32(0.16)), u.shape)
        thick = terrain.sample(noise, u, v) + np.float32(much * 2.6 - 1.6)
        side = thick - terrain.sample(noise, u + np.float32(9 * np.sign(self.sun[0])), v - 5)
        side -= np.float32(much * 2.6 - 1.6)
        thick += 0.13 * terrain.sample(terrain.fine_noise(1.0), u * 6, v * 6)
        cover = np.clip(thick * 1.1, 0, 1)
        cover = cover * cover * (3 - 2 * cover) * np.clip(height * 9, 0.15, 1)
        weight = 0.72 + 0.45 * side - 0.22 * np.clip(thick - 0.7, 0, 2)
        colour = between(weight, self.colour(shaded, 0), self.colour(lit, 0))
        self.picture[:stop] += cover[..., None] * 0.94 * (colour - self.picture[:stop])

    def hills(
        self, relief: float, near: float, far: float, cell: float, dark: Given, light: Given,
        slope: float = 1.9, ridged: bool = False, reach: float = 0.6, snow: Range | None = None, foot: Given = (),
        haze: Given = (),
    ) -> None:  # fmt: skip
        """A range of hills from `near` to `far`; with snow above an altitude (0-1) and a colour at their foot."""
        heights = terrain.tile(self.rng, slope)
        if ridged:
            heights = 1.2 - 1.6 * np.abs(heights) ** 0.8 + 0.12 * terrain.tile(self.rng, 1.3)
        depths = np.geomspace(near, far, 300).astype(np.float32)
        rise = np.clip((depths - near) / (0.25 * (far - near)), 0, 1)
        ground = terrain.look(self.view, heights + 0.6, cell, (relief * rise).astype(np.float32), depths)
        lit = terrain.slopes(heights, cell, relief, self.sun)
        lit = terrain.sample(lit, ground.x / cell, ground.z / cell)
        fine = terrain.detail(self.view, ground.x, ground.z, 1.6)
        altitude = ground.altitude / relief
        colour = between(0.5 + 0.25 * fine, self.colour(dark, 0.03), self.colour(light, 0.03))
        if len(foot):
            green = np.clip((0.35 - altitude) * 4 + 0.2 * fine, 0, 1)[..., None]
            colour += green * (self.colour(foot, 0.03) - colour)
        if snow is not None:
            cold = np.clip((altitude - self.rng.uniform(*snow)) * 5 + 0.5 * fine, 0, 1)[..., None]
            colour += cold * (np.array([0.94, 0.96, 0.99], np.float32) - colour)
        colour *= (0.35 + 0.8 * lit + 0.055 * fine)[..., None]
        self.lay(ground, colour, self.colour(haze, 0) if len(haze) else self.low, far * reach)

    def rolling(
        self, relief: float, near: float, far: float, cell: float, dark: Given, light: Given, reach: float,
        rise: float = 0.12, eye: float = 1.7, crests: bool = False,
    ) -> None:  # fmt: skip
        """Bare rolling ground, such as snow; with sharp `crests` and ripples, dunes."""
        view = View(self.view.width, self.view.height, self.view.horizon, self.view.focal, eye)
        heights = terrain.tile(self.rng, 2.3, 1.5 if crests else 1.0)
        if crests:
            heights = 1.1 - np.abs(heights) ** 0.75
        depths = np.geomspace(near, far, 320).astype(np.float32)
        grown = relief * np.clip((depths - near) / (rise * (far - near)), 0.1 * (not crests), 1)
        ground = terrain.look(view, heights, cell, grown.astype(np.float32), depths)
        sun = (float(np.sign(self.sun[0])) * 0.9, 0.5, -0.15)
        lit = terrain.slopes(heights, cell, relief, sun)
        lit = terrain.sample(lit, ground.x / cell, ground.z / cell)
        fine = terrain.detail(view, ground.x, ground.z, 1.5)
        weight = 1.15 * lit - 0.02 + 0.06 * fine
        if crests:
            phase = ground.z * 9 + 4 * terrain.sample(heights, ground.x * 3, ground.z * 3)
            weight += 0.06 * np.sin(phase) * np.exp(-ground.z / 30)
        colour = between(weight, self.colour(dark, 0.03), self.colour(light, 0.03))
        self.lay(ground, colour, self.low, reach)

    def ground(self, dark: Given, light: Given, reach: float, patch: float) -> None:
        """Flat textured ground up to the horizon, with larger light and dark areas, `patch` metres a cell."""
        ground = terrain.plane(self.view)
        weight = 0.5 + 0.2 * terrain.detail(self.view, ground.x, ground.z)
        weight += 0.16 * terrain.sample(terrain.tile(self.rng, 1.7), ground.x / patch, ground.z / patch)
        colour = between(weight, self.colour(dark, 0.03), self.colour(light, 0.03))
        self.lay(ground, colour, self.low, reach)

    def water(self, deep: Given, wave: Range, glitter: Given = ()) -> None:
        """Water up to the horizon that mirrors what is painted above it; with `glitter` below the sun."""
        view, ground = self.view, terrain.plane(self.view)
        ripple = terrain.detail(view, ground.x, ground.z, 2.4, 1.0, 2.2)
        swell = terrain.sample(terrain.fine_noise(2.2), ground.x * 1.3, ground.z * 2.3)
        rough = (ripple + 0.8 * swell * np.exp(-ground.z / 60)) * float(self.rng.uniform(*wave))
        rows, w = ground.x.shape
        steep = np.clip(view.eye / ground.z, 0, 1)
        line = view.horizon - np.arange(1, rows + 1)[:, None] * 0.8 - rough * (3 + 26 * steep)
        column = np.clip(np.arange(w, dtype=np.float32)[None] + rough * (2 + 8 * steep), 0, w - 1)
        line = np.clip(line, 0, view.height - 1).astype(np.float32)
        mirror = cv2.remap(self.picture, column.astype(np.float32), line, cv2.INTER_LINEAR)
        strength = np.clip(0.78 - 1.7 * steep - 0.1 * rough, 0.08, 0.9)[..., None]
        own = self.colour(deep)
        colour = own * (1 + 0.16 * rough[..., None]) + strength * (mirror - own)
        if len(glitter):
            off = (np.arange(w) / w - 0.5 - self.sun[0] / 3) / (0.05 + 0.35 * steep)
            colour += (np.clip(rough - 0.9, 0, 2) * np.exp(-off * off))[..., None] * self.colour(glitter, 0)
        self.lay(ground, colour.astype(np.float32), self.low, 1e9)

    def shore(self, sand: Given, at: float) -> None:
        """Sand from the camera to `at` metres away: wet, and with foam, along the water."""
        view, ground = self.view, terrain.plane(self.view)
        bays = terrain.sample(terrain.tile(self.rng, 1.9), ground.x * 2 + 90, np.zeros_like(ground.x))
        edge = at * (1 + 0.22 * bays)
        fine = terrain.detail(view, ground.x, ground.z, 1.5)
        dunes = terrain.sample(terrain.tile(self.rng, 1.7), ground.x * 40, ground.z * 40)
        light = self.colour(sand, 0.03)
        colour = between(0.55 + 0.13 * fine + 0.1 * dunes, light * np.float32(0.7), light)
        colour *= (0.68 + 0.32 * np.clip((edge - ground.z) / (0.18 * at), 0, 1))[..., None]
        part = self.picture[ground.top :]
        dry = (1 / (1 + np.exp(np.clip((ground.z - edge) * 4, -30, 30))))[..., None]
        part += dry * (colour - part)
        off = (ground.z - edge) / (0.05 * at)
        foam = np.clip(np.exp(-off * off) * np.clip(0.8 + 0.5 * fine, 0, 1), 0, 1)[..., None]
        part += foam * (np.float32(0.95) - part)

    # --- what stands on it

    def _standing(self, count: Range, tall: Range, away: Range) -> list[tuple[float, float, float]]:
        """(x, y, size) in pixels of things that stand on the ground, far to near."""
        far = np.sort(self.rng.uniform(*away, int(self.rng.integers(int(count[0]), int(count[1]))))) * self.below
        x, size = self.rng.uniform(0, self.view.width, far.size), self.rng.uniform(*tall, far.size)
        size *= far / self.view.eye
        return list(zip(x.tolist(), (self.view.horizon + far).tolist(), size.tolist(), strict=True))

    def _line(self, start: Sequence[float], end: Sequence[float], colour: Colour, width: float) -> None:
        a, b = ((int(x), int(y)) for x, y in (start, end))
        cv2.line(self.picture, a, b, colour.tolist(), max(1, int(width)), cv2.LINE_AA)

    def trees(self, count: Range, tall: Range, away: Range, dark: Given, light: Given) -> None:
        """Leafy trees: leaves as dabs lit from the sun's side."""
        for x, y, size in self._standing(count, tall, away):
            low, high = self.colour(dark, 0), self.colour(light)
            self._line((x, y), (x, y - size * 0.5), np.array([0.16, 0.11, 0.08], np.float32), size * 0.035)
            shadow = (int(size * 0.36), max(1, int(size * 0.035)))
            cv2.ellipse(self.picture, (int(x), int(y)), shadow, 0, 0, 360, (0.1, 0.14, 0.07), -1, cv2.LINE_AA)
            blobs = self.rng.normal(0, 1, (7, 2)) * (0.16, 0.13) * size + (x, y - size * 0.66)
            leaves = int(np.clip(size * 7, 120, 2400))
            off = self.rng.normal(0, 0.085, (leaves, 2)) * size
            spots = blobs[self.rng.integers(0, 7, leaves)] + off
            lit = (off[:, 0] * np.sign(self.sun[0]) - off[:, 1]) / size * 3.2
            lit = np.clip(0.45 + lit + self.rng.normal(0, 0.16, leaves), 0, 1)
            # Many are equal, and a non-stable sort orders those by processor.
            for i in np.argsort(lit, kind="stable"):
                at, colour = (int(spots[i, 0] * 8), int(spots[i, 1] * 8)), low + lit[i] * (high - low)
                cv2.circle(self.picture, at, max(5, int(size * 0.136)), colour.tolist(), -1, cv2.LINE_AA, 3)

    def firs(self, count: Range, tall: Range, away: Range, dark: Given, light: Given) -> None:
        """Firs: boughs from the bottom up."""
        low, high = self.colour(dark, 0), self.colour(light, 0)
        for x, y, size in self._standing(count, tall, away):
            self._line((x, y), (x, y - size * 0.3), np.array([0.15, 0.1, 0.07], np.float32), size * 0.03)
            for t in np.linspace(0, 1, int(np.clip(size / 5, 8, 34)), endpoint=False):
                half = size * 0.2 * (1 - t) * self.rng.uniform(0.75, 1.15)
                boughs = max(6, int(half))
                for end in np.linspace(-half, half, boughs) + self.rng.normal(0, half * 0.06, boughs):
                    shade = np.clip(self.rng.normal(0.4, 0.25) + 0.25 * end / max(half, 1), 0, 1)
                    root = y - size * (0.24 + 0.86 * t)
                    tip = y - size * (0.1 + 0.86 * t) + abs(end) * 0.35 + self.rng.normal(0, size * 0.008)
                    colour = (low + shade * (high - low)).astype(np.float32)
                    self._line((x + end * 0.15, root), (x + end, tip), colour, size * 0.008)

    def blades(self, count: int, tall: float, dark: Given, light: Given) -> None:
        """Blades of grass, far to near."""
        rng, view = self.rng, self.view
        at = np.sort(rng.random(count) ** 0.75)
        y = view.horizon + 2 + at * self.below * 1.12
        size = tall * at * self.below / view.eye * rng.uniform(0.5, 1.3, count)
        x = rng.uniform(-10, view.width + 10, count)
        bend = rng.normal(0.1, 0.35, count) * size
        shade = np.clip(rng.normal(0.5, 0.28, count) + 0.1 * np.sin(x / 90), 0, 1)[:, None]
        low, high = self.colour(dark, 0.03), self.colour(light, 0.03)
        colour = (low + shade * (high - low)) * rng.uniform(0.85, 1.1, (count, 1))
        points = np.stack([x, y, x + bend * 0.3, y - size * 0.6, x + bend, y - size], 1).reshape(count, 3, 2)
        points = np.round(points * 8).astype(np.int32)
        thick = np.clip(size / 26, 1, 5).astype(int).tolist()
        for i in range(count):
            cv2.polylines(self.picture, [points[i]], False, colour[i].tolist(), thick[i], cv2.LINE_AA, 3)

    def flowers(self, count: Range, colour: Given) -> None:
        """Flowers of one colour, each of five petals."""
        own = self.colour(colour, 0)
        for far in np.sort(self.rng.random(int(self.rng.integers(int(count[0]), int(count[1])))) ** 0.6) * self.below:
            x, y = self.rng.uniform(0, self.view.width), self.view.horizon + far * 0.98
            r = max(1.0, far * self.rng.uniform(0.008, 0.018))
            dots = [(x + r * np.cos(a), y + 0.7 * r * np.sin(a)) for a in np.arange(5) * 1.2566]
            shade = (own * np.float32(self.rng.uniform(0.75, 1.1))).tolist()
            for (px, py), size, tint in [*((dot, 0.7, shade) for dot in dots), ((x, y), 0.45, (0.85, 0.65, 0.1))]:
                at = (round(px * 8), round(py * 8))
                cv2.circle(self.picture, at, round(r * size * 8), tint, -1, cv2.LINE_AA, 3)

    def room(self, wall: Given, wood: Given) -> None:
        """A bare room: floorboards before a wall, lit from one side."""
        view, light = self.view, float(self.rng.uniform(0, 1))
        plaster, board = self.colour(wall), self.colour(wood, 0.03)
        y, x = np.mgrid[0 : view.height, 0 : view.width].astype(np.float32) / view.focal
        glow = np.exp(-((x - light) ** 2 + (y - 0.15) ** 2) / 0.3)
        rough = terrain.sample(terrain.tile(self.rng, 1.6), x * 90, y * 90)
        self.picture[:] = plaster * (0.6 + 0.5 * glow + 0.02 * rough)[..., None]
        near = View(view.width, view.height, view.horizon - 0.2 * view.height, view.focal, 0.5)
        ground = terrain.plane(near)
        plank = ground.x / 0.14 + 40
        number = np.floor(plank)
        edge = np.minimum(plank - number, 1 - (plank - number)) * 0.14
        tone = np.sin(number * 12.9898) * 43758.5453
        tone -= np.floor(tone)
        grain = terrain.tile(self.rng, 1.1, 0.12)
        rings = terrain.sample(grain, ground.x * 900 + tone * 200, ground.z * 60 + tone * 300)
        fine = terrain.detail(near, ground.x, ground.z, 1.2, 0.15)
        weight = 0.5 + 0.15 * rings + 0.06 * fine + 0.3 * (tone - 0.5)
        colour = between(weight, board * np.float32(0.47), np.minimum(board * np.float32(1.2), 1))
        colour *= np.clip(edge / 0.003, 0.25, 1)[..., None]
        off, down = x[ground.top :] - light, y[ground.top :] - view.horizon / view.focal
        sheen = (np.exp(-off * off / 0.12) * np.exp(-down / 0.2))[..., None]
        colour = colour * (0.8 + 0.25 * sheen) + 0.06 * sheen
        start = int(view.horizon)
        self.picture[start:] = colour[start - ground.top :]
        seam = np.s_[max(0, start - 6) : start + 6]
        self.picture[seam] = cv2.GaussianBlur(self.picture[seam], (0, 0), 1.5)
