"""How the image tokenizer of `editmgt-tiny` begins, what its decoder learns by, and how it is measured.

The encoder is not trained: its weights hold a linear transform of each block of 8 x 8 pixels (the mean colour, and how
it differs between the block's halves). The codebook is the k-means of its output. The decoder starts as its inverse and
learns edges and texture.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crispedit.editmgt.vq import VQ, rgb
from crispedit.pipelines.shipped.descent import Descent

PIXELS = 8  # of a token along a side: the transform is written for an encoder that halves three times

OPPONENT = ((0.577, 0.577, 0.577), (0.707, 0.0, -0.707), (-0.408, 0.816, -0.408))
"""Light, red against blue, green against both: orthonormal, from RGB."""
MEAN, ACROSS, DOWN, BOTH = (1, 1, 1, 1), (-1, 1, -1, 1), (-1, -1, 1, 1), (1, -1, -1, 1)
"""The four Haar functions on the quarters of a block, in reading order."""
LATENTS = (
    (MEAN, 0, 1.0), (MEAN, 1, 1.5), (MEAN, 2, 1.5),
    (ACROSS, 0, 1.0), (DOWN, 0, 1.0), (BOTH, 0, 1.0), (ACROSS, 1, 1.0), (DOWN, 1, 1.0),
)  # fmt: skip
"""Each latent: which function of the block, of which opponent colour, and what it weighs when codes are compared."""
SIDE = 8  # tokens along a side of the squares that the decoder learns from
STILL = 16.0
"""What the constant channels hold beside the signals, to make group norm a division by a constant (to 1 in 1000)."""


@dataclass(frozen=True)
class Images:
    """Both images of all pairs [N, H, W, 3], and where they were edited [N, H, W]."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def block_transform() -> tuple[Tensor, Tensor]:
    """([8, 3, 2, 2], [12, 8]): latents from the colours of a block's quarters, and quarters' colours (quarter, then
    RGB) from latents. What 8 latents cannot say of the 12 numbers comes back as none."""
    opponent = torch.tensor(OPPONENT)[:, :, None, None]
    forward = torch.stack(
        [weight * opponent[colour] * torch.tensor(function).view(1, 2, 2) / 4 for function, colour, weight in LATENTS]
    )
    flat = forward.permute(0, 2, 3, 1).reshape(len(LATENTS), 12)  # quarter, then RGB
    return forward, torch.linalg.pinv(flat)


def latents_of(pixels: NDArray[np.uint8]) -> Tensor:
    """[N, 8, H / 8, W / 8]: what the encoder gives, by the transform itself."""
    return F.conv2d(F.avg_pool2d(rgb(pixels), PIXELS // 2), block_transform()[0], stride=2)


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
    *halvings, last = (block.downsamplers[0].conv for block in encoder.down_blocks[:-1])
    for conv in halvings:
        _only(conv, torch.zeros(conv.out_channels, conv.in_channels))
        for colour in range(3):
            conv.weight[colour, colour, :2, :2] = 0.25
    forward, backward = block_transform()
    _only(last, torch.zeros(last.out_channels, last.in_channels))
    last.weight[: len(LATENTS), :3, :2, :2] = forward
    _through(encoder, encoder.down_blocks[-1].resnets[0].conv_shortcut, torch.eye(len(LATENTS)))

    mean_RGB = backward.view(4, 3, len(LATENTS)).mean(0)
    _only(decoder.conv_in, torch.eye(decoder.conv_in.out_channels, len(LATENTS)))
    for block in decoder.up_blocks[:-1]:
        conv = block.upsamplers[0].conv
        _only(conv, torch.eye(conv.out_channels))
    _through(decoder, decoder.up_blocks[-2].upsamplers[0].conv, mean_RGB)


def _only(conv: Any, matrix_OI: Tensor) -> None:
    """Make a convolution this matrix at every place."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    middle = conv.kernel_size[0] // 2
    conv.weight[:, :, middle, middle] = matrix_OI


def _through(half: Any, before: Any, matrix_OI: Tensor) -> None:
    """Make an encoder or decoder this matrix, from the first channels that the convolution `before` its end reads."""
    norm, out = half.conv_norm_out, half.conv_out
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
        before.bias[group * size + size - 2] = STILL
        before.bias[group * size + size - 1] = -STILL


def codes_of(pixels: NDArray[np.uint8], codes_VC: Tensor) -> Tensor:
    """[N, H / 8, W / 8]: the code nearest to each block of images [N, H, W, 3], as the encoder would give it."""
    parts = []
    for part in np.array_split(pixels, -(-len(pixels) // 128)):
        latents = latents_of(part).permute(0, 2, 3, 1).to(codes_VC.device)
        nearer = codes_VC.square().sum(1) - 2 * latents.flatten(0, 2) @ codes_VC.T
        parts.append(nearer.argmin(1).view(latents.shape[:3]))
    return torch.cat(parts)


def kmeans(points_MC: Tensor, count: int, rounds: int = 25) -> Tensor:
    """[count, C] codes, by Lloyd's algorithm; a code that nothing is near starts again at a point far from its own."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randperm(len(points_MC), generator=generator)[:count]
    codes = points_MC[first.to(points_MC.device)].clone()
    for _ in range(rounds):
        minima = [torch.cdist(points, codes).min(1) for points in points_MC.split(8192)]
        distance, nearest = (torch.cat(parts) for parts in zip(*minima, strict=True))
        used = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(codes).index_add_(0, nearest, points_MC)
        codes = torch.where(used[:, None] > 0, sums / used[:, None].clamp(min=1), codes)
        lost = (used == 0).nonzero()[:, 0]
        codes[lost] = points_MC[distance.topk(len(lost)).indices]
    return codes


def codebook(images: Images, count: int, samples: int = 120_000) -> Tensor:
    """The codes of blocks drawn at random, half of them where something was edited: its colours are rarer."""
    generator = torch.Generator().manual_seed(0)
    edited = F.avg_pool2d(torch.from_numpy(images.mask)[:, None].float(), PIXELS)[:, 0] > 0
    whole = edited.flatten(1).all(1)  # a new style or tone is everywhere
    flat = latents_of(images.pixels).permute(0, 2, 3, 1).flatten(0, 2)
    objects = flat[(edited & ~whole[:, None, None]).flatten()]
    half = [points[torch.randint(len(points), (samples // 2,), generator=generator)] for points in (flat, objects)]
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


def train_decoder(vq: VQ, images: Images, steps: int, batch: int = 24, rate: float = 1e-3) -> None:
    """Train the decoder on squares of `SIDE` tokens, three of four about an edit."""
    tokens, rng = codes_of(images.pixels, vq.codebook), np.random.default_rng(0)
    learned = [*vq.model.decoder.parameters(), *vq.model.post_quant_conv.parameters()]
    descent = Descent(learned, rate, steps, warmup=100, decay=(1e-4, 1e-4), average=0.995)
    for step in range(1, steps + 1):
        chosen, pixels, mask = squares(images, tokens, batch, rng)
        latents = F.embedding(chosen, vq.codebook).permute(0, 3, 1, 2)
        with torch.autocast(chosen.device.type, torch.bfloat16):
            made = vq.model.decoder(vq.model.post_quant_conv(latents)).float()
        loss = difference(made, pixels, mask)
        descent.step(loss, step)
        if step % 100 == 0:
            print(f"decoder: step {step}/{steps}  loss {float(loss.detach()):.4f}", flush=True)
    descent.finish()


def squares(images: Images, tokens: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [count, SIDE, SIDE], the pixels behind them [count, 3, ...] in 0-1, and where they were edited."""
    rows, columns = tokens.shape[1:]
    chosen, pixels, masks = [], [], []
    for place in range(count):
        image = int(rng.integers(len(tokens)))
        middle = rng.integers((rows, columns))
        edited = np.argwhere(images.mask[image, ::PIXELS, ::PIXELS])
        if place % 4 and len(edited):
            middle = edited[rng.integers(len(edited))]
        top, left = np.clip(middle - SIDE // 2, 0, (rows - SIDE, columns - SIDE))
        window = tuple(slice(first * PIXELS, (first + SIDE) * PIXELS) for first in (top, left))
        chosen.append(tokens[image, top : top + SIDE, left : left + SIDE])
        pixels.append(images.pixels[image][window])
        masks.append(images.mask[image][window])
    return torch.stack(chosen), rgb(np.stack(pixels)), torch.from_numpy(np.stack(masks))[:, None]


@torch.inference_mode()
def measure(vq: VQ, images: Images) -> dict[str, float]:
    """On whole images: PSNR of what comes back, its L1, and how the codebook is used."""
    wanted = rgb(images.pixels)
    tokens = torch.cat([vq.encode(part) for part in wanted.split(16)])
    error = torch.cat([vq.decode(part) for part in tokens.split(16)]) - wanted
    used = torch.bincount(tokens.flatten(), minlength=vq.codebook_size).float()
    p = used / used.sum()
    return {
        "images": len(images.pixels),
        "psnr_db": float(-10 * error.square().mean((1, 2, 3)).log10().mean()),
        "l1": float(error.abs().mean()),
        "codes": len(used),
        "codes_used": int((used > 0).sum()),
        "entropy_bits": float(-(p * p.clamp(min=1e-12).log2()).sum()),
    }
