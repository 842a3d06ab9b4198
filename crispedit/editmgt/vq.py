"""The image tokenizer: RGB to a grid of codebook indices and back (diffusers' `VQModel`)."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crispedit import torchvision_ops as torchvision_ops  # before diffusers

_CHUNK = 2**23


def rgb(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """[B, 3, H, W] in [0, 1], on the device, of images [B, H, W, 3]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255.0


class VQ:
    """Encodes images as tokens and decodes them, with a `VQModel` in its own dtype (the released one needs fp32)."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)

    @property
    def codebook_size(self) -> int:
        return int(self.model.config.num_vq_embeddings)

    @property
    def pixels(self) -> int:
        """Pixels per token along one side: the encoder halves its input at every block but the last (released: 16)."""
        return int(2 ** (len(self.model.config.block_out_channels) - 1))

    @property
    def codebook(self) -> Tensor:
        """[V, C]"""
        return self.model.quantize.embedding.weight

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] (no other normalisation) -> [B, H / pixels, W / pixels]: the nearest codes.

        Distances are fp32. One image at a time, so that memory does not grow with the batch. ValueError for sides
        that are no multiples of `pixels`.
        """
        height, width = images.shape[-2:]
        if height % self.pixels or width % self.pixels:
            raise ValueError(f"image sides must be multiples of {self.pixels} pixels, not {width}x{height}")
        return torch.stack([self._nearest(self.latents(image)) for image in images.to(self.codebook)])

    def latents(self, image: Tensor) -> Tensor:
        """[c, h, w] of a [3, H, W] image."""
        return self.model.encode(image[None]).latents[0]

    def _nearest(self, latents_chw: Tensor) -> Tensor:
        codes, flat = self.codebook, latents_chw.flatten(1).T
        rows = max(64, _CHUNK // len(codes))
        nearest = [torch.cdist(part, codes).argmin(1) for part in flat.split(rows)]
        return torch.cat(nearest).view(latents_chw.shape[1:])

    @torch.inference_mode()
    def decode(self, tokens: Tensor, tile: int | None = 96, overlap: int = 16) -> Tensor:
        """[B, h, w] -> [B, 3, pixels h, pixels w] in [0, 1].

        A grid with a side over `tile` tokens (96: 1536 pixels at 16 each) is decoded in overlapping tiles, blended
        linearly, to bound the memory. The decoder normalises over its input, so a tiled image differs a little.
        """
        return torch.stack([self._decode_one(grid, tile, overlap) for grid in tokens]).clamp(0.0, 1.0)

    def _decode_one(self, tokens_hw: Tensor, tile: int | None, overlap: int) -> Tensor:
        height, width = tokens_hw.shape
        if tile is None or max(height, width) <= tile:
            return self._pixels(tokens_hw)
        p = self.pixels
        out = self.codebook.new_zeros(3, height * p, width * p)
        weight = self.codebook.new_zeros(1, height * p, width * p)
        for top, bottom in spans(height, tile, overlap):
            for left, right in spans(width, tile, overlap):
                down, across = (_ramp(side * p, overlap * p, out) for side in (bottom - top, right - left))
                ramp = down[:, None] * across
                area = (slice(None), slice(top * p, bottom * p), slice(left * p, right * p))
                out[area] += ramp * self._pixels(tokens_hw[top:bottom, left:right])
                weight[area] += ramp
        return out / weight

    def _pixels(self, tokens_hw: Tensor) -> Tensor:
        latents = F.embedding(tokens_hw, self.codebook).permute(2, 0, 1)[None]
        return self.model.decoder(self.model.post_quant_conv(latents))[0]


def spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Equal spans of at most `tile` that cover `length` and overlap by at least `overlap`. ValueError if impossible."""
    if tile <= overlap:
        raise ValueError(f"a tile of {tile} tokens cannot overlap its neighbour by {overlap}")
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    tile = min(tile, length)
    starts = [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]
    return [(start, start + tile) for start in starts]


def _ramp(length: int, overlap: int, like: Tensor) -> Tensor:
    """[length] weights that rise over the overlap at both ends; never 0."""
    place = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    edge = torch.minimum(place, length - place)
    return (edge / overlap).clamp(max=1.0) if overlap else torch.ones_like(place)
