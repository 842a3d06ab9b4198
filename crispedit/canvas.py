"""The canvas that an editing model is given: the source, scaled, with mirrored edges where the model needs more
pixels."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import cv2
import numpy as np
from PIL import Image as Pillow

from crispedit.record import Image

Rule = Callable[[int, float], tuple[Any, ...]]


@dataclass(frozen=True)
class Canvas:
    """The model's input: `width` x `height`, with the source in the top left corner at the size `inner`."""

    source: tuple[int, int]
    inner: tuple[int, int]
    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int, multiple: int, area: int | None, rule: Rule | None = None) -> Self:
        """The canvas of a source of this size: see crispedit.editors.diffusers."""
        if area is None:
            across, down = (math.ceil(side / multiple) * multiple for side in (width, height))
            return cls((width, height), (width, height), across, down)
        return cls.among(width, height, stable_sizes(area, multiple, rule))

    @classmethod
    def among(cls, width: int, height: int, sizes: Iterable[tuple[int, int]]) -> Self:
        """The canvas with the size whose aspect is nearest to the source's."""
        across, down = min(sizes, key=lambda size: abs(math.log(size[0] / size[1] * height / width)))
        return cls.within(width, height, across, down)

    @classmethod
    def within(cls, width: int, height: int, across: int, down: int) -> Self:
        """The canvas of `across` x `down` for a source of this size, scaled by one factor to fit."""
        scale = min(across / width, down / height)
        inner = (max(1, min(across, round(width * scale))), max(1, min(down, round(height * scale))))
        return cls((width, height), inner, across, down)

    def put(self, source: Image) -> Image:
        """[height, width, 3]: the source with mirrored edges."""
        picture = _scaled(source, self.inner)
        below, right = self.height - self.inner[1], self.width - self.inner[0]
        return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REFLECT).astype(np.uint8)

    def take(self, picture: Image) -> Image:
        """The source's part of the canvas, at the source's size."""
        return _scaled(np.ascontiguousarray(picture[: self.inner[1], : self.inner[0]]), self.source)


@lru_cache(maxsize=16)
def stable_sizes(area: int, multiple: int, rule: Rule | None = None) -> tuple[tuple[int, int], ...]:
    """Widths and heights in multiples, of aspects up to 4, that `rule(area, aspect)` leaves as they are. The rule is a
    pipeline's own choice of (width, height, ...); the default is `sqrt(area * aspect)` and `sqrt(area / aspect)`,
    rounded. ValueError if there are none."""

    def rounded(area: int, aspect: float) -> tuple[int, int]:
        sides = math.sqrt(area * aspect), math.sqrt(area / aspect)
        across, down = (round(side / multiple) * multiple for side in sides)
        return across, down

    longest = math.ceil(2 * math.sqrt(area) / multiple)
    sizes = []
    for across in range(1, longest + 1):
        for down in range(max(1, math.ceil(across / 4)), min(4 * across, longest) + 1):
            size = across * multiple, down * multiple
            if tuple((rule or rounded)(area, across / down)[:2]) == size:
                sizes.append(size)
    if not sizes:
        raise ValueError(f"no size of area_px={area} has sides in multiples of {multiple}")
    return tuple(sizes)


def _scaled(image: Image, size: tuple[int, int]) -> Image:
    """The image at (width, height), resampled with antialiasing if its size differs."""
    if image.shape[1::-1] == size:
        return image
    return np.asarray(Pillow.fromarray(image).resize(size, Pillow.Resampling.LANCZOS))
