"""The records of a run (job, edit, sample), and the keys and seeds that derive from content."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispedit import change, images, motion
from crispedit.change import Map, Noise
from crispedit.motion import Motion, Tracks

Image = NDArray[np.uint8]
"""RGB, [H, W, 3], 0-255, sRGB."""
Mask = NDArray[np.bool_]
"""[H, W]: true where the edit is."""
Score = float | int | None
"""A measured number; None means unknown, never zero."""


def content_key(*parts: str | bytes) -> str:
    """32 hex digits (BLAKE2b-128) that name this content. Parts are length-prefixed: ("ab", "c") != ("a", "bc")."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def content_keys(parts: Sequence[str], last: Iterable[str]) -> list[str]:
    """`content_key(*parts, each)` for each of `last`, three times as fast."""
    begun = blake2b(digest_size=16)
    for part in parts:
        begun.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    keys = []
    for each in last:
        digest, data = begun.copy(), each.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
        keys.append(digest.hexdigest())
    return keys


def canonical_json(value: object) -> str:
    """The canonical JSON text of a value: sorted keys, no spaces. Equal values give equal text, so it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def source_key(image: bytes) -> str:
    """The key of a photograph, from its file's bytes."""
    return content_key("source", image)


def job_key(source: str, instruction: str, category: str) -> str:
    return content_key("job", source, instruction, category)


def candidate_key(job: str, editor: str, options: Mapping[str, Any], seed: int) -> str:
    """The key of one edited image: job, editor, that editor's options and the seed index."""
    return content_key("candidate", job, editor, canonical_json(options), str(seed))


def seed_of(key: str, purpose: str = "") -> int:
    """A 63-bit seed derived from a key, so that no result depends on order or machine."""
    return int(content_key("seed", key, purpose)[:16], 16) >> 1


@dataclass(frozen=True)
class Job:
    """One requested edit of one photograph: its texts, and a plan that an editor may need.

    `plan` is JSON-serialisable. Only the annotator that wrote it and its editor read it.
    """

    source_key: str
    category: str
    instruction: str
    source_caption: str
    target_caption: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    tokens: tuple[int, int] | None = field(default=None, compare=False)
    """(Input, output) tokens of the model that wrote it; None: no model, or unknown."""

    @property
    def key(self) -> str:
        return job_key(self.source_key, self.instruction, self.category)


@dataclass(frozen=True)
class Refusal:
    """Why a part declines a request that it understood: a short stable word such as "no_room". It counts as
    rejected."""

    reason: str
    job: Job | None = None
    """The declined job, if the annotator wrote one and then rejected it: kept for readers."""


@dataclass(frozen=True)
class Edit:
    """An editor's result: the edited image, the true mask if it is known, and a new source if it made one.

    `source` is set by editors that compose both sides (removing an object that they first added); it then takes the
    photograph's place in the pair. All arrays share height and width.
    """

    edited: Image
    mask: Mask | None = None
    source: Image | None = None
    cost: float | None = None
    """A server's price for it, in the currency of the recipe's prices; None if unknown."""


@dataclass
class Sample:
    """What a filter measures: a photograph (no `edited_jpeg`) or a pair. Pixels are decoded once, on demand.

    Arrays that several filters need are cached properties, so each is computed once per sample.
    """

    key: str
    source_jpeg: bytes
    edited_jpeg: bytes | None = None
    mask_png: bytes | None = None
    category: str | None = None
    instruction: str | None = None
    source_caption: str | None = None
    target_caption: str | None = None
    original_width: int | None = None
    """Width in pixels of the photograph's file before normalisation; None for a pair."""
    original_height: int | None = None

    @property
    def is_pair(self) -> bool:
        return self.edited_jpeg is not None

    @cached_property
    def source(self) -> Image:
        return images.decode_jpeg(self.source_jpeg)

    @cached_property
    def edited(self) -> Image:
        assert self.edited_jpeg is not None, "a photograph has no edited image"
        return images.decode_jpeg(self.edited_jpeg)

    @cached_property
    def mask(self) -> Mask | None:
        """The true edit mask, if the editor knows it."""
        return None if self.mask_png is None else images.decode_mask(self.mask_png)

    @cached_property
    def source_gray(self) -> NDArray[np.uint8]:
        """[H, W] luma of the source."""
        return images.gray(self.source)

    @cached_property
    def edited_gray(self) -> NDArray[np.uint8]:
        return images.gray(self.edited)

    @cached_property
    def edited_fitted(self) -> NDArray[np.uint8]:
        """[H, W] luma of the edited image at the source's size."""
        return change.resize(self.edited_gray, self.source_gray.shape)

    @cached_property
    def source_half(self) -> NDArray[np.uint8]:
        """[H // 2, W // 2] luma of the source."""
        return change.shrink(self.source_gray, 2)

    @cached_property
    def edited_half(self) -> NDArray[np.uint8]:
        return change.shrink(self.edited_fitted, 2)

    @cached_property
    def source_middle(self) -> NDArray[np.uint8]:
        """[h, w] luma of the source with a short side of 384 to 767 px (its own below 768 px)."""
        by = self._middle_factor
        return self.source_gray if by == 1 else change.shrink(self.source_half, by // 2)

    @cached_property
    def edited_middle(self) -> NDArray[np.uint8]:
        """[h, w] luma of the edited image on that grid of the source, resized if it is of another size."""
        by = self._middle_factor
        if by == 1 or self.edited_gray.shape != self.source_gray.shape:
            return change.shrink(self.edited_gray, by, like=self.source_middle)
        return change.shrink(self.edited_half, by // 2)

    @property
    def _middle_factor(self) -> int:
        """The power of two by which the source is shrunk to the middle grid."""
        return max(1, change.factor(self.source.shape) // 2)

    @property
    def _background(self) -> Mask | None:
        """`outside`, if a true mask leaves at least a tenth of the image; else None."""
        return self.outside if self.mask is not None and change.share(self.outside) >= 0.1 else None

    @cached_property
    def blocks(self) -> change.Moments:
        """Moments of the two images' luma over blocks of the middle grid."""
        return change.Moments.of(self.source_middle, self.edited_middle)

    @cached_property
    def tracks(self) -> Tracks:
        """The points that can be tracked from source to edited image, in pixels of the middle grid.

        Only a true mask excludes points: an estimated one would cover whatever a misalignment changed.
        """
        return motion.tracks(self.source_middle, self.edited_middle, self._background)

    @cached_property
    def motion(self) -> Motion | None:
        """The motion from source to edited image, in pixels of the middle grid; None if it cannot be known."""
        return motion.motion(self.tracks)

    @cached_property
    def source_small(self) -> Image:
        """[h, w, 3] the source on the small grid of `crispedit.change`."""
        return change.shrink(self.source, change.factor(self.source.shape))

    @cached_property
    def edited_small(self) -> Image:
        """[h, w, 3] the edited image on that grid, aligned to the source to a fraction of a pixel, so that only content
        differs. Where the edited image does not reach, it is the source."""
        small = change.shrink(self.edited, change.factor(self.source.shape), like=self.source_small)
        if self.motion is None or self.motion.displacement < motion.STILL_PX:
            return small
        scale = self.source_small.shape[0] / self.source_middle.shape[0]
        return self.motion.undone(small, self.source_small, scale)

    @cached_property
    def source_lab(self) -> NDArray[np.float32]:
        """[h, w, 3] `source_small` in CIE Lab."""
        return change.lab(self.source_small)

    @cached_property
    def edited_lab(self) -> NDArray[np.float32]:
        return change.lab(self.edited_small)

    @cached_property
    def lab_difference(self) -> NDArray[np.float32]:
        """[h, w, 3] difference of the pair in CIE Lab, on the small grid."""
        return self.source_lab - self.edited_lab

    @cached_property
    def change(self) -> Map:
        """[h, w] Lab distance of the pair's means over 3x3 px of the small grid."""
        return change.distance(self.lab_difference, 3)

    @cached_property
    def look(self) -> Map:
        """[h, w] Lab distance of the pair's means over `change.LOOK_PX`: what a viewer of the whole picture sees."""
        return change.distance(self.lab_difference, change.LOOK_PX)

    @cached_property
    def texture(self) -> Map:
        """[h, w] local standard deviation of the source in Lab."""
        return change.texture(self.source_lab)

    @cached_property
    def noise(self) -> Noise:
        """How much the unedited part of the pair differs; measured outside the true mask, if there is one."""
        return change.noise(self.change, self.look, self.texture, self._background)

    @cached_property
    def changed(self) -> Mask:
        """[h, w] where a person would see a change that is more than re-rendering."""
        return change.stands_out(self.change, self.noise.expected(self.texture))

    @cached_property
    def changed_areas(self) -> NDArray[np.int32]:
        """[n] pixels of each region of `changed`."""
        return change.regions(self.changed)[1]

    @cached_property
    def outside(self) -> Mask:
        """[h, w] where the edit is not: outside the true mask, or else outside the estimated one, with a margin.
        Empty where the whole image is edited (style)."""
        if self.mask is None:
            return ~change.estimate(self.changed)
        by = change.factor(self.source.shape)
        mask = change.shrink(self.mask.view(np.uint8) * 255, by, like=self.source_small[..., 0])
        return ~change.grow(mask > 0, change.MARGIN)
