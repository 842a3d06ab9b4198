"""Defects: known faults, made on purpose in good pairs to test filters.

A defect takes a good pair and a generator seeded by its key, and returns the defective edited image; source,
instruction and stored mask stay the same. Strengths are drawn from the given ranges, starting at the weakest that a
careful person would reject. Semantic defects leave every pixel good and mix a pair up with another one; only the
meaning of words or pictures shows them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from crispedit.change import grow
from crispedit.record import Image, Mask, Sample

Generator = np.random.Generator


@dataclass(frozen=True)
class Good:
    """A good pair: [H, W, 3] RGB source and edited image, and [H, W] where the edit is (true or estimated)."""

    source: Image
    edited: Image
    edit: Mask


Make = Callable[[Good, Generator], Image | None]
"""The edited image of the defective pair, or None if the defect is impossible (no room outside the edit)."""
STRUCTURAL: dict[str, Make] = {}
"""Defects that pixels alone show, by name."""
LEAST_LEFT_ALONE = 0.2


def _structural(make: Make) -> Make:
    STRUCTURAL[make.__name__] = make
    return make


def _of_the_rest(make: Make) -> Make:
    """A structural defect that is impossible unless the edit leaves a fifth of the image alone; otherwise it looks like
    part of the edit.

    A style is a new tone, sharpness and number of colours by definition (pixel art is blocks), and may redraw every
    edge that would show a shift; so is a whole new background.
    """

    @wraps(make)
    def checked(good: Good, rng: Generator) -> Image | None:
        return make(good, rng) if (~good.edit).mean() >= LEAST_LEFT_ALONE else None

    return _structural(checked)


@_structural
def no_op(good: Good, rng: Generator) -> Image:
    """The editor returned its input."""
    return good.source


@_structural
def re_encoded(good: Good, rng: Generator) -> Image:
    """The editor returned its input as a JPEG of quality 70-90, with chroma subsampling."""
    return _jpeg(good.source, int(rng.integers(70, 91)))


@_structural
def noise(good: Good, rng: Generator) -> Image:
    """The editor returned its input with 1 or 2 levels of noise."""
    levels = int(rng.integers(1, 3))
    return _bytes(good.source.astype(np.int16) + rng.integers(-levels, levels + 1, good.source.shape, np.int16))


@_structural
def speck(good: Good, rng: Generator) -> Image:
    """The only change is a spot of 0.02-0.04 % of the image."""
    height, width = good.source.shape[:2]
    radius = (rng.uniform(0.0002, 0.0004) * height * width / np.pi) ** 0.5
    edited = good.source.copy()
    x, y = int(rng.integers(20, width - 20)), int(rng.integers(20, height - 20))
    colour = 255 - good.source[y, x].astype(np.int16)
    cv2.circle(edited, (x, y), round(radius), tuple(map(int, colour)), -1, cv2.LINE_AA)
    return edited


@_structural
def leakage(good: Good, rng: Generator) -> Image | None:
    """Something else changed too: the colours of 4-10 % of the image, away from the edit."""
    height, width = good.source.shape[:2]
    area = rng.uniform(0.04, 0.10) * height * width
    aspect = rng.uniform(0.6, 1.6)
    half = round((area / np.pi * aspect) ** 0.5), round((area / np.pi / aspect) ** 0.5)
    room = ~grow(good.edit, 24)
    for _ in range(200):
        centre = int(rng.integers(half[0], width - half[0])), int(rng.integers(half[1], height - half[1]))
        spot = np.zeros((height, width), np.uint8)
        cv2.ellipse(spot, centre, half, 0, 0, 360, 255, -1)
        if room[spot > 0].all():
            break
    else:
        return None
    hsv = cv2.cvtColor(good.edited, cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv[..., 0] = (hsv[..., 0] + rng.integers(40, 140)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] + 70, 0, 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + rng.choice([-35, 35]), 0, 255)
    other = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    return _blend(good.edited, other, cv2.GaussianBlur(spot, (0, 0), 3) / 255)


@_of_the_rest
def regenerated(good: Good, rng: Generator) -> Image:
    """The whole image was redrawn: outside the edit it is nearly right, but shapes wobble by 3-6 px."""
    height, width = good.source.shape[:2]
    cells = rng.normal(0, 1, (height // 32, width // 32, 2)).astype(np.float32)
    wobble = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    wobble *= rng.uniform(3, 6) / np.linalg.norm(wobble, axis=2).mean()
    there = wobble + np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    redrawn = cv2.remap(good.edited, there, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    redrawn = cv2.bilateralFilter(redrawn, 5, 20, 2)
    return _blend(redrawn, good.edited, cv2.GaussianBlur(good.edit.astype(np.float32), (0, 0), 3))


@_of_the_rest
def colour_cast(good: Good, rng: Generator) -> Image:
    """One or two channels of the whole edited image are off by a constant 10-24 levels."""
    offset = np.zeros(3)
    offset[rng.permutation(3)[: rng.integers(1, 3)]] = rng.uniform(10, 24) * rng.choice([-1, 1])
    return _bytes(good.edited + offset)


@_of_the_rest
def exposure_drift(good: Good, rng: Generator) -> Image:
    """The whole edited image is 15-30 % darker, or its mid-tones are lifted as much."""
    darker = rng.random() < 0.5
    factor = 1 - rng.uniform(0.15, 0.30)
    return _bytes(good.edited * factor if darker else 255 * (good.edited / 255.0) ** factor)


@_of_the_rest
def shift(good: Good, rng: Generator) -> Image:
    """The edited image is shifted by 3-24 px (for a short side of 1024 px), at least 2 px."""
    distance = max(2.0, rng.uniform(3, 24) * min(good.source.shape[:2]) / 1024)
    angle = rng.uniform(0, 2 * np.pi)
    return _affine(good.edited, 1, 1, distance * np.cos(angle), distance * np.sin(angle))


@_of_the_rest
def scale_change(good: Good, rng: Generator) -> Image:
    """The edited image is magnified by 1.5-6 %, or shrunk by as much with its border repeated."""
    return _zoomed(good.edited, rng, 0.015, 0.06)


@_of_the_rest
def crop_and_stretch(good: Good, rng: Generator) -> Image:
    """The editor cropped 2-6 % of one side, and the result was stretched back."""
    stretch = 1 + rng.uniform(0.02, 0.06)
    x, y = (stretch, 1.0) if rng.random() < 0.5 else (1.0, stretch)
    return _affine(good.edited, x, y, 0, 0)


@_structural
def squeezed(good: Good, rng: Generator) -> Image:
    """The edited image has 2-8 % fewer columns, or rows, than the source."""
    height, width = good.source.shape[:2]
    share = 1 - rng.uniform(0.02, 0.08)
    size = (round(width * share), height) if rng.random() < 0.5 else (width, round(height * share))
    return cv2.resize(good.edited, size, interpolation=cv2.INTER_AREA)


@_of_the_rest
def blurred(good: Good, rng: Generator) -> Image:
    """The edited image is blurred (Gaussian, 1.5-4 px)."""
    return cv2.GaussianBlur(good.edited, (0, 0), rng.uniform(1.5, 4))


@_of_the_rest
def upscaled(good: Good, rng: Generator) -> Image:
    """The editor worked at half to a third of the size, and its answer was enlarged."""
    height, width = good.source.shape[:2]
    factor = rng.uniform(2, 3)
    small = cv2.resize(good.edited, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    kind = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4]))
    return cv2.resize(small, (width, height), interpolation=kind)


@_of_the_rest
def blocky(good: Good, rng: Generator) -> Image:
    """The edited image went through a JPEG of quality 8-18."""
    return _jpeg(good.edited, int(rng.integers(8, 19)))


@_of_the_rest
def banded(good: Good, rng: Generator) -> Image:
    """The edited image has 12-24 levels a channel."""
    step = 255 / rng.integers(11, 24)
    return _bytes(np.round(good.edited / step) * step)


@_structural
def bordered(good: Good, rng: Generator) -> Image:
    """The edited image has a plain frame, 6-40 px, on one side, two or all."""
    edited = good.edited.copy()
    width = round(rng.uniform(6, 40) * min(edited.shape[:2]) / 1024)
    colour = rng.choice([0, 255, 128])
    if abs(float(edited.mean()) - colour) < 60:
        colour = 255 if edited.mean() < 128 else 0
    sides = int(rng.integers(3))
    edited[:width] = colour
    if sides:
        edited[-width:] = colour
    if sides == 2:
        edited[:, :width] = edited[:, -width:] = colour
    return edited


@_structural
def checkerboard(good: Good, rng: Generator) -> Image:
    """The edited image has the pattern of period two of a transposed convolution, of 3-8 levels."""
    return _checkered(good.edited, 1, rng.uniform(3, 8))


@_of_the_rest
def watermark(good: Good, rng: Generator) -> Image:
    """Lettering, 40-70 % opaque, over the edited image: tiled small, or once and large."""
    height, width = good.edited.shape[:2]
    text = str(rng.choice(["SAMPLE", "Stock Photo", "preview 2024", "(c) studio", "DO NOT COPY"]))
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX]))
    unit = min(height, width) / 1024
    layer = np.zeros((height, width), np.uint8)
    if rng.random() < 0.5:
        size, step = rng.uniform(0.9, 1.5) * unit, int(rng.uniform(140, 220) * unit)
        for row, y in enumerate(range(step // 2, height, step)):
            for x in range(-(row % 2) * step, width, 2 * step):
                cv2.putText(layer, text, (x, y), font, size, 255, max(1, round(2 * unit)), cv2.LINE_AA)
    else:
        size, thick = rng.uniform(3, 5) * unit, max(2, round(rng.uniform(5, 9) * unit))
        (wide, _), _ = cv2.getTextSize(text, font, size, thick)
        size *= min(1, 0.9 * width / wide)
        y = int(rng.uniform(0.3, 0.9) * height)
        cv2.putText(layer, text, (int(0.05 * width), y), font, size, 255, thick, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-30, 30), 1)
    layer = cv2.warpAffine(layer, turn, (width, height))
    ink = np.full_like(good.edited, 255 if good.edited.mean() < 140 else 0)
    return _blend(good.edited, ink, rng.uniform(0.4, 0.7) * layer / 255)


@_of_the_rest
def zoomed(good: Good, rng: Generator) -> Image:
    """The edited image is zoomed in or out by 0.5-3 % about the centre, as many image editors do."""
    return _zoomed(good.edited, rng, 0.005, 0.03)


@_of_the_rest
def api_mixture(good: Good, rng: Generator) -> Image:
    """What image APIs do at once: 0.5-2 % of zoom, 1-4 px of shift, a warm cast, more contrast, and a JPEG."""
    moved = _zoomed(good.edited, rng, 0.005, 0.02, most_px=4)
    warm = moved + rng.uniform(2, 5) * np.array([1, 0.3, -1])
    return _jpeg(_contrasted(warm, 1 + rng.uniform(0.02, 0.06)), 85)


@_of_the_rest
def contrast(good: Good, rng: Generator) -> Image:
    """The contrast of the whole edited image is 8 % higher, which is easy to overlook."""
    return _contrasted(good.edited, 1.08)


@_of_the_rest
def saturation(good: Good, rng: Generator) -> Image | None:
    """The colours of the whole edited image are 20 % stronger. None if it has hardly any colour."""
    grey = good.edited.mean(axis=2, keepdims=True)
    if np.abs(good.source - good.source.mean(axis=2, keepdims=True)).mean() < 6:
        return None
    return _bytes(grey + 1.2 * (good.edited - grey))


@_of_the_rest
def half_resolution(good: Good, rng: Generator) -> Image | None:
    """The editor worked at half the size and was enlarged to the source's. None if no detail is lost."""
    height, width = good.edited.shape[:2]
    small = cv2.resize(good.edited, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    lost = cv2.blur(np.abs(large.astype(np.float32) - good.edited).mean(axis=2), (16, 16))
    return large if np.percentile(lost, 95) >= 5 else None


@_of_the_rest
def over_smoothed(good: Good, rng: Generator) -> Image:
    """Fine texture is lost while edges remain: the plastic look of strong denoising."""
    smooth = good.edited
    for _ in range(2):
        smooth = cv2.bilateralFilter(smooth, 11, rng.uniform(60, 100), 5)
    return smooth


@_of_the_rest
def poor_jpeg(good: Good, rng: Generator) -> Image:
    """The edited image went through a JPEG of quality 30."""
    return _jpeg(good.edited, 30)


@_structural
def checkers(good: Good, rng: Generator) -> Image:
    """The edited image has a decoder's grid of period 4, 8 or 16, of 3-8 levels."""
    return _checkered(good.edited, int(rng.choice([2, 4, 8])), rng.uniform(3, 8))


@_of_the_rest
def tile_steps(good: Good, rng: Generator) -> Image:
    """The answer was decoded in tiles of 128 px whose brightness differs by 3-6 levels (standard deviation)."""
    height, width = good.edited.shape[:2]
    steps = rng.normal(0, rng.uniform(3, 6), (height // 128 + 1, width // 128 + 1))
    tiles = np.kron(steps, np.ones((128, 128)))[:height, :width]
    return _bytes(good.edited + tiles[..., None])


@_structural
def second_change(good: Good, rng: Generator) -> Image | None:
    """Another part of the image, 3-8 % of its area, is repeated away from the edit."""
    height, width = good.source.shape[:2]
    side = round((rng.uniform(0.03, 0.08) * height * width) ** 0.5)
    if (place := _room(good, side, rng)) is None:
        return None
    x, y = place
    u, v = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    piece = good.source[v : v + side, u : u + side][:, ::-1]
    if np.abs(piece.astype(int) - good.edited[y : y + side, x : x + side]).mean() < 20:
        return None  # sky on sky is no change
    spot = np.zeros((height, width), np.uint8)
    cv2.ellipse(spot, (x + side // 2, y + side // 2), (side // 2 - 4, side // 2 - 4), 0, 0, 360, 255, -1)
    other = good.edited.copy()
    other[y : y + side, x : x + side] = piece
    return _blend(good.edited, other, cv2.GaussianBlur(spot, (0, 0), 2) / 255)


@_structural
def garbled_patch(good: Good, rng: Generator) -> Image | None:
    """The texture of one place, 1-3 % of the area away from the edit, is garbled: its pieces of 8 px are shuffled."""
    height, width = good.source.shape[:2]
    side = max(32, round((rng.uniform(0.01, 0.03) * height * width) ** 0.5) // 8 * 8)
    if (place := _room(good, side, rng)) is None:
        return None
    x, y = place
    edited = good.edited.copy()
    patch = edited[y : y + side, x : x + side]
    if patch.astype(float).std(axis=(0, 1)).mean() < 12:
        return None  # pieces of a plain wall make the same wall
    pieces = patch.reshape(side // 8, 8, side // 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 8, 8, 3)
    pieces = rng.permutation(pieces).reshape(side // 8, side // 8, 8, 8, 3)
    edited[y : y + side, x : x + side] = pieces.transpose(0, 2, 1, 3, 4).reshape(side, side, 3)
    return edited


def _room(good: Good, side: int, rng: Generator) -> tuple[int, int] | None:
    """x, y of a square of this side well away from the edit, or None."""
    height, width = good.source.shape[:2]
    if side >= min(height, width):
        return None
    room = ~grow(good.edit, max(8, min(height, width) // 20))
    for _ in range(200):
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        if room[y : y + side, x : x + side].all():
            return x, y
    return None


def swapped(pair: Sample, other: Sample | None) -> Sample:
    assert pair.edited_jpeg is not None
    return replace(pair, source_jpeg=pair.edited_jpeg, edited_jpeg=pair.source_jpeg)


def wrong_edit(pair: Sample, other: Sample | None) -> Sample | None:
    """The edit does not match the instruction: the images are those of another pair of the category."""
    if other is None:
        return None
    return replace(pair, source_jpeg=other.source_jpeg, edited_jpeg=other.edited_jpeg, mask_png=other.mask_png)


def wrong_caption(pair: Sample, other: Sample | None) -> Sample | None:
    """The target caption is that of another pair of the category."""
    return other and replace(pair, target_caption=other.target_caption)


def wrong_instruction(pair: Sample, other: Sample | None) -> Sample | None:
    """The instruction is that of a pair of another category."""
    return other and replace(pair, instruction=other.instruction)


SEMANTIC: Mapping[str, Callable[[Sample, Sample | None], Sample | None]] = {
    make.__name__: make for make in (swapped, wrong_edit, wrong_caption, wrong_instruction)
}
"""Semantic defects by name: functions of a pair and another pair (None if no other fits)."""


def near_copy(image: Image) -> Image:
    """The image 2 % smaller and re-encoded at quality 80: as another crawl of the same pair would have it."""
    return _jpeg(cv2.resize(image, None, fx=0.98, fy=0.98, interpolation=cv2.INTER_AREA), 80)


def _jpeg(image: Image, quality: int) -> Image:
    pixels = np.ascontiguousarray(image)
    data = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420")
    return simplejpeg.decode_jpeg(data, colorspace="RGB")


def _contrasted(image: NDArray[np.number], gain: float) -> Image:
    """The image with its differences from the mean level multiplied."""
    mean = image.mean(axis=(0, 1))
    return _bytes(mean + gain * (image - mean))


def _bytes(levels: NDArray[np.number]) -> Image:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _blend(below: Image, above: Image, alpha: NDArray[np.floating]) -> Image:
    weight = alpha[..., None].astype(np.float32)
    return _bytes(below * (1 - weight) + above * weight)


def _checkered(image: Image, side: int, levels: float) -> Image:
    """The image with a checkerboard of this side in pixels, so many levels up and down."""
    rows, columns = (np.arange(length) // side for length in image.shape[:2])
    pattern = 1 - 2 * ((rows[:, None] + columns) % 2)
    return _bytes(image + levels * pattern[..., None])


def _zoomed(image: Image, rng: Generator, low: float, high: float, most_px: float | None = None) -> Image:
    """The image scaled by a share between `low` and `high`, up or down; and moved by 1 to `most_px` pixels (for a short
    side of 1024 px) along both axes."""
    scale = 1 + rng.uniform(low, high) * rng.choice([-1, 1])
    x, y = (0, 0) if most_px is None else rng.uniform(1, most_px, 2) * min(image.shape[:2]) / 1024
    return _affine(image, scale, scale, x, y)


def _affine(image: Image, scale_x: float, scale_y: float, x: float, y: float) -> Image:
    """Scaled about the centre, then moved by x, y pixels; the border is repeated."""
    height, width = image.shape[:2]
    matrix = np.array([[scale_x, 0, (1 - scale_x) * width / 2 + x], [0, scale_y, (1 - scale_y) * height / 2 + y]])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
