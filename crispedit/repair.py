"""Repair: bring a pair to one size, align the edited image to its source, and remove a drift of tone.

No content is invented: what one image does not show is cropped from both. These are pure functions of pixels; the steps
decide when to apply them, and record what was done.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change, images, tone
from crispedit import motion as motions
from crispedit.record import Image, Mask

SIZES_DIFFER = "sizes_differ"
NO_MOTION, OVERLAP_TOO_SMALL = "no_motion", "overlap_too_small"
"""Why a pair cannot be repaired: no motion is known, or it is more than a crop and a zoom; the images share too little.
"""

MOST_ASPECT_ERROR = 0.01
"""Largest relative difference: sizes rounded to multiples of 16 at 1024 px differ by up to 0.8 %."""


def fits(source: tuple[int, int], edited: tuple[int, int]) -> bool:
    """Whether two (width, height) have the same aspect ratio, within 1 % or one pixel, so that `resampled` can align
    them.

    Otherwise one of the two was cropped or stretched, and the pair is refused as `SIZES_DIFFER`.
    """
    (width, height), (new_width, new_height) = source, edited
    error = abs(new_width * height / (new_height * width) - 1)
    return error <= max(MOST_ASPECT_ERROR, 1 / min(source + edited))


def fits_sql(source: tuple[str, str], edited: tuple[str, str]) -> str:
    """`fits` over SQL expressions of (width, height)."""
    (width, height), (new_width, new_height) = source, edited
    sides = ", ".join((*source, *edited))
    return (
        f"abs({new_width}::DOUBLE * {height} / ({new_height}::DOUBLE * {width}) - 1) "
        f"<= greatest({MOST_ASPECT_ERROR}, 1.0::DOUBLE / least({sides}))"
    )


def resampled(edited: Image, like: Image) -> Image:
    """The edited image at the source's size: area averages where it shrinks, Lanczos where it grows."""
    return change.resize(edited, like.shape)


def resampled_mask(mask: Mask, like: Image) -> Mask:
    return change.onto(mask, like.shape)


@dataclass(frozen=True)
class Repaired:
    """An aligned pair; all arrays share height and width."""

    source: Image
    edited: Image
    mask: Mask | None
    crop: tuple[int, int, int, int]
    """x, y, width, height of what was kept, in the source's pixels."""
    transform: list[list[float]]
    """[2][3] affine from pixels of the cropped source to pixels of the original edited image."""


MOST_STRETCH, MOST_SHEAR, LEAST_SUPPORT = 0.05, 0.02, 0.5
"""Limits of a crop and zoom: difference of the axes' scales, shear, and least support."""
LEAST_OVERLAP = 0.7
"""The least share of the source's area, and of each of its sides, that a repair may keep."""
ALIGNED_PX = 0.25
"""Misalignments below this many source pixels need no repair."""


def to_overlap(source: Image, edited: Image, mask: Mask | None = None) -> Repaired | str | None:
    """The pair, aligned and cropped to what both images show; None if it is already aligned and of one size.

    A string says why it cannot be repaired. `NO_MOTION`: no motion is known, or neither the edited image nor its resize
    to the source's size is nearly similar to the source (such pairs were redrawn, not moved). `OVERLAP_TOO_SMALL`: too
    little is shared. `mask` has the source's size and is cropped with it.
    """
    height, width = source.shape[:2]
    stretch = np.array([edited.shape[1] / width, edited.shape[0] / height])
    resized = resampled(edited, source)
    by = max(1, change.factor(source.shape) // 2)
    middle = [change.shrink(images.gray(image), by) for image in (source, resized)]
    motion = motions.motion(motions.tracks(middle[0], middle[1]))
    if motion is None or motion.support < LEAST_SUPPORT:
        return NO_MOTION
    in_place = motion.displacement * by < ALIGNED_PX
    if in_place and (stretch == 1).all():
        return None
    if not any(_near_similarity(motion.affine[:, :2] * size[:, None]) for size in (np.ones(2), stretch)):
        return NO_MOTION
    affine = np.eye(2, 3) if in_place else motion.at(by)
    box = _overlap(affine, width, height)
    if box is None:
        return OVERLAP_TOO_SMALL
    x, y, kept_width, kept_height = box
    if not in_place:  # else the resize was enough: a second interpolation would only blur
        flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
        resized = cv2.warpAffine(resized, affine, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    part = slice(y, y + kept_height), slice(x, x + kept_width)
    # To pixels of the original edited image; pixel centres are at halves.
    affine = affine.copy()
    affine[:, 2] += affine[:, :2] @ [x, y]
    affine[:, 2] = (affine[:, 2] + 0.5) * stretch - 0.5
    affine[:, :2] *= stretch[:, None]
    kept_source, kept_edited = (np.ascontiguousarray(image[part]) for image in (source, resized))
    kept_mask = None if mask is None else np.ascontiguousarray(mask[part])
    return Repaired(kept_source, kept_edited, kept_mask, crop=box, transform=affine.tolist())


def _near_similarity(linear: NDArray[np.float64]) -> bool:
    """Whether a [2, 2] map scales both axes nearly alike and keeps them nearly at right angles."""
    x, y = np.linalg.norm(linear, axis=0)
    shear = abs(linear[:, 0] @ linear[:, 1]) / (x * y)
    return bool(abs(x / y - 1) <= MOST_STRETCH and shear <= MOST_SHEAR)


def _overlap(affine: NDArray[np.float64], width: int, height: int) -> tuple[int, int, int, int] | None:
    """x, y, width, height of the largest box, grown from the centre of the source, that the edited image (of the same
    size) covers; None if it is too small."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    reached = cv2.warpAffine(np.full((height, width), 255, np.uint8), affine, (width, height), flags=flags) == 255
    left, top, right, bottom = 0, 0, width, height
    while right > left and bottom > top:
        inside = reached[top:bottom, left:right]
        missing = [float(1 - side.mean()) for side in (inside[:, 0], inside[:, -1], inside[0], inside[-1])]
        worst = int(np.argmax(missing))
        if missing[worst] == 0:
            break
        left, right = left + (worst == 0), right - (worst == 1)
        top, bottom = top + (worst == 2), bottom - (worst == 3)
    kept_width, kept_height = right - left, bottom - top
    kept = ((kept_width, width), (kept_height, height), (kept_width * kept_height, width * height))
    enough = all(part >= LEAST_OVERLAP * whole for part, whole in kept)
    return (left, top, kept_width, kept_height) if enough else None


@dataclass(frozen=True)
class Drift:
    """The change of tone outside the edit: edited = gain * source + offset, per channel (RGB, levels)."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]


SEEN_LEVELS, MOST_LEVELS = 1.5, 40.0
"""The least mean change of level that is removed, and the largest that counts as drift rather than as an edit."""
LEAST_EXPLAINED, LEAST_GAIN = 0.5, 0.5
"""The least share of pixels that a drift must explain, and the least gain that can be undone without banding."""


def without_drift(source: Image, edited: Image, mask: Mask | None = None) -> tuple[Image, Drift] | None:
    """The edited image without the drift that is measured outside the edit, and the drift. None if there is no visible
    drift. Images and mask have one size.

    `crispedit.tone` fits the drift. Clipped pixels stay as they are.
    """
    by = change.factor(source.shape)
    before, after = change.shrink(source, by), change.shrink(edited, by)
    outside = None if mask is None else change.shrink(mask.view(np.uint8) * 255, by) == 0
    fitted = tone.fit(before, after, outside)
    if fitted is None or fitted.explained < LEAST_EXPLAINED:
        return None
    if not SEEN_LEVELS <= np.abs(fitted.shift).mean() <= MOST_LEVELS or fitted.gain.min() < LEAST_GAIN:
        return None
    restored = np.clip(np.rint((edited - fitted.offset) / fitted.gain), 0, 255)
    clipped = (edited <= 2) | (edited >= 253)
    drift = Drift(tuple(fitted.gain.tolist()), tuple(fitted.offset.tolist()))
    return np.where(clipped, edited, restored).astype(np.uint8), drift
