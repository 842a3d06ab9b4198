"""Copies: finds re-encoded, resized and slightly cropped copies of known pictures among many.

It works in two steps. First, a short vector of each picture (the low frequencies of its grey values, each with its sign
and the square root of its size) is compared with those of 81 windows of each known picture: each axis whole or cropped
by 5 or 10 %, at several places. Then the few nearest known pictures are aligned exactly. A picture is a copy if the
whole, the fine detail and the grey levels all agree. Two meadows under one sky agree as a whole but not in detail; two
drawings of one straight edge agree in both, but seldom in brightness.

A picture without detail (fog, a plain wall) gets no fingerprint, because it would match anything. Mirrored, rotated,
lightened or darkened copies and crops of more than about 12 % of a side are not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.image_file import Refused, Unreadable
from crispedit.normalise import normalise
from crispedit.record import content_key

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
MAX_PIXELS = 200_000_000

Map = NDArray[np.float32]

SIDE, KNOWN_SIDE = 64, 96
"""Side in pixels of a picture's thumbnail, and of a known picture's, of which a window is compared."""
SMALL, FREQUENCIES = 32, 10
LEAST_DETAIL = 0.75
"""The least standard deviation of the fine detail, in grey levels of the thumbnail: below it, JPEG noise is as strong.
"""
STRONG = 3.0
"""Detail is clipped at this many grey levels, so that one sharp edge does not decide."""
LEAST_COSINE, NEAREST = 0.5, 3
"""The least cosine of a known picture that is aligned, and how many are aligned at most."""
LEAST_START = 0.6
"""The least correlation in the vectors' window to go on aligning; copies have 0.78 or more there."""
LEAST_WHOLE, LEAST_FINE = 0.97, 0.94
"""Correlations of a copy. benchmarks/decontamination.py measures what they find and miss."""
MOST_LEVELS = 8.0
"""Largest mean difference of a copy in grey levels. Pictures of little but one straight edge align exactly but differ
in brightness; cropping, scaling and JPEG change it by 6 levels at most."""
CUTS = (
    (0.0, 1.0),
    *((at, at + 0.95) for at in (0.0, 0.025, 0.05)),
    *((at, at + 0.9) for at in (0.0, 0.025, 0.05, 0.075, 0.1)),
)
"""(start, end) of the windows along an axis, as fractions."""
STEPS = (0.0125, 0.006, 0.003)
MARGIN = 0.01

Window = tuple[float, float, float, float]
"""(top, bottom, left, right) as fractions of the sides."""


@dataclass(frozen=True)
class Fingerprint:
    """What is stored of a picture: 17 KB."""

    vector: NDArray[np.float32]
    """[D], of length 1."""
    thumbnail: Map
    """[SIDE, SIDE] grey levels."""


@dataclass(frozen=True)
class Copy:
    """The known picture that a picture is a copy of, by name, and how close: the correlation of their fine detail,
    `LEAST_FINE` to 1."""

    name: str
    closeness: float


def fingerprint(gray: NDArray[np.uint8]) -> Fingerprint | None:
    """The fingerprint of a grey image [H, W]; None if it has too little detail."""
    thumbnail = _thumbnail(gray, SIDE)
    vector = _vector(gray)
    if vector is None or _detail(thumbnail).std() < LEAST_DETAIL:
        return None
    return Fingerprint(vector, thumbnail)


class Known:
    """The pictures whose copies are searched for; each takes about 70 KB of memory."""

    def __init__(self, pictures: Iterable[tuple[str, NDArray[np.uint8]]]) -> None:
        """From (name, grey image [H, W])."""
        self.names: list[str] = []
        self.plain: list[str] = []
        """Names of the pictures without detail, whose copies cannot be found."""
        self._thumbnails: list[Map] = []
        vectors: list[NDArray[np.float32]] = []
        owners: list[int] = []
        self._windows: list[Window] = []
        for name, gray in pictures:
            if fingerprint(gray) is None:
                self.plain.append(name)
                continue
            for window, part in _windows(gray):
                vector = _vector(part)
                if vector is not None:
                    vectors.append(vector)
                    owners.append(len(self.names))
                    self._windows.append(window)
            self.names.append(name)
            self._thumbnails.append(_thumbnail(gray, KNOWN_SIDE))
        self._vectors = np.array(vectors, np.float32)
        self._owners = np.array(owners, np.int64)

    def find(self, picture: Fingerprint) -> Copy | None:
        """The known picture that this one is a copy of; of several the closest, and the first by name among equals."""
        if not self.names:
            return None
        cosines = self._vectors @ picture.vector
        best = None
        for at in self._nearest(cosines):
            closeness = _closeness(picture.thumbnail, self._thumbnails[self._owners[at]], self._windows[at])
            copy = Copy(self.names[self._owners[at]], closeness)
            if closeness and (best is None or (-closeness, copy.name) < (-best.closeness, best.name)):
                best = copy
        return best

    def _nearest(self, cosines: NDArray[np.float32]) -> list[int]:
        """The best window of each of the nearest pictures."""
        near = np.flatnonzero(cosines >= LEAST_COSINE)
        near = near[np.argsort(-cosines[near], kind="stable")]
        _, first = np.unique(self._owners[near], return_index=True)
        return [int(near[at]) for at in np.sort(first)[:NEAREST]]


def _windows(gray: NDArray[np.uint8]) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
    height, width = gray.shape
    for (top, bottom), (left, right) in product(CUTS, CUTS):
        rows = slice(round(top * height), max(round(top * height) + 1, round(bottom * height)))
        columns = slice(round(left * width), max(round(left * width) + 1, round(right * width)))
        yield (top, bottom, left, right), gray[rows, columns]


def _vector(gray: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Frequencies, weighted up with their height because pictures have less of the high ones, and compressed by a
    square root so that no few of them dominate."""
    small = cv2.resize(gray, (SMALL, SMALL), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < 1.0:
        return None
    waves = cv2.dct(small)[:FREQUENCIES, :FREQUENCIES]
    down, across = np.indices(waves.shape)
    weighted = (waves * np.hypot(down, across))[down + across <= FREQUENCIES + 2]
    vector = np.sign(weighted) * np.sqrt(np.abs(weighted))
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _thumbnail(gray: NDArray[np.uint8], side: int) -> Map:
    small = cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 0.7), np.float32)


def _closeness(picture: Map, known: Map, window: Window) -> float:
    """The correlation of the fine detail at the best alignment near this window; 0 if either correlation is too low for
    a copy, or the grey levels differ."""
    whole, window = _laid(picture, known, window)
    part = _part(known, window)
    if whole < LEAST_WHOLE or np.abs(picture - part).mean() > MOST_LEVELS:
        return 0.0
    fine = _correlation(_unit(_detail(picture)), _detail(part))
    return round(fine, 4) if fine >= LEAST_FINE else 0.0


def _laid(picture: Map, known: Map, window: Window) -> tuple[float, Window]:
    """Move the window's edges one at a time, in ever smaller steps, while the agreement improves."""
    unit = _unit(picture)
    edges = list(window)
    best = _correlation(unit, _part(known, window))
    if best < LEAST_START:
        return best, window
    for step in STEPS:
        for _ in range(6):
            before = best
            for edge, move in product(range(4), (-step, step)):
                moved = edges.copy()
                moved[edge] += move
                if not -MARGIN <= moved[edge] <= 1 + MARGIN:
                    continue
                value = _correlation(unit, _part(known, (moved[0], moved[1], moved[2], moved[3])))
                if value > best:
                    best, edges = value, moved
            if best == before:
                break
    return best, (edges[0], edges[1], edges[2], edges[3])


def _part(known: Map, window: Window) -> Map:
    top, bottom, left, right = window
    across, down = ((end - start) * KNOWN_SIDE / SIDE for start, end in ((left, right), (top, bottom)))
    place = np.array(
        [
            [across, 0, left * KNOWN_SIDE + (across - 1) / 2],
            [0, down, top * KNOWN_SIDE + (down - 1) / 2],
        ],
        np.float32,
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(known, place, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32
    )


def _detail(thumbnail: Map) -> Map:
    """Detail between one and three pixels wide, without the rim and without whole rows or columns: any two pictures
    share a horizon."""
    soft = cv2.GaussianBlur(thumbnail, (0, 0), 1)
    detail = (soft - cv2.GaussianBlur(soft, (0, 0), 3))[3:-3, 3:-3]
    detail = detail - detail.mean(axis=1, keepdims=True)
    detail = detail - detail.mean(axis=0, keepdims=True)
    return np.asarray(STRONG * np.tanh(detail / STRONG), np.float32)


def _unit(image: Map) -> Map:
    centred = image - image.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-6), np.float32)


def _correlation(unit: Map, other: Map) -> float:
    return float((unit * _unit(other)).sum())


def pictures_in(folder: str) -> list[Path]:
    """The image files in a local folder and those below it, sorted. ValueError if there are none."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{folder}: no image files ({', '.join(SUFFIXES)}) to compare with in this folder")
    return paths


def digest(folders: Sequence[str]) -> str:
    """A digest of the names and sizes of the files in these folders, wherever the folders are."""
    return content_key(
        *(
            f"{path.relative_to(folder).as_posix()} {path.stat().st_size}"
            for folder in folders
            for path in pictures_in(folder)
        )
    )


def read(folders: Sequence[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """(path, grey image) of the pictures in these folders. ValueError names an unreadable file: its copies would go
    unnoticed."""
    for folder in folders:
        for path in pictures_in(folder):
            try:
                picture = normalise(path.read_bytes(), max_pixels=MAX_PIXELS, max_short_side_px=512)
            except (Refused, Unreadable) as error:
                raise ValueError(f"{path}: cannot be read: {error}; repair it or take it out") from error
            yield str(path), cv2.cvtColor(picture.image, cv2.COLOR_RGB2GRAY)
