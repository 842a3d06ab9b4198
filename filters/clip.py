"""CLIP: whether the edited image shows its caption, and whether the image changed as the captions did.

The four measures of InstructPix2Pix's filter (Brooks et al., 2023, section 3.1.2; the direction is StyleGAN-NADA's, Gal
et al., 2022), on images squashed to the model's size. The published bounds are for ViT-L-14 only: source and target at
least 0.2, image 0.7, direction 0.2. Cosines of other models differ, so there are no default bounds.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from crispedit import metrics, weights
from crispedit.embedding import Remembered, sides
from crispedit.parts import Filter, Sample, Score, needs

if TYPE_CHECKING:
    from torch import Tensor


class Clip(Filter):
    """Cosines, -1 to 1, of embeddings of length 1, to five decimals.

    - `source`, `target`: an image and its caption (CLIP-T); null without the caption.
    - `image`: the two images (CLIP-I).
    - `direction`: the difference of the images and that of the captions (CLIP-dir); null if either difference is zero.
    - `no_model`: 1 if no weights could be loaded or open_clip is not installed (the `models` extra); every other
      score is then null. Else 0.
    """

    model: str = "embedded"
    """"embedded", an open_clip architecture, or "local-dir:FOLDER"; see `crispedit.clip.load`."""
    pretrained: str = ""
    """A tag of that architecture, or a file of its weights."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    resize: Literal["squash", "crop"] = "squash"
    """"squash" sees the whole image, as InstructPix2Pix's filter does; "crop" its middle, as CLIP-I and CLIP-T do."""

    extra = "models"
    scores = {"source": float, "target": float, "image": float, "direction": float, "no_model": int}
    # Of the embedded model on a core, half of it resizing; ViT-L-14 takes as long on a GPU, seconds on a core.
    cost = 35.0

    _loaded: bool = PrivateAttr(False)
    _images: Remembered | None = PrivateAttr(None)
    _texts: Remembered | None = PrivateAttr(None)

    def lacks(self) -> str | None:
        return needs("open_clip", "torch", extra="models")

    def load(self) -> None:
        self._loaded = True
        if not _installed():
            return
        from crispedit import clip

        model = clip.load(self.model, self.pretrained, self.precision, self.resize)
        if model is not None:
            self._images, self._texts = Remembered(model.images), Remembered(model.texts)

    def identity(self) -> dict[str, Any]:
        embedded = self.model == "embedded" and _installed()
        return super().identity() | {"weights": weights.fingerprint("clip") if embedded else None}

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        if not self._loaded:
            self.load()
        if self._images is None or self._texts is None:
            return [dict.fromkeys(self.scores) | {"no_model": 1} for _ in samples]
        pairs = [sides(sample) for sample in samples]
        captions = [(sample.source_caption or "", sample.target_caption or "") for sample in samples]
        images = self._images(dict(side for pair in pairs for side in pair))
        texts = self._texts({text: partial(str, text) for both in captions for text in both if text})
        return [
            self._cosines(*(images[key] for key, _ in pair), *(texts.get(text) for text in both))
            for pair, both in zip(pairs, captions, strict=True)
        ]

    def _cosines(
        self, source: Tensor, edited: Tensor, source_caption: Tensor | None, target_caption: Tensor | None
    ) -> dict[str, Score]:
        direction = None
        if source_caption is not None and target_caption is not None:
            direction = _cosine(edited - source, target_caption - source_caption)
        return {
            "source": None if source_caption is None else _cosine(source, source_caption),
            "target": None if target_caption is None else _cosine(edited, target_caption),
            "image": _cosine(source, edited),
            "direction": direction,
            "no_model": 0,
        }


def _installed() -> bool:
    return importlib.util.find_spec("open_clip") is not None


def _cosine(a: Tensor, b: Tensor) -> float | None:
    value = metrics.cosine(a, b)
    return None if value is None else round(value, 5)
