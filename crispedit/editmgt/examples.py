"""Training examples: the two images of a pair as tokens and its instruction as features, encoded on the fly.

B batch, h x w tokens, L text tokens, C their width, P the pooled width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispedit.editmgt.frame import mask_to_tokens
from crispedit.editmgt.pipeline import SCORE
from crispedit.editmgt.text import TextEncoder
from crispedit.editmgt.vq import VQ
from crispedit.record import content_key, seed_of


class PixelBatch(Protocol):
    """Decoded pairs of one size; `shards.read.Batch` is one."""

    keys: list[str]
    categories: list[str]
    metas: list[dict[str, Any]]
    source: NDArray[np.uint8]
    edited: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    masked: NDArray[np.bool_]


@dataclass(frozen=True)
class Examples:
    """B examples of one size."""

    keys: Sequence[str]
    categories: Sequence[str]
    source: Tensor | None
    """[B, h, w] tokens of the image before the edit; None for text-to-image training."""
    edited: Tensor
    """[B, h, w] tokens of the image after the edit: the target."""
    region: Tensor
    """[B, h, w] bool, tokens that the edit's mask touches; all false where the mask is unknown."""
    sequence: Tensor
    """[B, L, C]"""
    pooled: Tensor
    """[B, P]"""
    micro: Tensor
    """[B, 5] micro-conditions: width and height before the crop, its top and left, in pixels, and `SCORE`."""

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> Examples:
        names = ("source", "edited", "region", "sequence", "pooled", "micro")
        tensors = {name: getattr(self, name) for name in names}
        return replace(self, **{name: t.to(device) for name, t in tensors.items() if t is not None})


class Encoder:
    """Encodes pixels and instructions as examples; source, edited image and mask share one crop.

    crop >= 1: images are larger than the cropped window by this factor (rounded to pixels); the window's position is
    drawn from (seed, step, key). text_to_image: the probability that a batch has no source, and target captions in
    place of instructions.
    """

    def __init__(self, vq: VQ, text: TextEncoder, crop: float = 1.0, seed: int = 0, text_to_image: float = 0.0) -> None:
        self.vq, self.text, self.crop, self.seed = vq, text, crop, seed
        self.text_to_image = text_to_image

    @property
    def device(self) -> torch.device:
        return self.text.clip.device

    def __call__(self, batch: PixelBatch, step: int = 0) -> Examples:
        """Examples of a batch, on the encoders' device. ValueError if the window does not divide into tokens."""
        height, width = batch.mask.shape[1:]
        down, across = round(height / self.crop), round(width / self.crop)
        windows = [self._window(key, step, height - down, width - across) for key in batch.keys]
        crops = [(slice(top, top + down), slice(left, left + across)) for top, left in windows]
        source, edited, mask = (
            np.stack([image[crop] for image, crop in zip(images, crops, strict=True)])
            for images in (batch.source, batch.edited, batch.mask)
        )
        text_to_image = self._without_source(batch.keys, step)
        features = self.text.encode([_prompt(meta, text_to_image) for meta in batch.metas])
        # The working size, as in sampling. The released trainer gives the photograph's size, which sampling never does.
        micro = [[width, height, top, left, SCORE] for top, left in windows]
        # Cloned: tensors made in inference mode cannot take part in a backward pass.
        return Examples(
            keys=list(batch.keys),
            categories=list(batch.categories),
            source=None if text_to_image else self._tokens(source),
            edited=self._tokens(edited),
            region=self._region(mask, down // self.vq.pixels, across // self.vq.pixels),
            sequence=features.sequence.clone(),
            pooled=features.pooled.clone(),
            micro=torch.tensor(micro, device=self.device),
        )

    def _without_source(self, keys: Sequence[str], step: int) -> bool:
        """Whether this batch trains text-to-image; the same on any number of processes."""
        draw = np.random.default_rng(seed_of(content_key(str(self.seed), str(step), *keys), "text_to_image"))
        return bool(draw.random() < self.text_to_image)

    def _window(self, key: str, step: int, down: int, across: int) -> tuple[int, int]:
        """Top and left of a pair's window at a step."""
        draw = np.random.default_rng(seed_of(content_key(str(self.seed), str(step), key), "crop"))
        return int(draw.integers(down + 1)), int(draw.integers(across + 1))

    def _tokens(self, images: NDArray[np.uint8]) -> Tensor:
        rgb = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255.0
        return self.vq.encode(rgb).clone()

    def _region(self, masks: NDArray[np.bool_], rows: int, columns: int) -> Tensor:
        nothing = np.zeros((rows, columns), np.bool_)
        touched = [mask_to_tokens(mask, rows, columns) if mask.any() else nothing for mask in masks]
        return torch.from_numpy(np.stack(touched)).to(self.device)


def _prompt(meta: Mapping[str, Any], text_to_image: bool) -> str:
    """The instruction or, for text-to-image, the edited image's caption if there is one."""
    return str((text_to_image and meta.get("target_caption")) or meta.get("instruction") or "")


@dataclass(frozen=True)
class Unconditional:
    """The features of the empty instruction, which replace those of a dropped one."""

    sequence: Tensor
    """[1, L, C]"""
    pooled: Tensor
    """[1, P]"""

    @classmethod
    def of(cls, text: TextEncoder) -> Unconditional:
        features = text.encode([""])
        return cls(features.sequence.clone(), features.pooled.clone())

    def to(self, device: torch.device) -> Unconditional:
        return Unconditional(self.sequence.to(device), self.pooled.to(device))
