"""The image tokenizer equals the reference's: tokens exactly, pixels to 1e-5."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crispedit.editmgt.vq import VQ, spans


@pytest.fixture(scope="module")
def vq(golden, manifest):
    from diffusers import VQModel

    model = VQModel.from_config(manifest["configs"]["tiny_vq"])
    model.load_state_dict({k.removeprefix("w."): v for k, v in golden("vq").items() if k.startswith("w.")})
    return VQ(model)


def test_encode(golden, vq):
    t = golden("vq")
    tokens = vq.encode(t["image"])
    assert tokens.shape == (2, 6, 4)
    assert torch.equal(tokens.flatten(1), t["tokens"])
    assert torch.equal(tokens.flatten(), t["indices"])
    with torch.inference_mode():
        latents = torch.stack([vq.latents(image) for image in t["image"]])
    assert torch.allclose(latents, t["latents"], atol=1e-5)


def test_decode(golden, vq):
    t = golden("vq")
    pixels = vq.decode(t["tokens"].view(2, 6, 4))
    assert torch.allclose(pixels, t["decoded_from_tokens"].clamp(0, 1), atol=1e-5)


def test_an_image_is_the_same_in_any_batch(golden, vq):
    image = golden("vq")["image"]
    together = vq.encode(image)
    assert torch.equal(vq.encode(image[1:])[0], together[1])
    assert torch.equal(vq.decode(together)[1], vq.decode(together[1:])[0])


def test_tiles_are_put_where_they_belong(vq):
    """With the normalisation taken out a pixel depends on 17 tokens around it only: far from seams, tiles are exact.

    (With it, it depends on everything its tile shows, which no tiling can reproduce.)
    """
    local = VQ(copy.deepcopy(vq.model))
    for module in list(local.model.decoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    tokens = torch.randint(0, 128, (1, 24, 90), generator=torch.Generator().manual_seed(0))
    whole = local.decode(tokens, tile=None)
    tiled = local.decode(tokens, tile=50, overlap=10)  # tiles over columns 0-50 and 40-90
    assert whole.std() > 0.01
    for left, right in ((0, 33), (57, 90)):
        columns = (..., slice(left * 16, right * 16))
        assert torch.allclose(tiled[columns], whole[columns], atol=1e-4)
    assert not torch.allclose(tiled, whole, atol=1e-4)
    assert torch.equal(vq.decode(tokens, tile=90), vq.decode(tokens, tile=None))


@given(length=st.integers(1, 300), tile=st.integers(2, 64), overlap=st.integers(0, 63))
def test_spans(length, tile, overlap):
    if overlap >= tile:
        with pytest.raises(ValueError, match="cannot overlap"):
            list(spans(length, tile, overlap))
        return
    found = list(spans(length, tile, overlap))
    assert found[0][0] == 0
    assert found[-1][1] == length
    for (start, stop), (next_start, next_stop) in itertools.pairwise(found):
        assert stop - start == next_stop - next_start <= tile
        assert stop - next_start >= overlap


def test_refuses_odd_sizes(vq):
    with pytest.raises(ValueError, match="multiples of 16"):
        vq.encode(torch.zeros(1, 3, 100, 64))
