"""Shards: a benchmark of your own pairs. With masks it measures the edit and the rest of the image separately.

Use a shard set that was not trained on. `crispedit.pipelines.evaluate` lists the pairs, because it knows the shard
format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from pydantic import Field, PrivateAttr

from crispedit import metrics
from crispedit.benchmark import Answer, Benchmark, Better, Case, Picture, Protocol, Scored
from crispedit.measures import Measures
from crispedit.record import Image, Mask

ID = "shards"
METRICS: Mapping[str, Better] = {
    "inside_l1": "lower",
    "inside_psnr": "higher",
    "inside_ssim": "higher",
    "outside_l1": "lower",
    "outside_psnr": "higher",
    "outside_ssim": "higher",
    "leakage": "lower",
    "l1": "lower",
    "clip_i": "higher",
    "clip_t": "higher",
    "clip_dir": "higher",
    "dino": "higher",
}


class Shards(Benchmark):
    """Inside the mask the answer is compared with the target, outside it with the source; the rest with the target.

    Inside and outside are None for a pair without a mask, outside also if the mask covers everything (style).
    """

    path: str | tuple[str, ...]
    """A shard set (its folder), or tars of one; several are read together."""
    categories: tuple[str, ...] = ()
    """Only these categories; empty: all."""
    short_side_px: int | None = Field(None, ge=16)
    """Pairs are scaled down to this short side before they are edited and scored; null: as stored."""

    _cases: Sequence[Case] = PrivateAttr(())

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        about = "inside the mask against the target, outside it against the source"
        kept = frozenset(name for name in METRICS if name.startswith("outside_")) | {"leakage"}
        return {ID: Protocol(about, METRICS, "inside_l1", perfect_by_copying=kept)}

    def listed(self, cases: Sequence[Case]) -> Shards:
        """This benchmark with these pairs, in this order."""
        listed = self.model_copy()
        listed._cases = tuple(cases)
        return listed

    def cases(self) -> Sequence[Case]:
        return self._cases

    def editing(self) -> Mapping[str, Any]:
        return {"short_side_px": self.short_side_px}

    def image(self, picture: Picture) -> Image:
        image = picture.image()
        height, width = self._size(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def mask(self, picture: Picture) -> Mask:
        """Any pixel with some of the mask counts as edited, so that outside is certainly unedited."""
        mask = super().mask(picture)
        height, width = self._size(*mask.shape)
        if (height, width) == mask.shape:
            return mask
        return np.asarray(cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        short = min(height, width)
        if self.short_side_px is None or short <= self.short_side_px:
            return height, width
        scale = self.short_side_px / short
        return round(height * scale), round(width * scale)

    def score_one(self, answer: Answer, measures: Measures) -> Scored:
        source, target, mask = answer.source, answer.target, answer.mask
        assert target is not None
        edited = metrics.resized(answer.edited, target)
        captions = answer.case.source_caption, answer.case.target_caption
        scores: dict[str, float | None] = dict.fromkeys(METRICS)
        if mask is not None:
            outside = ~mask
            scores |= {
                "inside_l1": metrics.l1(edited, target, mask),
                "inside_psnr": metrics.psnr(edited, target, mask),
                "inside_ssim": metrics.ssim(edited, target, mask),
                "outside_l1": metrics.l1(edited, source, outside),
                "outside_psnr": metrics.psnr(edited, source, outside),
                "outside_ssim": metrics.ssim(edited, source, outside),
                "leakage": metrics.leakage(source, edited, mask),
            }
        scores |= {
            "l1": metrics.l1(edited, target),
            "clip_i": measures.clip_image("clip", edited, target),
            "clip_t": measures.clip_text("clip", edited, captions[1]),
            "clip_dir": measures.clip_direction("clip_large", (source, edited), captions),
            "dino": measures.dino_image(edited, target),
        }
        return Scored({ID: scores})
