"""Train the image tokenizer of `editmgt-tiny`: on the images of shards, before and after their edits.

    python -m crispedit.pipelines.shipped.train_vq SHARDS... --held-out SHARDS --work WORK

trains (resumable: from the last checkpoint in WORK), measures on the held-out shards, and writes weights, configuration
and card to WORK/vqvae. Same shards, arguments and library versions: the same weights.

So that it takes minutes, only the decoder is trained. The encoder's weights are written down: they are those of a
linear block transform (the mean colour of 8 x 8 pixels, and how it differs between their halves), which a `VQModel` can
hold. The codebook is the k-means of that, the decoder starts as its inverse, and learns edges and texture.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crispedit.editmgt.preset import fresh_vq, read_preset
from crispedit.editmgt.vq import VQ
from crispedit.record import seed_of
from crispedit.shards.read import ShardReader

PRESET = "editmgt-tiny"
SHAPE = (112, 160)
"""Height and width of the images in pixels; pairs of another shape are scaled to cover it, and cropped."""
SIDE = 8
"""Tokens along a side of the square crops that the decoder is trained on."""
PIXELS = 8
"""Of a token along a side: the transform is written for an encoder that halves three times."""

OPPONENT = ((0.577, 0.577, 0.577), (0.707, 0.0, -0.707), (-0.408, 0.816, -0.408))
"""Light, red against blue, green against both: orthonormal, from RGB."""
MEAN, ACROSS, DOWN, BOTH = (1, 1, 1, 1), (-1, 1, -1, 1), (-1, -1, 1, 1), (1, -1, -1, 1)
"""The four Haar functions on the quarters of a block, in reading order."""
LATENTS = (
    (MEAN, 0, 1.0), (MEAN, 1, 1.5), (MEAN, 2, 1.5),
    (ACROSS, 0, 1.0), (DOWN, 0, 1.0), (BOTH, 0, 1.0), (ACROSS, 1, 1.0), (DOWN, 1, 1.0),
)  # fmt: skip
"""Each latent: which function of the block, of which opponent colour, and what it weighs when codes are compared."""
STILL = 16.0
"""What the constant channels hold beside the signals, to make group norm a division by a constant (to 1 in 1000)."""


@dataclass(frozen=True)
class Images:
    """Both images of all pairs [N, H, W, 3], and where they were edited [N, H, W]."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def load(shards: Sequence[str]) -> Images:
    pixels, masks = [], []
    with ShardReader(shards, batch_size=64, shapes=[SHAPE]) as reader:
        for batch in reader:
            pixels += [batch.source, batch.edited]
            masks += [batch.mask, batch.mask]
    return Images(np.concatenate(pixels), np.concatenate(masks))


def block_transform() -> tuple[Tensor, Tensor]:
    """([8, 3, 2, 2], [12, 8]): latents from the colours of a block's quarters, and quarters' colours (quarter, then
    RGB) from latents. What 8 latents cannot say of the 12 numbers comes back as none."""
    opponent = torch.tensor(OPPONENT)
    forward = torch.stack(
        [
            weight * opponent[colour][:, None, None] * torch.tensor(function).view(1, 2, 2) / 4
            for function, colour, weight in LATENTS
        ]
    )
    flat = forward.permute(0, 2, 3, 1).reshape(len(LATENTS), 12)  # quarter, then RGB
    return forward, torch.linalg.pinv(flat)


def latents_of(pixels: NDArray[np.uint8]) -> Tensor:
    """[N, 8, H / 8, W / 8]: what the encoder gives, by the transform itself."""
    rgb = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return F.conv2d(F.avg_pool2d(rgb, PIXELS // 2), block_transform()[0], stride=2)


@torch.no_grad()
def write_transform(model: Any) -> None:
    """Write the block transform into a VQModel's encoder, and the blocks' mean colours into its decoder.

    Residual branches end in zeros, so that the blocks are the identity (or their shortcut) until they learn. The last
    group norms divide by a constant, since constant channels outweigh the rest; and silu(x) - silu(-x) = x.
    """
    encoder, decoder = model.encoder, model.decoder
    for block in model.modules():
        if hasattr(block, "conv_shortcut"):
            nn.init.zeros_(block.conv2.weight)
            nn.init.zeros_(block.conv2.bias)
            if block.conv_shortcut is not None:
                _only(block.conv_shortcut, torch.eye(*block.conv_shortcut.weight.shape[:2]))
    _only(model.quant_conv, torch.eye(len(LATENTS)))
    _only(model.post_quant_conv, torch.eye(len(LATENTS)))

    _only(encoder.conv_in, torch.eye(encoder.conv_in.out_channels, 3))
    halvings = [block.downsamplers[0].conv for block in encoder.down_blocks[:-1]]
    for conv in halvings[:-1]:
        _only(conv, torch.zeros(conv.out_channels, conv.in_channels))
        for colour in range(3):
            conv.weight[colour, colour, :2, :2] = 0.25
    forward, backward = block_transform()
    last = halvings[-1]
    _only(last, torch.zeros(last.out_channels, last.in_channels))
    last.weight[: len(LATENTS), :3, :2, :2] = forward
    _through(encoder, encoder.down_blocks[-1].resnets[0].conv_shortcut, torch.eye(len(LATENTS)))

    mean_RGB = backward.view(4, 3, len(LATENTS)).mean(0)
    spread = torch.eye(decoder.conv_in.out_channels, len(LATENTS))
    _only(decoder.conv_in, spread)
    for block in decoder.up_blocks[:-1]:
        conv = block.upsamplers[0].conv
        _only(conv, torch.eye(conv.out_channels))
    _through(decoder, decoder.up_blocks[-2].upsamplers[0].conv, mean_RGB)


def _only(conv: nn.Conv2d, matrix_OI: Tensor) -> None:
    """Make a convolution this matrix at every place."""
    assert conv.bias is not None
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(_bias(conv))
    middle = conv.kernel_size[0] // 2
    conv.weight[:, :, middle, middle] = matrix_OI


def _through(half: Any, before: nn.Conv2d, matrix_OI: Tensor) -> None:
    """Make an encoder or decoder this matrix, from the first channels that the convolution `before` its end reads."""
    norm, out = half.conv_norm_out, half.conv_out
    assert before.bias is not None
    size = norm.num_channels // norm.num_groups
    signals, width = matrix_OI.shape
    _only(before, torch.zeros(before.out_channels, before.in_channels))
    _only(out, torch.zeros(out.out_channels, out.in_channels))
    middle, entry = out.kernel_size[0] // 2, before.kernel_size[0] // 2
    for signal in range(signals):
        group, slot = signal % norm.num_groups, signal // norm.num_groups
        plus = group * size + 2 * slot
        assert 2 * slot + 4 <= size, "no room for the constants"
        for channel, sign in ((plus, 1.0), (plus + 1, -1.0)):
            before.weight[channel, :width, entry, entry] = sign * matrix_OI[signal]
            out.weight[signal, channel, middle, middle] = sign * STILL * math.sqrt(2 / size)
    for group in range(norm.num_groups):
        _bias(before)[group * size + size - 2] = STILL
        _bias(before)[group * size + size - 1] = -STILL


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None, "the convolutions of a VQModel have biases"
    return conv.bias


def kmeans(points_MC: Tensor, count: int, rounds: int = 25) -> Tensor:
    """[count, C] codes, by Lloyd's algorithm; a code that nothing is near starts again at a point far from its own."""
    generator = torch.Generator().manual_seed(0)
    codes = points_MC[torch.randperm(len(points_MC), generator=generator)[:count]].clone()
    for _ in range(rounds):
        distance, nearest = (
            torch.cat(x)
            for x in zip(*(torch.cdist(p, codes).min(1) for p in points_MC.split(8192)), strict=True)
        )
        used = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(codes).index_add_(0, nearest, points_MC)
        codes = torch.where(used[:, None] > 0, sums / used[:, None].clamp(min=1), codes)
        lost = (used == 0).nonzero()[:, 0]
        codes[lost] = points_MC[distance.topk(len(lost)).indices]
    return codes


def codebook(images: Images, latents: Tensor, count: int, samples: int = 150_000) -> Tensor:
    """The codes of blocks drawn at random, half of them where something was edited: its colours are rarer."""
    generator = torch.Generator().manual_seed(0)
    edited = F.avg_pool2d(torch.from_numpy(images.mask)[:, None].float(), PIXELS)[:, 0] > 0
    whole = edited.flatten(1).all(1)  # a new style or tone is everywhere
    flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
    objects = flat[(edited & ~whole[:, None, None]).flatten()]
    half = [
        points[torch.randint(len(points), (samples // 2,), generator=generator)] for points in (flat, objects)
    ]
    return kmeans(torch.cat(half), count)


def difference(made: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """L1, of the pixels and of their means over 4 x 4, edited ones counting five times; and a quarter of the L1 of the
    differences between neighbours at three scales."""
    weight = 1 + 4 * mask.float()
    weight = weight / weight.mean()
    error = made - wanted
    loss = (weight * error.abs()).mean() + (F.avg_pool2d(weight, 4) * F.avg_pool2d(error, 4).abs()).mean()
    for _ in range(3):
        loss = loss + 0.25 * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())
        error = F.avg_pool2d(error, 2)
    return loss


@dataclass(frozen=True)
class Crops:
    """Tokens [count, side, side], the pixels [count, 3, h, w] in [0, 1] behind them, their masks [count, 1, h, w]."""

    tokens: Tensor
    pixels: Tensor
    mask: Tensor


def crops(images: Images, tokens: Tensor, count: int, side: int | None, step: int) -> Crops:
    """Random images, or (`side`) squares of them, three of four about a place that was edited.

    What is drawn depends on the step alone, so that a resumed run draws what it would have drawn.
    """
    rng = np.random.Generator(np.random.PCG64(seed_of("train_vq", str(step))))
    height, width = tokens.shape[1:]
    rows, columns = (height, width) if side is None else (side, side)
    found: list[tuple[Tensor, ...]] = []
    for place in range(count):
        chosen = int(rng.integers(len(tokens)))
        edited = np.argwhere(images.mask[chosen, ::PIXELS, ::PIXELS])
        middle = rng.integers((height, width))
        if place % 4 and len(edited):
            middle = edited[rng.integers(len(edited))]
        top, left = np.clip(middle - (rows // 2, columns // 2), 0, (height - rows, width - columns))
        window = (
            chosen,
            slice(top * PIXELS, (top + rows) * PIXELS),
            slice(left * PIXELS, (left + columns) * PIXELS),
        )
        found.append(
            (
                tokens[chosen, top : top + rows, left : left + columns],
                torch.from_numpy(images.pixels[window]).permute(2, 0, 1).float() / 255,
                torch.from_numpy(images.mask[window])[None],
            )
        )
    return Crops(*(torch.stack(column) for column in zip(*found, strict=True)))


def train(
    model: Any, images: Images, tokens: Tensor, steps: int, count: int, rate: float, saved: Path
) -> None:
    """Train the decoder in place, from the checkpoint if there is one: on squares, at last on whole images."""
    learned = list(model.decoder.parameters())
    optimizer = torch.optim.AdamW(learned, lr=rate, betas=(0.9, 0.98), weight_decay=1e-4)
    first = 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["step"])
    began = time.process_time()
    for step in range(first, steps):
        share = step / steps
        for group in optimizer.param_groups:
            group["lr"] = (
                rate * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
            )
        whole = share >= 0.8
        part = crops(images, tokens, max(1, count // 4) if whole else count, None if whole else SIDE, step)
        latents = F.embedding(part.tokens, model.quantize.embedding.weight).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            made = model.decoder(model.post_quant_conv(latents)).float()
        loss = difference(made, part.pixels, part.mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        if step % 50 == 49:
            psnr = -10 * float(torch.log10(F.mse_loss(made.detach().clamp(0, 1), part.pixels)))
            print(
                f"step {step + 1}/{steps}  loss {float(loss.detach()):.4f}  psnr {psnr:.2f} dB  "
                f"{time.process_time() - began:.0f} s of CPU",
                flush=True,
            )
        if step % 200 == 199 or step == steps - 1:
            part_path = saved.with_suffix(".part")
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1},
                part_path,
            )
            os.replace(part_path, saved)


@torch.inference_mode()
def measure(vq: VQ, images: Images) -> dict[str, float]:
    """On whole images: PSNR of what comes back, its L1, and how the codebook is used."""
    errors, absolute = [], []
    used = torch.zeros(vq.codebook_size)
    for pixels in np.array_split(images.pixels, -(-len(images.pixels) // 16)):
        wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        tokens = vq.encode(wanted)
        made = vq.decode(tokens)
        used += torch.bincount(tokens.flatten(), minlength=len(used))
        errors += (made - wanted).square().mean((1, 2, 3)).tolist()
        absolute += (made - wanted).abs().mean((1, 2, 3)).tolist()
    p = used / used.sum()
    return {
        "images": len(images.pixels),
        "psnr_db": float(np.mean(-10 * np.log10(errors))),
        "l1": float(np.mean(absolute)),
        "codes": len(used),
        "codes_used": int((used > 0).sum()),
        "entropy_bits": float(-(p * p.clamp(min=1e-12).log2()).sum()),
    }


CARD = """# The image tokenizer of `editmgt-tiny`

A diffusers `VQModel` of {parameters:.2f} million parameters: one of {codes} codes for every {pixels} x {pixels}
pixels. Made by `python -m crispedit.pipelines.shipped.train_vq`. It exists so that EditMGT can be
trained and tried on real pixels anywhere, offline. **It is no substitute for a published tokenizer.**

Its encoder was not trained: its weights hold a linear transform of each block of {pixels} x {pixels} pixels (mean
colour, and the differences between the block's halves). The codes are the k-means of that. The decoder was trained.

## Data
{train_images} images, before and after edits in all seven categories, of landscapes that the compositor rendered; at
{width} x {height} pixels. {steps} steps of {batch} crops of 64 x 64 pixels, three of four about an edit (whole images
in the last fifth), AdamW at {rate:g}. No photograph was used, so nobody's licence binds the weights.

## Measured on {images} images of landscapes it was not trained on
| | |
|---|---|
| PSNR of encoding and decoding | {psnr_db:.2f} dB |
| mean absolute error | {l1:.4f} of the range |
| codes that are used | {codes_used} of {codes} |
| entropy of a token, by itself | {entropy_bits:.2f} bits |

## Limits
- Fine texture is lost: grass, foliage and grain come back as smooth colour, and edges soft.
- Its decoder knows rendered landscapes and the compositor's objects and styles. Photographs come back blurrier.
- Made for about {resolution} x {resolution} pixels.
"""


def write(folder: Path, vq: VQ, facts: dict[str, Any]) -> None:
    """The tokenizer in diffusers' layout with its card and the measurements."""
    folder.mkdir(parents=True, exist_ok=True)
    vq.model.save_pretrained(folder)
    (folder / "measured.json").write_text(json.dumps(facts, indent=2) + "\n")
    (folder / "README.md").write_text(CARD.format(**facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shards", nargs="+", help="shard sets to train on")
    parser.add_argument("--held-out", required=True, help="a shard set to measure on")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and the result")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=12, help="crops a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    preset = read_preset(PRESET)
    torch.manual_seed(0)
    vq = fresh_vq(preset)
    write_transform(vq.model)
    training = load(args.shards)
    latents = latents_of(training.pixels)
    vq.codebook.copy_(codebook(training, latents, vq.codebook_size))
    tokens = torch.cat(
        [torch.cdist(p, vq.codebook).argmin(1) for p in latents.permute(0, 2, 3, 1).flatten(0, 2).split(8192)]
    )
    tokens = tokens.view(len(latents), *latents.shape[2:])
    vq.model.decoder.requires_grad_(True)
    train(vq.model, training, tokens, args.steps, args.batch, args.rate, args.work / "checkpoint.pt")
    vq.model.requires_grad_(False)
    facts = {
        "parameters": sum(p.numel() for p in vq.model.parameters()) / 1e6,
        "resolution": preset["resolution"],
        "pixels": vq.pixels,
        "height": SHAPE[0],
        "width": SHAPE[1],
        "train_images": len(training.pixels),
        "steps": args.steps,
        "batch": args.batch,
        "rate": args.rate,
        **measure(vq, load([args.held_out])),
    }
    write(args.work / "vqvae", vq, facts)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
