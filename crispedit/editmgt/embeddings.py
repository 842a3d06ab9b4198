"""Embeddings: sinusoids for timesteps and sizes, rotary embeddings for positions in the grid."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sinusoid(x: Tensor, width: int = 256) -> Tensor:
    """[..., width] in fp32: cosines, then sines, of x * 10000^(-i / (width / 2)).

    Always computed in fp32: in bf16 a timestep of 35 * 1000 would round to 35072. The frequencies are the same on all
    devices: at a timestep of a million, the last bit of a frequency changes an angle by 0.06 radians.
    """
    frequency = _RELEASED if width == 256 else _frequencies(width // 2)
    angle = x.float()[..., None] * frequency.to(x.device)
    return torch.cat([angle.cos(), angle.sin()], -1)


def _frequencies(half: int) -> Tensor:
    """[half] in fp32, rounded once from fp64, because the fp32 exp of libraries differs in the last bit."""
    exponent = -torch.arange(half, dtype=torch.float32) / half * 9.210340371976184  # ln 10000
    return exponent.double().exp().float()


_RELEASED = _frequencies(128)  # the released model's; two of them are rounded up, from 0.48 units in the last place
_RELEASED[[12, 106]] = _RELEASED[[12, 106]].nextafter(torch.ones(2))


def grid_rope(height: int, width: int, axes: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """Rotary angles of a height x width grid, [height * width, sum(axes) / 2, 2]: cosine and sine, fp32.

    A token's position is (0, row, column). The first axis belongs to the text, whose tokens are all at (0, 0, 0) and so
    not rotated. Angles are computed in fp64 (theta 10000), as in the training of the released model.
    """
    sides = (torch.arange(side, dtype=torch.float64, device=device) for side in (height, width))
    row, column = torch.meshgrid(*sides, indexing="ij")
    angles = []
    for position, channels in zip((torch.zeros_like(row), row, column), axes, strict=True):
        exponent = torch.arange(0, channels, 2, dtype=torch.float64, device=device) / channels
        angles.append(position.reshape(-1, 1) / 10000.0**exponent)
    angle = torch.cat(angles, 1)
    return torch.stack([angle.cos(), angle.sin()], -1).float()


def rotate(x_BSHd: Tensor, rope_Sp2: Tensor) -> Tensor:
    """Rotate the pairs (x0, x1), (x2, x3), ... of each head by the token's angles; p = d / 2. fp32 inside.

    The angles may differ within the batch: [B, S, p, 2].
    """
    pairs = x_BSHd.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # the compiler does not support complex numbers
        cos, sin = rope_Sp2.unsqueeze(-3).unbind(-1)
        even, odd = pairs.unbind(-1)
        out = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
    else:
        turn = torch.view_as_complex(rope_Sp2).unsqueeze(-2)
        out = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
    return out.flatten(-2).type_as(x_BSHd)
