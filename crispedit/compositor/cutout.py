"""The cutout: a photograph's own main subject, by GrabCut from a contrast and centre prior, if it stands out clearly."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.record import Image

_STUDY_PX = 160


@dataclass(frozen=True)
class Cutout:
    """A subject's `alpha` [H, W] float32 0-1, at the photograph's size, and its median colour's pixels at study size."""

    alpha: NDArray[np.float32]
    pixels: NDArray[np.uint8]


def cut_out(image: Image) -> Cutout | None:
    """The main subject, or None where nothing stands out compactly from its surroundings."""
    height, width = image.shape[:2]
    scale = _STUDY_PX / max(height, width)
    small = cv2.resize(
        image, (max(16, round(width * scale)), max(16, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    labels = _prior(small)
    if labels is None:
        return None
    cv2.setRNGSeed(1)
    cv2.grabCut(small, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(found)
    if count < 2:
        return None
    main = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    area = int(stats[main, cv2.CC_STAT_AREA])
    if area < 0.7 * found.sum() or not 0.02 < area / found.size < 0.6:
        return None
    subject = parts == main
    if not _stands_out(small, subject):
        return None
    return Cutout(_refine(image, subject.astype(np.float32)), small[subject])


def _prior(small: Image) -> NDArray[np.uint8] | None:
    """GrabCut's labels from how unlike the frame's border a pixel is, in Lab, and how near the centre."""
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    h, w = lab.shape[:2]
    edge = max(2, min(h, w) // 14)
    border = np.concatenate(
        [lab[:edge].reshape(-1, 3), lab[:, :edge].reshape(-1, 3), lab[:, -edge:].reshape(-1, 3)]
    )
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, 8, 1.0)
    cv2.setRNGSeed(1)
    _, _, centers = cv2.kmeans(border, 4, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    unlike = np.min([np.sqrt((((lab - c) * (0.5, 1, 1)) ** 2).sum(axis=2)) for c in centers], axis=0)
    y, x = np.mgrid[0:h, 0:w]
    central = np.exp(-(((x / w - 0.5) / 0.38) ** 2 + ((y / h - 0.55) / 0.42) ** 2))
    salient = cv2.GaussianBlur((unlike * (0.25 + central)).astype(np.float32), (0, 0), 1.5)
    sure = np.percentile(salient, 92)
    if sure < 12:
        return None
    labels = np.full((h, w), cv2.GC_PR_BGD, np.uint8)
    labels[salient > np.percentile(salient, 75)] = cv2.GC_PR_FGD
    labels[salient > np.percentile(salient, 95)] = cv2.GC_FGD
    labels[salient < np.percentile(salient, 20)] = cv2.GC_BGD
    return labels


def _stands_out(small: Image, subject: NDArray[np.bool_]) -> bool:
    """Whether a subject keeps off most of the frame and differs in colour from what lies around it."""
    frame = np.concatenate([subject[0], subject[-1], subject[:, 0], subject[:, -1]])
    if frame.mean() > 0.3:
        return False
    around = cv2.dilate(subject.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool) & ~subject
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    return bool(np.linalg.norm(np.median(lab[subject], axis=0) - np.median(lab[around], axis=0)) > 28)


def _refine(image: Image, coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """The coarse mask at full size, its edge pulled onto the picture's (guided filter, He et al. 2010) at 640 px."""
    height, width = image.shape[:2]
    scale = min(1.0, 640 / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    guide = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32).mean(axis=2) / 255
    mask = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
    k = (max(3, size[0] // 60) | 1,) * 2
    mean_g, mean_m = cv2.blur(guide, k), cv2.blur(mask, k)
    a = (cv2.blur(guide * mask, k) - mean_g * mean_m) / (cv2.blur(guide * guide, k) - mean_g**2 + 1e-3)
    b = mean_m - a * mean_g
    alpha = cv2.blur(a, k) * guide + cv2.blur(b, k)
    alpha = np.clip((alpha - 0.25) / 0.5, 0, 1)
    full = cv2.resize(alpha.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(full < 0.02, 0, full).astype(np.float32)
