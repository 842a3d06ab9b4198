"""The EditMGT transformer: predicts codebook logits from masked image tokens, an instruction and a reference image.

It is Meissonic's (arXiv 2410.08261) multimodal transformer with a third stream for the reference image's tokens, which
use the image's weights, but always timestep 0 (EditMGT, arXiv 2605.10859). Parameter names and shapes are those of the
released checkpoints of both, which load without conversion.

Letters: B batch, L text tokens, N image tokens inside the transformer, R reference tokens inside it, S = L + N + R,
D width, H heads, d width of a head. Streams are joined in the order text, image, reference. "Tokens" are codebook
indices on a [height, width] grid, one per 16 pixels; with down-sampling the transformer sees 2x2 of them as one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crispedit.editmgt.attention import attend
from crispedit.editmgt.connector import ConnectorType, Resampler, make_connector
from crispedit.editmgt.embeddings import grid_rope, rotate, sinusoid
from crispedit.editmgt.localize import text_to_image

EPS = 1e-6


class TransformerConfig(BaseModel):
    """The shape of the model. Names and meanings are those of the released `config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_layers: int = 14
    num_single_layers: int = 28
    attention_head_dim: int = 128
    num_attention_heads: int = 8
    joint_attention_dim: int = 2304
    """Width of the text features: of the language model with a connector, of CLIP without."""
    pooled_projection_dim: int = 1024
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)
    vocab_size: int = 8256
    codebook_size: int = 8192
    downsample: bool = True
    connector_type: ConnectorType = "linear"

    @model_validator(mode="after")
    def _consistent(self) -> TransformerConfig:
        width, codes = self.attention_head_dim, self.codebook_size
        if sum(self.axes_dims_rope) != width:
            raise ValueError(f"axes_dims_rope {self.axes_dims_rope} must add up to attention_head_dim {width}")
        if self.vocab_size <= codes:
            raise ValueError(f"vocab_size {self.vocab_size} must exceed codebook_size {codes}: the last id is the mask")
        return self

    @property
    def dim(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def mask_id(self) -> int:
        """The mask token: the last of the vocabulary."""
        return self.vocab_size - 1

    @property
    def stride(self) -> int:
        """Codebook tokens per transformer token along one side."""
        return 2 if self.downsample else 1

    @property
    def blocks(self) -> int:
        return self.num_layers + self.num_single_layers


@dataclass(frozen=True)
class Capture:
    """Which attention to reduce to a localisation map (see `crispedit.editmgt.localize`).

    `blocks` count the double blocks first, then the single ones. `rows` [C, L] weighs the text tokens of the last C
    entries of the batch (the conditional half under guidance); each row adds up to 1.
    """

    blocks: tuple[int, ...]
    rows: Tensor


@dataclass
class KeyValueCache:
    """Cached keys and values of image and reference in every block, so that a step computes only some tokens."""

    live: Tensor | None = None
    """[B, n] positions of the image tokens that a step computes; other tokens and the reference come from the cache.
    None: the step computes everything and refills the cache."""
    rows: slice = field(default_factory=lambda: slice(None))
    """The entries of the batch that the step computes, such as the conditional half."""
    entries: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Per block, keys and values [B, H, N + R, d]."""

    def merged(self, k: Tensor, v: Tensor, block: int, text: int, image: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens, [B, H, L + N + R, d]: new for live tokens, else cached. Updates the cache."""
        if self.live is None:
            self.entries.append((k[:, :, text:].clone(), v[:, :, text:].clone()))
            return k, v
        merged = []
        for live, cached in zip((k, v), self.entries[block], strict=True):
            known = cached[self.rows]
            places = self.live[:, None, :, None].expand(-1, live.shape[1], -1, live.shape[3])
            known[:, :, :image].scatter_(2, places, live[:, :, text:])
            merged.append(torch.cat([live[:, :, :text], known], 2))
        return merged[0], merged[1]


@dataclass(frozen=True)
class Conditions:
    """Inputs that are the same at every step, computed once by `Transformer.condition`."""

    text: Tensor  # [B, L, D] context; or [B, L, text_dim] with a time-aware connector, which runs at every step
    pooled: Tensor  # [B, D] projection of the pooled text and the micro-conditions
    rope: Tensor  # [S, d / 2, 2] rotary angles of all tokens
    grid: tuple[int, int]  # rows and columns of image tokens inside the transformer
    reference: Tensor | None  # [B, R, D] embedded reference image
    reference_modulations: tuple[Tensor, ...]  # per block, [B, 6 D] or [B, 3 D]; the reference's timestep is always 0
    strength: float

    @property
    def reference_tokens(self) -> int:
        return 0 if self.reference is None else self.reference.shape[1]

    def rows(self, chosen: slice) -> Conditions:
        """The conditions of some entries of the batch."""
        reference = None if self.reference is None else self.reference[chosen]
        fixed = tuple(m[chosen] for m in self.reference_modulations)
        text, pooled = self.text[chosen], self.pooled[chosen]
        return replace(self, text=text, pooled=pooled, reference=reference, reference_modulations=fixed)


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the mean square in fp32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return F.rms_norm(x, self.weight.shape, self.weight, EPS)
        return F.rms_norm(x.float(), self.weight.shape, None, EPS).type_as(x) * self.weight


def modulate(x: Tensor, shifts: Sequence[Tensor], scales: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift, each segment of x [B, sum(lengths), D] with its own [B, D] pair."""
    normed = F.layer_norm(x, x.shape[-1:], eps=EPS)
    parts = zip(normed.split(list(lengths), 1), shifts, scales, strict=True)
    return _join(torch.addcmul(shift[:, None], part, 1 + scale[:, None]) for part, shift, scale in parts)


def gated(x: Tensor, gates: Sequence[Tensor], update: Tensor, lengths: Sequence[int]) -> Tensor:
    """x + gate update, each segment with its own [B, D] gate."""
    parts = zip(x.split(list(lengths), 1), gates, update.split(list(lengths), 1), strict=True)
    return _join(torch.addcmul(old, gate[:, None], new) for old, gate, new in parts)


def _join(parts: Any) -> Tensor:
    tensors = list(parts)
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, 1)


class Modulation(nn.Module):
    """Shift, scale and gate (once or twice) from the conditioning vector. Zero at first: blocks start as identity."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, count * dim)

    def forward(self, condition: Tensor) -> Tensor:
        return self.linear(F.silu(condition))


class FeedForward(nn.Module):
    """Linear to 4 D, tanh-GELU, linear back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        first = nn.ModuleDict({"proj": nn.Linear(dim, 4 * dim)})
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x: Tensor) -> Tensor:
        first: Any = self.net[0]
        return self.net[2](F.gelu(first["proj"](x), approximate="tanh"))


class JointAttention(nn.Module):
    """The projections of an attention layer; in a double block also those of the text (`add_*`) and of the output."""

    def __init__(self, dim: int, heads: int, double: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.norm_q, self.norm_k = RMSNorm(dim // heads), RMSNorm(dim // heads)
        if double:
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(dim, dim) for _ in range(3))
            self.norm_added_q, self.norm_added_k = RMSNorm(dim // heads), RMSNorm(dim // heads)
            self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
            self.to_add_out = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, H, d]."""
        return x.unflatten(-1, (self.heads, -1))


@dataclass
class Frame:
    """What the blocks of one forward pass share."""

    conditions: Conditions
    text: int
    image: int  # image tokens that this pass computes
    rope: Tensor  # of the tokens that this pass computes
    capture: Capture | None
    cache: KeyValueCache | None
    last: int  # the last single block, after which only image tokens are used; -1 if there is no single block
    scores: list[Tensor] = field(default_factory=list)

    def captures(self, block: int) -> bool:
        return self.capture is not None and block in self.capture.blocks

    @property
    def live_reference(self) -> int:
        """Reference tokens that this pass computes: none when their keys and values come from a cache."""
        return 0 if self.cache is not None and self.cache.live is not None else self.conditions.reference_tokens

    def attention(self, q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        """Attention of the live streams, [B, S, H, d] -> [B, S, D]; the last block has fewer queries than keys."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        grid, reference = math.prod(self.conditions.grid), self.conditions.reference_tokens
        if self.cache is not None:
            k, v = self.cache.merged(k, v, block, self.text, grid)
        if self.capture is not None and self.captures(block):
            last = len(self.capture.rows)
            keys = k[-last:, :, : self.text + grid]
            self.scores.append(text_to_image(q[-last:, :, : self.text], keys, self.capture.rows))
        return attend(q, k, v, reference, self.conditions.strength).transpose(1, 2).flatten(2)


class DoubleBlock(nn.Module):
    """Text and image have separate weights and share the attention; the reference uses the image's weights."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = Modulation(dim, 6)
        self.norm1_context = Modulation(dim, 6)
        self.attn = JointAttention(dim, heads, double=True)
        self.ff = FeedForward(dim)
        self.ff_context = FeedForward(dim)

    def forward(
        self, text: Tensor, x: Tensor, condition: Tensor, fixed: Sequence[Tensor], frame: Frame, index: int
    ) -> tuple[Tensor, Tensor]:
        """x: [image, reference]. fixed: the reference's modulation; empty without a reference."""
        attn, lengths = self.attn, [frame.image, frame.live_reference][: 1 + len(fixed)]
        mods = [m.chunk(6, -1) for m in (self.norm1(condition), *fixed)]
        shift, scale, gate, shift2, scale2, gate2 = zip(*mods, strict=True)
        c_shift, c_scale, c_gate, c_shift2, c_scale2, c_gate2 = (
            (m,) for m in self.norm1_context(condition).chunk(6, -1)
        )
        c_length = [frame.text]

        c_normed = modulate(text, c_shift, c_scale, c_length)
        normed = modulate(x, shift, scale, lengths)
        c_q = attn.norm_added_q(attn.split(attn.add_q_proj(c_normed)))
        c_k = attn.norm_added_k(attn.split(attn.add_k_proj(c_normed)))
        q = torch.cat([c_q, attn.norm_q(attn.split(attn.to_q(normed)))], 1)
        k = torch.cat([c_k, attn.norm_k(attn.split(attn.to_k(normed)))], 1)
        v = torch.cat([attn.add_v_proj(c_normed), attn.to_v(normed)], 1)
        out = frame.attention(rotate(q, frame.rope), rotate(k, frame.rope), attn.split(v), index)

        text = gated(text, c_gate, attn.to_add_out(out[:, : frame.text]), c_length)
        text = gated(text, c_gate2, self.ff_context(modulate(text, c_shift2, c_scale2, c_length)), c_length)
        x = gated(x, gate, attn.to_out[0](out[:, frame.text :]), lengths)
        x = gated(x, gate2, self.ff(modulate(x, shift2, scale2, lengths)), lengths)
        return text, x


class SingleBlock(nn.Module):
    """One set of weights for all streams; attention and MLP in parallel."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = Modulation(dim, 3)
        self.attn = JointAttention(dim, heads, double=False)
        self.proj_mlp = nn.Linear(dim, 4 * dim)
        self.proj_out = nn.Linear(5 * dim, dim)

    def forward(self, x: Tensor, condition: Tensor, fixed: Sequence[Tensor], frame: Frame, index: int) -> Tensor:
        """x: [text, image, reference]. The last block returns only the image, as the rest is not used."""
        attn, lengths = self.attn, [frame.text + frame.image, frame.live_reference][: 1 + len(fixed)]
        mods = [m.chunk(3, -1) for m in (self.norm(condition), *fixed)]
        shift, scale, gate = zip(*mods, strict=True)

        normed = modulate(x, shift, scale, lengths)
        k = rotate(attn.norm_k(attn.split(attn.to_k(normed))), frame.rope)
        v = attn.split(attn.to_v(normed))
        rope = frame.rope
        if index == frame.last:
            # Besides the image's queries, a capture needs the text's.
            queries = slice(0 if frame.captures(index) else frame.text, frame.text + frame.image)
            normed, rope = normed[:, queries], rope[..., queries, :, :]
        q = rotate(attn.norm_q(attn.split(attn.to_q(normed))), rope)
        out = frame.attention(q, k, v, index)
        if index == frame.last:
            image = slice(frame.text, frame.text + frame.image)
            x, lengths, gate = x[:, image], [frame.image], gate[:1]
            out, normed = out[:, -frame.image :], normed[:, -frame.image :]
        hidden = F.gelu(self.proj_mlp(normed), approximate="tanh")
        return gated(x, gate, self.proj_out(torch.cat([out, hidden], -1)), lengths)


class TokenEmbedding(nn.Module):
    """[B, h, w] tokens -> [B, h, w, D]: embedding, norm, 1x1 convolution."""

    def __init__(self, vocab: int, dim: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(vocab, dim)
        self.layer_norm = RMSNorm(dim)
        self.conv = PointwiseConv(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.conv(self.layer_norm(self.embeddings(tokens)))


class PointwiseConv(nn.Module):
    """A 1x1 convolution without bias on channels-last input, as a matrix product."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim_out, dim_in, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1))


class Resample(nn.Module):
    """Norm, then a 2x2 convolution of stride 2 (`up`: its transpose), channels last, without bias."""

    def __init__(self, dim: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.norm = RMSNorm(dim)
        self.conv = nn.ParameterDict({"weight": nn.Parameter(torch.empty(dim, dim, 2, 2))})

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, D] -> [B, h / 2, w / 2, D], or `up`: [B, 2 h, 2 w, D]. Windows do not overlap: a matrix product."""
        batch, height, width, dim = x.shape
        x, weight = self.norm(x), self.conv["weight"]
        if self.up:
            # weight [in, out, row, column]
            out = x @ weight.permute(0, 2, 3, 1).reshape(dim, 4 * dim)
            out = out.view(batch, height, width, 2, 2, dim).permute(0, 1, 3, 2, 4, 5)
            return out.reshape(batch, 2 * height, 2 * width, dim)
        windows = x.view(batch, height // 2, 2, width // 2, 2, dim).permute(0, 1, 3, 2, 4, 5)
        return F.linear(windows.reshape(batch, height // 2, width // 2, 4 * dim), weight.permute(0, 2, 3, 1).flatten(1))


class TokenHead(nn.Module):
    """[..., D] features of tokens -> [..., codebook] logits.

    In two methods, the second of them linear, so that guidance mixes hidden features and projects once.
    """

    def __init__(self, dim: int, codebook: int) -> None:
        super().__init__()
        self.conv1 = PointwiseConv(dim, dim)
        self.layer_norm = RMSNorm(dim)
        self.conv2 = PointwiseConv(dim, codebook)

    def hidden(self, features: Tensor) -> Tensor:
        return self.layer_norm(self.conv1(features))

    def logits(self, hidden: Tensor) -> Tensor:
        return self.conv2(hidden)


def _mlp(dim_in: int, dim: int, bias: bool = True) -> nn.ModuleDict:
    return nn.ModuleDict({"linear_1": nn.Linear(dim_in, dim, bias=bias), "linear_2": nn.Linear(dim, dim, bias=bias)})


def _apply_mlp(layers: Any, x: Tensor) -> Tensor:
    return layers["linear_2"](F.silu(layers["linear_1"](x)))


def _lay_side_by_side(down_OIrc: Tensor, up_IOrc: Tensor) -> None:
    """Initialise down- and up-sampling for tokens whose features are the first quarter of D.

    Down-sampling copies those of a window's token (r, c) into the quarter 2 r + c, and up-sampling copies them back.
    All other weights become small.
    """
    quarter = len(down_OIrc) // 4
    for weight in (down_OIrc, up_IOrc):
        weight.mul_(0.25)
        weight[:, :quarter] = 0
        for place in range(4):
            here = slice(place * quarter, (place + 1) * quarter)
            weight[here, :quarter, place // 2, place % 2] = torch.eye(quarter)


def _for_all(x: Tensor, entries: int) -> Tensor:
    """[B, n, D]; repeated for both halves of a guided batch, [unconditional, conditional]."""
    return x if len(x) == entries else x.repeat(entries // len(x), 1, 1)


class Transformer(nn.Module):
    """EditMGT (connector) or Meissonic (none). `forward` trains; `condition`, `encode` and `mlm_layer` sample."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        dim, heads = config.dim, config.num_attention_heads
        self.connector = make_connector(config.connector_type, config.joint_attention_dim, dim)
        self.time_text_embed = nn.ModuleDict({"timestep_embedder": _mlp(256, dim), "text_embedder": _mlp(dim, dim)})
        context_dim = config.joint_attention_dim if self.connector is None else dim
        self.context_embedder = nn.Linear(context_dim, dim)
        self.cond_embed = _mlp(config.pooled_projection_dim + 5 * 256, dim, bias=False)
        self.transformer_blocks = nn.ModuleList(DoubleBlock(dim, heads) for _ in range(config.num_layers))
        self.single_transformer_blocks = nn.ModuleList(SingleBlock(dim, heads) for _ in range(config.num_single_layers))
        self.embed = TokenEmbedding(config.vocab_size, dim)
        self.project_to_hidden_norm = RMSNorm(dim)
        self.project_to_hidden = nn.Linear(dim, dim, bias=False)
        self.project_from_hidden_norm = RMSNorm(dim)
        self.project_from_hidden = nn.Linear(dim, dim, bias=False)
        if config.downsample:
            self.down_block = nn.ModuleDict({"downsample": Resample(dim, up=False)})
            self.up_block = nn.ModuleDict({"upsample": Resample(dim, up=True)})
        self.encoder_proj_layer_norm = RMSNorm(dim)
        self.mlm_layer = TokenHead(dim, config.codebook_size)

    @torch.no_grad()
    def follow_codebook(self, codes_VC: Tensor) -> None:
        """Initialise embeddings and output rows with random Fourier features of the tokenizer's codes (arXiv
        2006.10739), so that similar codes start similar. This helps small models.

        With down-sampling, each of a window's four tokens has D / 4 features.
        """
        scaled = (codes_VC - codes_VC.mean(0)) / codes_VC.std(0).clamp(min=1e-6)
        near = torch.cdist(scaled, scaled).topk(8, largest=False).values[:, 1:].mean()
        width = self.config.dim // self.config.stride**2
        # Frequencies from coarse to fine, relative to the distance of neighbouring codes.
        frequencies = torch.logspace(0, math.log10(4.0), width) / near
        waves = torch.randn(scaled.shape[1], width) * frequencies
        features = torch.cos(scaled @ waves + 2 * torch.pi * torch.rand(width))
        features = features - features.mean(0)
        features = 0.02 * self.config.stride * features / features.square().mean(1, keepdim=True).sqrt()
        embeddings, rows = self.embed.embeddings.weight, self.mlm_layer.conv2.weight[:, :, 0, 0]
        if self.config.downsample:  # small noise in the other channels, and nothing else in the mask's
            embeddings[: len(features)] *= 0.25
            embeddings[:, :width] = 0
            rows.mul_(0.25)
        embeddings[: len(features), :width] = features
        rows[:, :width] = features

    @torch.no_grad()
    def begin_by_copying(self, codes_VC: Tensor) -> None:
        """Initialise a model to copy the reference, so that training only has to learn edits, and `follow_codebook`.

        The layers between tokens and blocks start as the identity (down-sampling puts the features of four tokens side
        by side), and each head of the first block attends to its own position (as in mimetic initialization, arXiv
        2305.09828): all queries and keys are one vector, rotated by the position. ValueError for a model without
        double blocks.
        """
        if not self.config.num_layers:
            raise ValueError("only a model with double blocks can begin by copying")
        self.follow_codebook(codes_VC)
        dim = self.config.dim
        eye, first = torch.eye(dim), cast(DoubleBlock, self.transformer_blocks[0])
        for square in (self.embed.conv, self.mlm_layer.conv1):
            square.weight.copy_(eye[:, :, None, None])
        if self.config.downsample:
            down: Any = self.down_block["downsample"]
            up: Any = self.up_block["upsample"]
            _lay_side_by_side(down.conv["weight"], up.conv["weight"])
        to_out = cast(nn.Linear, first.attn.to_out[0])
        for linear in (self.project_to_hidden, self.project_from_hidden, first.attn.to_v, to_out):
            linear.weight.copy_(eye)
        self.mlm_layer.conv2.weight.mul_(4.0)  # as confident as a model that has learnt to copy
        for linear, norm in ((first.attn.to_q, first.attn.norm_q), (first.attn.to_k, first.attn.norm_k)):
            linear.weight.mul_(0.1)
            linear.bias.fill_(1.0)
            norm.weight.fill_(6.0)  # sharp: a neighbour weighs less than e^-5 of the place itself
        for modulation in self.modulations():  # gates slightly open, so that all blocks learn from the first step
            modulation.linear.bias[2 * dim : 3 * dim] = 0.2
            modulation.linear.bias[5 * dim :] = 0.2
        # The copied value outweighs the residual.
        first.norm1.linear.bias[2 * dim : 3 * dim] = 8.0 if self.config.downsample else 2.0

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights to train from: normal(0, 0.02), norms 1, biases and modulations 0 (DiT, arXiv 2212.09748)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or ".norm.linear." in name or ".norm1" in name:
                nn.init.zeros_(parameter)
            elif parameter.ndim == 1:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02, generator=generator)

    def compile_step(self, **options: Any) -> None:
        """Compile `encode` with torch.compile, one graph for all image sizes; `options` are torch.compile's own."""
        self.encode = torch.compile(self.encode, **{"dynamic": True, **options})  # type: ignore[method-assign]

    def stem(self, tokens: Tensor) -> Tensor:
        """[B, height, width] tokens -> [B, N, D]; used for image and reference. ValueError for an odd grid."""
        stride = self.config.stride
        if tokens.shape[1] % stride or tokens.shape[2] % stride:
            grid = f"a grid of {tokens.shape[1]}x{tokens.shape[2]} tokens is odd, and this model halves it"
            raise ValueError(f"{grid}: give images whose sides are multiples of {16 * stride} pixels")
        x = self.embed(tokens)
        if stride == 2:
            x = self.down_block["downsample"](x)
        return self.project_to_hidden(self.project_to_hidden_norm(x.flatten(1, 2)))

    def condition(
        self,
        text: Tensor,
        pooled: Tensor,
        micro: Tensor,
        grid: tuple[int, int],
        reference: Tensor | None = None,
        strength: float = 1.0,
    ) -> Conditions:
        """Compute everything that is the same at every step.

        text: [B, L, text_dim] features. pooled: [B, pooled]. micro: [B, 5], width and height before the crop, top and
        left of the crop, in pixels, and 6 (an aesthetic score, constant as released). grid: rows and columns of tokens
        of the edited image. reference: [B, height, width] tokens of the source image, of any size (or B / 2, as in
        `encode`). strength > 0: attention weight of the reference.
        """
        if strength <= 0:
            raise ValueError(f"strength is {strength}; it must be above 0")
        config = self.config
        if text.shape[-1] != config.joint_attention_dim:
            wanted = f"this model's connector ({config.connector_type}) reads {config.joint_attention_dim}"
            raise ValueError(f"text features are {text.shape[-1]} wide; {wanted}")
        sizes = sinusoid(micro.float()).flatten(1).to(pooled.dtype)
        pooled = _apply_mlp(self.cond_embed, torch.cat([pooled, sizes], -1))
        pooled = _apply_mlp(self.time_text_embed["text_embedder"], pooled)
        inner = (grid[0] // config.stride, grid[1] // config.stride)
        axes = config.axes_dims_rope
        if isinstance(self.connector, Resampler):
            length = len(self.connector.latents)
        else:
            text, length = self._context(text, None), text.shape[1]
        still = torch.tensor([1.0, 0.0], device=text.device).expand(length, sum(axes) // 2, 2)  # text is not rotated
        rope = torch.cat([still, grid_rope(*inner, axes, text.device)])
        embedded, modulations = None, ()
        if reference is not None:
            height, width = reference.shape[1] // config.stride, reference.shape[2] // config.stride
            rope = torch.cat([rope, grid_rope(height, width, axes, text.device)])
            embedded = _for_all(self.stem(reference), len(pooled))
            fixed = self.condition_on_time(torch.zeros(len(pooled), device=pooled.device), pooled)
            modulations = tuple(norm(fixed) for norm in self.modulations())
        return Conditions(text, pooled, rope, inner, embedded, modulations, float(strength))

    def modulations(self) -> list[Any]:
        """The modulations of the image stream of every block, in order; the reference uses them at timestep 0."""
        doubles: list[Any] = [block.norm1 for block in self.transformer_blocks]
        return doubles + [block.norm for block in self.single_transformer_blocks]

    def condition_on_time(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        """[B, D] the conditioning vector of a timestep [B], in fp32 for any dtype of the model."""
        wave = sinusoid(1000.0 * timestep.float()).type_as(pooled)
        return _apply_mlp(self.time_text_embed["timestep_embedder"], wave) + pooled

    def _context(self, text: Tensor, timestep: Tensor | None) -> Tensor:
        if self.connector is not None:
            text = self.connector(text, timestep)
        return self.encoder_proj_layer_norm(self.context_embedder(text))

    def encode(
        self,
        tokens: Tensor,
        timestep: Tensor,
        conditions: Conditions,
        capture: Capture | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Features [B, height, width, D] for `head`, and the captured scores [C, N] (None without `capture`).

        With a cache that has live tokens, the features of all other tokens are zeros.

        timestep: [B], in sampling the number of steps left (K - 1 - k), in training 1000 x the masked fraction; the
        model multiplies both by 1000, as released. tokens: one grid per entry of `conditions`, or half as many, which
        both halves of a guided batch share.
        """
        x, image = _for_all(self.stem(tokens), len(conditions.pooled)), math.prod(conditions.grid)
        text, rope = conditions.text, conditions.rope
        if isinstance(self.connector, Resampler):
            text = self._context(text, timestep)
        live = None if cache is None else cache.live
        if live is not None:
            x = x.gather(1, live[..., None].expand(-1, -1, x.shape[2]))
            of_text, of_image = rope.split([text.shape[1], len(rope) - text.shape[1]])
            rope = torch.cat([of_text.expand(len(x), -1, -1, -1), of_image[live]], 1)
        elif cache is not None:
            cache.entries.clear()
        if live is None and conditions.reference is not None:
            x = torch.cat([x, conditions.reference], 1)
        computed = image if live is None else live.shape[1]
        last = self.config.blocks - 1 if self.config.num_single_layers else -1
        frame = Frame(conditions, text.shape[1], computed, rope, capture, cache, last)
        condition = self.condition_on_time(timestep, conditions.pooled)
        fixed: list[tuple[Tensor, ...]] = [()] * self.config.blocks
        if frame.live_reference:
            fixed = [(m,) for m in conditions.reference_modulations]
        for index, block in enumerate(self.transformer_blocks):
            text, x = self._run(block, text, x, condition, fixed[index], frame, index)
        x = torch.cat([text, x], 1)
        for index, block in enumerate(self.single_transformer_blocks, self.config.num_layers):
            x = self._run(block, x, condition, fixed[index], frame, index)
        if not self.config.num_single_layers:
            x = x[:, frame.text : frame.text + frame.image]
        x = self.project_from_hidden(self.project_from_hidden_norm(x))
        if live is not None:
            positions = live[..., None].expand(-1, -1, x.shape[2])
            x = x.new_zeros(len(x), image, x.shape[2]).scatter(1, positions, x)
        x = x.unflatten(1, conditions.grid)
        if self.config.downsample:
            x = self.up_block["upsample"](x)
        return x, torch.stack(frame.scores).mean(0) if frame.scores else None

    def _run(self, block: nn.Module, *args: Any) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def forward(
        self,
        tokens: Tensor,
        text: Tensor,
        pooled: Tensor,
        micro: Tensor,
        timestep: Tensor,
        reference: Tensor | None = None,
        strength: float = 1.0,
        chosen: Tensor | None = None,
        capture: Capture | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [B, height, width, codebook] of every token. Arguments as in `condition` and `encode`.

        chosen: [B, height, width] bool: return only the logits [M, codebook] of these, in row-major order. capture:
        return its scores [C, N] too.
        """
        grid = (tokens.shape[1], tokens.shape[2])
        conditions = self.condition(text, pooled, micro, grid, reference, strength)
        features, scores = self.encode(tokens, timestep, conditions, capture)
        if chosen is not None:
            features = features[chosen]
        logits = self.mlm_layer.logits(self.mlm_layer.hidden(features))
        return logits if scores is None else (logits, scores)
