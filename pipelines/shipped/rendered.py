"""Pairs without shards: rendered landscapes and the compositor's edits of them, to train a model in memory."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import images
from crispedit.annotators.compositor import CompositorAnnotator
from crispedit.classifier import CATEGORIES
from crispedit.compositor.landscape import landscape
from crispedit.editmgt.frame import resize
from crispedit.editors.compositor import CompositorEditor
from crispedit.record import Edit, Image, Job, Mask, Sample, content_key

SIZE = (384, 256)  # width and height in pixels of a landscape when it is edited
SHAPE = (112, 160)  # height and width in pixels that editmgt-tiny works at, for images of 3:2
MARGIN = (12, 16)  # pixels that a pair for training is higher and wider, so that it can be cropped in many ways
PER_TASK = 25  # landscapes that a process renders at once
OPPOSITE = {"left": "right", "right": "left"}


class RenderedPair(NamedTuple):
    key: str
    category: str
    instruction: str
    source: Image
    edited: Image
    mask: Mask


def edits_of(sample: Sample, seed_of: Callable[[Job], int]) -> Iterator[tuple[Job, Image, Edit]]:
    """Jobs, sources and edits of a photograph: one of each category, where the compositor can make one."""
    for job in CompositorAnnotator().annotate([sample], [CATEGORIES])[0]:
        if isinstance(job, Job):
            [edit] = CompositorEditor().edit([sample.source], [job], [seed_of(job)])
            if isinstance(edit, Edit):
                yield job, sample.source if edit.source is None else edit.source, edit


def rendered(seed: int) -> list[RenderedPair]:
    """The pairs of one landscape, of `SIZE`: an edit of each category, where the compositor can make one."""
    sample = Sample(content_key("landscape", str(seed)), images.encode_jpeg(landscape(seed, *SIZE)))
    pairs = []
    for job, source, edit in edits_of(sample, lambda job: 0):
        assert edit.mask is not None, "the compositor knows its masks"
        pairs.append(RenderedPair(job.key, job.category, job.instruction, source, edit.edited, edit.mask))
    return pairs


def resized(pair: RenderedPair, height: int, width: int) -> RenderedPair:
    mask = cv2.resize(pair.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0
    source, edited = (resize(image, width, height) for image in (pair.source, pair.edited))
    return pair._replace(source=source, edited=edited, mask=mask)


def cropped(pair: RenderedPair, rng: np.random.Generator, flip: bool) -> RenderedPair | None:
    """A window of `SHAPE` at random; with `flip` mirrored, "left" and "right" swapped. None: it misses the edit."""
    for _ in range(8):
        top, left = (int(rng.integers(margin + 1)) for margin in MARGIN)
        window = slice(top, top + SHAPE[0]), slice(left, left + SHAPE[1])
        if pair.mask[window].any():
            pair = pair._replace(source=pair.source[window], edited=pair.edited[window], mask=pair.mask[window])
            return mirrored(pair) if flip else pair
    return None


def mirrored(pair: RenderedPair) -> RenderedPair:
    instruction = re.sub(r"\b(left|right)\b", lambda side: OPPOSITE[side[0]], pair.instruction)
    source, edited = (np.ascontiguousarray(image[:, ::-1]) for image in (pair.source, pair.edited))
    mask = np.ascontiguousarray(pair.mask[:, ::-1])
    return pair._replace(instruction=instruction, source=source, edited=edited, mask=mask)


def _render(seeds: Sequence[int]) -> list[RenderedPair]:
    cv2.setNumThreads(1)
    height, width = (side + margin for side, margin in zip(SHAPE, MARGIN, strict=True))
    return [resized(pair, height, width) for seed in seeds for pair in rendered(seed)]


class Rendering:
    """Landscapes that `processes` render in the background, taken in their order; `MARGIN` larger than `SHAPE`."""

    def __init__(self, seeds: Sequence[int], processes: int) -> None:
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=os.nice, initargs=(5,))
        parts = [seeds[i : i + PER_TASK] for i in range(0, len(seeds), PER_TASK)]
        self._waiting: list[Future[list[RenderedPair]]] = [self._pool.submit(_render, part) for part in parts]

    def take(self, count: int) -> list[RenderedPair]:
        """At least so many pairs, as soon as they are ready, and all others that are; fewer at the end."""
        pairs: list[RenderedPair] = []
        while self._waiting and (len(pairs) < count or self._waiting[0].done()):
            pairs += self._waiting.pop(0).result()
        return pairs

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def stacked(pairs: Sequence[RenderedPair]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """Sources [N, H, W, 3], edited images, and masks [N, H, W], of pairs of one size."""
    source, edited, mask = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("source", "edited", "mask"))
    return source, edited, mask
