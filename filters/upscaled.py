"""Upscaled: finds photographs with much less detail than pixels, because they were enlarged.

Enlarging by any interpolation leaves a cliff in the spectrum: power falls steeply at the old Nyquist frequency, far
more than optics explain. Most of a good photograph may be out of focus, so the cliff is only searched for where it can
be seen: in the 2 % of strips (64 pixels long, 8 wide, horizontal and vertical) with the strongest second derivative.
Their power spectra are averaged in the logarithm, so that faint strips count and a single sharp caption does not
dominate. A frequency f lies beyond the cliff when an octave, from f/2 to f, costs

    log10 P(f/2) - log10 P(f)  >  1.0 + 0.4 log2(f / f10)

where f10 is 10/64 cycles per pixel; the second term allows for lenses, whose losses grow with frequency. Over ten macro
photographs with blurred backgrounds (JPEG quality 75 to 95) the left side exceeds the second term by 0.91 at most; over
their enlargements (2x to 4x, bilinear, bicubic, Lanczos, before and after recompression) by 1.09 at least.

For a pair, the edited image is compared with its source: an editor that works at a lower resolution leaves a cliff that
the photograph does not have, and a source that was soft before is not the editor's fault.

A photograph that is blurred everywhere (motion, fog) has no detail to lose, and its own spectrum may look like a cliff.
Sensor grain distinguishes it from an enlargement: if strips of medium contrast have noise above JPEG's floor and
without a cliff, the pixels are the camera's own.

It cannot detect two cases: the enlargement of a very grainy image, whose cliff JPEG fills again, and generative
enlargement, which invents detail.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from crispedit import change
from crispedit.parts import Bound, Filter, Sample, Score

LENGTH, WIDTH = 64, 8
SHARE = 0.02
LEAST_STRIPS = 16
FREQUENCIES = np.arange(8, 28)
"""In 1/64 cycles per pixel. At lower ones scenes have cliffs of their own; near the Nyquist frequency interpolators
leak mirrored frequencies."""
CLIFF = np.where(FREQUENCIES < 10, 1.25, 1.0 + 0.4 * np.log2(FREQUENCIES / 10))
ONSET = 0.85
"""Where the cliff begins, as a fraction of the cut-off frequency that makes it (measured on known
enlargements)."""
DETAIL_FLOOR = 0.0
"""log10 of grey levels²: strips with less power at an eighth of the sampling rate are not measured."""
GRAIN_FLOOR = -0.5
"""log10 of grey levels²: about twice the noise of JPEG at quality 95."""
GRAIN_CLIFF = np.full(len(FREQUENCIES), 0.75)
"""Grain is white except for the camera's smoothing, so grain that proves camera pixels must have a flatter spectrum
than a scene."""


class Upscaled(Filter):
    """`detail_fraction`: for a photograph, estimated true resolution over pixel resolution, along one side, in (0, 1];
    the smallest value is 0.3. For a pair, that of the edited image over that of its source, each in its own pixels and
    outside the true mask if there is one, or the remaining share of its finest detail, whichever is more; at most 1.
    Null if an image has no detail or is smaller than a few strips, and for a background edit without a mask."""

    version = 4
    scope = frozenset({"source", "pair"})
    scores = {"detail_fraction": float}
    # Of 76 good pairs of 9 real editors all but one measure 0.82 or more; of half the resolution, 0.77 or less but
    # where the source itself has no detail to lose.
    bounds = {"detail_fraction": Bound(min=0.8)}
    cost = 4.0

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        return {"detail_fraction": _kept(sample) if sample.is_pair else detail_fraction(sample.source_gray)}


def _kept(sample: Sample) -> float | None:
    """The share of its source's resolution that the edited image has, by the cliff of its spectrum or by its finest
    detail, whichever is larger: soft content makes a cliff, and redrawn content has other detail; enlargement does
    both."""
    outside = sample.outside if sample.mask is not None else None
    if outside is None and sample.category == "background":  # new surroundings may be out of focus
        return None
    after = detail_fraction(sample.edited_gray, outside)
    if after is None or after == 1:
        return after
    before = detail_fraction(sample.source_gray, outside)
    if before is None or after >= before:
        return None if before is None else 1.0
    return min(1.0, max(after / before, _finest_left(sample)))


def _finest_left(sample: Sample) -> float:
    """How much remains, at the source's size, of the detail that half the size cannot hold: the geometric mean of its
    ratio in the crispest places and of its ratio relative to the next octave's."""
    halves = sample.source_half, sample.edited_half
    finest = [_lost(*pair) for pair in zip((sample.source_gray, sample.edited_fitted), halves, strict=True)]
    coarser = [float(_lost(half, change.shrink(half, 2)).mean()) for half in halves]
    before, after = (
        change.quantile(cv2.resize(lost, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA), 0.95)
        for lost in finest
    )
    relative = float(finest[1].mean() / finest[0].mean()) * coarser[0] / max(coarser[1], 1e-3)
    return float(np.sqrt(after / before * relative))


def _lost(gray: NDArray[np.uint8], half: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What an image loses at `half` its size."""
    height, width = (side * 2 for side in half.shape)
    # A cubic window, as enlargers use: what it restores was not lost.
    back = cv2.resize(half, (width, height), interpolation=cv2.INTER_CUBIC)
    lost = cv2.absdiff(np.ascontiguousarray(gray[:height, :width]), back)
    return np.asarray(np.maximum(lost.astype(np.float32), 1e-3))


def detail_fraction(gray: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float | None:
    """Estimated true resolution of a grey image [H, W] over its pixel resolution, or None if it cannot be estimated;
    from the strips in a region ([h, w], any grid of the image), if there are enough."""
    activity = [_activity(lines) for lines in _sampled(gray)]
    shapes = [each.shape for each in activity]
    order = np.argsort(np.concatenate([each.ravel() for each in activity]), kind="stable")
    if where is not None:
        inside = np.concatenate([_covered(mask, shape) for mask, shape in zip((where, where.T), shapes, strict=True)])
        chosen = order[inside[order]]
        order = chosen if len(chosen) >= 2 * LEAST_STRIPS else order
    count = max(LEAST_STRIPS, round(len(order) * SHARE))
    if len(order) < 2 * count:
        return None
    sharp = _spectrum(_strips(gray, order[-count:], shapes))
    if sharp[8] < DETAIL_FLOOR:
        return None
    fraction = _cliff(sharp, CLIFF)
    if fraction == 1:
        return fraction
    middle = (len(order) - count) // 2
    grain = _spectrum(_strips(gray, order[middle : middle + count], shapes))
    known = grain[20] > GRAIN_FLOOR and grain[8] < DETAIL_FLOOR + 1
    return max(fraction, _cliff(grain, GRAIN_CLIFF)) if known else fraction


def _covered(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """[rows * columns] whether all of each strip lies in the mask ([h, w], of any grid of the image)."""
    if 0 in shape:
        return np.zeros(0, bool)
    return np.asarray(change.coverage(np.ascontiguousarray(mask), shape) == 255).ravel()


def _sampled(gray: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Every `WIDTH // 2`th row of an image, and every such column, as rows."""
    by = WIDTH // 2
    height, width = (max(side // by, 1) * by for side in gray.shape)
    yield gray[:height:by]
    yield cv2.transpose(cv2.resize(gray[:, :width], (width // by, len(gray)), interpolation=cv2.INTER_NEAREST))


def _activity(lines: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H // WIDTH, W // LENGTH] sum of the squared second derivative along each horizontal strip, two `lines` each."""
    rows, columns = lines.shape[0] // 2, lines.shape[1] // LENGTH
    if not rows or not columns:
        return np.empty((0, 0), np.float32)
    curvature = cv2.Sobel(lines[: 2 * rows, : columns * LENGTH], cv2.CV_32F, 2, 0, ksize=1)
    curvature = curvature.reshape(rows, 2, columns, LENGTH)
    return np.einsum("rlcx,rlcx->rc", curvature, curvature)


def _strips(gray: NDArray[np.uint8], chosen: NDArray[np.int64], shapes: list[tuple[int, int]]) -> NDArray[np.uint8]:
    """[S, WIDTH, LENGTH] strips by their numbers: row by row the horizontal ones, then those of the transposed image,
    each with this many rows and columns."""
    strips = []
    for image, (rows, columns) in zip((gray, gray.T), shapes, strict=True):
        own = chosen[chosen < rows * columns]
        blocks = image[: rows * WIDTH, : columns * LENGTH].reshape(rows, WIDTH, columns, LENGTH)
        strips.append(blocks[own // columns, :, own % columns])
        chosen = chosen[chosen >= rows * columns] - rows * columns
    return np.concatenate(strips)


def _spectrum(strips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[LENGTH/2 + 1] mean of log10 power over strips; white noise of variance v reads log10 v."""
    window = np.hanning(LENGTH + 2)[1:-1].astype(np.float32)
    lines = strips.astype(np.float32)
    lines -= lines.mean(axis=2, keepdims=True)
    waves = scipy.fft.rfft(lines * window, axis=2)
    power = (np.square(waves.real) + np.square(waves.imag)).mean(axis=1) / (window**2).sum()
    spectrum = np.log10(power + 1e-3).mean(axis=0)
    # JPEG's 8-pixel grid stands out at single frequencies; a median over three removes it.
    smooth = spectrum.copy()
    smooth[1:-1] = np.sort([spectrum[:-2], spectrum[1:-1], spectrum[2:]], axis=0)[1]
    return smooth.astype(np.float64)


def _cliff(spectrum: NDArray[np.float64], limits: NDArray[np.float64]) -> float:
    """The frequency of the first cliff over that of full resolution, in (0, 1]; 1 if there is none."""
    octave = np.interp(FREQUENCIES / 2, np.arange(len(spectrum)), spectrum) - spectrum[FREQUENCIES]
    beyond = np.flatnonzero(octave > limits)
    return min(1.0, float(FREQUENCIES[beyond[0]]) / (ONSET * LENGTH / 2)) if len(beyond) else 1.0
