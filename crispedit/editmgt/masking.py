"""Masking: how many tokens are unknown at each step, which ones, and the training objective that teaches it.

MaskGIT (arXiv 2202.04200) as Meissonic and EditMGT run it. The masked share falls along a cosine from `start` to 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crispedit.editmgt.options import Schedule


def masked_share(step: int, steps: int, schedule: Schedule = "cosine") -> Tensor:
    """The share of the tokens that stays masked after step 0 <= `step` < `steps`; fp32, so that floors agree."""
    progress = torch.tensor((step + 1) / steps)
    return torch.cos(progress * math.pi * 0.5) if schedule == "cosine" else 1 - progress


def mask_count(unknown_B: Tensor, tokens: int, start_B: Tensor, share: Tensor) -> Tensor:
    """[B] how many of the unknown tokens to mask again: the schedule's count, but at least 1 and one fewer than now.

    start: the share of all `tokens` that was masked at first, per sample.
    """
    count = (tokens * start_B.float() * share.to(start_B.device)).floor().long()
    return torch.minimum(unknown_B - 1, count).clamp(min=1)


def temperatures(steps: int, temperature: tuple[float, float] | float) -> Tensor:
    """[steps] of the noise on the confidence, falling linearly from the first to the second (a single one: to 0.01)."""
    first, last = temperature if isinstance(temperature, tuple) else (temperature, 0.01)
    return torch.linspace(first, last, steps)


def remask(
    tokens_BN: Tensor,
    confidence_BN: Tensor,
    unknown_BN: Tensor,
    count_B: Tensor,
    mask_id: int,
) -> Tensor:
    """The tokens with the `count` least confident of the unknown ones masked again. A count of 0 masks none.

    Exactly `count` are masked unless confidences tie. Known tokens never are.
    """
    confidence = confidence_BN.masked_fill(~unknown_BN, float("inf"))
    threshold = confidence.sort(dim=1).values.gather(1, count_B[:, None])
    return torch.where(confidence < threshold, mask_id, tokens_BN)


def partly_masked(tokens: Tensor, share: float | Tensor, uniform: Tensor, mask_id: int) -> Tensor:
    """The tokens, each masked where its uniform draw (same shape) is below `share`: to start from the source."""
    return torch.where(uniform < share, mask_id, tokens)


def mask_tokens(
    time_B: Tensor, order_BN: Tensor, candidates_BN: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Choose which of a row's N tokens to mask in training: ([B, N] bool, [B] timestep).

    Of each row's n candidates (all its tokens, or those named) max(1, round(n cos(pi t / 2))) are masked. `time` and
    `order` are uniform draws in [0, 1). A token is masked if its place in `argsort(order)` falls below the count, which
    gives every subset the same chance; among candidates, if its rank does, theirs being the lowest. Every row has a
    candidate. The timestep is 1000 x the masked share. (The model multiplies by 1000 once more; released weights expect
    that.)
    """
    share = torch.cos(time_B * math.pi * 0.5)
    place, count = order_BN.argsort(dim=1), torch.full_like(time_B, order_BN.shape[1])
    if candidates_BN is not None:
        place = order_BN.masked_fill(~candidates_BN, 1.0).argsort(dim=1).argsort(dim=1)
        count = candidates_BN.sum(1).to(time_B)
    return place < (count * share).round().clamp(min=1)[:, None], 1000.0 * share
