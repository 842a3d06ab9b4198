"""Connectors: project a language model's features to the width of the transformer's text stream."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispedit.editmgt.embeddings import sinusoid

ConnectorType = Literal["none", "linear", "mlp", "fmlp", "qformer"]


class Projector(nn.Module):
    """[B, L, text_dim] -> [B, L, dim]: one layer (`linear`), two (`mlp`), or three with a 4x wider first (`fmlp`)."""

    def __init__(self, kind: Literal["linear", "mlp", "fmlp"], text_dim: int, dim: int) -> None:
        super().__init__()
        widths = {"linear": [dim], "mlp": [dim, dim], "fmlp": [4 * text_dim, dim, dim]}[kind]
        layers: list[nn.Module] = []
        for before, after in pairwise([text_dim, *widths]):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.projector = layers[0] if kind == "linear" else nn.Sequential(*layers[:-1])

    def forward(self, text: Tensor, _timestep: Tensor) -> Tensor:  # only the resampler uses the timestep
        return self.projector(text)


class AdaptiveNorm(nn.Module):
    """LayerNorm with scale and shift computed from the timestep's embedding, [B, dim]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.linear(F.silu(time))[:, None].chunk(2, -1)
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class PerceiverBlock(nn.Module):
    """Latents attend to themselves and the text, then pass a 4x wider MLP with squared ReLU."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(dim, 4 * dim), "c_proj": nn.Linear(4 * dim, dim)})
        self.ln_1, self.ln_2, self.ln_ff = (AdaptiveNorm(dim) for _ in range(3))

    def forward(self, latents: Tensor, text: Tensor, time: Tensor) -> Tensor:
        query = self.ln_1(latents, time)
        key = torch.cat([query, self.ln_2(text, time)], 1)
        latents = latents + self.attn(query, key, key, need_weights=False)[0]
        hidden = F.relu(self.mlp["c_fc"](self.ln_ff(latents, time))).square()
        return latents + self.mlp["c_proj"](hidden)


class Resampler(nn.Module):
    """`qformer`: [B, L, text_dim] -> [B, 256, dim], a timestep-aware perceiver (ELLA, arXiv 2403.05135, section 3.2).

    Names and shapes are those of the released code, but no released weights are known. The number of heads (8) and the
    sinusoid of the timestep follow ELLA, and are not confirmed.
    """

    def __init__(self, text_dim: int, dim: int, latents: int = 256, blocks: int = 3, heads: int = 8) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, dim) * dim**-0.5)
        self.time_aware_linear = nn.Linear(dim, dim)
        self.proj_in = nn.Linear(text_dim, dim)
        self.perceiver_blocks = nn.ModuleList(PerceiverBlock(dim, heads) for _ in range(blocks))

    def forward(self, text: Tensor, timestep: Tensor) -> Tensor:
        time = sinusoid(1000.0 * timestep.float(), self.latents.shape[1]).type_as(text)
        x = self.latents + self.time_aware_linear(F.silu(time))[:, None]
        text = self.proj_in(text)
        for block in self.perceiver_blocks:
            x = block(x, text, time)
        return x


def make_connector(kind: ConnectorType, text_dim: int, dim: int) -> nn.Module | None:
    """The connector of that name; None for "none" (Meissonic, whose text encoder has the right width)."""
    if kind == "none":
        return None
    return Resampler(text_dim, dim) if kind == "qformer" else Projector(kind, text_dim, dim)
