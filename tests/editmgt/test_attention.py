"""All ways to bias attention without a matrix equal the dense bias."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from crispedit.editmgt.attention import attend, attend_by_channel, attend_by_parts, attend_by_rows


@pytest.mark.parametrize("way", [attend, attend_by_rows, attend_by_parts, attend_by_channel])
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


def test_the_flash_kernel_of_gpus_gives_the_sums_that_the_parts_are_merged_by():
    """On meta tensors, which have shapes and run no kernel."""
    q, k = (torch.empty(2, 3, tokens, 128, dtype=torch.bfloat16, device="meta") for tokens in (70, 40))
    out, sums, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, k)
    assert (out.shape, out.dtype) == (q.shape, q.dtype)
    assert (sums.shape, sums.dtype) == ((2, 3, 70), torch.float32)


def test_parts_of_bf16_are_merged_in_fp32():
    q, k, v = (torch.randn(1, 2, 96, 64, generator=torch.Generator().manual_seed(n)) for n in range(3))
    exact = attend_by_rows(q, k, v, 32, 1.1)
    half = attend_by_parts(q.bfloat16(), k.bfloat16(), v.bfloat16(), 32, 1.1)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), exact, atol=0.02)
