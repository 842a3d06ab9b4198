"""Sharpness: is the edited image blurrier than its source, at the same size?

Softening by redrawing is not blur: it loses some grain but keeps edges. So if the rest of the image was left intact,
all its detail must remain; if it was redrawn, its texture must not vanish. `upscaled` measures the finest detail.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change
from crispedit.parts import Filter, Sample, Score, at_least

Blocks = NDArray[np.float32]
"""[H // 16, W // 16] mean detail of each block, in levels."""
BLOCK = 16
"""Pixels."""
FLAT_LEVELS = 1.0
"""A source block with less detail than this shows only noise and JPEG error."""
SOFTENING, SOFT = 0.5, 0.5
"""The share of texture that may be lost per Lab unit by which the rest of the image changed, and the most: autoencoders
change local means, and blur does not."""
REDRAWN_MIDDLE = 0.08
"""The share of middle detail that may be lost per Lab unit of change: redrawn shapes differ."""
LEAST_LEVELS = 0.5
"""Least detail of an octave, in levels, of a source block to compare."""


class Sharpness(Filter):
    """Detail of the edited image over that of the source (1 is equal, above 1 sharper), both at the source's size.

    `scale`: the edited image's own side over the source's. `texture`: the median over the textured blocks outside the
    edit; `outside`: the same, plus the texture that re-rendering alone would have removed; null where it could have
    taken most (`crispedit.change.Noise`). `middle`: detail of 2 to 4 px, the median outside, plus what redrawn shapes
    may have removed of it. `balance`: the same median over that of detail of 8 to 16 px: smoothing removes the one and
    leaves the other, redrawing removes both alike. Both are null in the `global` regime. `inside` compares the sharpest
    tenth of the blocks inside the edit with the sharpest tenth of the source's: new content need not have the old
    texture, but some edge of it should be as crisp as the photograph's.
    Null where fewer than `least_blocks` blocks can be compared."""

    least_blocks: int = 12

    version = 7
    scores = {"scale": float, "texture": float, "outside": float, "middle": float, "balance": float, "inside": float}
    # From compositor pairs, 76 good pairs of 9 real editors, and the defects of `crispedit calibrate` made from both.
    # texture: good edits leave 0.27 or more.
    # outside: good edits leave 0.93 or more, a twofold enlargement 0.82 at most. middle, balance: good edits leave 0.77
    # and 0.79 (but for one), an autoencoder's re-encoding of them 0.75; over-smoothed ones have less of either. scale:
    # an answer of 0.73 of the side passed a person's eye, 0.53 did not.
    bounds = at_least(scale=0.6, texture=0.25, outside=0.85, middle=0.72, balance=0.74)
    cost = 2.5

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        source, edited = _detail(sample.source_gray), _detail(sample.edited_fitted)
        inside = change.coverage(sample.outside, source.shape) == 0
        texture = self._typical(source, edited, sample.outside, FLAT_LEVELS)
        look = sample.noise.look
        middle = coarse = None
        if sample.noise.regime != "global":  # what was drawn as another picture has other details
            octaves = _octaves(sample.source_half), _octaves(sample.edited_half)
            middle, coarse = (self._typical(*pair, sample.outside, LEAST_LEVELS) for pair in zip(*octaves, strict=True))
        return {
            "scale": min(new / old for new, old in zip(sample.edited.shape[:2], sample.source.shape[:2], strict=True)),
            "texture": texture,
            "outside": None if texture is None or look >= SOFT else texture + SOFTENING * look,
            "middle": None if middle is None else middle + REDRAWN_MIDDLE * look,
            "balance": None if middle is None or coarse is None else middle / coarse,
            "inside": self._inside(source[source > FLAT_LEVELS], edited[inside]),
        }

    def _typical(self, source: Blocks, edited: Blocks, outside: NDArray[np.bool_], least: float) -> float | None:
        """The median of what is left of the detail of the source's blocks outside the edit that have more than `least`
        levels of it."""
        where = (source > least) & (change.coverage(outside, source.shape) == 255)
        if where.sum() < self.least_blocks:
            return None
        return change.quantile(edited[where] / source[where], 0.5)

    def _inside(self, source: NDArray[np.float32], edited: NDArray[np.float32]) -> float | None:
        if min(len(source), len(edited)) < self.least_blocks:
            return None
        return change.quantile(edited, 0.9) / change.quantile(source, 0.9)


def _detail(gray: NDArray[np.uint8]) -> Blocks:
    """The mean of the Laplacian's positive half, which has the same mean as the negative half, on every fourth line."""
    rows, columns = (side // BLOCK * BLOCK for side in gray.shape)
    if not rows or not columns:
        raise ValueError(f"an image of {gray.shape[1]}x{gray.shape[0]} px is too small to compare")
    above, line, below = (gray[start:rows:4, :columns] for start in range(3))
    laplacian = np.add(above, below, dtype=np.uint16)
    laplacian[:, 1:-1] += line[:, 2:]
    laplacian[:, 1:-1] += line[:, :-2]
    centre = line.astype(np.uint16) * 4
    np.maximum(laplacian, centre, out=laplacian)
    laplacian -= centre
    total = np.add.reduce(laplacian.reshape(-1, BLOCK // 4, columns), axis=1, dtype=np.float32)
    size = columns // BLOCK, rows // BLOCK
    return np.asarray(cv2.resize(total * (4 / BLOCK), size, interpolation=cv2.INTER_AREA), np.float32)


def _octaves(half: NDArray[np.uint8]) -> list[Blocks]:
    """The mean of details of 2 to 4 px, and of 8 to 16 px, of each block of an image of `half` the size: what that
    loses at half of its size, and at an eighth."""
    eighth = change.shrink(half, 4)
    return [_lost(half, BLOCK // 2), _lost(eighth, BLOCK // 8)]


def _lost(gray: NDArray[np.uint8], block: int) -> Blocks:
    small = change.shrink(gray, 2).astype(np.float32)
    height, width = (side * 2 for side in small.shape)
    back = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return change.shrink(cv2.absdiff(gray[:height, :width].astype(np.float32), back), block)
