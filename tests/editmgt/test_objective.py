"""The objective: how often instructions are dropped, which tokens are masked, and what each of them counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from crispedit.editmgt.objective import default_capture, draws, localisation_loss, losses, masked_batch
from crispedit.editmgt.settings import Objective
from crispedit.editmgt.text import TextFeatures
from editmgt.small_training import CONFIG, examples, fresh

EMPTY = TextFeatures(torch.full((1, 5, 24), 0.5), torch.full((1, 16), 0.5))
MASK = CONFIG.mask_id


def test_draws_belong_to_the_pair_and_step():
    both, other = draws(0, 3, ["a", "b"], 5), draws(0, 3, ["b"], 5)
    assert torch.equal(both[1:], other)
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(other, draws(0, 4, ["b"], 5))
    assert not torch.equal(other, draws(1, 3, ["b"], 5))


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 1.0])
def test_instructions_are_dropped_that_often_and_whole(chance: float):
    """2000 pairs: five standard deviations of a binomial are 0.034 at 0.1 and 0.056 at 0.5."""
    batch, count = examples(0, 2000), 2000
    part = masked_batch(batch, EMPTY, Objective(drop_text=chance), MASK, seed=1, step=0)
    dropped = (part.examples.sequence == 0.5).all((1, 2))
    assert torch.equal(dropped, (part.examples.pooled == 0.5).all(1))
    assert torch.equal(part.examples.sequence[~dropped], batch.sequence[~dropped])
    assert torch.equal(part.examples.pooled[~dropped], batch.pooled[~dropped])
    assert abs(dropped.float().mean().item() - chance) <= 5 * (chance * (1 - chance) / count) ** 0.5


def test_masks_follow_the_cosine_and_leave_the_reference_alone():
    batch = examples(0, 3000)
    part = masked_batch(batch, EMPTY, Objective(), MASK, seed=1, step=0)
    share = part.masked.float().mean((1, 2))
    assert torch.equal(part.masked, part.inputs == MASK)
    assert torch.equal(part.inputs[~part.masked], batch.edited[~part.masked])
    assert torch.equal(part.examples.source, batch.source)
    assert (share * 16 - (part.timestep / 1000 * 16).round().clamp(min=1)).abs().max() < 1e-3
    assert share.mean().item() == pytest.approx(2 / torch.pi, abs=0.03)  # the mean of a cosine's quarter
    places = part.masked.float().mean(0)
    assert places.max() - places.min() < 0.06


@pytest.mark.parametrize("confined", [0.0, 0.5, 1.0])
def test_masks_can_be_confined_to_the_region(confined: float):
    batch = examples(0, 2000)
    batch = replace(batch, region=batch.region & (torch.arange(2000) > 9)[:, None, None])
    part = masked_batch(batch, EMPTY, Objective(region_only=confined), MASK, seed=1, step=0)
    assert part.masked.flatten(1).any(1).all()
    known = batch.region.flatten(1).any(1)
    outside = (part.masked & ~batch.region).flatten(1).any(1)
    if confined == 1:
        assert not outside[known].any()
        assert outside[~known].all()
    else:
        # A mask of a few tokens may lie inside the region by chance.
        assert (~outside[known]).float().mean().item() == pytest.approx(confined, abs=0.15)


def test_edited_tokens_can_count_more():
    batch = examples(0, 8)
    plain = masked_batch(batch, EMPTY, Objective(), MASK, seed=1, step=0)
    part = masked_batch(batch, EMPTY, Objective(edit_weight=4), MASK, seed=1, step=0)
    assert (plain.weight == 1).all()
    assert torch.equal(part.weight, 1 + 3 * batch.region[part.masked].float())
    assert {1.0, 4.0} == set(part.weight.tolist())


def test_losses_are_those_of_the_whole_logits():
    model = fresh()
    part = masked_batch(examples(3), EMPTY, Objective(), MASK, seed=1, step=0)
    batch = part.examples
    with torch.no_grad():
        logits = model(part.inputs, batch.sequence, batch.pooled, batch.micro, part.timestep, batch.source)
        expected = F.cross_entropy(logits[part.masked], batch.edited[part.masked])
        tokens, _ = losses(model, part)
    assert tokens.shape == (int(part.masked.sum()),)
    assert tokens.mean().item() == pytest.approx(expected.item(), rel=1e-6)


def test_looking_at_the_region_costs_less_than_looking_elsewhere():
    region = torch.zeros(3, 4, 6, dtype=torch.bool)
    region[0, :2, :2] = region[1, :2, :2] = True
    there = torch.full((6,), 0.01)
    there[0] = 0.5  # the first of 2 x 3, each of which is 2 x 2 of the region's
    elsewhere = there.roll(1)
    right, wrong, unknown = localisation_loss(torch.stack([there, elsewhere, there]), region)
    assert right.item() == pytest.approx(-math.log(0.5 / 0.55))
    assert wrong > right + 3
    assert unknown == 0


def test_what_the_instruction_looks_at_can_be_taught():
    model = fresh().requires_grad_(True).train()
    part = masked_batch(examples(0, 4), EMPTY, Objective(drop_text=0.5), MASK, seed=1, step=0)
    assert {True, False} == set(part.has_instruction.tolist())
    told = part.has_instruction & part.examples.region.flatten(1).any(1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    seen = []
    for _ in range(15):
        tokens, where = losses(model, part, default_capture(model.config, part))
        assert (where > 0).tolist() == told.tolist()
        assert tokens.shape == (int(part.masked.sum()),)
        seen.append(where.sum().item())
        optimizer.zero_grad()
        where.sum().backward()
        optimizer.step()
    assert seen[-1] < seen[0] - 0.1
