"""Alignment: does the edited image lie on the source? Aspect, scale and shift of what the edit left alone, in
pixels.

Every block of the image casts one vote: its best corner is followed from source to edited (pyramidal
Lucas-Kanade, forward and back). The affine motion that most votes agree on is the misalignment; the edit
itself is outvoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change
from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Image, Sample, Score

Points = NDArray[np.float32]
"""[n, 2] x, y at half resolution."""


@dataclass(frozen=True)
class Motion:
    """How the edited image lies on the source: `affine` [2, 3] takes half-resolution source points to edited
    ones."""

    affine: NDArray[np.float64]
    points: Points
    """The source points that agree on it."""
    support: float
    """They, of all followed points: 0-1."""

    @property
    def displacement(self) -> float:
        """90th percentile of how far it moves the points that agree, in half-resolution pixels."""
        moved = self.points @ self.affine[:, :2].T + self.affine[:, 2]
        return float(np.percentile(np.linalg.norm(moved - self.points, axis=1), 90))

    @property
    def scale(self) -> tuple[float, float]:
        """Horizontal and vertical magnification."""
        x, y = np.linalg.norm(self.affine[:, :2], axis=0)
        return float(x), float(y)


class Alignment(Filter):
    """`aspect_error`: relative difference of the two aspect ratios. The rest is measured after a plain resize
    of the edited image to the source's size, and is null when too few blocks agree to know (a smooth image, a
    style edit that redraws every edge): `displacement_px`, of a 1024 px short side; `scale_error`, relative,
    of the worse axis; `agreement`, the share of followed blocks that fit (0-1)."""

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {
        "aspect_error": float,
        "displacement_px": float,
        "scale_error": float,
        "agreement": float,
    }
    # aspect_error: sizes rounded to multiples of 16 at 1024 px differ by up to 0.8 %. displacement_px: pairs
    # of CrispEdit-2M that a resize aligns measure 0.72 px or less, those cropped and stretched 18 to 43 px.
    bounds: ClassVar[Mapping[str, Bound]] = {
        "aspect_error": Bound(max=0.01),
        "displacement_px": Bound(max=1.5),
    }
    cost: ClassVar[float] = 5.5

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        height, width = sample.source.shape[:2]
        edited_height, edited_width = sample.edited.shape[:2]
        aspect_error = abs(edited_width * height / (edited_height * width) - 1)
        # Only a true mask can excuse points from voting: an estimated one covers whatever misalignment
        # changed.
        background = None if sample.mask is None or sample.outside.mean() < 0.1 else sample.outside
        found = motion(sample.source_half, sample.edited_half, background)
        if found is None:
            return {**dict.fromkeys(self.scores), "aspect_error": aspect_error}
        return {
            "aspect_error": aspect_error,
            "displacement_px": found.displacement * 1024 / min(sample.source_half.shape),
            "scale_error": max(abs(scale - 1) for scale in found.scale),
            "agreement": found.support,
        }


LEAST_POINTS, LEAST_SUPPORT, ENOUGH_POINTS = 10, 0.4, 40
"""Fewer agreeing points can be chance, and so can a smaller share of the followed ones, unless there are enough."""
CLOSE_PX = 0.75
"""How near (half-resolution pixels) a followed point must be to a motion to agree with it."""


def motion(
    source: NDArray[np.uint8], edited: NDArray[np.uint8], background: NDArray[np.bool_] | None = None
) -> Motion | None:
    """The motion from one [H, W] luma to another that most blocks agree on, or None if too few agree on any.

    `background` ([h, w], any grid of the same image) is where votes count. Staying in place needs half as
    many votes as the best other motion: a still background may be smooth, and a moved subject full of
    corners.
    """
    before, after = _detail(source), _detail(edited)
    points, followed = _follow(before, after, _corners(source, background))
    if len(points) < LEAST_POINTS:
        return None
    affine, inliers = cv2.estimateAffine2D(
        points, followed, method=cv2.RANSAC, ransacReprojThreshold=CLOSE_PX, maxIters=500, confidence=0.999
    )
    agree = np.zeros(len(points), bool) if affine is None else inliers[:, 0] > 0
    still = np.linalg.norm(followed - points, axis=1) <= 2 * CLOSE_PX
    # A stretch explains the points near its fixed axis too; a moved subject does not explain its background.
    if (still & ~agree).sum() > 0.2 * still.sum():
        if affine is not None:
            still &= _better_unmoved(before, after, affine, points)
        if 2 * still.sum() >= agree.sum():
            agree = still
    if agree.sum() < max(LEAST_POINTS, min(LEAST_SUPPORT * len(points), ENOUGH_POINTS)):
        return None
    homogeneous = np.column_stack([points[agree], np.ones(agree.sum())])
    solution, *_ = np.linalg.lstsq(homogeneous, followed[agree].astype(np.float64), rcond=None)
    return Motion(solution.T, points[agree], float(agree.mean()))


LEAST_CORNER = 2e-5
"""Of the eigenvalue, in OpenCV's units: the noise of a smooth photograph stays mostly below."""
BLOCK = 40
"""Half-resolution pixels: at 1024x1024, 12x12 blocks vote."""
WINDOW, LEVELS = (17, 17), 4
"""Of the Lucas-Kanade tracker: four halvings reach shifts of about 100 half-resolution pixels."""
ENOUGH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 12, 0.02)
"""Its steps a level, and the step in pixels at which it stops."""


def _corners(image: NDArray[np.uint8], background: NDArray[np.bool_] | None) -> Points:
    """The strongest corner of each block that has one (least eigenvalue of the structure tensor; Shi, Tomasi
    1994)."""
    strength = cv2.cornerMinEigenVal(image, blockSize=5, ksize=3)
    margin = BLOCK // 4  # the window of a corner at the border would leave the image
    strength[:margin] = strength[-margin:] = 0
    strength[:, :margin] = strength[:, -margin:] = 0
    if background is not None:
        height, width = strength.shape
        strength *= cv2.resize(background.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    rows, columns = strength.shape[0] // BLOCK, strength.shape[1] // BLOCK
    blocks = strength[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    blocks = blocks.transpose(0, 2, 1, 3).reshape(rows, columns, BLOCK * BLOCK)
    best = blocks.argmax(axis=2)
    y = best // BLOCK + BLOCK * np.arange(rows)[:, None]
    x = best % BLOCK + BLOCK * np.arange(columns)
    strong = blocks.max(axis=2, initial=0) > LEAST_CORNER
    return np.column_stack([x[strong], y[strong]]).astype(np.float32)


def _detail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image less its local mean, so that an edit of light or tone does not move what is followed."""
    return cv2.addWeighted(image, 1, cv2.blur(image, (31, 31)), -1, 128)


def _better_unmoved(
    source: NDArray[np.uint8], edited: NDArray[np.uint8], affine: NDArray[np.float64], points: Points
) -> NDArray[np.bool_]:
    """[n] whether a point's surroundings match clearly better in place than under the motion. On a smooth or striped
    ground the tracker stays put for want of anything to follow, and both match alike: no vote for either."""
    height, width = source.shape
    moved = cv2.warpAffine(edited, affine, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    unmoved_error, moved_error = (cv2.blur(cv2.absdiff(source, image), WINDOW) for image in (edited, moved))
    x, y = points.astype(int).T
    return unmoved_error[y, x] < 0.7 * moved_error[y, x]


def _follow(source: NDArray[np.uint8], edited: NDArray[np.uint8], points: Points) -> tuple[Points, Points]:
    """The points that can be followed to the edited image and back to where they began, and where they went."""
    if not len(points):
        return points, points
    guess = np.empty_like(points)  # an output: the tracker starts from the points themselves
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        source, edited, points, guess, winSize=WINDOW, maxLevel=LEVELS, criteria=ENOUGH
    )
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(
        edited, source, there, guess.copy(), winSize=WINDOW, maxLevel=LEVELS, criteria=ENOUGH
    )
    returned = np.linalg.norm(back - points, axis=1) < 0.5
    good = returned & (found[:, 0] > 0) & (found_back[:, 0] > 0)
    return points[good], there[good]


MOST_STRETCH, MOST_SHEAR, LEAST_REACHED = 0.05, 0.02, 0.7
"""What a repair may undo: axes whose scales differ by so much, so much shear, and a crop that left so much."""


def repair(source: Image, edited: Image) -> tuple[Image, list[list[float]]] | None:
    """The edited image laid onto the source, and the [2][3] affine (source to edited pixels) that did it.

    None when nothing needs repair (equal sizes and under half a pixel), when no motion is known, or when neither the
    edited image nor its plain resize to the source's size is a near-similarity of the source: such pairs were drawn
    anew rather than moved. What the edited image does not reach is filled from the source, which it lies on there.
    """
    height, width = source.shape[:2]
    stretch = np.array([edited.shape[1] / width, edited.shape[0] / height])
    if edited.shape != source.shape:
        edited = cv2.resize(edited, (width, height), interpolation=cv2.INTER_AREA)
    gray = [change.shrink(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 2) for image in (source, edited)]
    found = motion(gray[0], gray[1])
    if found is None or found.support < 0.5:
        return None
    if found.displacement < 0.25 and (stretch == 1).all():
        return None
    if not any(_near_similarity(found.affine[:, :2] * size[:, None]) for size in (np.ones(2), stretch)):
        return None
    # Half-resolution pixel i covers full pixels 2i and 2i + 1: its centre is at 2i + 0.5.
    affine = found.affine.copy()
    affine[:, 2] = 2 * affine[:, 2] + 0.5 - affine[:, :2] @ [0.5, 0.5]
    inverse = cv2.WARP_INVERSE_MAP
    reached = cv2.warpAffine(
        np.full((height, width), 255, np.uint8), affine, (width, height), flags=cv2.INTER_LINEAR | inverse
    )
    if (reached == 255).mean() < LEAST_REACHED:
        return None
    if found.displacement < 0.25:
        laid, affine = (
            edited,
            np.eye(2, 3),
        )  # the resize was the repair: a second interpolation would only blur
    else:
        warped = cv2.warpAffine(
            edited,
            affine,
            (width, height),
            flags=cv2.INTER_LANCZOS4 | inverse,
            borderMode=cv2.BORDER_REPLICATE,
        )
        laid = np.where((reached == 255)[..., None], warped, source)
    # Back to the pixels of the edited image as it came; centres of pixels lie at halves.
    affine[:, 2] = (affine[:, 2] + 0.5) * stretch - 0.5
    affine[:, :2] *= stretch[:, None]
    return laid, affine.tolist()


def _near_similarity(linear: NDArray[np.float64]) -> bool:
    """Whether a [2, 2] map scales both axes nearly alike and keeps them nearly at right angles."""
    x, y = np.linalg.norm(linear, axis=0)
    shear = abs(linear[:, 0] @ linear[:, 1]) / (x * y)
    return bool(abs(x / y - 1) <= MOST_STRETCH and shear <= MOST_SHEAR)
