"""DINO: the similarity of a pair's two images to a self-supervised ViT, which sees structure where CLIP sees topics.

The centre squares are embedded by `crispedit.dino`, as for MagicBrush's and AnySD's DINO score. An edit that leaves the
rest alone stays near 1; a redrawn scene scores lower. Cosines of different models are not comparable, so there are no
default bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from crispedit.parts import Filter, Sample, Score, needs
from crispedit.record import content_key
from crispedit.weights import digest

if TYPE_CHECKING:
    from crispedit import dino


class Dino(Filter):
    """`image`: the cosine, -1 to 1, to five decimals. `no_model`: 1 if no model was named; `image` is then null."""

    model: str = ""
    """A folder in transformers' layout (such as dinov2-base's), or an architecture of timm."""
    weights: str = ""
    """The file of that architecture's weights."""
    precision: Literal["fp32", "bf16"] = "fp32"

    extra = "models"
    scores = {"image": float, "no_model": int}
    # Of ViT-S/16 on a core; a GPU is done with it before the pictures are resized.
    cost = 90.0

    _dino: dino.DinoModel | None = PrivateAttr(None)

    def lacks(self) -> str | None:
        return needs("torch", extra="models") if self.model else "no model is named: set its `model`"

    def load(self) -> None:
        from crispedit import dino

        if self.model:
            self._dino = dino.load(self.model, self.weights, self.precision)

    def identity(self) -> dict[str, Any]:
        """The options, with a folder's or file's content in place of its path."""
        identity = super().identity()
        if self.model and Path(self.model).is_dir():  # Path("") is the working folder
            identity["options"] |= {"model": Path(self.model).resolve().name, "weights": digest(Path(self.model))}
        elif Path(self.weights).is_file():
            identity["options"]["weights"] = content_key(Path(self.weights).read_bytes())
        return identity

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        if self.model and self._dino is None:
            self.load()
        if self._dino is None or not samples:
            return [{"image": None, "no_model": 1} for _ in samples]
        embedded = self._dino.images([image for s in samples for image in (s.source, s.edited)])
        cosines = (embedded[0::2] * embedded[1::2]).sum(dim=1).tolist()
        return [{"image": round(cosine, 5), "no_model": 0} for cosine in cosines]
