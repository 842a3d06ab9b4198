"""Shards: a benchmark of your own pairs. With masks it measures the edit and the rest of the image separately.

Use a shard set that was not trained on. `crispedit.pipelines.evaluate` lists the pairs, because it knows the shard
format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from crispedit import metrics
from crispedit.benchmark import Answer, Benchmark, Better, Case, Picture, Protocol, Scored
from crispedit.measures import Measures
from crispedit.record import Image, Mask

ID = "shards"
REGIONAL: Mapping[str, Better] = {"l1": "lower", "psnr": "higher", "ssim": "higher"}
METRICS: Mapping[str, Better] = {
    **{f"inside_{name}": better for name, better in REGIONAL.items()},
    **{f"outside_{name}": better for name, better in REGIONAL.items()},
    **{"leakage": "lower", "l1": "lower"},
    **dict.fromkeys(("clip_i", "clip_t", "clip_dir", "dino"), "higher"),
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
        return np.asarray(self._scaled(picture.image()), np.uint8)

    def mask(self, picture: Picture) -> Mask:
        """Any pixel with some of the mask counts as edited, so that outside is certainly unedited."""
        return np.asarray(self._scaled(super().mask(picture).astype(np.float32)) > 0)

    def _scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        height, width = values.shape[:2]
        scale = (self.short_side_px or math.inf) / min(height, width)
        if scale >= 1:
            return values
        return cv2.resize(values, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)

    def score_one(self, answer: Answer, measures: Measures) -> Scored:
        source, target, mask = answer.source, answer.target, answer.mask
        assert target is not None
        edited = metrics.resized(answer.edited, target)
        captions = answer.case.source_caption, answer.case.target_caption
        scores: dict[str, float | None] = dict.fromkeys(METRICS)
        if mask is not None:
            for name, measure in (("l1", metrics.l1), ("psnr", metrics.psnr), ("ssim", metrics.ssim)):
                scores[f"inside_{name}"] = measure(edited, target, mask)
                scores[f"outside_{name}"] = measure(edited, source, ~mask)
            scores["leakage"] = metrics.leakage(source, edited, mask)
        scores |= {
            "l1": metrics.l1(edited, target),
            "clip_i": measures.clip_image("clip", edited, target),
            "clip_t": measures.clip_text("clip", edited, captions[1]),
            "clip_dir": measures.clip_direction("clip_large", (source, edited), captions),
            "dino": measures.dino_image(edited, target),
        }
        return Scored({ID: scores})
