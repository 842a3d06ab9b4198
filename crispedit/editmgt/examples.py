"""Training examples: the two images of a pair as tokens and its instruction as features, encoded on the fly.

B batch, h x w tokens, L text tokens, C their width, P the pooled width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispedit.editmgt.frame import mask_to_tokens
from crispedit.editmgt.pipeline import SCORE
from crispedit.editmgt.text import TextEncoder
from crispedit.editmgt.vq import VQ, rgb
from crispedit.record import content_key, seed_of


class PixelBatch(Protocol):
    """Decoded pairs of one size; `shards.read.Batch` is one."""

    keys: list[str]
    categories: list[str]
    metas: list[dict[str, Any]]
    source: NDArray[np.uint8]
    edited: NDArray[np.uint8]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Examples:
    """B examples of one size."""

    keys: Sequence[str]
    categories: Sequence[str]
    source: Tensor | None  # [B, h, w] tokens of the image before the edit; None for text-to-image training
    edited: Tensor  # [B, h, w] tokens of the image after the edit: the target
    region: Tensor  # [B, h, w] bool, tokens that the edit's mask touches; all false where the mask is unknown
    sequence: Tensor  # [B, L, C]
    pooled: Tensor  # [B, P]
    micro: Tensor  # [B, 5] micro-conditions: width and height before the crop, its top and left, in pixels, and `SCORE`

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> Examples:
        moved: dict[str, Any] = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


class Encoder:
    """Encodes pixels and instructions as examples; source, edited image and mask share one crop.

    crop >= 1: images are larger than the cropped window by this factor (rounded to pixels); the window's position is
    drawn from (seed, step, key). text_to_image: the probability that a batch has no source, and target captions in
    place of instructions.
    """

    def __init__(self, vq: VQ, text: TextEncoder, crop: float = 1.0, seed: int = 0, text_to_image: float = 0.0) -> None:
        self.vq, self.text, self.crop, self.seed, self.text_to_image = vq, text, crop, seed, text_to_image

    def __call__(self, batch: PixelBatch, step: int = 0) -> Examples:
        """Examples of a batch, on the encoders' device. ValueError if the window does not divide into tokens."""
        height, width = batch.mask.shape[1:]
        down, across = round(height / self.crop), round(width / self.crop)
        randoms = [self._random("crop", step, key) for key in batch.keys]
        corners = [(int(r.integers(height - down + 1)), int(r.integers(width - across + 1))) for r in randoms]
        crops = [(slice(top, top + down), slice(left, left + across)) for top, left in corners]
        source, edited, mask = (
            np.stack([image[crop] for image, crop in zip(images, crops, strict=True)])
            for images in (batch.source, batch.edited, batch.mask)
        )
        # The draw depends on the whole batch, so it is the same on any number of processes.
        text_to_image = self._random("text_to_image", step, *batch.keys).random() < self.text_to_image
        prompts = [
            (text_to_image and meta.get("target_caption")) or meta.get("instruction") or "" for meta in batch.metas
        ]
        features = self.text.encode(prompts)
        device, grid = self.vq.codebook.device, (down // self.vq.pixels, across // self.vq.pixels)
        # The working size, as in sampling. The released trainer gives the photograph's size, which sampling never does.
        micro = [[width, height, top, left, SCORE] for top, left in corners]
        return Examples(
            keys=list(batch.keys),
            categories=list(batch.categories),
            source=None if text_to_image else self.vq.encode(rgb(source, device)),
            edited=self.vq.encode(rgb(edited, device)),
            region=torch.from_numpy(np.stack([mask_to_tokens(each, *grid) for each in mask])).to(device),
            sequence=features.sequence,
            pooled=features.pooled,
            micro=torch.tensor(micro, device=device),
        )

    def _random(self, purpose: str, step: int, *keys: str) -> np.random.Generator:
        return np.random.default_rng(seed_of(content_key(str(self.seed), str(step), *keys), purpose))
