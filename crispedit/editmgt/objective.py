"""The training objective: instructions dropped, tokens masked, cross entropy of what was masked.

Every draw belongs to (seed, step, key of the pair), so it depends neither on the batch nor on the process. B batch,
N tokens of an image, V codebook.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispedit.editmgt.examples import Examples
from crispedit.editmgt.localize import default_blocks
from crispedit.editmgt.masking import mask_tokens
from crispedit.editmgt.settings import Objective
from crispedit.editmgt.text import TextFeatures
from crispedit.editmgt.transformer import Capture, TransformerConfig
from crispedit.record import content_key, seed_of


@dataclass(frozen=True)
class MaskedBatch:
    """A batch as the model trains on it."""

    examples: Examples  # with some of the instructions dropped
    inputs: Tensor  # [B, h, w] tokens, some of them masked
    timestep: Tensor  # [B]
    masked: Tensor  # [B, h, w] bool: the masked tokens, of which there are M in all
    weight: Tensor  # [M] what each of them counts in the loss
    has_instruction: Tensor  # [B] bool: the pair's instruction was not dropped


def draws(seed: int, step: int, keys: Sequence[str], count: int) -> Tensor:
    """[B, count] uniform draws in [0, 1), a row for each pair, on the CPU."""
    seeds = [seed_of(content_key(str(seed), str(step), key), "train") for key in keys]
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(each)) for each in seeds])


def masked_batch(
    examples: Examples, empty: TextFeatures, settings: Objective, mask_id: int, seed: int, step: int
) -> MaskedBatch:
    """Drop instructions and mask tokens of these examples, as they are seen at this step. empty: features of ""."""
    tokens, region = examples.edited.flatten(1), examples.region.flatten(1)
    drawn = draws(seed, step, examples.keys, 3 + tokens.shape[1]).to(tokens.device)
    drop, confine, time, order = drawn[:, 0], drawn[:, 1], drawn[:, 2], drawn[:, 3:]

    dropped = drop < settings.drop_text
    sequence = torch.where(dropped[:, None, None], empty.sequence.to(examples.sequence), examples.sequence)
    pooled = torch.where(dropped[:, None], empty.pooled.to(examples.pooled), examples.pooled)
    confined = (confine < settings.region_only) & region.any(1)
    masked, timestep = mask_tokens(time, order, region | ~confined[:, None])
    return MaskedBatch(
        examples=replace(examples, sequence=sequence, pooled=pooled),
        inputs=torch.where(masked, mask_id, tokens).view_as(examples.edited),
        timestep=timestep,
        masked=masked.view_as(examples.edited),
        weight=(1.0 + (settings.edit_weight - 1.0) * region)[masked],
        has_instruction=~dropped,
    )


def losses(model: nn.Module, batch: MaskedBatch, capture: Capture | None = None) -> tuple[Tensor, Tensor]:
    """([M] cross entropy of the masked tokens, [B] of the masks and what is captured), by one call of `model`.

    Logits of other tokens are not made. The second is 0 for a pair whose mask is not known or whose instruction was
    dropped, and without `capture`.
    """
    examples = batch.examples
    text, pooled = examples.sequence.float(), examples.pooled.float()  # encoders may have run in bf16
    inputs = (batch.inputs, text, pooled, examples.micro, batch.timestep, examples.source)
    answer = model(*inputs, chosen=batch.masked, capture=capture)
    logits_MV, scores_BN = answer if capture is not None else (answer, None)
    tokens_M = F.cross_entropy(logits_MV.float(), examples.edited[batch.masked], reduction="none")
    if scores_BN is None:
        return tokens_M, tokens_M.new_zeros(len(examples))
    return tokens_M, torch.where(batch.has_instruction, localisation_loss(scores_BN, examples.region), 0.0)


def localisation_loss(scores_BN: Tensor, region_Bhw: Tensor) -> Tensor:
    """[B] cross entropy between the region as a distribution and the scores as one; 0 where there is no region.

    The scores' grid may be the region's own, or half as fine.
    """
    stride = round((region_Bhw[0].numel() / scores_BN.shape[1]) ** 0.5)
    wanted_BN = F.avg_pool2d(region_Bhw[:, None].float(), stride).flatten(1)
    wanted_BN = wanted_BN / wanted_BN.sum(1, keepdim=True).clamp(min=1e-6)
    looked_BN = scores_BN.float() / scores_BN.float().sum(1, keepdim=True)
    return -(wanted_BN * looked_BN.clamp(min=1e-8).log()).sum(1)


def default_capture(config: TransformerConfig, batch: MaskedBatch) -> Capture:
    """The capture for the localisation loss: the default blocks, all text tokens with the same weight."""
    rows_BL = torch.ones_like(batch.examples.sequence[..., 0], dtype=torch.float32) / batch.examples.sequence.shape[1]
    return Capture(default_blocks(config.blocks), rows_BL)
