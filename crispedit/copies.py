"""Copies: finds re-encoded, resized and cropped copies of known pictures among many.

Two steps. First a short vector of each picture, low frequencies of its grey values with their signs and the square
roots of their sizes, is compared with those of windows of each known picture (each axis whole or cut by 10 or 20 %, at
several places). Then each of the few nearest known pictures is aligned with the picture. It is a copy if it lies inside
the known picture, and if the whole, the fine detail and the grey levels agree: two meadows under one sky agree in the
first and not in the second.

A known picture must have detail that fixes its place. Copies of fog are not found, nor those of one edge between two
flat areas: any piece of that edge lies on any other. Mirrored and rotated copies, copies made lighter or darker, and
crops of more than a fifth of a side, are not found.
"""

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
LEAST_DETAIL, KNOWN_DETAIL = 0.5, 1.0
"""Standard deviation of the fine detail, in grey levels of the thumbnail: below, JPEG's own noise is as strong. More is
asked of a known picture, because cropping and scaling take detail away."""
LEAST_FIRMNESS = 0.003
"""Of a known picture: the curvature of its detail's correlation with itself as the four edges move, in the direction in
which it falls the least. At this value the edges move by 8 pixels of the thumbnail (root of the sum of squares) before
the correlation is that of no copy: 1 - 0.003 x 8^2 / 2 = 0.9."""
STRONG = 3.0
"""Detail is clipped at this many grey levels, so that one sharp edge does not decide."""
LEAST_COSINE, NEAREST = 0.5, 3
"""Which known pictures are looked at closely, and how many at most."""
LEAST_WHOLE, LEAST_FINE = 0.95, 0.9
"""Correlations of a copy. benchmarks/decontamination.py measures what they find and miss."""
MOST_LEVELS = 8.0
"""Mean difference of a copy in grey levels, which cropping, scaling and JPEG leave as they are (6 levels at most were
seen)."""
LEAST_SIDE, MARGIN = 0.77, 0.03
"""The least share of each side that a copy shows, and how far it may reach out of the known picture."""
CUTS = ((0.0, 1.0), *((at, at + 0.9) for at in (0.0, 0.05, 0.1)), *((at, at + 0.8) for at in (0.0, 0.1, 0.2)))
"""(start, end) of the windows along an axis, as fractions."""
SOFT, ROUNDS = (2.0, 0.5), 8
"""Standard deviations, in pixels of the thumbnail, of the smoothing while pictures are aligned, and rounds at each."""
FARTHEST = 0.05
"""How far an edge moves in a round, as a share of the side."""

Window = NDArray[np.float64]
"""[4] top, bottom, left, right as fractions of the sides."""


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


def _is_distinct(gray: NDArray[np.uint8]) -> bool:
    """Whether a picture has detail that fixes its place."""
    detail = _detail(_thumbnail(gray, SIDE))
    effects = _effects(detail)
    firmness = np.linalg.eigvalsh(effects @ effects.T)[0] / max(float((detail * detail).sum()), 1e-6)
    return bool(detail.std() >= KNOWN_DETAIL and firmness >= LEAST_FIRMNESS)


class Known:
    """Pictures whose copies are looked for; each takes about 60 KB of memory."""

    def __init__(self, pictures: Iterable[tuple[str, NDArray[np.uint8]]]) -> None:
        """From (name, grey image [H, W])."""
        self.names: list[str] = []
        self.plain: list[str] = []
        """Names of the pictures without enough detail, of which no copy is found."""
        self._thumbnails: list[Map] = []
        vectors: list[NDArray[np.float32]] = []
        owners: list[int] = []
        self._windows: list[Window] = []
        for name, gray in pictures:
            if not _is_distinct(gray):
                self.plain.append(name)
                continue
            for window, part in _windows(gray):
                if (vector := _vector(part)) is not None:
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
        near = np.flatnonzero(cosines >= LEAST_COSINE)
        near = near[np.argsort(-cosines[near], kind="stable")]
        _, first = np.unique(self._owners[near], return_index=True)  # the best window of each picture
        copies = []
        for at in near[np.sort(first)[:NEAREST]]:
            owner = self._owners[at]
            closeness = _closeness(picture.thumbnail, self._thumbnails[owner], self._windows[at])
            copies.append(Copy(self.names[owner], closeness))
        return min((c for c in copies if c.closeness), key=lambda c: (-c.closeness, c.name), default=None)


def _windows(gray: NDArray[np.uint8]) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
    height, width = gray.shape
    for (top, bottom), (left, right) in product(CUTS, CUTS):
        rows = slice(round(top * height), max(round(top * height) + 1, round(bottom * height)))
        columns = slice(round(left * width), max(round(left * width) + 1, round(right * width)))
        yield np.array((top, bottom, left, right)), gray[rows, columns]


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
    """The correlation of the fine detail where the picture lies best on the known one, near this window; 0 if it is no
    copy."""
    window = _aligned(picture, known, window)
    if min(window[1::2] - window[::2]) < LEAST_SIDE or min(window) < -MARGIN or max(window) > 1 + MARGIN:
        return 0.0
    part = _part(known, window)
    if _correlation(picture, part) < LEAST_WHOLE or np.abs(picture - part).mean() > MOST_LEVELS:
        return 0.0
    fine = _correlation(_detail(picture), _detail(part))
    return round(fine, 4) if fine >= LEAST_FINE else 0.0


def _aligned(picture: Map, known: Map, window: Window) -> Window:
    """The window of the known picture in which the picture lies best, near this one, by Gauss-Newton (Lucas and Kanade,
    1981) for its four edges and the gain and offset of the grey values."""
    edges = window
    for soft in SOFT:
        wanted, within = (cv2.GaussianBlur(image, (0, 0), soft) for image in (picture, known))
        for _ in range(ROUNDS):
            part = _part(within, edges)
            columns = np.stack([*_effects(part), part.ravel(), np.ones(part.size, np.float32)])
            *moves, gain, _ = np.linalg.lstsq(columns @ columns.T, columns @ wanted.ravel(), rcond=None)[0]
            sides = np.repeat(edges[1::2] - edges[::2], 2)
            edges = edges + np.clip(np.array(moves) / max(gain, 0.5) / SIDE, -FARTHEST, FARTHEST) * sides
            if min(edges[1::2] - edges[::2]) < LEAST_SIDE / 2:  # it runs away: nothing in common
                return window
    return edges


def _effects(image: Map) -> Map:
    """[4, pixels] how each pixel changes when the top, bottom, left or right edge of what is shown moves by a pixel."""
    down, across = np.gradient(image)
    below, beside = ((np.arange(size, dtype=np.float32) + 0.5) / size for size in image.shape)
    effects = (down * (1 - below)[:, None], down * below[:, None], across * (1 - beside), across * beside)
    return np.stack([effect.ravel() for effect in effects])


def _part(known: Map, window: Window) -> Map:
    top, bottom, left, right = window
    across, down = ((end - start) * KNOWN_SIDE / SIDE for start, end in ((left, right), (top, bottom)))
    place = np.array(
        [[across, 0, left * KNOWN_SIDE + (across - 1) / 2], [0, down, top * KNOWN_SIDE + (down - 1) / 2]], np.float32
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    part = cv2.warpAffine(known, place, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(part, np.float32)


def _detail(thumbnail: Map) -> Map:
    """Detail between one and three pixels wide, without the rim and without whole rows or columns: any two pictures
    share a horizon."""
    soft = cv2.GaussianBlur(thumbnail, (0, 0), 1)
    detail = (soft - cv2.GaussianBlur(soft, (0, 0), 3))[3:-3, 3:-3]
    detail = detail - detail.mean(axis=1, keepdims=True)
    detail = detail - detail.mean(axis=0, keepdims=True)
    return np.asarray(STRONG * np.tanh(detail / STRONG), np.float32)


def _correlation(one: Map, other: Map) -> float:
    centred, against = one - one.mean(), other - other.mean()
    return float((centred * against).sum() / max(np.linalg.norm(centred) * np.linalg.norm(against), 1e-6))


def pictures_in(folder: str) -> list[Path]:
    """The image files in a local folder and those below it, sorted, no hidden ones. ValueError if there are none."""
    pictures = [path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    shown = [path for path in pictures if not any(p.startswith(".") for p in path.relative_to(folder).parts)]
    if not shown:
        raise ValueError(f"{folder}: no image files ({', '.join(SUFFIXES)}) to compare with in this folder")
    return sorted(shown)


def digest(folders: Sequence[str]) -> str:
    """A digest of the names and sizes of the files in these folders, wherever the folders are."""
    files = [(path.relative_to(folder), path.stat().st_size) for folder in folders for path in pictures_in(folder)]
    return content_key(*(f"{path.as_posix()} {size}" for path, size in files))


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
