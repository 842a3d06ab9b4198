"""The mask schedule, re-masking and the training mask; golden schedules and what must hold for all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crispedit.editmgt.masking import mask_count, mask_tokens, masked_share, partly_masked, remask, temperatures


@pytest.mark.parametrize("steps", [12, 16, 36])
@pytest.mark.parametrize("tokens", [1024, 4096])
def test_counts(golden, steps, tokens):
    expected = golden("scheduler")[f"mask_len.steps{steps}_seq{tokens}"]
    left = torch.tensor([tokens])
    for step in range(steps - 1):
        left = mask_count(left, tokens, torch.ones(1), masked_share(step, steps))
        assert left.item() == expected[step].item()


def test_temperatures(golden):
    t = golden("scheduler")
    assert torch.equal(temperatures(6, (2.0, 0.0)), t["plain.temperatures"])
    assert torch.equal(temperatures(5, 1.5), t["batch2.temperatures"])


def test_partly_masked(golden):
    t = golden("scheduler")
    tokens = t["add_noise.sample"]
    uniform = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(504))
    ours = partly_masked(tokens, masked_share(1, 6), uniform, mask_id=55)
    assert torch.equal(ours, t["add_noise.t4"])


@given(
    unknown=st.lists(st.integers(1, 64), min_size=1, max_size=4),
    step=st.integers(0, 30),
    more=st.integers(1, 9),
    schedule=st.sampled_from(["cosine", "linear"]),
    seed=st.integers(0, 99),
)
def test_remask_follows_the_schedule_and_spares_the_known(unknown, step, more, schedule, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.arange(64).repeat(len(unknown), 1)
    mask = torch.stack([torch.randperm(64, generator=generator) < n for n in unknown])
    left = mask.sum(1)
    count = mask_count(left, 64, left / 64, masked_share(step, step + more, schedule))
    out = remask(tokens, torch.rand(tokens.shape, generator=generator), mask, count, mask_id=99)
    masked = out == 99
    assert torch.equal(masked.sum(1), count)
    assert not (masked & ~mask).any()
    assert torch.equal(out[~masked], tokens[~masked])
    assert (count >= 1).all()
    assert (count <= (left - 1).clamp(min=1)).all()


def test_remask_of_none():
    tokens = torch.arange(8)[None]
    unknown = torch.ones(1, 8, dtype=torch.bool)
    assert torch.equal(remask(tokens, torch.rand(1, 8), unknown, torch.tensor([0]), 99), tokens)
    nothing = torch.zeros(1, 8, dtype=torch.bool)
    assert torch.equal(remask(tokens, torch.rand(1, 8), nothing, torch.tensor([1]), 99), tokens)


@given(seed=st.integers(0, 999), tokens=st.integers(1, 80))
def test_training_mask(seed, tokens):
    generator = torch.Generator().manual_seed(seed)
    time = torch.rand(3, generator=generator)
    masked, timestep = mask_tokens(time, torch.rand(3, tokens, generator=generator))
    share = torch.cos(time * torch.pi / 2)
    assert torch.equal(masked.sum(1), (tokens * share).round().clamp(min=1).long())
    assert torch.equal(timestep, 1000 * share)
