"""Both ways to bias attention without a matrix equal the dense bias."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from crispedit.editmgt.attention import attend, attend_by_channel, attend_by_rows


@pytest.mark.parametrize("way", [attend, attend_by_rows, attend_by_channel])
@given(
    rest=st.integers(1, 9),
    reference=st.integers(1, 7),
    strength=st.floats(0.1, 10),
    frozen=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_equals_a_dense_bias(way, rest, reference, strength, frozen, seed):
    generator = torch.Generator().manual_seed(seed)
    total = rest + reference
    q, k, v = (torch.randn(2, 3, total, 16, generator=generator) for _ in range(3))
    bias = torch.zeros(total, total)
    bias[:rest, rest:] = math.log(strength)
    bias[rest:, :rest] = math.log(strength)
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    queries = rest if frozen else total
    ours = way(q[:, :, :queries], k, v, reference, strength)
    assert torch.allclose(ours, dense[:, :, :queries], atol=2e-6)
