"""Aesthetic: LAION's aesthetic score, a linear head over CLIP embeddings, from a local file.

The heads are LAION-Aesthetics predictor V1 (`sa_0_4_vit_l_14_linear.pth`: `weight`, `bias`) and V2
(`sac+logos+ava1-l14-linearMSE.pth`: `layers.N.weight`, `layers.N.bias`; its layers have no activation between them, so
it is linear too), both for OpenAI's ViT-L-14 and embeddings of length 1. Scores are about 1 to 10.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from crispedit.embedding import Remembered, sides
from crispedit.parts import Bound, Filter, Sample, Score, needs
from crispedit.record import content_key

if TYPE_CHECKING:
    from torch import Tensor


class Aesthetic(Filter):
    """`source` and, of a pair, `edited`: the aesthetic scores; null, with `no_model` 1, if CLIP could not be loaded."""

    head: str
    """The file of the head: safetensors, or a checkpoint that loads weights-only."""
    model: str = "ViT-L-14"
    pretrained: str = "openai"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"

    scope = frozenset({"source", "pair"})
    extra = "models"
    scores = {"source": float, "edited": float, "no_model": int}
    # CrispEdit-2M's curation keeps photographs above 4.5 (arXiv 2605.10859).
    bounds = {"source": Bound(min=4.5)}
    cost = 80.0

    _images: Remembered | None = PrivateAttr(None)
    _head: tuple[Tensor, Tensor] | None = PrivateAttr(None)

    def lacks(self) -> str | None:
        return needs("open_clip", "torch", extra="models")

    def load(self) -> None:
        from crispedit import clip

        self._head = read_head(Path(self.head))
        model = clip.load(self.model, self.pretrained, self.precision, resize="crop")
        self._images = None if model is None else Remembered(model.images)

    def identity(self) -> dict[str, Any]:
        """The options, with the head's content in place of its path."""
        identity = super().identity()
        path = Path(identity["options"].pop("head"))
        return identity | {"head": content_key(path.read_bytes()) if path.is_file() else None}

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        if self._head is None:
            self.load()
        assert self._head is not None
        if self._images is None:
            return [dict.fromkeys(self.scores) | {"no_model": 1} for _ in samples]
        weight, bias = self._head
        pictures = [sides(sample) for sample in samples]
        embedded = self._images(dict(side for both in pictures for side in both))
        for vector in embedded.values():
            if len(vector) != len(weight):
                raise ValueError(
                    f"aesthetic: the head {self.head} is for embeddings of {len(weight)}, "
                    f"but {self.model} gives {len(vector)}: name the model that the head was trained on"
                )
        score = {key: round(float(vector @ weight + bias), 4) for key, vector in embedded.items()}
        return [
            {"source": score[both[0][0]], "edited": score[both[1][0]] if both[1:] else None, "no_model": 0}
            for both in pictures
        ]


def read_head(path: Path) -> tuple[Tensor, Tensor]:
    """The weight [D] and the bias [] of a head of one or several linear layers. ValueError if the file has none."""
    from crispedit import torchscript

    if not path.is_file():
        raise ValueError(f"aesthetic: the head file {path} does not exist")
    state = torchscript.tensors(path)
    prefixes = [name.removesuffix("weight") for name in state if name.endswith("weight")]
    prefixes.sort(key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])
    layers = [(state[f"{prefix}weight"].float(), state[f"{prefix}bias"].float()) for prefix in prefixes]
    if not layers or layers[-1][0].shape[0] != 1:
        raise ValueError(f"aesthetic: {path} is not a linear head with one output; its tensors are {sorted(state)}")
    weight, bias = layers[0]
    for w, b in layers[1:]:
        weight, bias = w @ weight, w @ bias + b
    return weight[0], bias[0]
