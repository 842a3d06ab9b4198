"""Motion: the affine motion between two images of a scene, by a vote of their blocks.

Each block of the image has one vote: its best corner is tracked from source to edited and back (pyramidal
Lucas-Kanade). The affine motion with most votes is the misalignment; the edit's own blocks are outvoted.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change

Points = NDArray[np.float32]
"""[n, 2]: x, y in pixels of the given images."""


@dataclass(frozen=True)
class Motion:
    """The motion from source to edited image: `affine` [2, 3] maps source pixels to edited pixels, both at the measured
    size."""

    affine: NDArray[np.float64]
    points: Points
    """The source points that agree on it."""
    support: float
    """Their share of all tracked points, 0-1."""

    @property
    def displacement(self) -> float:
        """90th percentile of the agreeing points' displacement, in pixels."""
        moved = self.points @ self.affine[:, :2].T + self.affine[:, 2]
        return float(np.percentile(np.linalg.norm(moved - self.points, axis=1), 90))

    @property
    def scale(self) -> tuple[float, float]:
        """Horizontal and vertical magnification."""
        x, y = np.linalg.norm(self.affine[:, :2], axis=0)
        return float(x), float(y)

    def undone(self, edited: NDArray[np.uint8], source: NDArray[np.uint8], scale: float = 1.0) -> NDArray[np.uint8]:
        """The edited image aligned to the source, both `scale` times the measured size. Where it does not reach, the
        result is the source."""
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        affine, size = self.at(scale), source.shape[1::-1]
        moved = cv2.warpAffine(edited, affine, size, source.copy(), flags=flags, borderMode=cv2.BORDER_TRANSPARENT)
        return np.asarray(moved, np.uint8)

    def at(self, scale: float) -> NDArray[np.float64]:
        """The affine [2, 3] in pixels of images `scale` times the measured size; pixel centres are at halves."""
        linear, half = self.affine[:, :2], np.full(2, 0.5)
        offset = scale * (self.affine[:, 2] + half - linear @ half) + linear @ half - half
        return np.column_stack([linear, offset])


STILL_PX = 0.25
"""Smaller motions are measurement error."""
CONFIRMED = 0.9
"""The largest share of the error that may remain once a motion is undone; redrawn texture leaves more."""
LEAST_POINTS, LEAST_SUPPORT, ENOUGH_POINTS = 10, 0.4, 40
"""Fewer agreeing points, or a smaller share of the tracked ones, can be chance, unless ENOUGH_POINTS agree."""
CLOSE_PX = 0.75
"""The largest distance, in pixels, of a tracked point from a motion that it agrees with."""


@dataclass(frozen=True)
class Tracks:
    """Points tracked from one [H, W] luma image to another and back: at most one per block."""

    source: NDArray[np.uint8]
    edited: NDArray[np.uint8]
    """Both images, minus their local means."""
    points: Points
    followed: Points
    """Where the points moved to."""

    def wander(self, motion: Motion | None, where: NDArray[np.bool_]) -> float | None:
        """The median distance, in pixels, of tracked points in a region ([h, w], any grid of the image) from where the
        motion (or no motion) puts them; None for fewer than `LEAST_WANDERERS` points."""
        inside = change.onto(where, self.source.shape)
        x, y = self.points.astype(int).T
        affine = np.eye(2, 3) if motion is None else motion.affine
        expected = self.points @ affine[:, :2].T + affine[:, 2]
        distances = np.linalg.norm(self.followed - expected, axis=1)[inside[y, x]]
        return float(np.median(distances)) if len(distances) >= LEAST_WANDERERS else None


LEAST_WANDERERS = 20


def tracks(source: NDArray[np.uint8], edited: NDArray[np.uint8], background: NDArray[np.bool_] | None = None) -> Tracks:
    """Each block's best corner, if it can be tracked; only blocks in `background` ([h, w], any grid of the image)
    count."""
    before, after = _detail(source), _detail(edited)
    return Tracks(before, after, *_follow(before, after, _corners(source, background)))


def motion(tracks: Tracks) -> Motion | None:
    """The motion that most blocks agree on; None if too few agree on any.

    No motion wins with half the votes of the best other motion: a still background may be smooth while a moved subject
    is full of corners.
    """
    before, after, points, followed = tracks.source, tracks.edited, tracks.points, tracks.followed
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
            # On smooth or striped ground the tracker finds nothing to follow, and both match equally well: that is a
            # vote for neither.
            unmoved, moved = _errors(before, after, affine, points)
            still &= unmoved < 0.7 * moved
        if 2 * still.sum() >= agree.sum():
            agree = still
    if agree.sum() < max(LEAST_POINTS, min(LEAST_SUPPORT * len(points), ENOUGH_POINTS)):
        return None
    homogeneous = np.column_stack([points[agree], np.ones(agree.sum())])
    solution, *_ = np.linalg.lstsq(homogeneous, followed[agree].astype(np.float64), rcond=None)
    motion = Motion(solution.T, points[agree], float(agree.mean()))
    if motion.displacement >= STILL_PX:
        unmoved, moved = _errors(before, after, motion.affine, motion.points)
        if moved.mean() > CONFIRMED * unmoved.mean():
            return replace(motion, affine=np.eye(2, 3))
    return motion


LEAST_CORNER = 2.02e-5
"""Least strength of a corner (`cv2.cornerMinEigenVal`): the noise of a smooth photograph is mostly below."""
BLOCK = 40
"""Side of a block in pixels: 12 blocks fit a side of 512 px."""
WINDOW, LEVELS = (17, 17), 4
"""The Lucas-Kanade tracker's: four halvings reach shifts of about 100 pixels."""
FEW = 0.1
"""The share of points that are not tracked if all others have not moved."""
ENOUGH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 12, 0.02)
"""The tracker's steps per level, and the step in pixels at which it stops."""


def _corners(image: NDArray[np.uint8], background: NDArray[np.bool_] | None) -> Points:
    """The strongest corner of each block that has one."""
    strength = cv2.cornerMinEigenVal(image, 5)
    margin = BLOCK // 4  # the window of a corner at the border would leave the image
    strength[:margin] = strength[-margin:] = 0
    strength[:, :margin] = strength[:, -margin:] = 0
    if background is not None:
        strength *= change.onto(background, strength.shape)
    rows, columns = strength.shape[0] // BLOCK, strength.shape[1] // BLOCK
    split = strength[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    blocks = split.transpose(0, 2, 1, 3).reshape(rows, columns, BLOCK * BLOCK)
    best = blocks.argmax(axis=2)
    y = best // BLOCK + BLOCK * np.arange(rows)[:, None]
    x = best % BLOCK + BLOCK * np.arange(columns)
    strong = blocks.max(axis=2, initial=0) > LEAST_CORNER
    return np.column_stack([x[strong], y[strong]]).astype(np.float32)


def _detail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image minus its local mean, so that edits of light or tone do not disturb the tracking."""
    return cv2.addWeighted(image, 1, cv2.blur(image, (31, 31)), -1, 128)


def _errors(
    source: NDArray[np.uint8], edited: NDArray[np.uint8], affine: NDArray[np.float64], points: Points
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[n] each: mean error, in levels, of each point's surroundings, in place and under the motion."""
    height, width = source.shape
    moved = cv2.warpAffine(edited, affine, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    x, y = points.astype(int).T
    here, there = (cv2.blur(cv2.absdiff(source, image), WINDOW)[y, x] for image in (edited, moved))
    return here.astype(np.float64), there.astype(np.float64)


def _follow(source: NDArray[np.uint8], edited: NDArray[np.uint8], points: Points) -> tuple[Points, Points]:
    """The points that can be tracked to the edited image and back to their start, and where they moved to.

    A point with equal surroundings in both images has not moved and is not tracked. If that is all but a few, the
    others cannot outvote them and are left out.
    """
    differs = cv2.dilate(cv2.absdiff(source, edited), np.ones(WINDOW, np.uint8))
    x, y = points.astype(int).T
    searched = differs[y, x] > 0
    there, good = points.copy(), ~searched
    if searched.sum() > FEW * len(points):
        start = points[searched]
        end, tracked = _track(source, edited, start)
        back, tracked_back = _track(edited, source, end)
        there[searched] = end
        good[searched] = tracked & tracked_back & (np.linalg.norm(back - start, axis=1) < 0.5)
    return points[good], there[good]


def _track(source: NDArray[np.uint8], edited: NDArray[np.uint8], points: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Where the points moved to, and [n] whether they could be tracked."""
    there = np.empty_like(points)  # an output: the tracker starts from the points themselves
    there, tracked, _ = cv2.calcOpticalFlowPyrLK(
        source, edited, points, there, winSize=WINDOW, maxLevel=LEVELS, criteria=ENOUGH
    )
    return there, tracked[:, 0] > 0
