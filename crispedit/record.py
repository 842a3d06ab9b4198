"""The records of a run: photograph, job, edit, sample; and the keys and seeds that their content gives them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispedit import change, images

Image = NDArray[np.uint8]
"""RGB, [H, W, 3], 0-255, sRGB."""
Mask = NDArray[np.bool_]
"""[H, W], true where the edit is."""
Score = float | int | None
"""One measured number; None means that it could not be known, never zero."""


def content_key(*parts: str | bytes) -> str:
    """32 hex digits (BLAKE2b-128) that name this content. Parts are length-prefixed: ("ab", "c") != ("a", "bc")."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def content_keys(parts: Sequence[str], last: Iterable[str]) -> list[str]:
    """`content_key(*parts, each)` for each of `last`; many at a third of the price."""
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
    """The one JSON text of a value: sorted keys, no spaces. Equal values give equal text, so it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def source_key(image: bytes) -> str:
    """The key of a photograph: of its file's bytes, wherever the file lies."""
    return content_key("source", image)


def job_key(source: str, instruction: str, category: str) -> str:
    """The key of an edit job."""
    return content_key("job", source, instruction, category)


def candidate_key(job: str, editor: str, options: Mapping[str, Any], seed: int) -> str:
    """The key of one edited image: job, editor, that editor's options and the seed index."""
    return content_key("candidate", job, editor, canonical_json(options), str(seed))


def seed_of(key: str, purpose: str = "") -> int:
    """A 63-bit seed derived from a key, so that no result depends on order or machine."""
    return int(content_key("seed", key, purpose)[:16], 16) >> 1


@dataclass(frozen=True)
class Job:
    """One wanted edit of one photograph, in words, with the plan an editor may need to carry it out.

    `plan` is JSON-serialisable and belongs to the annotator and editor that share it; others ignore it.
    """

    source_key: str
    category: str
    instruction: str
    source_caption: str
    target_caption: str
    plan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return job_key(self.source_key, self.instruction, self.category)


@dataclass(frozen=True)
class Refusal:
    """Why a part declines what it understood: a short stable word such as "no_room". Counted as rejected, not error."""

    reason: str
    job: Job | None = None
    """What is declined, where an annotator has written a job and then thought better of it: kept for a reader."""


@dataclass(frozen=True)
class Edit:
    """An editor's answer: the edited image, the true mask where it is known, and a new source where it made one.

    `source` is set by editors that compose both sides (removing an object that they first added); it then takes
    the photograph's place in the pair. All arrays share height and width.
    """

    edited: Image
    mask: Mask | None = None
    source: Image | None = None


@dataclass
class Sample:
    """What a filter measures: a photograph (no `edited_jpeg`) or a pair. Pixels are decoded once, on demand.

    Derived arrays that several filters need live here as cached properties, so that each is computed once a sample.
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
        """The true edit mask, where the editor knows it."""
        return None if self.mask_png is None else images.decode_mask(self.mask_png)

    @cached_property
    def source_gray(self) -> NDArray[np.uint8]:
        """[H, W] luma of the source."""
        return images.gray(self.source)

    @cached_property
    def edited_gray(self) -> NDArray[np.uint8]:
        return images.gray(self.edited)

    @cached_property
    def difference(self) -> NDArray[np.uint8]:
        """[H, W] largest absolute channel difference, 0-255, of source and edited. ValueError if their sizes differ."""
        if self.source.shape != self.edited.shape:
            raise ValueError(f"sizes differ: source {self.source.shape[:2]}, edited {self.edited.shape[:2]}")
        return images.difference(self.source, self.edited)

    @cached_property
    def source_half(self) -> NDArray[np.uint8]:
        """[H // 2, W // 2] luma of the source."""
        return change.shrink(self.source_gray, 2)

    @cached_property
    def edited_half(self) -> NDArray[np.uint8]:
        """[H // 2, W // 2] luma of the edited image on the source's grid: resized if it is of another size."""
        return change.shrink(self.edited_gray, 2, like=self.source_half)

    @cached_property
    def source_quarter(self) -> Image:
        """[H // 4, W // 4, 3] the source, each pixel the mean of 4x4."""
        return change.shrink(self.source, 4)

    @cached_property
    def edited_quarter(self) -> Image:
        """[H // 4, W // 4, 3] the edited image on the source's grid: resized if it is of another size."""
        return change.shrink(self.edited, 4, like=self.source_quarter)

    @cached_property
    def change(self) -> NDArray[np.uint8]:
        """[H // 4, W // 4] how much the pair differs there, in levels, without noise and JPEG error."""
        return change.levels(self.source_quarter, self.edited_quarter)

    @cached_property
    def changed(self) -> Mask:
        """[H // 4, W // 4] where a person would see the difference."""
        return self.change >= change.VISIBLE_LEVELS

    @cached_property
    def outside(self) -> Mask:
        """[H // 4, W // 4] where the edit is not: outside the true mask, or else outside the estimated one, with a
        margin. Empty where the whole image is edited (style)."""
        if self.mask is None:
            return ~change.estimate(self.changed)
        mask = change.shrink(self.mask.view(np.uint8) * 255, 4, like=self.changed)
        return ~change.grow(mask > 0, change.MARGIN)
