"""Localisation equals the reference: captured scores to 5e-6 relative, smoothing to 1e-6; and is right beyond it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crispedit.editmgt.localize import default_blocks, localisation, rescale, smooth, text_to_image, upsample
from crispedit.editmgt.transformer import Capture
from editmgt.conftest import relative


def captured(net, t, strength, blocks, rows=None, reference=True):
    tokens = t["in.hidden_states"]
    rows = torch.full((1, 256), 1 / 256) if rows is None else rows
    with torch.inference_mode():
        conditions = net.condition(
            t["in.encoder_hidden_states"],
            t["in.pooled_projections"],
            t["in.micro_conds"],
            tokens.shape[1:],
            t["in.reference_image_hidden_states"] if reference else None,
            strength,
        )
        return net.encode(tokens, t["in.timestep"], conditions, Capture(blocks, rows))[1]


@pytest.mark.parametrize(
    ("case", "strength", "blocks", "reference"),
    [("double_s1", 1.0, (0, 1), True), ("single_s1.1", 1.1, (2, 3, 4, 5), True), ("single_t2i", 1.0, (4, 5), False)],
)
def test_scores(golden, model, case, strength, blocks, reference):
    t = golden("capture_small")
    scores = captured(model("down"), golden("forward_down"), strength, blocks, reference=reference)
    assert relative(scores, t[f"{case}.local"]) < 5e-6
    assert relative(rescale(scores), t[f"{case}.rescaled"]) < 1e-5
    released = t[f"{case}.text_to_image"].mean((1, 2, 3))
    assert relative(scores, released) < 5e-6


def test_scores_of_some_words(golden, model):
    rows = torch.zeros(1, 256)
    rows[0, [3, 4, 250]] = 1 / 3
    scores = captured(model("down"), golden("forward_down"), 1.1, (2, 3, 4, 5), rows)
    assert relative(scores, golden("capture_small")["query.local"]) < 5e-6


def test_scores_at_1024_pixels(golden, model):
    t = golden("capture_1024")
    net = model("down")
    assert relative(captured(net, t, 1.1, (3, 4, 5)), t["local"]) < 5e-6
    for i, block in enumerate((3, 4, 5)):
        assert relative(captured(net, t, 1.1, (block,)), t["per_block"][:, i]) < 5e-6
    maps = smooth(t["rescaled"].view(1, 32, 32))
    assert (maps.flatten(1) - t["smooth.adaptive"]).abs().max() < 1e-6
    up = upsample(t["smooth.adaptive"].view(1, 32, 32), (64, 64)).flatten(1)
    assert (up - t["upsampled"]).abs().max() < 1e-6
    whole = localisation(t["local"], (32, 32), (64, 64)).flatten(1)
    assert (whole - t["upsampled"].clamp(0, 1)).abs().max() < 5e-6


@pytest.mark.parametrize("case", ["uniform", "blob", "constant", "uniform64"])
def test_smoothing(golden, case):
    t = golden("smoothing")
    map_N = t[f"{case}.in"]
    side = int(map_N.shape[1] ** 0.5)
    assert torch.allclose(rescale(map_N), t[f"{case}.rescaled"], atol=1e-6)
    assert torch.allclose(smooth(map_N.view(1, side, side)).flatten(1), t[f"{case}.adaptive"], atol=1e-6)
    if f"{case}.up" in t:
        up = upsample(t[f"{case}.adaptive"].view(1, side, side), (64, 64)).flatten(1)
        assert torch.allclose(up, t[f"{case}.up"], atol=1e-6)


def smooth_by_the_book(a):
    """The definition, place by place, in NumPy and float64."""
    h, w = a.shape
    padded = np.pad(a, 6, mode="symmetric")
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 1.5) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    near = np.pad(a, 2, mode="symmetric")
    mean = np.array([[(padded[y : y + 13, x : x + 13] * kernel).sum() for x in range(w)] for y in range(h)])
    variance = np.array([[near[y : y + 5, x : x + 5].var() for x in range(w)] for y in range(h)])
    busy = (variance - variance.min()) / (variance.max() - variance.min() + 1e-8)
    m = 1 - 0.7 * busy
    out = m * mean + (1 - m) * a
    out = np.where(a > np.percentile(a, 90), 0.7 * a + 0.3 * out, out)
    if out.max() > out.min():
        out = a.min() + (out - out.min()) / (out.max() - out.min()) * (a.max() - a.min())
    return out


@given(h=st.integers(1, 20), w=st.integers(1, 20), seed=st.integers(0, 999))
@settings(max_examples=40)
def test_smoothing_of_any_size_and_batch(h, w, seed):
    """Released: other sizes are smoothed as a line, and across the batch."""
    maps = np.random.default_rng(seed).random((2, h, w))
    ours = smooth(torch.from_numpy(maps)).numpy()
    for one, expected in zip(ours, maps, strict=True):
        assert np.allclose(one, smooth_by_the_book(expected), atol=1e-9)


@given(seed=st.integers(0, 999), length=st.integers(1, 9), image=st.integers(1, 20), samples=st.integers(1, 3))
@settings(max_examples=40)
def test_reduction_equals_the_whole_matrix(seed, length, image, samples):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(samples, 2, length, 8, generator=generator) * 4
    k = torch.randn(samples, 2, length + image, 8, generator=generator) * 4
    rows = torch.rand(samples, length, generator=generator)
    rows /= rows.sum(1, keepdim=True)
    attention = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1)[..., length:]
    expected = torch.einsum("cl,chln->cn", rows, attention) / 2
    assert torch.allclose(text_to_image(q, k, rows), expected, atol=1e-6)


def test_the_map_lies_between_0_and_1():
    """Released: bicubic up-sampling leaves [-0.07, 1.15]."""
    scores = torch.zeros(1, 64)
    scores[0, 27] = 1.0
    assert upsample(rescale(scores).view(1, 8, 8), (16, 16)).min() < 0
    out = localisation(scores, (8, 8), (16, 16))
    assert out.min() >= 0
    assert out.max() <= 1


def test_a_flat_map_is_measured_against_its_mean():
    """An edit of all but one token: its range would be noise. A peaked map in the same batch stays as it is."""
    flat = 1.0 + 0.05 * torch.rand(16, generator=torch.Generator().manual_seed(0))
    flat[5] = 0.1
    peaked = torch.zeros(16)
    peaked[3] = 1.0
    scores = torch.stack([flat, peaked])
    maps = localisation(scores, (4, 4), (4, 4), peak=3.0).flatten(1)
    assert (maps[0] < 0.4).nonzero().flatten().tolist() == [5]
    assert torch.equal(maps[1], localisation(scores, (4, 4), (4, 4)).flatten(1)[1])


def test_a_64x64_stream_needs_no_upsampling():
    """Released: it takes any 4096 tokens for a 32x32 map, and crashes without down-sampling."""
    scores = torch.rand(2, 4096, generator=torch.Generator().manual_seed(0))
    maps = localisation(scores, (64, 64), (64, 64))
    assert torch.equal(maps, smooth(rescale(scores).view(2, 64, 64)).clamp(0, 1))


def test_default_blocks_are_the_papers():
    assert default_blocks(42) == tuple(range(28, 37))
    for blocks in range(1, 60):
        assert 0 <= default_blocks(blocks)[0] <= default_blocks(blocks)[-1] < blocks
