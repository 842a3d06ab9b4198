"""Patches: local and grid-like faults: steps between decoded tiles, checkerboards, JPEG blocks, and a second,
unrequested change, such as garbled texture.

The edit is where the true mask is. Without a mask it is taken for one place, or several close to each other: a visible
change a tenth of the image away from the largest one is a second change. For a motion or background edit this cannot be
known. Tiles and grids are detected in the difference of the two images, so a fence in the source does not count.
"""

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from crispedit import change
from crispedit.parts import Filter, Sample, Score, at_most

Luma = NDArray[np.uint8]
Levels = NDArray[np.float32]

TILE_PX = 128
STRIP_PX, SIDE_PX, NEAR_PX, MOST_LEVELS = 32, 2, 33, 8.0
"""A step between tiles is measured in strips of STRIP_PX along it: the difference of the means over SIDE_PX on either
side, above the usual one within NEAR_PX. Differences above MOST_LEVELS are content."""
QUIET_LEVELS = 0.5
"""Added to the usual jump of a strip; strips are weighted by the inverse square of the sum."""
APART_PX, OTHERS = 4, 0.5
"""Tiles have their steps at one phase; a redrawn image has chance steps at many. So this share of the strongest phase
that is at least APART_PX from the best is subtracted."""
WINDOW_PX, MOST_WINDOWS = 64, 40
"""Spectra are taken of at most MOST_WINDOWS windows of this side, evenly spread."""
LEAST_CYCLES, LEAST_PEAK = 5.0, 2.5
"""Fewer cycles per window (along its diagonal) are content; a peak must exceed its surroundings by this factor."""
JOIN = 9
"""In pixels of the small grid: changes nearer than twice this are joined."""
PLAIN = 8.0
"""The Lab distance of an obvious change."""
REDRAWN_SHARE = 0.0005
"""The share of the image that may obviously change in one place, per Lab unit of the noise floor (up to four)."""
LEAST_COHERENT_PEAK = 5.0
"""A peak of a pattern that has one phase in all windows is this many times its surroundings."""
PRINT_LEVELS = 24.0
"""A stronger regular pattern belongs to a style, such as the dots of newspaper print; a decoder's is weaker."""
STROKE_PX, HIDING_LEVELS = 9, 4.0
"""Strokes hide a pattern if their standard deviation over STROKE_PX exceeds HIDING_LEVELS, in proportion."""


class Patches(Filter):
    """`tile_step`: levels by which brightness jumps at lines 128 px apart more than elsewhere. `grid`: amplitude, in
    levels, of the strongest regular pattern of period 2 to 16 px that the edit brought in, scaled down by what the
    strokes of a style hide; null if it belongs to a style. `blocking`: relative excess of steps on the 8 px grid of
    JPEG, over the source's. `second_change`: share of the image, 0-1, that obviously changed in the largest region
    apart from the edit, minus what re-rendering explains. `garbled`: share of the image, 0-1, in the largest region
    apart from the edit whose texture differs from the source's and is not softer; null without texture, or if most of
    it was redrawn differently. Without a true mask, the last two are null for motion and background edits, and
    `tile_step` for background edits."""

    version = 7
    scores = {"tile_step": float, "grid": float, "blocking": float, "second_change": float, "garbled": float}
    # From 76 good pairs of 9 real editors and the defects of `crispedit calibrate` made from them. tile_step: good ones
    # measure 0.93 or less, nine tenths of tiled ones over 1.2.
    # garbled: all good ones but one measure 0.004 or less.
    bounds = at_most(tile_step=0.95, grid=1.0, blocking=0.17, second_change=0.0014, garbled=0.0085)
    cost = 6.0

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        before, after = sample.source_gray, sample.edited_fitted
        pattern = grid(before, after, redrawn=sample.category in ("background", "style"))
        scores: dict[str, Score] = dict.fromkeys(self.scores)
        if sample.mask is not None or sample.category != "background":
            scale = max(1, before.shape[0] // sample.source_middle.shape[0])
            scores["tile_step"] = tile_step(sample.source_middle, sample.edited_middle, sample.outside, scale)
        if sample.mask is not None or sample.category not in ("background", "motion"):
            second, edit = second_change(sample)
            scores["second_change"] = max(0.0, second - REDRAWN_SHARE * min(sample.noise.floor, 4.0))
            scores["garbled"] = garbled(sample, edit)
        if sample.category != "style":
            scores["grid"] = pattern
        elif pattern <= PRINT_LEVELS:
            scores["grid"] = pattern * min(1.0, HIDING_LEVELS / max(strokes(after), 1.0))
        return scores | {"blocking": max(0.0, blocking(sample.edited_gray) - blocking(before))}


def tile_step(before: Luma, after: Luma, outside: NDArray[np.bool_], scale: int = 1) -> float:
    """How much more the difference of two images, shrunk by the power of two `scale`, jumps at the best lines `TILE_PX`
    apart than near them and at other such lines, in levels, outside the edit ([h, w], any grid of the image); the mean
    of both directions."""
    if scale * min(before.shape) < 2 * STRIP_PX:
        return 0.0
    turned = cv2.transpose(before), cv2.transpose(after), outside.T.copy()
    steps = [_step(_strips(b, scale) - _strips(a, scale), o, scale) for a, b, o in ((before, after, outside), turned)]
    return float(np.mean([step for step in steps if step is not None] or [0.0]))


def _strips(gray: Luma, scale: int) -> NDArray[np.float32]:
    """[strips, W] means over strips."""
    strip = max(1, STRIP_PX // scale)
    count = len(gray) // strip
    strips = gray[: count * strip].reshape(count, strip, -1)
    # 16 bits hold the sum of 32 times 255, and are fastest to add.
    return np.add.reduce(strips, axis=1, dtype=np.uint16) * np.float32(1 / strip)


def _step(mean: NDArray[np.float32], outside: NDArray[np.bool_], scale: int) -> float | None:
    """`tile_step` along one direction, from the means over strips [n, W]; None if too few lines fit."""
    width = mean.shape[1]
    tile, side, near, apart = (max(1, pixels // scale) for pixels in (TILE_PX, SIDE_PX, NEAR_PX, APART_PX))
    if width < 2 * tile:
        return None
    free = change.coverage(outside, mean.shape)
    beside = cv2.blur(mean, (side, 1), anchor=(0, 0))  # the mean from each pixel to the right
    jump = np.minimum(np.abs(beside[:, side:] - beside[:, :-side]), MOST_LEVELS)
    known = cv2.erode(free, np.ones((1, 2 * side + 1), np.uint8), anchor=(0, 0))[:, :-side] > 178
    # A step shows best where little else changed: in the sky, not in a redrawn tree.
    sampled = np.where(known, jump, MOST_LEVELS)[:, ::4]
    middle = sampled.shape[1] // 2
    usual = np.partition(sampled, middle, axis=1)[:, middle]
    weight = (1 / (usual + QUIET_LEVELS) ** 2).astype(np.float32)
    total, count = weight @ (jump * known), weight @ known.astype(np.float32)
    around_total, around_count = (cv2.blur(values[None], (near, 1))[0] for values in (total, count))
    excess = total - count * around_total / np.maximum(around_count, 1e-6)
    places = weight.sum() * (width // tile)  # lines that the edit mostly covers count little
    phases = _by_phase(excess, tile) / np.maximum(_by_phase(count, tile), 0.4 * places)
    others = np.roll(phases, -int(phases.argmax()))[apart + 1 : -apart]
    return float(phases.max() - OTHERS * others.max())


def _by_phase(values: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
    """[tile] sums of the values `tile` apart."""
    return np.asarray(np.pad(values, (0, -len(values) % tile)).reshape(-1, tile).sum(axis=0))


def grid(before: Luma, after: Luma, redrawn: bool = False) -> float:
    """Amplitude, in levels, of the strongest peak in the difference's spectrum; 0 if none stands out. If everything was
    `redrawn`, only a pattern with one phase in all windows counts: a decoder's, whose period is a power of two."""
    windows = np.subtract(_windows(after), _windows(before), dtype=np.int16)
    if not len(windows):
        return 0.0
    spectra = scipy.fft.rfft2(windows * HANN)
    spectrum = np.hypot(_median(spectra.real), _median(spectra.imag)) if redrawn else _median(np.abs(spectra))
    rows = np.vstack([spectrum[-4:], spectrum, spectrum[:4]])  # rows wrap around
    surroundings = cv2.medianBlur(rows, 5)[4:-4]
    stands_out = spectrum > (LEAST_COHERENT_PEAK if redrawn else LEAST_PEAK) * surroundings
    peaks = np.where((FREQUENCY > LEAST_CYCLES) & stands_out, spectrum - surroundings, 0)
    return float(peaks.max() / (HANN.sum() / 2))


def _windows(gray: Luma) -> NDArray[np.uint8]:
    """[n, WINDOW_PX, WINDOW_PX] at most `MOST_WINDOWS` windows, evenly spread."""
    rows, columns = (side // WINDOW_PX for side in gray.shape)
    split = gray[: rows * WINDOW_PX, : columns * WINDOW_PX].reshape(rows, WINDOW_PX, columns, WINDOW_PX)
    step = max(1, -(-rows * columns // MOST_WINDOWS))
    row, column = np.divmod(np.arange(rows * columns)[::-step], max(columns, 1))
    return np.asarray(split[row, :, column])


def _median(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median along the first axis: quicker than np.median, which looks for the middle column by column."""
    values = np.sort(values, axis=0)
    return np.asarray(values[(len(values) - 1) // 2 : len(values) // 2 + 1].mean(axis=0))


def strokes(gray: Luma) -> float:
    """The usual standard deviation, in levels, of what is finer than `STROKE_PX`; 0 of an image without windows."""
    fine = cv2.subtract(gray, cv2.blur(gray, (STROKE_PX, STROKE_PX)), dtype=cv2.CV_16S)
    windows = _windows(fine)
    return float(np.median(windows.std(axis=(1, 2)))) if len(windows) else 0.0


HANN = np.outer(np.hanning(WINDOW_PX), np.hanning(WINDOW_PX)).astype(np.float32)
FREQUENCY = np.hypot(np.fft.fftfreq(WINDOW_PX)[:, None] * WINDOW_PX, np.fft.rfftfreq(WINDOW_PX)[None] * WINDOW_PX)
"""[WINDOW_PX, WINDOW_PX // 2 + 1] cycles a window."""


def blocking(gray: Luma) -> float:
    """Relative excess of the mean step between pixels on the strongest phase of an 8 px grid over the other phases;
    steps above 32 levels are edges and count as 32. Every fourth line is measured.

    After Wang, Sheikh and Bovik 2002 ("No-reference perceptual quality assessment of JPEG compressed images").
    """
    return float(np.mean([_on_grid(gray, 1), _on_grid(gray, 0)]))


def _on_grid(gray: Luma, axis: int) -> float:
    if axis:
        lines = gray[::4]
        steps = cv2.absdiff(lines[:, 1:], lines[:, :-1])
    else:
        height, width = gray.shape
        lines = cv2.resize(gray, (max(width // 4, 1), height), interpolation=cv2.INTER_NEAREST)
        steps = cv2.absdiff(lines[1:], lines[:-1])
    profile = cv2.reduce(cv2.min(steps, 32), 1 - axis, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
    if len(profile) < 16:
        return 0.0
    phases = profile[: len(profile) // 8 * 8].reshape(-1, 8).mean(axis=0)
    others = (phases.sum() - phases.max()) / 7
    return float((phases.max() - others) / max(others, LEAST_STEP))


LEAST_STEP = 2.0
"""Least mean step, in levels: on a plain image, a relative excess overstates the grid's visibility."""


def second_change(sample: Sample) -> tuple[float, NDArray[np.bool_]]:
    """The share of the image that obviously changed in the largest region apart from the edit; and [h, w]: the edit's
    region, with a margin."""
    known = ~sample.outside if sample.mask is not None else None
    expected = sample.noise.expected(sample.texture)
    plain = sample.change > np.maximum(PLAIN, 2 * change.OUTSTANDING * expected)
    specks = cv2.morphologyEx(sample.changed.view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    if known is not None:
        plain, specks = plain & ~known, specks & ~known
    labels, areas = change.regions(change.grow(specks, JOIN))
    area = np.bincount(labels[plain], minlength=len(areas) + 1)
    area[0] = 0
    if known is not None:
        return float(area.max() / specks.size), known
    largest = int(area.argmax())
    area[largest] = 0
    return float(area.max() / specks.size), (labels == largest) & (labels > 0)


def garbled(sample: Sample, edit: NDArray[np.bool_]) -> float | None:
    """The share of the image, 0-1, of the largest region apart from the edit ([h, w], any grid of the image) whose
    texture differs from the source's and has more fine detail (texture that is only redrawn is softer). None if there
    is too little texture apart from the edit, or half of it differs."""
    blocks = sample.blocks
    textured = ~change.onto(edit, blocks.variances.shape) & (blocks.variances > TEXTURE)
    if textured.sum() < LEAST_TEXTURED:
        return None
    unlike = (blocks.variances - 2 * blocks.covariance) / (blocks.variances + TEXTURE)
    if np.median(unlike[textured]) >= UNKNOWABLE:
        return None
    before, after = (
        cv2.blur(change.block_means(change.whole_blocks(cv2.Laplacian(luma, cv2.CV_8U)).astype(np.float32)), (3, 3))
        for luma in (sample.source_middle, sample.edited_middle)
    )
    finer = np.log((after + 0.5) / (before + 0.5))
    finer -= np.median(finer[textured])
    differing = (textured & (unlike > UNLIKE) & (finer > FINER)).view(np.uint8)
    for operation in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN):
        differing = cv2.morphologyEx(differing, operation, np.ones((3, 3), np.uint8))
    _, areas = change.regions(differing > 0)
    return float(areas.max(initial=0) / differing.size)


TEXTURE, LEAST_TEXTURED = 60.0, 12
"""The least sum of two images' variances, in levels squared, of a textured block; and the least number of such
blocks."""
UNLIKE, FINER, UNKNOWABLE = 0.9, 0.2, 0.5
"""The variance of the difference, relative to the two images' own, of a texture that is not the source's (1: of another
place); how much more fine detail it has, as a logarithm, over the usual; and the median from which nothing is known."""
