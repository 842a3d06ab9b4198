"""Landscapes: rendered photo-like scenes with detail up to the pixel, for backgrounds, demos, tests and benchmarks."""

import numpy as np

from crispedit.compositor import catalogue
from crispedit.compositor.scenery import Painter, Picture
from crispedit.compositor.terrain import View
from crispedit.record import Image

_CATALOGUE = catalogue("landscapes")
KINDS = tuple(_CATALOGUE)
NAMES: dict[str, tuple[str, ...]] = {kind: tuple(entry["says"]) for kind, entry in _CATALOGUE.items()}
"""The names of each kind of landscape."""
DARK = frozenset(kind for kind, entry in _CATALOGUE.items() if entry.get("dark"))
"""The kinds at nightfall; the rest are by day."""


def landscape(seed: int, width: int, height: int, kind: str | None = None, horizon: float | None = None) -> Image:
    """A scene of [height, width]; the same arguments give the same pixels.

    `horizon` is a fraction from the top. By default the seed chooses horizon and kind. ValueError for an unknown kind
    or a side below 16 pixels.
    """
    if min(width, height) < 16:
        raise ValueError(f"a landscape of {width}x{height} is too small; it needs 16 pixels a side")
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = KINDS[int(rng.integers(len(KINDS)))]
    chosen = drawn if kind is None else kind
    level = float(rng.uniform(0.36, 0.58)) if horizon is None else horizon
    if chosen not in KINDS:
        raise ValueError(f"there is no landscape {kind!r}; choose from {', '.join(KINDS)}")
    painter = Painter(rng, View(width, height, level * height, 0.95 * max(width, height), 1.7))
    painter.sky(**_CATALOGUE[chosen]["sky"])
    for layer in _CATALOGUE[chosen]["layers"]:
        [(method, arguments)] = layer.items()
        getattr(painter, method)(**arguments)
    picture = painter.picture
    if chosen not in DARK:
        # Exposed like a photograph: the brightest parts just below white.
        brightest = max(float(np.percentile(picture[::8, ::8], 98)), 0.05)
        picture *= np.float32(np.clip(0.93 / brightest, 0.8, 1.7))
    return _developed(rng, picture)


def _developed(rng: np.random.Generator, picture: Picture) -> Image:
    """The picture with a camera's slight vignetting, tone curve and sensor noise."""
    h, w = picture.shape[:2]
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, w, dtype=np.float32)[None]
    gain = (1 - 0.1 * (x * x + y * y)) * np.float32(rng.uniform(0.94, 1.06))
    picture *= gain[..., None]
    picture += rng.standard_normal((h, w), np.float32)[..., None] * np.float32(0.009)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
