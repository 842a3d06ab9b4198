"""Measures: the models that metrics need (CLIP, DINO, a judge), where the recipe names them.

A measure whose model the recipe does not name is None, and the report says so; a named model that is missing is an
error. Embeddings are cached, so a source or target is embedded once, however many editors are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import xxhash
from pydantic import Field

from crispedit import metrics, weights
from crispedit.chat import ChatOption
from crispedit.embedding import Remembered
from crispedit.judge import JudgeModel
from crispedit.recipe import Strict
from crispedit.record import Image

if TYPE_CHECKING:
    from torch import Tensor

    from crispedit.clip import ClipModel

ClipRole = Literal["clip", "clip_large"]
KEPT = 20_000
"""Embeddings kept in memory: about 40 MB for ViT-B/32."""


class ClipSpec(Strict):
    """A CLIP model: "embedded", or an open_clip architecture with a tag or a local file of its weights.

    OpenAI's weights need their "-quickgelu" architecture when they come from a file.
    """

    model: str = "ViT-B-32-quickgelu"
    pretrained: str = ""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"


class DinoSpec(Strict):
    """A DINO model: a folder in transformers' layout, or a timm architecture with a file of its weights."""

    model: str = "vit_small_patch16_224.dino"
    weights: str = ""


class Models(Strict):
    """The models of a recipe. Without one (null), the measures that need it are null. Only a named tag is
    downloaded."""

    clip: ClipSpec | None = None
    """CLIP-I and CLIP-T: published with OpenAI's ViT-B/32."""
    clip_large: ClipSpec | None = None
    """CLIP-dir: published with OpenAI's ViT-L/14, on the whole image without keeping its aspect."""
    dino: DinoSpec | None = None
    judge: ChatOption | None = Field(None)
    """A chat model (`crispedit.chat`) that scores what GEdit-Bench and ImgEdit-Bench ask."""

    @property
    def clips(self) -> dict[str, ClipSpec]:
        """The CLIP models by role, without those that are not named."""
        return {role: spec for role in get_args(ClipRole) if (spec := getattr(self, role)) is not None}

    def identity(self) -> dict[str, Any]:
        """What determines their results: names, options, hashes of local weights."""
        identity: dict[str, Any] = {}
        for role, spec in self.clips.items():
            place = spec.pretrained or spec.model.removeprefix("local-dir:")
            files = weights.fingerprint("clip") if spec.model == "embedded" else _content(place)
            identity[role] = spec.model_dump() | {"pretrained": files}
        if self.dino is not None:
            files = _content(self.dino.weights or self.dino.model)
            identity["dino"] = {"model": Path(self.dino.model).name, "weights": files}
        if self.judge is not None:
            identity["judge"] = self.judge.identity()
        return identity


class Measures:
    """The models, to be loaded in the process that measures."""

    def __init__(self, models: Models, kept: Path | None = None) -> None:
        """kept: the folder of the judge's replies, if they are kept."""
        self.models = models
        self.judge = None if models.judge is None else JudgeModel(models.judge, kept)
        self._images: dict[str, Remembered] = {}
        self._texts: dict[str, Remembered] = {}

    def load(self) -> None:
        """Load the recipe's models. ValueError for a missing one."""
        for role, spec in self.models.clips.items():
            model = _load_clip(role, spec)
            self._images[role] = Remembered(model.images, KEPT)
            self._texts[role] = Remembered(model.texts, KEPT)
        if self.models.dino is not None:
            from crispedit import dino

            model_of_dino = dino.load(self.models.dino.model, self.models.dino.weights)
            self._images["dino"] = Remembered(model_of_dino.images, KEPT)
        if self.judge is not None:
            self.judge.load()

    def clip_image(self, role: ClipRole, a: Image, b: Image) -> float | None:
        """CLIP-I: the cosine of two images."""
        return _cosine(self._picture(role, a), self._picture(role, b))

    def clip_text(self, role: ClipRole, image: Image, caption: str | None) -> float | None:
        """CLIP-T (CLIPout): the cosine of an image and a caption; None without one."""
        return _cosine(self._picture(role, image), self._text(role, caption))

    def clip_direction(
        self, role: ClipRole, images: tuple[Image, Image], captions: tuple[str | None, str | None]
    ) -> float | None:
        """CLIP-dir: the cosine of what changed in the images and in the captions; None if either did not change."""
        before, after = (self._picture(role, image) for image in images)
        said_before, said_after = (self._text(role, caption) for caption in captions)
        if before is None or after is None or said_before is None or said_after is None:
            return None
        return metrics.cosine(after - before, said_after - said_before)

    def dino_image(self, a: Image, b: Image) -> float | None:
        """The cosine of two images' class tokens."""
        return _cosine(self._picture("dino", a), self._picture("dino", b))

    def _picture(self, role: str, image: Image) -> Tensor | None:
        embed = self._images.get(role)
        key = str(image.shape).encode() + xxhash.xxh3_128_digest(image.tobytes())
        return None if embed is None else embed({key: lambda: image})[key]

    def _text(self, role: str, caption: str | None) -> Tensor | None:
        embed = self._texts.get(role)
        return embed({caption: lambda: caption})[caption] if embed is not None and caption else None


def _load_clip(role: str, spec: ClipSpec) -> ClipModel:
    from crispedit import clip

    resize: clip.Resize = "squash" if role == "clip_large" else "crop"
    model = clip.load(spec.model, spec.pretrained, spec.precision, resize)
    if model is None:
        raise ValueError(
            f"models.{role}: no weights of {spec.model} {spec.pretrained} here, and they cannot be downloaded; "
            "name a local file (pretrained=FILE), or null to measure without it"
        )
    return model


def _cosine(a: Tensor | None, b: Tensor | None) -> float | None:
    return None if a is None or b is None else metrics.cosine(a, b)


def _content(place: str) -> str:
    """The digest of a file or a model's folder; any other name is returned as it is."""
    return weights.digest(Path(place)) if place and Path(place).exists() else place
