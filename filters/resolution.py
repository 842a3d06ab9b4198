"""Resolution: how many pixels a photograph, or both sides of a pair, have (of the file, before any
shrinking)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from crispedit import images
from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score


class Resolution(Filter):
    """Sides in pixels. A photograph is measured by its file's size (`Sample.original_*`), if known, because the stored
    image may be smaller; a pair by the smaller of its two images. Only headers are read."""

    scope: ClassVar[frozenset[Literal["source", "pair"]]] = frozenset({"source", "pair"})
    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {"short_side_px": int, "long_side_px": int}
    # CrispEdit-2M: "short side >= 1024 px" of every image.
    bounds: ClassVar[Mapping[str, Bound]] = {"short_side_px": Bound(min=1024)}
    cost: ClassVar[float] = 0.01

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [self._measure(sample) for sample in samples]

    def _measure(self, sample: Sample) -> dict[str, Score]:
        sizes = [images.jpeg_size(sample.source_jpeg)]
        if sample.original_width is not None and sample.original_height is not None:
            sizes = [(sample.original_width, sample.original_height)]
        if sample.edited_jpeg is not None:
            sizes.append(images.jpeg_size(sample.edited_jpeg))
        return {"short_side_px": min(min(size) for size in sizes), "long_side_px": min(max(size) for size in sizes)}
