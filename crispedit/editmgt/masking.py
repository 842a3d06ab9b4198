"""Masking: which tokens are unknown at each step, in sampling and in training.

MaskGIT (arXiv 2202.04200) as Meissonic and EditMGT run it. The masked share falls along a cosine from `start` to 0.
"""

import math

import torch
from torch import Tensor

from crispedit.editmgt.options import Schedule


def masked_share(step: int, steps: int, schedule: Schedule = "cosine") -> Tensor:
    """The share of the tokens that stays masked after step 0 <= `step` < `steps`; fp32, as released, so that counts
    round alike."""
    progress = torch.tensor((step + 1) / steps)
    return torch.cos(progress * math.pi * 0.5) if schedule == "cosine" else 1 - progress


def mask_count(unknown_B: Tensor, tokens: int, start_B: Tensor, share: Tensor) -> Tensor:
    """[B] the number of unknown tokens to mask again: the schedule's count, but at least 1 and fewer than now.

    start: per sample, the share of all `tokens` that was masked before the first step.
    """
    count = (tokens * start_B.float() * share.to(start_B.device)).floor().long()
    return torch.minimum(unknown_B - 1, count).clamp(min=1)


def temperatures(steps: int, temperature: tuple[float, float] | float) -> Tensor:
    """[steps] noise temperatures, falling linearly from the first to the second (from a single number: to 0.01)."""
    first, last = temperature if isinstance(temperature, tuple) else (temperature, 0.01)
    return torch.linspace(first, last, steps)


def remask(tokens_BN: Tensor, confidence_BN: Tensor, unknown_BN: Tensor, count_B: Tensor, mask_id: int) -> Tensor:
    """The tokens, with the `count` least confident unknown ones masked again. A count of 0 masks none.

    Exactly `count` are masked unless confidences tie. Known tokens are never masked.
    """
    confidence = confidence_BN.masked_fill(~unknown_BN, float("inf"))
    threshold = confidence.sort(dim=1).values.gather(1, count_B[:, None])
    return torch.where(confidence < threshold, mask_id, tokens_BN)


def partly_masked(tokens: Tensor, share: float | Tensor, uniform: Tensor, mask_id: int) -> Tensor:
    """The source's tokens, each masked where its uniform draw (same shape) is below `share`."""
    return torch.where(uniform < share, mask_id, tokens)


def mask_tokens(time_B: Tensor, order_BN: Tensor, candidates_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choose the tokens of each row to mask in training: ([B, N] bool, [B] timestep).

    max(1, round(n cos(pi t / 2))) of a row's n candidates are masked (default: all its tokens are candidates; a row
    needs at least one). `time` and `order` are uniform draws in [0, 1); a random order makes every subset equally
    likely. The timestep is 1000 x the masked share; the model multiplies it by 1000 again, as the released weights
    expect.
    """
    share = torch.cos(time_B * math.pi * 0.5)
    place, count = order_BN.argsort(dim=1), torch.full_like(time_B, order_BN.shape[1])
    if candidates_BN is not None:
        place = order_BN.masked_fill(~candidates_BN, 1.0).argsort(dim=1).argsort(dim=1)
        count = candidates_BN.sum(1).to(time_B)
    return place < (count * share).round().clamp(min=1)[:, None], 1000.0 * share
