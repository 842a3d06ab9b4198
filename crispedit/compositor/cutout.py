"""The cutout: a photograph's own main subject, by GrabCut from a contrast and focus prior, if it stands out."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.images import fitted
from crispedit.record import Image

_STUDY_PX = 168


@dataclass(frozen=True)
class Cutout:
    """The main subject of a photograph at study size: its mask [h, w] and its pixels [N, 3]."""

    shape: NDArray[np.bool_]
    pixels: NDArray[np.uint8]


def find(image: Image) -> Cutout | None:
    """The main subject, or None if nothing compact and sharp stands out from its surroundings."""
    height, width = image.shape[:2]
    scale = _STUDY_PX / max(height, width)
    if min(height, width) * scale < 24:
        return None
    size = round(width * scale), round(height * scale)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    labels = _prior(small)
    if labels is None:
        return None
    cv2.setRNGSeed(1)
    cv2.grabCut(small, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    mask = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    main = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    area = int(stats[main, cv2.CC_STAT_AREA])
    if area < 0.75 * mask.sum() or not 0.03 < area / mask.size < 0.68:
        return None
    subject = parts == main
    return Cutout(subject, small[subject]) if _stands_out(small, subject) else None


def cut_out(image: Image, subject: Cutout) -> NDArray[np.float32]:
    """[H, W], 0-1: the subject's share of each pixel. The shape is enlarged and its edge fitted to the picture's
    (guided filter, He et al. 2010, over colour, at up to 800 pixels)."""
    guide = fitted(image, 800).astype(np.float32) / np.float32(255)
    mask = cv2.resize(subject.shape.astype(np.float32), guide.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    alpha = _guided(guide, mask, max(3, max(mask.shape) // 90) | 1)
    alpha = _guided(guide, np.clip((alpha - 0.25) / 0.5, 0, 1), max(3, max(mask.shape) // 160) | 1)
    alpha = np.clip((alpha - 0.22) / 0.56, 0, 1).astype(np.float32)
    full = cv2.resize(alpha, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(full < 0.02, 0, full).astype(np.float32)


def over(front: Image, alpha: NDArray[np.float32], behind: Image) -> Image:
    """The subject of a photograph in front of another picture. Its colour is first spread outwards into its soft edge,
    where the old background shines through."""
    solid = (alpha > 0.97).astype(np.float32)
    sigma = max(1.0, min(alpha.shape) / 160)
    near = cv2.GaussianBlur(solid, (0, 0), sigma)
    spread = cv2.GaussianBlur(front.astype(np.float32) * solid[..., None], (0, 0), sigma)
    own = np.where((near > 0.02)[..., None], spread / np.maximum(near, 0.02)[..., None], front)
    a = alpha[..., None]
    rim = np.clip((1 - a) * 1.5, 0, 1)
    mixed = (front * (1 - rim) + own * rim) * a + behind * (1 - a)
    return np.where(a >= 1, front, np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def _guided(guide: NDArray[np.float32], mask: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The guided filter with a colour guide [H, W, 3] in windows of `side` pixels."""
    k = (side, side)
    mean_g, mean_m = cv2.blur(guide, k), cv2.blur(mask, k)
    cross = cv2.blur(guide * mask[..., None], k) - mean_g * mean_m[..., None]
    r, g, b = cv2.split(guide)
    pairs = [(r, r, 0, 0), (r, g, 0, 1), (r, b, 0, 2), (g, g, 1, 1), (g, b, 1, 2), (b, b, 2, 2)]
    rr, rg, rb, gg, gb, bb = (
        cv2.blur(p * q, k) - mean_g[..., i] * mean_g[..., j] + np.float32(4e-4 * (i == j)) for p, q, i, j in pairs
    )
    # The inverse of the symmetric 3x3 covariance, by cofactors.
    c0, c1, c2 = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c3, c4, c5 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    det = rr * c0 + rg * c1 + rb * c2
    x, y, z = cv2.split(cross)
    a = np.stack([c0 * x + c1 * y + c2 * z, c1 * x + c3 * y + c4 * z, c2 * x + c4 * y + c5 * z], axis=2)
    a /= np.maximum(det, 1e-12)[..., None]
    offset = mean_m - (a * mean_g).sum(axis=2)
    return (cv2.blur(a, k) * guide).sum(axis=2) + cv2.blur(offset, k)


def _prior(small: Image) -> NDArray[np.uint8] | None:
    """GrabCut's initial labels, from a pixel's Lab distance to the frame's border and its nearness to the centre."""
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    h, w = lab.shape[:2]
    edge = max(2, min(h, w) // 14)
    border = np.concatenate([lab[:edge].reshape(-1, 3), lab[:, :edge].reshape(-1, 3), lab[:, -edge:].reshape(-1, 3)])
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, 8, 1.0)
    cv2.setRNGSeed(1)
    _, label, centers = cv2.kmeans(border, 4, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    # A colour on only a small part of the border may be a subject that extends out of the picture.
    share = np.bincount(label.ravel(), minlength=4) / len(border)
    common = centers[(share > 0.33) | (share == share.max())]
    unlike = np.min([np.sqrt((((lab - c) * (0.5, 1, 1)) ** 2).sum(axis=2)) for c in common], axis=0)
    y, x = np.mgrid[0:h, 0:w]
    central = np.exp(-(((x / w - 0.5) / 0.38) ** 2 + ((y / h - 0.55) / 0.42) ** 2))
    # Subjects are in focus.
    detail = cv2.GaussianBlur(np.abs(lab[..., 0] - cv2.GaussianBlur(lab[..., 0], (0, 0), 1.5)), (0, 0), 4)
    focus = 0.35 + np.clip(detail / max(float(np.percentile(detail, 90)), 1e-3), 0, 1)
    salient = cv2.GaussianBlur((unlike * (0.25 + central) * focus).astype(np.float32), (0, 0), 1.5)
    if np.percentile(salient, 92) < 10:
        return None
    labels = np.full((h, w), cv2.GC_PR_BGD, np.uint8)
    labels[salient > np.percentile(salient, 75)] = cv2.GC_PR_FGD
    labels[salient > np.percentile(salient, 95)] = cv2.GC_FGD
    labels[salient < np.percentile(salient, 20)] = cv2.GC_BGD
    return labels


def _stands_out(small: Image, subject: NDArray[np.bool_]) -> bool:
    """Whether a subject avoids most of the frame, differs in colour from its surroundings, and has a sharp edge."""
    frame = np.concatenate([subject[0], subject[-1], subject[:, 0], subject[:, -1]])
    # A region that reaches both sides is a floor or a strip of land, not a subject.
    if frame.mean() > 0.55 or min(subject[:, 0].mean(), subject[:, -1].mean()) > 0.15:
        return False
    shape = subject.astype(np.uint8)
    around = cv2.dilate(shape, np.ones((15, 15), np.uint8)).astype(bool) & ~subject
    inside = cv2.erode(shape, np.ones((5, 5), np.uint8)).astype(bool)
    outside = ~cv2.dilate(shape, np.ones((7, 7), np.uint8)).astype(bool)
    if not inside.any() or not outside.any():
        return False
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    colour = np.linalg.norm(np.median(lab[subject], axis=0) - np.median(lab[around], axis=0))
    detail = np.abs(lab[..., 0] - cv2.GaussianBlur(lab[..., 0], (0, 0), 1.5))
    focus = detail[inside].mean() / max(float(detail[outside].mean()), 1e-3)
    busy = np.percentile(detail[outside], 90)
    gx, gy = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    steep = np.sqrt((gx * gx + gy * gy).sum(axis=2))
    rim = cv2.morphologyEx(shape, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
    rim[[0, -1]] = rim[:, [0, -1]] = False
    edge = np.median(steep[rim])
    # Among other sharp things nothing is the main subject: the rest must be blurred, plain, or of another colour.
    if busy <= 4:
        return bool(colour >= 30 and focus >= 1.4 and edge > (140 if frame.mean() < 0.35 else 220))
    return bool(busy <= 15 and colour >= 105 and focus >= 1.8 and edge > 260)
