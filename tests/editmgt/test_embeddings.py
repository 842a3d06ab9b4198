"""Sinusoids and rotary tables equal the reference's."""

from __future__ import annotations

import torch

from crispedit.editmgt.embeddings import grid_rope, rotate, sinusoid


def test_sinusoid(golden):
    t = golden("embeddings")
    assert torch.allclose(sinusoid(t["micro"]), t["micro_256"], atol=1e-6)
    # At 1e6 one fp32 unit in the last place of a frequency is 0.06 rad: the same arithmetic is needed, not a close one.
    assert torch.allclose(sinusoid(t["t"]), t["timestep_256"], atol=1e-6)


def test_rope(golden):
    t = golden("embeddings")
    small = grid_rope(8, 8, (8, 12, 12))
    assert torch.equal(small[..., 0].repeat_interleave(2, 1), t["rope_8_12_12_cos"])
    assert torch.equal(small[..., 1].repeat_interleave(2, 1), t["rope_8_12_12_sin"])
    large = grid_rope(32, 32, (16, 56, 56))[::37]
    assert torch.equal(large[..., 0].repeat_interleave(2, 1), t["rope_16_56_56_cos"])
    assert torch.equal(large[..., 1].repeat_interleave(2, 1), t["rope_16_56_56_sin"])


def test_rotation_turns_neighbouring_pairs_and_keeps_lengths():
    rope = grid_rope(3, 5, (8, 12, 12))
    x = torch.randn(2, 15, 4, 32)
    out = rotate(x, rope)
    assert torch.equal(out[:, 0], x[:, 0])
    pairs, turned = x.unflatten(-1, (-1, 2)), out.unflatten(-1, (-1, 2))
    assert torch.allclose(pairs.norm(dim=-1), turned.norm(dim=-1), atol=1e-5)
    angle = torch.atan2(rope[..., 1], rope[..., 0])[:, None]
    even = pairs[..., 0] * angle.cos() - pairs[..., 1] * angle.sin()
    assert torch.allclose(turned[..., 0], even, atol=1e-5)


def test_rotation_compiles_to_the_same():
    rope = grid_rope(3, 5, (8, 12, 12))
    x = torch.randn(2, 15, 4, 32)
    compiled = torch.compile(rotate, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x, rope), rotate(x, rope), atol=1e-6)
